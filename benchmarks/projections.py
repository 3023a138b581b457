"""Which random projection? Distortion against theory, state, time and kNN accuracy of each, on the same gradients.

    python benchmarks/projections.py MODEL TRAIN.parquet TEST.parquet [--train-rows 890] [--test-rows 445] [--grid 7]
        [--dim D] [--dtype bfloat16] [--seeds 5] [--pairs-of 48] [--batch 32] [--factors FILE.npz]
        [--parts distortion,accuracy,time]

The gradients' factors are captured once (KL, and SimCLR of grid^2 patches), and projected by every kind and seed:
projections cost no pass. --factors keeps the captured factors, --parts chooses the tables.

distortion: root mean square and largest error of the cosines of pairs, over pairs and seeds, and the root mean square
that theory gives (projection_theory.py, to first order in 1 / D). accuracy: kNN; `exact` is the whole gradients without
a projection. time: of a sample of T tokens in a batch, for a ViT's shape, and its share of the total with the float32
passes of T views (from two of its blocks, random weights).
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronecker import Kronecker
from projection_theory import variance
from transformers import ViTConfig, ViTModel

from sporeprint import KL, Fungi, Recipe, SimCLR, knn, open_source
from sporeprint.data.sampling import Sampled
from sporeprint.gradients.capture import weight_gradients
from sporeprint.gradients.projections.projection import (
    PROJECTIONS,
    Projection,
    make_projection,
    normalise,
    reads_factors,
)
from sporeprint.objectives.views.image import Patches

SHAPES = {"DeiT-tiny": (192, 12), "ViT-S": (384, 12), "ViT-B": (768, 12), "ViT-L": (1024, 24)}
KINDS = (*PROJECTIONS, "kronecker")
Factors = tuple[torch.Tensor, torch.Tensor]


def make(kind: str, dim: int, shape: tuple[int, int], seed: int) -> Projection:
    return Kronecker(dim, shape, seed) if kind == "kronecker" else make_projection(kind, dim, shape, seed)


class Keeper:
    """A keeper stands in for a projection and keeps the factors that it is given."""

    dim = 1

    def __init__(self) -> None:
        self.kept: list[Factors] = []

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("a keeper reads factors")

    def matrix(self) -> torch.Tensor:
        raise NotImplementedError("a keeper has no matrix")

    def of_factors(self, inputs: torch.Tensor, sensitivities: torch.Tensor, bias: bool = True) -> torch.Tensor:
        self.kept.append((inputs.float(), sensitivities.float() / sensitivities.abs().max()))
        return inputs.new_ones(len(inputs), 1)


def capture(options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return {set/objective/factor: [N, T, I] or [N, T, O], set/embedding: [N, E], set/labels: [N]}."""
    recipe = Recipe(
        backbone=options.model,
        objectives=[KL(), SimCLR(augmentation=Patches(options.grid), negatives=64)],
        dtype=options.dtype,
        layers=0,
    )
    fungi, keeper = Fungi(recipe), Keeper()
    fungi.projection = keeper
    captured: dict[str, Any] = {}
    for name, path, count in (("train", options.train, options.train_rows), ("test", options.test, options.test_rows)):
        source = open_source(path)
        rows = list((Sampled(source, count) if count < len(source) else source).rows())
        if name == "train":
            fungi.draw_negatives([(row.id, row.sample) for row in rows])
        captured[f"{name}/labels"] = np.array([row.label for row in rows])
        captured[f"{name}/embedding"] = np.concatenate([fungi.blocks([r.sample], [r.id])["embedding"] for r in rows])
        for at, objective in enumerate(("kl", "simclr")):  # a row at a time, so they come in turn
            for which, part in (("inputs", 0), ("sensitivities", 1)):
                captured[f"{name}/{objective}/{which}"] = torch.cat(
                    [factors[part] for factors in keeper.kept[at::2]]
                ).numpy()
        keeper.kept.clear()
    return captured


def project(projection: Projection | None, factors: Factors) -> torch.Tensor:
    """Project and normalise as the engine does: [N, D]; without a projection, return the gradients themselves."""
    if projection is not None and reads_factors(projection):
        return normalise(projection.of_factors(*factors))
    gradients = normalise(weight_gradients(*factors).flatten(1))
    return gradients if projection is None else normalise(projection(gradients))


def distortion(name: str, factors: Factors, dim: int, seeds: int) -> None:
    gradients = normalise(weight_gradients(factors[0].double(), factors[1].double()).flatten(1))
    shape = (factors[1].shape[2], factors[0].shape[2] + 1)
    pairs = torch.triu_indices(len(gradients), len(gradients), offset=1)
    cosines = (gradients @ gradients.T)[tuple(pairs)]
    views = gradients.unflatten(1, shape)
    for kind in KINDS:
        errors = []
        for seed in range(seeds):
            rows = project(make(kind, dim, shape, seed), factors).double()
            errors.append((rows @ rows.T)[tuple(pairs)] - cosines)
        error = torch.stack(errors)
        theory = np.mean([variance(kind, dim, views[i], views[j]) for i, j in pairs.T.tolist()]) ** 0.5
        cells = f"{error.pow(2).mean().sqrt():.4f} | {theory:.4f} | {error.abs().max():.3f}"
        print(f"| {name} | {cosines.mean():.2f} | {kind} | {cells} |", flush=True)


def random_factors(samples: int, tokens: int, width: int, alike: float) -> Factors:
    """Draw factors whose rows have a cosine of about `alike` with those of every other sample."""
    draw = torch.Generator().manual_seed(0)

    def factor() -> torch.Tensor:
        common, own = torch.randn(width, generator=draw), torch.randn(samples, tokens, width, generator=draw)
        return alike**0.5 * common + (1 - alike) ** 0.5 * own

    return factor(), factor()


def pass_seconds(width: int, depth: int) -> float:
    """Time one view at 224 pixels, float32, in a batch of four."""
    config = ViTConfig(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=width // 64, intermediate_size=4 * width
    )
    module, views = ViTModel(config, add_pooling_layer=False).eval(), torch.randn(4, 3, 224, 224)
    with torch.inference_mode():
        return least(lambda: module(views)) / 4 * depth / 2


def least(call: Any, repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def cost(samples: int) -> None:
    for name, (width, depth) in SHAPES.items():
        per_pass = pass_seconds(width, depth)
        for kind in KINDS:
            projection = make(kind, width, (width, width + 1), seed=0)
            cells = []
            for tokens in (1, 49):
                factors = random_factors(samples, tokens, width, 0)
                call = partial(project, projection, factors)
                spent = least(call) / samples
                cells.append(f"{1e3 * spent:.2f} | {100 * spent / (spent + tokens * per_pass):.3f}")
            held = list(vars(projection).values()) + list(vars(projection).get("_state", {}).values())
            state = sum(part.numel() * part.element_size() for part in held if isinstance(part, torch.Tensor)) / 2**20
            print(f"| {name} | {1e3 * per_pass:.0f} | {kind} | {state:.3f} | {' | '.join(cells)} |", flush=True)


def accuracy(captured: dict[str, Any], dim: int, seeds: int) -> None:
    labels, test_labels = captured["train/labels"], captured["test/labels"]
    whole = {
        name: np.concatenate([captured[f"train/{name}"], captured[f"test/{name}"]])
        for name in (
            "embedding",
            *(f"{loss}/{which}" for loss in ("kl", "simclr") for which in ("inputs", "sensitivities")),
        )
    }
    for kind in (None, *KINDS):
        scores = []
        for seed in range(seeds if kind else 1):
            blocks = {}
            for name in ("kl", "simclr"):
                inputs, sensitivities = (
                    torch.from_numpy(whole[f"{name}/{which}"]) for which in ("inputs", "sensitivities")
                )
                shape = (sensitivities.shape[2], inputs.shape[2] + 1)
                projection = None if kind is None else make(kind, dim, shape, seed)
                rows = project(projection, (inputs, sensitivities))
                blocks[name] = (span(rows) if kind is None else rows).numpy()
            blocks["joined"] = np.concatenate([whole["embedding"], *blocks.values()], axis=1)
            halves = [np.split(rows, [len(labels)]) for rows in blocks.values()]
            scores.append([knn(a, labels, b, test_labels, k=k).value for a, b in halves for k in (20, "auto")])
        cells = [
            f"{100 * mean:.1f} ± {100 * spread:.1f}" if kind else f"{100 * mean:.1f}"
            for mean, spread in zip(np.mean(scores, axis=0), np.std(scores, axis=0), strict=True)
        ]
        print(f"| {kind or 'exact'} | {' | '.join(cells)} |", flush=True)


def span(rows: torch.Tensor) -> torch.Tensor:
    """Embed the rows in N dimensions with the same distances: [N, N]."""
    values, vectors = torch.linalg.eigh((rows @ rows.T).double())
    return (vectors * values.clamp_min(0).sqrt()).float()


def heading(*cells: str) -> None:
    print(f"\n| {' | '.join(cells)} |\n|{'---|' * len(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "test"):
        parser.add_argument(name)
    for name, default in {
        "train-rows": 890,
        "test-rows": 445,
        "grid": 7,
        "seeds": 5,
        "pairs-of": 48,
        "batch": 32,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--factors", type=Path)
    parser.add_argument("--dim", type=int, help="default the width of the layer")
    parser.add_argument("--parts", default="distortion,accuracy,time")
    options = parser.parse_args()
    if options.factors and options.factors.exists():
        captured = dict(np.load(options.factors))
    else:
        captured = capture(options)
        if options.factors:
            np.savez(options.factors, **captured)  # type: ignore[arg-type]
    width = captured["train/kl/sensitivities"].shape[2]
    dim = options.dim or width
    if "distortion" in options.parts:
        heading("gradients", "mean cosine", "projection", "rms error", "theory", "largest error")
        for alike in (0.0, 0.5):
            for tokens in (1, 49):
                factors = random_factors(options.pairs_of, tokens, width, alike)
                distortion(f"random, {tokens} tokens, factors alike {alike}", factors, dim, options.seeds)
        every = slice(0, None, len(captured["train/labels"]) // options.pairs_of)
        for objective in ("kl", "simclr"):
            inputs, sensitivities = (
                torch.from_numpy(captured[f"train/{objective}/{which}"][every][: options.pairs_of])
                for which in ("inputs", "sensitivities")
            )
            distortion(objective, (inputs, sensitivities), dim, options.seeds)
    if "accuracy" in options.parts:
        names = ("kl", "simclr", "embedding + both")
        heading("projection", *(f"{name}, {k}" for name in names for k in ("k = 20", "k by leave-one-out")))
        accuracy(captured, dim, options.seeds)
    if "time" in options.parts:
        heading("shape", "ms a pass", "projection", "MiB", "1 token: ms", "% of all", "49 tokens: ms", "% of all")
        with torch.inference_mode():
            cost(options.batch)


if __name__ == "__main__":
    main()
