"""What is written of each row that is asked about, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.conformal import least_probability
from sporeprint.run.training_rows import SHOWN, TrainingRows

Columns = dict[str, list[Any]]
_DIGITS = 6  # of probabilities and cosines, after the point
_SIGNIFICANT = "%.7g"  # of predicted numbers, whatever their size: what float32 features hold
CLASSIFIED, REGRESSED = ("id", "label", "probability"), ("id", "prediction")  # the first columns of a file of ours


def classified_columns(
    predictor: Any,
    training: TrainingRows,
    ids: Sequence[str],
    features: NDArray[np.float32],
    truth: Sequence[Any] | None = None,
    error: float | None = None,
    everything: bool = False,
) -> Columns:
    """Return the label of each row [M], its probability, the nearest training rows, and what else is asked for.

    predictor: a fitted classifier. truth: labels, None for a row without. error: adds prediction sets, as the column
    `set`, and `answer`: the label where it is the only one in its set. everything: adds a probability for each class.
    """
    probabilities = predictor.predict_proba(features)
    classes = predictor.classes_.tolist()
    best = probabilities.argmax(axis=1)
    columns: Columns = {
        "id": list(ids),
        "label": [classes[at] for at in best],
        "probability": _rounded(probabilities[np.arange(len(best)), best]),
    }
    if error is not None:
        sets = probabilities >= least_probability(training.own, error)
        columns["answer"] = [classes[row.argmax()] if row.sum() == 1 else None for row in sets]
        columns["set"] = [[classes[at] for at in np.flatnonzero(row)] for row in sets]
    columns |= neighbour_columns(training, features)
    if truth is not None:
        columns["true_label"] = list(truth)
    if everything:
        columns |= {f"probability_{name}": _rounded(probabilities[:, at]) for at, name in enumerate(classes)}
    return columns


def regressed_columns(
    predicted: NDArray[np.float64],
    training: TrainingRows,
    ids: Sequence[str],
    features: NDArray[np.float32],
    truth: Sequence[Any] | None = None,
) -> Columns:
    """Return the predictions [M] or [M, T] of each row, the nearest training rows, and its true number or numbers."""
    rounded = np.char.mod(_SIGNIFICANT, predicted).astype(np.float64)
    columns: Columns = {"id": list(ids), "prediction": rounded.tolist()} | neighbour_columns(training, features)
    if truth is not None:
        columns["true_value"] = list(truth)
    return columns


def neighbour_columns(training: TrainingRows, features: NDArray[np.float32]) -> Columns:
    """Return ids, labels and cosines of the nearest training rows; None where there are fewer than three."""
    rows, similarities = training.nearest(features)
    labels = training.labels.tolist()
    columns: Columns = {}
    for place in range(SHOWN):
        there = place < rows.shape[1]
        column = rows[:, place].tolist() if there else []
        nothing = [None] * (0 if there else len(features))
        columns[f"neighbour_{place + 1}"] = [training.ids[row] for row in column] or nothing
        columns[f"neighbour_{place + 1}_label"] = [labels[row] for row in column] or nothing
        columns[f"neighbour_{place + 1}_similarity"] = _rounded(similarities[:, place]) if there else nothing
    return columns


def _rounded(numbers: NDArray[np.float64]) -> list[float]:
    return np.round(numbers, _DIGITS).tolist()
