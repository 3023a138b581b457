"""Do unlabelled rows help to label themselves? Accuracy of a few labels a class, with and without the test rows.

    python benchmarks/unlabelled.py TRAIN_STORE [TEST_STORE] [--shots 5] [--draws 5] [--thin 10] [--layers]

The labelled rows are drawn from TRAIN_STORE, the rows of TEST_STORE have no labels. --thin 10 keeps a tenth of every
other class of the test rows, so that the classes are 10 : 1. Without TEST_STORE the other rows of TRAIN_STORE are
those without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint import Combination, Store
from sporeprint.evaluate.shots import draws
from sporeprint.predictors.label_propagation import Propagation
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.mixture import MixtureLDA
from sporeprint.predictors.unlabelled import GUARD, with_unlabelled

Rows = NDArray[Any]


def read(options: argparse.Namespace) -> tuple[Rows, Rows, Rows, Rows]:
    """Return features and labels of the training rows [N, D], [N], and of the test rows."""
    train = Store.open(options.train)
    names = [name for name in train.block_names if train.blocks_info[name]["family"] in ("embedding", "layers")]
    combiner = combination_of(options).fit(train.blocks(names))
    stores = [train, train if options.test is None else Store.open(options.test)]
    labels = [np.asarray(store.labels) for store in stores]
    features = [combiner.transform(store.blocks(names)) for store in stores]
    return features[0], labels[0], features[1], labels[1]


def combination_of(options: argparse.Namespace) -> Combination:
    if options.layers:
        return Combination(("embedding", "layers"), "auto", exponent=0.5)
    return Combination(("embedding",))


def drawn(options: argparse.Namespace) -> Iterator[tuple[Rows, Rows, Rows, Rows]]:
    """Yield labelled rows, their labels, unlabelled rows and their true labels, of one draw after another."""
    X, y, test, truth = read(options)
    for number, rows in enumerate(draws(y, options.shots, options.draws)):
        rest = np.setdiff1d(np.arange(len(y)), rows) if options.test is None else np.arange(len(truth))
        rng = np.random.default_rng([7, number])
        thinned = rng.permutation(np.unique(y))[::2] if options.thin > 1 else []
        keep = [
            rng.permutation(rest[truth[rest] == name])[: -(-(truth[rest] == name).sum() // options.thin)]
            if name in thinned
            else rest[truth[rest] == name]
            for name in np.unique(truth[rest])
        ]
        rest = np.sort(np.concatenate(keep))
        yield X[rows], y[rows], test[rest], truth[rest]


def brier(probable: Rows, classes: Rows, truth: Rows) -> float:
    return float(((probable - (truth[:, None] == classes)) ** 2).sum(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test", nargs="?")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--thin", type=int, default=1)
    parser.add_argument("--layers", action="store_true", help="half-whitened layers instead of the embedding")
    parser.add_argument("--each", action="store_true", help="print each draw")
    options = parser.parse_args()
    table: dict[str, list[float]] = {}
    used = 0
    for X, y, others, truth in drawn(options):
        marks = np.concatenate([np.unique(y, return_inverse=True)[1], np.full(len(others), -1)])
        lda = ShrunkLDA().fit(X, y)
        answers = {"LDA": lda.predict_proba(others)}
        for name, method, guard in (("EM", MixtureLDA(), GUARD), ("propagation", Propagation(), -GUARD)):
            method.fit(np.concatenate([X, others]), marks)
            answers[name] = method.label_distributions_[len(y) :]
            decided = with_unlabelled(X, y, others, method=method, guard=guard)
            answers[f"{name}, guarded"] = decided.probabilities
            used += decided.used if name == "EM" else 0
            if options.each:
                print(f"{name}: loss {decided.loss:+.3f} +- {decided.error:.3f}; {decided.why}")
        for name, probable in answers.items():
            right = float((lda.classes_[probable.argmax(axis=1)] == truth).mean())
            table.setdefault(name, []).append(100 * right)
            table.setdefault(f"{name}: loss", []).append(brier(probable, lda.classes_, truth))
    print(f"{len(lda.classes_)} classes, {len(y)} labels, {len(truth)} unlabelled rows; EM used in {used} draws")
    for name in [name for name in table if ":" not in name]:
        change = np.array(table[name]) - table["LDA"]
        loss = np.mean(table[f"{name}: loss"])
        accuracy = f"{np.mean(table[name]):5.1f} %  {change.mean():+5.1f} (worst {change.min():+5.1f})"
        print(f"{name:22} {accuracy}  loss {loss:.3f}")


if __name__ == "__main__":
    main()
