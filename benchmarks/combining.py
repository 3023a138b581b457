"""What does each family add, chosen fairly? Stores of train and test rows in pairs; tables for docs/combining.md.

python benchmarks/combining.py flowers-train flowers-test [trec-train trec-test ...] [--label-from TRAIN TEST COLUMN]

Every choice (families, exponent, weights, k) is by leave-one-out on labelled training rows. Gains are against the
best of the raw embedding and two whitened ones ON THE TEST ROWS (of each draw), which is more than a user could know:
the hardest reference. Few-shot: labels of so many rows a class, drawn with three seeds; whitening is fitted on all
training rows, whose other labels are not looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint import Combination, Store
from sporeprint.evaluate.choice.candidates import EMBEDDINGS
from sporeprint.evaluate.choice.intervals import bootstrap_difference
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.select import select
from sporeprint.evaluate.shots import draws
from sporeprint.features.blocks import family
from sporeprint.features.combine import named
from sporeprint.features.whiten import Axes
from sporeprint.predictors.knn import choose_k, knn_predict
from sporeprint.run.store_source import Rows, labels_of

SUBSETS = {
    "chosen: embedding, layers": ("layers",),
    "chosen: embedding, layers, kl": ("layers", "kl"),
    "chosen: embedding, layers, views": ("layers", "views"),
    "chosen: embedding, layers, views, gradients": ("layers", "views", "gradients"),
}


class Pair:
    """Blocks and labels of two stores, without the blocks that a recipe does not give by default."""

    def __init__(self, train: str, test: str, target: str | None, column: tuple[str, str, str] | None, drop: list[str]):
        stores = Store.open(train), Store.open(test)
        self.name = f"{train} / {test}" + (f", {column[2]}" if column else "")
        kept = [name for name in stores[0].block_names if _kept(name, target, drop)]
        self.train, self.test = (store.blocks(kept) for store in stores)
        if column is None:
            labels: list[Any] = [store.labels for store in stores]
        else:
            rows = [Rows(Path(one), Path(source)) for one, source in zip((train, test), column[:2], strict=True)]
            labels = [labels_of(store, row, column[2]) for store, row in zip(stores, rows, strict=True)]
        self.labels, self.test_labels = (np.asarray(one) for one in labels)
        self.info = stores[0].blocks_info
        self.whiteners: dict[tuple[str, Any], Axes] = {}

    def subset(self, families: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {
            name: block
            for name, block in self.train.items()
            if name == "embedding" or family(name) in families or name.partition("@")[0] in families
        }

    def passes(self, names: Any) -> int:
        return sum({self.info[name]["views"]: self.info[name]["passes"] for name in names}.values())

    def right(self, combination: Combination, rows: np.ndarray) -> tuple[np.ndarray, int, int]:
        """Which test rows are right with these labelled rows, k chosen by leave-one-out among them; k; passes."""
        combiner = combination.fit(self.train, self.whiteners)
        features = combiner.transform({name: self.train[name][rows] for name in combiner.names})
        table = choose_k(features, self.labels[rows])
        k = max(table, key=lambda one: (table[one], -one))
        guess = knn_predict(features, self.labels[rows], combiner.transform(self.test), k)
        return guess == self.test_labels, k, self.passes(combiner.names)


def _kept(name: str, target: str | None, drop: list[str]) -> bool:
    if "@" in name and target is not None and not name.endswith(target):
        return False
    return not any(name.startswith(one) or name.endswith(one) for one in drop)


def measure(pair: Pair, rows: np.ndarray) -> dict[str, tuple[np.ndarray, int, int, str]]:
    """For each row of the table: right or wrong by test row, k, passes, and what was chosen."""
    fixed = dict(EMBEDDINGS)
    if any(family(name) == "gradients" for name in pair.train):
        fixed["paper"] = named("paper")
    fixed["decorrelated"] = named("decorrelated")
    found = {name: (*pair.right(one, rows), "") for name, one in fixed.items()}
    labels = np.full(len(pair.labels), None, dtype=object)
    labels[rows] = pair.labels[rows]
    for name, families in SUBSETS.items():
        blocks = pair.subset(families)
        if not all(any(one in (family(block), block.partition("@")[0]) for block in blocks) for one in families):
            continue
        choice = select(blocks, labels, predictors=("kNN",))
        found[name] = (*pair.right(choice.combination, rows), choice.name)
    return found


def table(pair: Pair, shots: int | None, seeds: int) -> Iterator[dict[str, Any]]:
    """One entry a row: accuracy, gain over the better embedding, interval or standard deviation."""
    every = [np.arange(len(pair.labels))] if shots is None else list(draws(pair.labels, shots, seeds))
    runs = [measure(pair, rows) for rows in every]
    for name in runs[0]:
        gains, values = [], []
        for run in runs:
            best = max(EMBEDDINGS, key=lambda one, run=run: run[one][0].mean())  # type: ignore[misc]
            values.append(run[name][0].mean())
            gains.append(values[-1] - run[best][0].mean())
        entry = {
            "name": name,
            "passes": sorted({run[name][2] for run in runs}),
            "k": sorted({run[name][1] for run in runs}),
        }
        entry |= {
            "value": float(np.mean(values)),
            "gain": float(np.mean(gains)),
            "chosen": [run[name][3] for run in runs],
        }
        if shots is None:
            best = max(EMBEDDINGS, key=lambda one: runs[0][one][0].mean())
            interval = bootstrap_difference(runs[0][best][0], runs[0][name][0])
            entry |= {"low": interval.low, "high": interval.high}
        else:
            entry["spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        yield entry


def added(pair: Pair, rows: np.ndarray) -> Iterator[tuple[str, float, float, Any]]:
    """What gradients add to the same families without them, each side with its best exponent and weights.

    Gives a name, top-1 without and with, and the interval of the difference over the test rows.
    """
    labels = np.full(len(pair.labels), None, dtype=object)
    labels[rows] = pair.labels[rows]
    objectives = list(dict.fromkeys(name.partition("@")[0] for name in pair.train if family(name) == "gradients"))
    free = [one for one in objectives if any(pair.info[n]["passes"] == 1 for n in pair.train if n.startswith(one))]
    views = any(family(name) == "views" for name in pair.train)
    steps = [(f"{one} to layers", ("layers",), (one,)) for one in free]
    if views:
        steps += [(f"{one} to layers and views", ("layers", "views"), (one,)) for one in objectives]
        steps += [("all gradients to layers and views", ("layers", "views"), tuple(objectives))]
    known: dict[tuple[str, ...], np.ndarray] = {}

    def right(families: tuple[str, ...]) -> np.ndarray:
        if families not in known:
            blocks = pair.subset(families)
            ways = {}
            for start in ((), ("embedding",)):
                names = tuple(name for name in blocks if name != "embedding" or start)
                of = [family(name) for name in names]
                alike = tuple((1 / of.count(one)) ** 0.5 for one in of)
                for exponent in (None, 0.5, 0.75, 1.0):
                    how = {} if exponent is None else {"whiten": "auto", "exponent": exponent}
                    for weights in (None, alike):
                        ways[f"{start} {exponent} {weights is None}"] = Combination(names, weights=weights, **how)
            table = leave_one_out_of(blocks, labels, ways, ("kNN",))
            best = max(ways, key=lambda name: table[name]["kNN"].value)
            known[families] = pair.right(ways[best], rows)[0]
        return known[families]

    for title, without, more in steps:
        a, b = right(without), right((*without, *more))
        yield title, float(a.mean()), float(b.mean()), bootstrap_difference(a, b)


def show_added(pair: Pair, shots: int | None, seeds: int) -> None:
    every = [np.arange(len(pair.labels))] if shots is None else list(draws(pair.labels, shots, seeds))
    runs = [list(added(pair, rows)) for rows in every]
    print("\n| added | without | with | difference |\n|---|---|---|---|")
    for at, (title, *_) in enumerate(runs[0]):
        without, more = (float(np.mean([run[at][side] for run in runs])) for side in (1, 2))
        sure = f" ({100 * runs[0][at][3].low:+.1f} to {100 * runs[0][at][3].high:+.1f})" if shots is None else ""
        print(f"| {title} | {100 * without:.1f} | {100 * more:.1f} | {100 * (more - without):+.1f}{sure} |", flush=True)


def show(entries: list[dict[str, Any]]) -> None:
    print("| features | passes | k | top-1 | gain | chosen |\n|---|---|---|---|---|---|")
    for one in entries:
        passes, ks = ("-".join(map(str, sorted({min(v), max(v)}))) for v in (one["passes"], one["k"]))
        if "low" in one:
            sure = f" ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
            value = f"{100 * one['value']:.1f}"
        else:
            sure, value = "", f"{100 * one['value']:.1f} ± {100 * (one['spread'] or 0):.1f}"
        chosen = "; ".join(dict.fromkeys(filter(None, one["chosen"])))
        print(f"| {one['name']} | {passes} | {ks} | {value} | {100 * one['gain']:+.1f}{sure} | {chosen} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", help="TRAIN TEST [TRAIN TEST ...]")
    parser.add_argument("--target", help="of stores with several target layers, read this one (its path's end)")
    parser.add_argument("--drop", default="", help="comma-separated beginnings or ends of block names to leave out")
    parser.add_argument("--label-from", nargs=3, metavar=("TRAIN", "TEST", "COLUMN"), help="other labels of one pair")
    parser.add_argument("--shots", default="all,5", help="comma-separated; all for every label")
    parser.add_argument("--seeds", type=int, default=3, help="draws of few shots")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    column = tuple(options.label_from) if options.label_from else None
    drop = [word for word in options.drop.split(",") if word]
    made = []
    for train, test in zip(options.stores[::2], options.stores[1::2], strict=True):
        pair = Pair(train, test, options.target, column, drop)
        for word in options.shots.split(","):
            shots = None if word == "all" else int(word)
            title = (
                f"{pair.name}: {'all labels' if shots is None else f'{shots} labels a class, {options.seeds} draws'}"
            )
            entries = list(table(pair, shots, options.seeds))
            made.append({"title": title, "entries": entries})
            if not options.json:
                print(f"\n{title}; {len(pair.labels)} training rows, {len(pair.test_labels)} test rows\n")
                show(entries)
                show_added(pair, shots, options.seeds)
    if options.json:
        print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
