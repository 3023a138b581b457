"""Can a gradient block be made better? Variants from the same passes, alone and joined to the layers.

python benchmarks/gradient_variants.py MODEL TRAIN.parquet TEST.parquet [--train-rows 2000] [--test-rows 500]

For KL and SimCLR on one target layer: the paper's projection; the gradient's own mean (over training rows) removed
before it; both factors of the gradient whitened before it (Kronecker: B^-1/4 G A^-1/4 and B^-1/2 G A^-1/2, with A and B
the second moments of its columns and rows); four times as wide; and SimCLR with four times the negatives. k and the
exponent of whitening (raw, 0.5, 0.75, 1) by leave-one-out on the training rows.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sporeprint import KL, Combination, Fungi, Recipe, SimCLR, knn, open_source
from sporeprint.data.sampling import Sampled
from sporeprint.features.blocks import family
from sporeprint.gradients.projections.projection import Rademacher, normalise
from sporeprint.predictors.knn import choose_k

EXPONENTS = (None, 0.5, 0.75, 1.0)
FIT_ROWS = 400  # whose gradients give the mean and the second moments


class Keeper:
    """A keeper stands in for a projection and keeps the gradients that it is given."""

    def __init__(self, like: Rademacher):
        self.dim, self.width, self.kept = like.dim, like.width, []

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        self.kept.append(gradients.detach().clone())
        return gradients[:, : self.dim]

    def matrix(self) -> torch.Tensor:
        return torch.eye(self.dim, self.width)


@dataclass
class Many:
    """Many applies several projections to the same gradients: [N, sum of dims]."""

    parts: dict[str, Any]
    widths: dict[str, int]

    @property
    def dim(self) -> int:
        return sum(self.widths.values())

    def __call__(self, gradients: torch.Tensor) -> torch.Tensor:
        return torch.cat([normalise(part(gradients)) for part in self.parts.values()], dim=1)

    def matrix(self) -> torch.Tensor:
        raise NotImplementedError("several maps, not all linear")


def variants(like: Rademacher, gradients: torch.Tensor, outputs: int) -> Many:
    """Make the variants of a projection from normalised gradients [n, O * (I + 1)]."""
    mean = gradients.mean(dim=0)
    matrices = gradients.unflatten(1, (outputs, -1))
    columns = torch.einsum("noi,noj->ij", matrices, matrices).double()
    rows = torch.einsum("noi,npi->op", matrices, matrices).double()

    def root(moment: torch.Tensor, power: float) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(moment)
        values = values.clamp_min(0) + 0.01 * values.mean()  # damped, as in K-FAC
        return (vectors @ torch.diag(values**power) @ vectors.T).float()

    def factors(power: float) -> Any:
        left, right = root(rows, power), root(columns, power)
        return lambda g: like(normalise((left @ g.unflatten(1, (outputs, -1)) @ right).flatten(1)))

    four = Rademacher(4 * like.dim, like.width, seed=1)
    parts = {
        "as in the paper": like,
        "mean removed first": lambda g: like(normalise(g - mean)),
        "factors evened out by half first": factors(-0.25),
        "factors whitened first": factors(-0.5),
        "four times as wide": four,
    }
    return Many(parts, {name: 4 * like.dim if part is four else like.dim for name, part in parts.items()})


def blocks_of(model: str, objective: Any, target: str | None, train: list[Any], test: list[Any]) -> tuple[Any, Any]:
    recipe = Recipe(backbone=model, objectives=[objective], layers=6, pooling="auto", targets=target, dtype="float32")
    fungi = Fungi(recipe)
    like = fungi.projection
    fungi.draw_negatives([(str(at), sample) for at, sample in enumerate(train)])
    keeper = Keeper(like)
    fungi.projection = keeper
    fungi.blocks(train[:FIT_ROWS])
    outputs = next(iter(fungi.network.targets.values())).shape[0]
    many = variants(like, torch.cat(keeper.kept), outputs)
    fungi.projection = many
    halves = []
    for rows in (train, test):
        blocks = fungi.blocks(rows)
        whole = blocks.pop(objective.name)
        at = 0
        for name, width in many.widths.items():
            blocks[f"{objective.name}: {name}"] = whole[:, at : at + width]
            at += width
        halves.append(blocks)
    return halves[0], halves[1]


def score(
    names: tuple[str, ...], train: Any, labels: Any, test: Any, test_labels: Any, known: Any
) -> tuple[float, float]:
    best = (-1.0, 0.0)
    for exponent in EXPONENTS:
        combination = Combination(names) if exponent is None else Combination(names, "auto", exponent=exponent)
        combiner = combination.fit(train, known)
        features = combiner.transform(train)
        table = choose_k(features, labels)
        k = max(table, key=lambda k, table=table: (table[k], -k))  # type: ignore[misc]
        if table[k] > best[0]:
            best = (table[k], knn(features, labels, combiner.transform(test), test_labels, k=k).value)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--train-rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--target")
    options = parser.parse_args()
    rows = []
    for path, count in ((options.train, options.train_rows), (options.test, options.test_rows)):
        source = open_source(path, modality="text")
        rows.append(list((Sampled(source, count) if count < len(source) else source).rows()))
    samples, labels = ([[getattr(row, key) for row in part] for part in rows] for key in ("sample", "label"))
    print("| block | alone: leave-one-out | test | with the layers: leave-one-out | test |\n|---|---|---|---|---|")
    for objective in (KL(), SimCLR(), SimCLR(negatives=1024)):
        train, test = blocks_of(options.model, objective, options.target, *samples)
        layers = tuple(name for name in train if family(name) in ("embedding", "layers"))
        known: dict[Any, Any] = {}
        if isinstance(objective, KL):
            plain = score(layers, train, np.array(labels[0]), test, np.array(labels[1]), known)
            print(f"| none |  |  | {100 * plain[0]:.1f} | {100 * plain[1]:.1f} |", flush=True)
        for name in [block for block in train if ": " in block]:
            pair = [
                score(names, train, np.array(labels[0]), test, np.array(labels[1]), known)
                for names in ((name,), (*layers, name))
            ]
            cells = " | ".join(f"{100 * value:.1f}" for scores in pair for value in scores)
            suffix = f", {objective.negatives} negatives" if objective.negatives == 1024 else ""
            print(f"| {name}{suffix} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
