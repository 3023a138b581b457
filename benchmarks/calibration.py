"""Are probabilities right, and do prediction sets hold their error? Measured on test rows that nothing was fitted on.

    python benchmarks/calibration.py trec-train:trec-test banking-train:banking-test

Each argument is a pair of labelled stores, the second made with --fit-from the first. Features are the layers,
half-whitened on the training rows. "before" is the softmax of a predictor's scores as they are, "after" that of the
scores divided by the temperature which exact leave-one-out on the training rows fits. ECE: expected calibration error
of the most probable class, in 15 bins of equally many rows. Brier: squared error summed over classes, from 0 to 2.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sporeprint import Combination, Store
from sporeprint.evaluate.choice.judges import PREDICTORS
from sporeprint.predictors.conformal import least_probability, own_probabilities, rows_needed

FEATURES = Combination(("layers",), "auto", exponent=0.5)
PREDICTORS_MEASURED = ("kNN", "class means", "LDA", "ridge")
ERRORS, BINS = (0.05, 0.1, 0.2), 15


def figures(probabilities: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """Brier score, log loss and expected calibration error of probabilities [M, C] for classes `codes` [M]."""
    rows = np.arange(len(codes))
    wrong = probabilities.copy()
    wrong[rows, codes] -= 1
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == codes
    parts = np.array_split(np.argsort(sure.round(9), kind="stable"), BINS)  # equal but for rounding: as rows come
    return {
        "Brier": float((wrong**2).sum(axis=1).mean()),
        "log loss": float(-np.log(np.maximum(probabilities[rows, codes], 1e-12)).mean()),
        "ECE": sum(abs(sure[part].mean() - right[part].mean()) * len(part) for part in parts if len(part)) / len(codes),
    }


def measure(train_path: str, test_path: str) -> list[list[str]]:
    """Print a row of figures for each predictor; returns the rows of the table of prediction sets."""
    train, test = Store.open(train_path), Store.open(test_path)
    blocks = train.blocks()
    combiner = FEATURES.fit(blocks)
    features, others = combiner.transform(blocks), combiner.transform(test.blocks(combiner.names))
    labels, truth = train.labels, test.labels
    if labels is None or truth is None:
        raise SystemExit(f"{train_path} and {test_path}: both need labels")
    name, rows_of_sets = Path(train_path).name.removesuffix("-train"), []
    for word in PREDICTORS_MEASURED:
        predictor = PREDICTORS[word]()
        left_out = predictor.leave_one_out(features, labels)
        known = np.isin(truth, predictor.classes_)  # the others' class has no probability
        codes = np.searchsorted(predictor.classes_, truth[known])
        after = predictor.predict_proba(others[known])
        predictor.temperature_ = 1.0
        before = figures(predictor.predict_proba(others[known]), codes)
        cells = [name, word, f"{100 * np.mean(after.argmax(axis=1) == codes):.1f}"]
        for key, value in figures(after, codes).items():
            cells += [f"{before[key]:.3f}", f"{value:.3f}"]
        print_row(cells)
        own, cells = own_probabilities(left_out.probabilities, left_out.codes), [name, word]
        for error in ERRORS:
            if len(own) < rows_needed(error):
                cells.append("too few rows")
                continue
            sets = after >= least_probability(own, error)
            held, single = sets[np.arange(len(codes)), codes].mean(), (sets.sum(axis=1) == 1).mean()
            cells.append(f"{100 * held:.1f} ({100 * single:.0f})")
        rows_of_sets.append(cells)
    return rows_of_sets


def print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="TRAIN:TEST")
    head = ["set", "predictor", "top-1 %"]
    head += [text for key in ("Brier", "log loss", "ECE") for text in (f"{key} before", "after")]
    print_row(head)
    print("|" + "---|" * len(head))
    rows_of_sets = [row for pair in parser.parse_args().pairs for row in measure(*pair.split(":"))]
    print("\nShare of the sets that hold the true label, in % (rows with one label in their set, in %):\n")
    print_row(["set", "predictor", *(f"{error:g}" for error in ERRORS)])
    print("|" + "---|" * (2 + len(ERRORS)))
    for row in rows_of_sets:
        print_row(row)
