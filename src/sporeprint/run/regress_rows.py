"""Predict numbers for every row of a store, which needs no labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import RecipeError, RowFailure, StoreError
from sporeprint.evaluate.choice.candidates import candidate_of, short_table
from sporeprint.evaluate.choice.judges import pair_of
from sporeprint.evaluate.regress import METHODS, fit_and_leave_out
from sporeprint.features.combine import named
from sporeprint.predictors.knn_regressor import KNNRegressor, mean_of, r2_of
from sporeprint.predictors.ridge_regressor import RidgeRegressor
from sporeprint.run.answer_columns import Columns, regressed_columns
from sporeprint.run.asked_rows import notes_of_both, read_both
from sporeprint.run.combination_flags import Wanted
from sporeprint.run.store_pair import classes_hint, count, number_of, targets_of
from sporeprint.run.store_source import Rows
from sporeprint.run.training_rows import TrainingRows


@dataclass(frozen=True)
class Regressed:
    """Predicted numbers. title: of features and predictor. columns: of the file. leave_one_out, value: R^2.

    value: on the `compared` rows whose number is known, NaN where there are none. failures: rows without features.
    notes: what a reader must know, a sentence each. judged: how training rows were left out, in words.
    """

    title: str
    columns: Columns
    leave_one_out: float
    value: float
    compared: int
    failures: list[RowFailure]
    notes: tuple[str, ...]
    judged: str

    def verdict(self, out: Path) -> str:
        """Return the answer in a sentence."""
        seen = f"R^2 {self.leave_one_out:.3f} {self.judged}"
        if self.compared:
            seen += f", {self.value:.3f} on {count(self.compared, 'labelled test row')}"
        return f"{out}: numbers of {count(len(self.columns['id']), 'row')} by {self.title}; {seen}."

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.title,
            "rows": len(self.columns["id"]),
            "leave_one_out": self.leave_one_out,
            "r2": self.value,
            "compared": self.compared,
            "failures": [failure.to_json() for failure in self.failures],
            "notes": list(self.notes),
        }


def regress_rows(
    train: Rows,
    test: Rows,
    what: Wanted,
    label_column: str | None = None,
    group_column: str | None = None,
    method: str = "auto",
    k: Any = "auto",
    standardise: bool = False,
    progress: Callable[[str], None] = lambda _: None,
    **voting: Any,
) -> Regressed:
    """Fit on the labelled rows of a store, and predict the numbers of another's rows.

    what: how features are made; where no way is named, the one of `regress`'s table with the best leave-one-out R^2.
    group_column: of the training rows' source; rows of one group are left out together. method: "knn", "ridge", or
    "auto" for the one with the better leave-one-out R^2. k, voting: of `KNNRegressor`.
    Raises StoreError, RecipeError, SourceError.
    """
    if what.loo:
        raise RecipeError("--combination loo chooses by classes, and these labels are numbers; leave it out")
    if standardise:
        raise RecipeError("--standardise is for the table of figures, without --out; leave it out")
    trained, asked = read_both(train, test, what.reads, label_column, group_column)
    assert asked is not None
    targets = targets_of(trained.labels, train.store)
    if len(targets) < 2:
        raise StoreError(f"{train.store} has one labelled row; predicting numbers takes at least 2")
    names = list(trained.blocks)
    listed = short_table(names) if what.combination is None else [candidate_of(what.combination, names, what.name)]
    best: tuple[Any, ...] | None = None
    for candidate in listed:
        progress(f"leave-one-out: {candidate.name}")
        combiner = named(candidate.combination, what.size).fit(trained.blocks)
        features = combiner.transform(trained.blocks)
        for word in METHODS if method == "auto" else (method,):
            model: Any = KNNRegressor(k, **voting) if word == "knn" else RidgeRegressor()
            value = fit_and_leave_out(model, features, targets, trained.groups)
            if best is None or value > best[0]:
                best = value, candidate.name, combiner, model, features
    assert best is not None
    value, name, combiner, model, features = best
    training = TrainingRows.of(trained.ids, _as_numbers(trained.labels), features)
    others = combiner.transform(asked.blocks)
    predicted = model.predict(others)
    truth, compared, notes = _truth(asked.labels, predicted, test.store)
    columns = regressed_columns(
        predicted,
        training,
        asked.ids,
        others,
        _as_numbers(asked.labels).tolist() if any(_known(asked.labels)) else None,
    )
    how = f"kNN, k = {model.k_}" if isinstance(model, KNNRegressor) else "ridge"
    both = notes_of_both(trained, asked, test, group_column)
    hint = [note] if (note := classes_hint(targets)) else []
    said = (*trained.notes, *hint, *both, *notes)
    judged = "by leave-one-out" if trained.groups is None else "by leave-one-group-out"
    return Regressed(pair_of(name, how), columns, value, truth, compared, asked.failures, said, judged)


def _as_numbers(labels: np.ndarray) -> np.ndarray:
    """The labels, texts as the numbers that they are read as."""
    read = [number_of(label) if isinstance(label, str) else None for label in labels.tolist()]
    numbers = np.empty(len(labels), object)
    numbers[:] = [label if number is None else number for label, number in zip(labels.tolist(), read, strict=True)]
    return numbers


def _known(labels: np.ndarray) -> list[bool]:
    return [label is not None for label in labels]


def _truth(labels: np.ndarray, predicted: np.ndarray, store: Path) -> tuple[float, int, list[str]]:
    """Return R^2 on the rows whose numbers are known, how many those are, and what is to be said of others."""
    has = np.array(_known(labels), dtype=bool)
    if not has.any():
        return float("nan"), 0, []
    try:
        truth = targets_of(labels[has], store)
    except StoreError as error:
        return float("nan"), 0, [f"the predictions are not compared with the test rows' labels: {error}"]
    if truth.shape != predicted[has].shape:
        return float("nan"), 0, ["the test rows have another number of targets: the predictions are not compared"]
    value = mean_of(r2_of(truth.reshape(len(truth), -1), predicted[has].reshape(len(truth), -1)))
    return value, int(has.sum()), []
