"""Which features under which predictor answer best? Stores of train and test rows in pairs; tables for docs/results.md.

python benchmarks/answers.py TRAIN TEST [TRAIN TEST ...] [--label-from TRAIN TEST COLUMN] [--save FILE]
python benchmarks/answers.py --load FILE... --chosen-on trec,flowers,digits

The first form measures sets, the second prints the aims of all that were saved, set by set. Everything is chosen on the
labelled training rows: how strongly each feature is whitened, k, the penalty, which closed form (LDA, ridge, class
means). kNN and the closed forms choose by leave-one-out loss. The probe takes the whitening that ridge chose and its
penalty by its own validation, so it is fitted once for each feature, and in five folds for the reference alone. The
reference is the best of kNN, LDA, ridge and probe on the raw and the half-whitened embedding by training loss. "choice"
is what `select` returns. Few-shot: labels of 5 rows a class; whitening is fitted on all training rows, unlabelled.
With 1,000 rows, leave-one-out of all four predictors takes about 2 s of one core for each of 51 kinds of features; the
probes (7 fits and 10 folds) and the refits come on top. Few-shot draws have fewer rows and take less.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from sporeprint import Combination, Probe, Store, select
from sporeprint.evaluate.choice.candidates import RAW, REFERENCES, choices, joined, title_of
from sporeprint.evaluate.choice.intervals import bootstrap_difference
from sporeprint.evaluate.choice.judges import PREDICTORS, title_of_predictor
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.shots import draws
from sporeprint.features.blocks import family
from sporeprint.features.whiten import Axes
from sporeprint.run.store_source import Rows, labels_of

FEATURES = {
    "embedding": ("embedding",),
    "layers": ("embedding", "layers"),
    "views": ("embedding", "views"),
    "gradients": ("embedding", "gradients"),
    "all": ("embedding", "layers", "views", "gradients"),
}
EXPONENTS = (None, 0.5, 1.0)
JUDGES = {"kNN": ("kNN",), "closed form": ("LDA", "ridge", "class means")}
KNN_RAW, REFERENCE, CHOICE = "kNN on the raw embedding", "reference", "choice"
Right = np.ndarray  # [M], whether each test row is right
Runs = dict[str, tuple[Right, str]]  # by row and judge: right, and what was chosen


class Pair:
    """Blocks and labels of two stores. column: of other labels, with the files of training and test rows."""

    def __init__(self, train: str, test: str, column: tuple[str, str, str] | None):
        stores = Store.open(train), Store.open(test)
        self.name = Path(train).name.removesuffix("-train") + (f" ({column[2]})" if column else "")
        self.train, self.test = (store.blocks(stores[0].block_names) for store in stores)
        labels: list[Any] = [store.labels for store in stores]
        if column is not None:
            rows = [Rows(Path(store), Path(source)) for store, source in zip((train, test), column[:2], strict=True)]
            labels = [labels_of(store, row, column[2]) for store, row in zip(stores, rows, strict=True)]
        self.labels, self.test_labels = (np.asarray(values) for values in labels)
        self.whiteners: dict[tuple[str, Any], Axes] = {}

    def right(self, how: Combination, predictor: Any, rows: np.ndarray) -> Right:
        """Whether each test row is right, by a predictor that is fitted on these labelled rows."""
        combiner = how.fit(self.train, self.whiteners)
        features = combiner.transform({name: self.train[name][rows] for name in combiner.names})
        fitted = clone(predictor).fit(features, self.labels[rows])
        return np.asarray(fitted.predict(combiner.transform(self.test)) == self.test_labels)


def measure(pair: Pair, rows: np.ndarray) -> Runs:
    """Every feature under every judge, the reference, and the choice, with the labels of these rows."""
    labels = np.full(len(pair.labels), None, dtype=object)
    labels[rows] = pair.labels[rows]
    listed = choices(list(pair.train))
    families = {"embedding", *map(family, pair.train)}
    ways = {
        name: [title_of(joined(blocks, exponent)) for exponent in EXPONENTS]
        for name, blocks in {**FEATURES, "all": tuple(filter(families.__contains__, FEATURES["all"]))}.items()
        if families.issuperset(blocks)
    }
    asked = {title: listed[title] for titles in ways.values() for title in titles}
    outcomes = leave_one_out_of(pair.train, labels, asked, tuple(PREDICTORS), probed=tuple(REFERENCES))
    found: Runs = {}

    def add(row: str, features: Iterable[str], words: Iterable[str], predictor: Any = None) -> None:
        """Of these features and predictors take those with the least training loss. predictor: instead of it."""
        pairs = [(name, word) for name in features for word in words if word in outcomes[name]]
        name, word = min(pairs, key=lambda which: outcomes[which[0]][which[1]].loss)
        taken = predictor or outcomes[name][word].predictor
        found[row] = pair.right(listed[name], taken, rows), f"{name}, {title_of_predictor(taken)}"

    add(KNN_RAW, [RAW], ["kNN"])
    for name, titles in ways.items():
        for judge, words in JUDGES.items():
            add(f"{name} | {judge}", titles, words)
        add(f"{name} | probe", titles, ["ridge"], Probe())
    add(REFERENCE, REFERENCES, ["kNN", "LDA", "ridge", "probe"])
    choice = select(pair.train, labels)
    chosen = f"{choice.name}, {title_of_predictor(choice.predictor)}"
    found[CHOICE] = pair.right(choice.combination, choice.predictor, rows), chosen
    return found


def figures(pair: Pair, shots: int | None, count: int) -> dict[str, Any]:
    """Top-1 of every row and judge, in %, by draw, and gains of the choice with their intervals."""
    subsets = [np.arange(len(pair.labels))] if shots is None else list(draws(pair.labels, shots, count))
    runs = [measure(pair, rows) for rows in subsets]
    values = {name: [100 * float(run[name][0].mean()) for run in runs] for name in runs[0]}
    gains = {}
    for base in (KNN_RAW, REFERENCE):
        before, after = (np.mean([run[name][0] for run in runs], axis=0) for name in (base, CHOICE))
        interval = bootstrap_difference(before, after)
        gains[base] = [100 * value for value in (interval.value, interval.low, interval.high)]
    chosen = {name: [run[name][1] for run in runs] for name in runs[0]}
    counts = {"train": len(subsets[0]), "test": len(pair.test_labels), "classes": len(np.unique(pair.labels))}
    return {"set": pair.name, "shots": shots, "values": values, "gains": gains, "chosen": chosen, **counts}


def percent(values: list[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def show(figures: Sequence[Mapping[str, Any]]) -> None:
    """Print two tables of figures with the same number of labels a class, one set after another."""
    print("\n| set | features | kNN | closed form | probe |\n|---|---|---|---|---|")
    for figure in figures:
        for name in FEATURES:
            if f"{name} | probe" in figure["values"]:
                cells = [percent(figure["values"][f"{name} | {judge}"]) for judge in ("kNN", "closed form", "probe")]
                print(f"| {' | '.join((figure['set'], name, *cells))} |")
    print("\n| set | kNN, raw | reference | choice | over kNN | over the reference |\n|---|---|---|---|---|---|")
    for figure in figures:
        cells = [percent(figure["values"][KNN_RAW])]
        cells += [f"{percent(figure['values'][row])} ({often(figure['chosen'][row])})" for row in (REFERENCE, CHOICE)]
        cells += ["{:+.1f} ({:+.1f} to {:+.1f})".format(*figure["gains"][base]) for base in (KNN_RAW, REFERENCE)]
        print(f"| {' | '.join((figure['set'], *cells))} |", flush=True)


def often(chosen: Sequence[str]) -> str:
    """The most frequent of what the draws chose."""
    most = max(dict.fromkeys(chosen), key=chosen.count)
    return most if len(chosen) == 1 else f"{most}: {chosen.count(most)} of {len(chosen)} draws"


def show_aims(saved: Iterable[Mapping[str, Any]], chosen_on: list[str]) -> None:
    print("\n| labels | sets | against | mean gain | worst |\n|---|---|---|---|---|")
    for shots in dict.fromkeys(figure["shots"] for figure in saved):
        of = [figure for figure in saved if figure["shots"] == shots]
        for title, kept in (("untouched", [f for f in of if f["set"] not in chosen_on]), ("all", of)):
            for base in (KNN_RAW, REFERENCE):
                gains = {figure["set"]: figure["gains"][base][0] for figure in kept}
                if not gains:
                    continue
                worst = min(gains, key=gains.__getitem__)
                few = "all" if shots is None else f"{shots} a class"
                mean = f"{np.mean(list(gains.values())):+.1f}"
                print(f"| {few} | {len(kept)} {title} | {base} | {mean} | {gains[worst]:+.1f} ({worst}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", help="TRAIN TEST [TRAIN TEST ...]")
    parser.add_argument("--label-from", nargs=3, metavar=("TRAIN", "TEST", "COLUMN"), help="other labels, of one pair")
    parser.add_argument("--shots", default="all,5", help="comma-separated; all for every label")
    parser.add_argument("--draws", type=int, default=5, help="draws of few shots")
    parser.add_argument("--save", help="a file to append the figures to, as JSON, one set a line")
    parser.add_argument("--load", nargs="+", default=[], help="saved files to print instead")
    parser.add_argument("--chosen-on", default="trec,flowers,digits", help="sets on which the choice was designed")
    options = parser.parse_args()
    if bool(options.stores) == bool(options.load) or len(options.stores) % 2:
        sys.exit("give pairs of stores, TRAIN TEST, or --load FILE")
    column = tuple(options.label_from) if options.label_from else None
    made: list[dict[str, Any]] = []
    for file in options.load:
        made += map(json.loads, Path(file).read_text().splitlines())
    for train, test in zip(options.stores[::2], options.stores[1::2], strict=True):
        pair = Pair(train, test, column)
        for word in options.shots.split(","):
            made.append(figures(pair, None if word == "all" else int(word), options.draws))
            print(f"{pair.name}, {word}: done", file=sys.stderr)
            if options.save:
                with open(options.save, "a") as lines:
                    lines.write(json.dumps(made[-1]) + "\n")
    for shots in dict.fromkeys(figure["shots"] for figure in made):
        print(f"\n**{'All labels' if shots is None else f'{shots} labels a class'}**")
        show([figure for figure in made if figure["shots"] == shots])
    show_aims(made, options.chosen_on.split(","))


if __name__ == "__main__":
    main()
