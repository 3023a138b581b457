"""What is a gradient made of, and which part of it pays? KL's gradient taken apart, part by part, under every judge.

python benchmarks/gradient_parts.py extract SOURCE BACKBONE OUT.npz [--rows N] [--seeds 3] [--pooling cls] [--own]
python benchmarks/gradient_parts.py extract SOURCE BACKBONE OUT.npz --seeds 1 --targets PATH,PATH,...
python benchmarks/gradient_parts.py table TRAIN.npz TEST.npz [--shots all,5,3] [--draws 5] [--save FILE]
python benchmarks/gradient_parts.py targets TRAIN.npz TEST.npz [--shots all,5]
python benchmarks/gradient_parts.py cosines TRAIN.npz TEST.npz [--shots 1,5,all]
python benchmarks/gradient_parts.py gains FILE...

The gradient of a row is the sum over its tokens of s_t [x_t, 1]^T: x_t is what the target layer saw, s_t how the loss
reacts. `extract` keeps x and s (means over the tokens, normalised; s is also the gradient of the bias), a TensorSketch
of the gradient as wide as the embedding, and, where more than one token is felt, one 4096 wide, for each of `--seeds`
random heads and, with `--own`, for the checkpoint's own head (its classifier or projection), here on the normalised
embedding with T = 15, not as `KL(head="own")` has it. `table` joins them:

x, s         one factor alone (x: no gradient, and no cost)
projected    the TensorSketch, the stand-in for the paper's block
product      the gradient without a projection: (x.x')(s.s'), exact where one token is felt, else 4096 wide
average      the mean of these products over all heads
forward      (x.x')(e.e') with the embedding e instead of s: the same form without a loss or a backward pass
squared      (e.e')^2: the embedding's own products, a control of the same form

Each is measured alone, joined to the embedding, and joined to embedding and layers; raw, half-white and white. How
strongly to whiten, k, and LDA or ridge, is chosen by leave-one-out on the labelled rows, as `select` does (LDA alone
where classes have few). The control is the best of the embedding, the layers and both, chosen likewise. Whitening is
fitted on all training rows.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from sporeprint import KL, Combination, Fungi, Recipe, open_source
from sporeprint.data.sampling import Sampled
from sporeprint.errors import SporeprintWarning
from sporeprint.evaluate.choice.candidates import joined
from sporeprint.evaluate.choice.judges import title_of_predictor
from sporeprint.evaluate.choice.leave_one_out import has_few, leave_one_out_of
from sporeprint.evaluate.shots import draws
from sporeprint.features.blocks import family
from sporeprint.features.whiten import Axes
from sporeprint.gradients.projections.tensorsketch import TensorSketch

WIDE = 4096
NEIGHBOURS = (1, 3, 5, 10, 20)
EXPONENTS = (None, 0.5, 1.0)
CONTROLS = ("embedding", "layers", "embedding + layers")
Blocks = dict[str, np.ndarray]  # {name: [N, D]}


class Parts:
    """Parts stands in for a projection and keeps the factors and two sketches: [N, I + O + E (+ WIDE)]."""

    def __init__(self, shape: tuple[int, int], width: int, factors: bool) -> None:
        self.shape, self.factors = shape, factors
        self.narrow, self.wide = TensorSketch(width, shape), TensorSketch(WIDE, shape, seed=1)
        self.dim, self.tokens = width, 0

    def of_factors(self, inputs: torch.Tensor, sensitivities: torch.Tensor, bias: bool = True) -> torch.Tensor:
        inputs, sensitivities = inputs.float(), sensitivities.float()
        felt = (sensitivities != 0).any(dim=2, keepdim=True)
        self.tokens = max(self.tokens, inputs.shape[1])
        parts = [self.narrow.of_factors(inputs, sensitivities, bias)]
        if self.factors:
            parts = [(inputs * felt).sum(1) / felt.sum(1), sensitivities.sum(1), *parts]
            parts += [self.wide.of_factors(inputs, sensitivities, bias)] if inputs.shape[1] > 1 else []
        return torch.cat([torch.nn.functional.normalize(part, dim=1) for part in parts], dim=1)

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        return self.narrow(gradients)

    def matrix(self) -> torch.Tensor:
        return self.narrow.matrix()


def own_head(folder: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The checkpoint's own head on the embedding: a classifier's weight and bias, or CLIP's projection."""
    from safetensors.torch import load_file

    weights = load_file(Path(folder) / "model.safetensors")
    for name in ("classifier", "visual_projection"):
        if f"{name}.weight" in weights:
            bias = weights.get(f"{name}.bias")
            return weights[f"{name}.weight"].float(), None if bias is None else bias.float()
    raise SystemExit(f"{folder} has no classifier and no projection; leave --own out")


def extract(options: argparse.Namespace) -> None:
    source = open_source(options.source, modality=options.modality, label_column=options.label)
    rows = Sampled(source, options.rows) if options.rows and options.rows < len(source) else source
    samples, labels = zip(*((row.sample, row.label) for row in rows.rows()), strict=True)
    targets = tuple(options.targets.split(",")) if options.targets else None
    objectives: list[KL] = [KL(name=f"kl{seed}") for seed in range(options.seeds)]
    if options.own:
        weight, bias = own_head(options.backbone)
        objectives.append(KL(name="own", latent=len(weight), temperature=options.temperature))
    recipe = Recipe(
        options.backbone, objectives=objectives, targets=targets, pooling=options.pooling, dtype=options.dtype
    )
    fungi = Fungi(recipe, batch_size=64)
    engine = fungi.engine
    if options.own:
        engine.heads["own"] = torch.nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
        engine.heads["own"].load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        engine.heads["own"].requires_grad_(False)
    backbone = engine.backbone
    engine.projections = {path: Parts(t.shape, backbone.width, not targets) for path, t in backbone.targets.items()}
    start = time.perf_counter()
    blocks = fungi.fit_blocks(list(samples))
    print(f"{options.out}: {len(labels)} rows, {time.perf_counter() - start:.0f} s", flush=True)
    kept = {name: block for name, block in blocks.items() if family(name) != "gradients"}
    for name, block in blocks.items():
        if family(name) != "gradients":
            continue
        if targets:
            kept[name] = block
            continue
        parts = next(iter(engine.projections.values()))
        outputs, inputs = parts.shape[0], parts.shape[1] - next(iter(backbone.targets.values())).bias
        at = np.cumsum([inputs, outputs, parts.dim])
        x, s, projected, product = np.split(block, at, axis=1)
        kept |= {"x": x, f"s {name}": s, f"projected {name}": projected}
        if parts.tokens > 1:
            kept[f"product {name}"] = product
    np.savez_compressed(options.out, labels=np.array(labels), **{k.replace("/", "|"): v for k, v in kept.items()})


def load(file: str) -> tuple[Blocks, np.ndarray]:
    arrays = np.load(file)
    blocks = {name.replace("|", "/"): arrays[name] for name in arrays.files if name != "labels"}
    lengths = {name: np.linalg.norm(block, axis=1, keepdims=True) for name, block in blocks.items()}
    return {name: block / np.maximum(lengths[name], 1e-12) for name, block in blocks.items()}, arrays["labels"]


def of_kernel(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, R] and [M, R] whose inner products with training rows are these: [N, N] and [M, N]."""
    values, vectors = np.linalg.eigh(train.astype(np.float64))
    kept = values > values[-1] * 1e-9
    scale = np.sqrt(values[kept])
    return (vectors[:, kept] * scale).astype(np.float32), (test @ (vectors[:, kept] / scale)).astype(np.float32)


def parts_of(train: Blocks, test: Blocks) -> tuple[Blocks, Blocks]:
    """The blocks and all parts: "x", "forward", "squared", "average", and of each head "s kl0", "product kl0"."""
    free = [name for name in train if family(name) in ("embedding", "layers")]
    made = {name: (train[name], test[name]) for name in [*free, "x"]}
    heads = [name.removeprefix("s ") for name in train if name.startswith("s ")]

    def gram(name: str) -> np.ndarray:
        """Inner products of all rows with the training rows: [N + M, N]."""
        return np.concatenate([train[name], test[name]]) @ train[name].T

    def split(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return of_kernel(kernel[: len(train["x"])], kernel[len(train["x"]) :])

    seen, products = gram("x"), {}
    for head in heads:
        made[f"s {head}"] = train[f"s {head}"], test[f"s {head}"]
        made[f"projected {head}"] = train[f"projected {head}"], test[f"projected {head}"]
        whole = f"product {head}"
        products[head] = gram(whole) if whole in train else seen * gram(f"s {head}")
        made[whole] = split(products[head])
    made["average"] = split(np.mean([products[head] for head in heads if head != "own"], axis=0))
    made["forward"] = split(seen * gram("embedding"))
    made["squared"] = split(gram("embedding") ** 2)
    return {name: pair[0] for name, pair in made.items()}, {name: pair[1] for name, pair in made.items()}


def features(blocks: Blocks, heads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What is compared: {name: blocks}."""
    layers = tuple(name for name in blocks if family(name) == "layers")
    parts = ["x", "squared", "forward", "average"]
    parts += [f"{part} {head}" for head in heads for part in ("s", "projected", "product")]
    listed = {"embedding": ("embedding",), "layers": layers, "embedding + layers": ("embedding", *layers)}
    for part in parts:
        listed |= {part: (part,), f"embedding + {part}": ("embedding", part)}
        listed[f"embedding + layers + {part}"] = ("embedding", *layers, part)
        if part not in ("x", "squared") and not part.startswith("s "):
            listed[f"embedding + layers + x + {part}"] = ("embedding", *layers, "x", part)
    return listed


class Judged:
    """Training and test rows, and what each kind of features answers on the test rows."""

    def __init__(self, train: Blocks, labels: np.ndarray, test: Blocks, test_labels: np.ndarray) -> None:
        self.train, self.labels, self.test, self.test_labels = train, labels, test, test_labels
        self.whiteners: dict[tuple[str, Any], Axes] = {}
        self.made: dict[Combination, tuple[np.ndarray, np.ndarray]] = {}

    def features(self, how: Combination) -> tuple[np.ndarray, np.ndarray]:
        """The features of all training and test rows, each block's part made once."""
        for name in how.members(self.train):
            alone = replace(how, blocks=(name,))
            if alone not in self.made:
                combiner = alone.fit(self.train, self.whiteners)
                self.made[alone] = combiner.transform(self.train), combiner.transform(self.test)
        pairs = [self.made[replace(how, blocks=(name,))] for name in how.members(self.train)]
        return np.concatenate([pair[0] for pair in pairs], axis=1), np.concatenate([pair[1] for pair in pairs], axis=1)

    def value(self, how: Combination, predictor: Any, rows: np.ndarray) -> float:
        """Top-1 in % on the test rows of a predictor that is fitted on these labelled rows."""
        train, test = self.features(how)
        fitted = clone(predictor).fit(train[rows], self.labels[rows])
        return 100 * float(np.mean(fitted.predict(test) == self.test_labels))

    def nearest(self, how: Combination, rows: np.ndarray) -> tuple[float, float, int]:
        """kNN by cosine with k by leave-one-out: accuracy there and on the test rows, in %, and k."""
        train, test = self.features(how)
        train = train[rows] / np.maximum(np.linalg.norm(train[rows], axis=1, keepdims=True), 1e-12)
        codes = np.unique(self.labels[rows], return_inverse=True)[1]
        votes, alone = np.eye(codes.max() + 1)[codes], train @ train.T
        np.fill_diagonal(alone, -np.inf)

        def guesses(similarities: np.ndarray, k: int) -> np.ndarray:
            order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
            return np.argmax(votes[order].sum(axis=1) + 1e-6 * votes[order[:, 0]], axis=1)  # ties: the nearest

        ks = [k for k in NEIGHBOURS if k < len(rows)]
        values = [100 * float(np.mean(guesses(alone, k) == codes)) for k in ks]
        k = ks[int(np.argmax(values))]
        names = np.unique(self.labels[rows])[guesses(test @ train.T, k)]
        return max(values), 100 * float(np.mean(names == self.test_labels)), k

    def measure(self, listed: Mapping[str, tuple[str, ...]], rows: np.ndarray) -> dict[str, dict[str, Any]]:
        """{features: {judge: top-1 in %}} and what was chosen. "best": whitening and predictor by leave-one-out."""
        labels = np.full(len(self.labels), None, dtype=object)
        labels[rows] = self.labels[rows]
        few = has_few(self.labels[rows])
        found: dict[str, dict[str, Any]] = {}
        values: dict[str, float] = {}  # by what was chosen
        asked = {(name, power): joined(blocks, power) for name, blocks in listed.items() for power in EXPONENTS}
        titles = {f"{name} @ {power}": how for (name, power), how in asked.items()}
        outcomes = leave_one_out_of(self.train, labels, titles, ("LDA", "ridge"), whiteners=self.whiteners)
        near = {title: self.nearest(how, rows) for title, how in titles.items()}
        names = {**{name: (name,) for name in listed}, "control": CONTROLS}
        for name, members in names.items():
            found[name] = {}
            title = max((f"{member} @ {power}" for member in members for power in EXPONENTS), key=lambda t: near[t][0])
            found[name] |= {"kNN": near[title][1], "kNN chosen": f"{title}, k = {near[title][2]}"}
            for judge, words in (("LDA", ("LDA",)), ("best", ("LDA", "ridge"))):
                pairs = [(f"{member} @ {power}", word) for member in members for power in EXPONENTS for word in words]
                if few and judge == "best":
                    pairs = [pair for pair in pairs if pair[1] == "LDA"]  # as `select` does among few rows
                title, word = min(pairs, key=lambda pair: outcomes[pair[0]][pair[1]].loss)
                predictor = outcomes[title][word].predictor
                chosen = f"{title}, {title_of_predictor(predictor)}"
                if chosen not in values:
                    values[chosen] = self.value(titles[title], predictor, rows)
                found[name] |= {judge: values[chosen], f"{judge} chosen": chosen}
                found[name][f"{judge} loss"] = outcomes[title][word].loss
        return found


def subsets(labels: np.ndarray, shots: str, count: int) -> Iterator[np.ndarray]:
    if shots == "all":
        yield np.arange(len(labels))
    else:
        yield from draws(labels, int(shots), count)


def table(options: argparse.Namespace) -> None:
    (train, labels), (test, test_labels) = load(options.train), load(options.test)
    name = options.name or Path(options.train).stem.removesuffix("-train")
    heads = [part.removeprefix("s ") for part in train if part.startswith("s ")]
    train, test = parts_of(train, test)
    judged = Judged(train, labels, test, test_labels)
    listed = features(train, heads)
    for shots in options.shots.split(","):
        runs = [judged.measure(listed, rows) for rows in subsets(labels, shots, options.draws)]
        values = {row: {judge: [run[row][judge] for run in runs] for judge in runs[0][row]} for row in runs[0]}
        lines = {"set": name, "shots": shots, "heads": heads, "values": values}
        show(lines)
        if options.save:
            with open(options.save, "a") as file:
                file.write(json.dumps(lines) + "\n")


def by_part(values: Mapping[str, Any], heads: Sequence[str], judge: str) -> dict[str, np.ndarray]:
    """{features: [heads or 1, draws]}: the random heads of one part together."""
    random = [head for head in heads if head != "own"]
    found: dict[str, Any] = {}
    for row in values:
        part, _, head = row.rpartition(" ")
        if head in random:
            found.setdefault(part, []).append(values[row][judge])
        else:
            found[row] = [values[row][judge]]
    return {row: np.array(runs) for row, runs in found.items()}


def show(lines: Mapping[str, Any]) -> None:
    """One set: top-1 in % by features and judge, mean over draws and heads, and the gain over the control."""
    print(f"\n**{lines['set']}, {lines['shots']} rows a class** ({len(lines['heads'])} heads)\n")
    print("| features | kNN | LDA | chosen | over the control | its loss |\n|---|---|---|---|---|---|")
    tables = {judge: by_part(lines["values"], lines["heads"], judge) for judge in ("kNN", "LDA", "best")}
    control, losses = tables["best"]["control"], by_part(lines["values"], lines["heads"], "best loss")
    for row in tables["best"]:
        cells = [f"{tables[judge][row].mean():.1f}" for judge in tables]
        loss = f"{losses[row].mean():.3f}"
        print(f"| {row} | {' | '.join(cells)} | {gain(tables['best'][row] - control)} | {loss} |", flush=True)


def gain(differences: np.ndarray) -> str:
    """The mean of differences [heads, draws] and their spread: over all heads and draws, least to most."""
    flat = differences.ravel()
    return f"{flat.mean():+.1f}" + (f" ({flat.min():+.1f} to {flat.max():+.1f})" if flat.size > 1 else "")


PARTS = ("x", "s", "projected", "product", "average", "forward", "squared")
FIXED = (
    *("embedding", "embedding + layers", "x", "embedding + x", "embedding + layers + x", "s"),
    *(
        f"{before}{part}"
        for part in (*PARTS[2:4], "forward")
        for before in ("", "embedding + ", "embedding + layers + ")
    ),
    "embedding + layers + x + forward",
)


def gains(options: argparse.Namespace) -> None:
    """Points over the control where the choice may take the part too, and fixed features under every judge."""
    saved = [json.loads(line) for file in options.files for line in Path(file).read_text().splitlines()]
    print_rows("points over the control where the choice may take the part", PARTS, saved, over_control)
    for judge, title in (("kNN", "kNN"), ("LDA", "LDA"), ("best", "LDA or ridge, as leave-one-out chooses")):
        print_rows(f"top-1 in %, {title}", FIXED, saved, lambda of, row, judge=judge: of[judge][row].mean())


def over_control(of: Mapping[str, Any], part: str) -> float:
    rows = [*CONTROLS, part, f"embedding + {part}", f"embedding + layers + {part}"]
    values, losses = (np.broadcast_arrays(*(of[word][row] for row in rows)) for word in ("best", "best loss"))
    taken = np.take_along_axis(np.array(values), np.argmin(losses, axis=0)[None], axis=0)[0]
    return float((taken - of["best"]["control"]).mean())


def print_rows(title: str, columns: Sequence[str], saved: Sequence[Mapping[str, Any]], cell: Any) -> None:
    """Sets against columns, with the control of each set and the mean of all."""
    print(f"\n**{title}**\n\n| set | rows a class | control | {' | '.join(columns)} |")
    print(f"|---|---|---|{'---|' * len(columns)}")
    judges, figures = ("kNN", "LDA", "best", "best loss"), []
    for lines in saved:
        of = {judge: by_part(lines["values"], lines["heads"], judge) for judge in judges}
        figures.append([of["best"]["control"].mean(), *(cell(of, column) for column in columns)])
        cells = " | ".join(f"{value:.1f}" for value in figures[-1])
        print(f"| {lines['set']} | {lines['shots']} | {cells} |")
    print(f"| mean of {len(saved)} | | {' | '.join(f'{value:.1f}' for value in np.mean(figures, axis=0))} |")


def cosines(options: argparse.Namespace) -> None:
    """How alike rows are, by the raw embedding and by x, and what neighbours find by each."""
    (train, labels), (test, test_labels) = load(options.train), load(options.test)
    judged = Judged(train, labels, test, test_labels)
    print("| block | mean cosine of two training rows | rows a class: top-1 in %, kNN |\n|---|---|---|")
    for name in ("embedding", "x"):
        found = {
            shots: np.mean([judged.nearest(joined((name,)), rows)[1] for rows in subsets(labels, shots, options.draws)])
            for shots in options.shots.split(",")
        }
        cosine = float((train[name].mean(axis=0) ** 2).sum())
        print(f"| {name} | {cosine:.2f} | {', '.join(f'{shots}: {value:.1f}' for shots, value in found.items())} |")


def targets(options: argparse.Namespace) -> None:
    """Other target layers: each gradient block, joined to the embedding and to embedding and layers; single layers."""
    (train, labels), (test, test_labels) = load(options.train), load(options.test)
    judged = Judged(train, labels, test, test_labels)
    layers = tuple(name for name in train if family(name) == "layers")
    listed = {"embedding": ("embedding",), "layers": layers, "embedding + layers": ("embedding", *layers)}
    listed |= {f"embedding + {name}": ("embedding", name) for name in layers}
    for name in train:
        if family(name) == "gradients":
            listed |= {name: (name,), f"embedding + {name}": ("embedding", name)}
            listed[f"embedding + layers + {name}"] = ("embedding", *layers, name)
    for shots in options.shots.split(","):
        runs = [judged.measure(listed, rows) for rows in subsets(labels, shots, options.draws)]
        values = {row: {judge: [run[row][judge] for run in runs] for judge in runs[0][row]} for row in runs[0]}
        show({"set": Path(options.train).stem, "shots": shots, "heads": ["kl0"], "values": values})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("extract")
    for name in ("source", "backbone", "out"):
        add.add_argument(name)
    add.add_argument("--modality", default="image")
    add.add_argument("--label", help="the column of labels")
    add.add_argument("--rows", type=int)
    add.add_argument("--seeds", type=int, default=3)
    add.add_argument("--pooling", default="auto")
    add.add_argument("--targets")
    add.add_argument("--own", action="store_true", help="the checkpoint's own head too")
    add.add_argument("--temperature", type=float, default=15.0, help="of the own head")
    add.add_argument("--dtype", default="auto")
    for command in ("table", "targets", "cosines"):
        add = commands.add_parser(command)
        for name in ("train", "test"):
            add.add_argument(name)
        add.add_argument("--shots", default="all,5")
        add.add_argument("--draws", type=int, default=5)
        if command == "table":
            add.add_argument("--name")
            add.add_argument("--save", help="a file to append the figures to, for `gains`")
    commands.add_parser("gains").add_argument("files", nargs="+")
    options = parser.parse_args()
    warnings.simplefilter("ignore", SporeprintWarning)  # one row a class: no predictor can be calibrated
    run = {"extract": extract, "table": table, "targets": targets, "cosines": cosines, "gains": gains}
    run[options.command](options)


if __name__ == "__main__":
    main()
