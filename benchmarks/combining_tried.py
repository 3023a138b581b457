"""What docs/combining.md says was tried: one table for each part, on a pair of stores.

python benchmarks/combining_tried.py TRAIN TEST [--target PATH_END] [--drop max] [--parts layers,ranks,...]

layers: how many, and which kinds. ranks: a rank against shrinkage, fitted on few rows. exponents: without labels, with
the neighbours that two halves' whitenings share, and with 5 labels a class. weights: from the blocks' own statistics.
maxvar: generalised canonical correlation. sizes: a final PCA. k is chosen by leave-one-out throughout.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator

import numpy as np
from combining import Pair

from sporeprint.evaluate.shots import draws
from sporeprint.evaluate.similarity import anisotropy, effective_rank
from sporeprint.features.blocks import family
from sporeprint.features.combine import Combination, Combiner
from sporeprint.features.unit import unit
from sporeprint.predictors.knn import choose_k, knn_predict

Row = tuple[str, float, float]


def score(pair: Pair, features: np.ndarray, asked: np.ndarray, rows: np.ndarray | None = None) -> tuple[float, float]:
    """Leave-one-out accuracy on the training rows (or on some), accuracy on the test rows."""
    rows = np.arange(len(features)) if rows is None else rows
    table = choose_k(features[rows], pair.labels[rows])
    k = max(table, key=lambda one: (table[one], -one))
    guess = knn_predict(features[rows], pair.labels[rows], asked, k)
    return table[k], float((guess == pair.test_labels).mean())


def of(pair: Pair, combiner: Combiner) -> tuple[float, float]:
    return score(pair, combiner.transform(pair.train), combiner.transform(pair.test))


def layers(pair: Pair) -> Iterator[Row]:
    names = [name for name in pair.train if family(name) == "layers"]
    numbers = sorted({int(name.rpartition("-")[2]) for name in names})
    kinds = list(dict.fromkeys(name.rpartition("-")[0] for name in names))
    for count in [one for one in (1, 2, 4, 6, 12) if one <= len(numbers)]:
        for some in (*[[kind] for kind in kinds], kinds[:2], kinds):
            members = tuple(f"{kind}-{number}" for number in numbers[-count:] for kind in some)
            for exponent in (0.5, 1.0):
                one = Combination(members, "auto", exponent=exponent).fit(pair.train, pair.whiteners)
                yield f"{count} layers, {' + '.join(some)}, white {exponent:g}", *of(pair, one)


def ranks(pair: Pair) -> Iterator[Row]:
    members = tuple(name for name in pair.train if family(name) == "layers")
    for rows in (20, 60, 200, len(pair.labels)):
        drawn = np.random.default_rng(0).permutation(len(pair.labels))[:rows]
        some = {name: pair.train[name][drawn] for name in members}
        edge = {name: _edge(block) for name, block in some.items()}
        ways = {"Ledoit-Wolf": "auto", "rank 150": 150, "half the rows": max(1, rows // 2), "Marchenko-Pastur": edge}
        for title, whiten in ways.items():
            for exponent in (0.5, 1.0):
                parts: list[list[np.ndarray]] = [[], []]
                for name in members:
                    rank = whiten[name] if isinstance(whiten, dict) else whiten
                    rank = rank if rank == "auto" else min(rank, *some[name].shape)
                    one = Combination((name,), rank, exponent=exponent).fit(some)
                    for side, blocks in zip(parts, (pair.train, pair.test), strict=True):
                        side.append(one.transform(blocks))
                found = score(pair, *(np.concatenate(side, axis=1) for side in parts))
                yield f"fitted on {rows} rows, {title}, exponent {exponent:g}", *found


def _edge(block: np.ndarray) -> int:
    """Axes whose variance is beyond Marchenko and Pastur's edge for noise of the median's size."""
    rows, width = block.shape
    variance = np.linalg.svd(block - block.mean(axis=0), compute_uv=False) ** 2 / (rows - 1)
    noise = np.median(variance[: min(rows - 1, width)])
    return max(2, int((variance > noise * (1 + (width / rows) ** 0.5) ** 2).sum()))


def exponents(pair: Pair) -> Iterator[Row]:
    everything = tuple(pair.train)
    order = np.random.default_rng(0).permutation(len(pair.labels))
    halves, asking = (order[: len(order) // 2], order[len(order) // 2 :]), order[:500]
    known: list[dict] = [{}, {}]
    for exponent in (0.0, 0.25, 0.5, 0.75, 1.0):
        one, near = Combination(everything, "auto", exponent=exponent), []
        for rows, whiteners in zip(halves, known, strict=True):
            half = one.fit({name: block[rows] for name, block in pair.train.items()}, whiteners)
            features = half.transform({name: block[asking] for name, block in pair.train.items()})
            similar = features @ features.T
            np.fill_diagonal(similar, -np.inf)
            near.append(np.argsort(-similar, axis=1)[:, :10])
        shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)])
        whole = one.fit(pair.train, pair.whiteners)
        features, asked = whole.transform(pair.train), whole.transform(pair.test)
        few = np.mean([score(pair, features, asked, rows)[1] for rows in draws(pair.labels, 5, 8)])
        title = f"everything, exponent {exponent:g}, {shared:.2f} of ten neighbours shared, 5 labels a class {few:.1%}"
        yield title, *score(pair, features, asked)


def weights(pair: Pair) -> Iterator[Row]:
    for families in (("layers", "views"), ("embedding", "layers")):
        blocks = {name: block for name, block in pair.train.items() if family(name) in families}
        statistics = {
            "alike": dict.fromkeys(blocks, 1.0),
            "effective rank": {name: effective_rank(block) for name, block in blocks.items()},
            "1 - anisotropy": {name: max(1e-3, 1 - anisotropy(block)) for name, block in blocks.items()},
        }
        for title, shares in statistics.items():
            for exponent in (0.75, 1.0):
                one = Combination(
                    tuple(blocks), "auto", None, exponent, tuple(float(share**0.5) for share in shares.values())
                )
                yield (
                    f"{' + '.join(families)}, white {exponent:g}, weights {title}",
                    *of(pair, one.fit(pair.train, pair.whiteners)),
                )


def maxvar(pair: Pair) -> Iterator[Row]:
    for families in (("layers", "views"), ("embedding", "layers")):
        parts: list[list[np.ndarray]] = [[], []]
        for name in [name for name in pair.train if family(name) in families]:
            axes = Combination((name,), "auto").fit(pair.train, pair.whiteners).whiteners[name]
            for side, blocks in zip(parts, (pair.train, pair.test), strict=True):
                side.append(axes(unit(blocks[name]), 1.0))
        train, test = (np.concatenate(side, axis=1) for side in parts)
        centre = train.mean(axis=0)
        turn = np.linalg.svd(train - centre, full_matrices=False)[2]
        for rank in [one for one in (64, 150, 300, 600) if one <= len(turn)]:
            turned = [(rows - centre) @ turn[:rank].T for rows in (train, test)]
            yield f"{' + '.join(families)}, MAXVAR {rank}", *score(pair, *turned)
            yield f"{' + '.join(families)}, MAXVAR {rank}, rows normalised", *score(pair, *map(unit, turned))


def sizes(pair: Pair) -> Iterator[Row]:
    for families in (("layers", "views"), ("embedding", "layers")):
        blocks = tuple(name for name in pair.train if family(name) in families)
        for exponent in (0.75, 1.0):
            for size in (None, 64, 192, 384, 512, 1024):
                one = Combination(blocks, "auto", size, exponent).fit(pair.train, pair.whiteners)
                yield f"{' + '.join(families)}, white {exponent:g}, size {size} ({one.width})", *of(pair, one)


PARTS = {one.__name__: one for one in (layers, ranks, exponents, weights, maxvar, sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--target", help="of stores with several target layers, read this one (its path's end)")
    parser.add_argument("--drop", default="", help="comma-separated beginnings or ends of block names to leave out")
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".* dimensions wanted")
    pair = Pair(given.train, given.test, given.target, None, [word for word in given.drop.split(",") if word])
    for part in given.parts.split(","):
        print(f"\n{pair.name}: {part}\n\n| features | leave-one-out | test |\n|---|---|---|")
        for title, inside, outside in PARTS[part](pair):
            print(f"| {title} | {100 * inside:.1f} | {100 * outside:.1f} |", flush=True)


if __name__ == "__main__":
    main()
