"""The base of predictors that learn from unlabelled rows too: which rows are labelled, calibration on hidden labels."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.predictors.calibration import probabilities, temperature
from sporeprint.predictors.checks import as_given, check_classes, labels_of
from sporeprint.predictors.predictor import LeftOut

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]
_S = TypeVar("_S", bound="SemiSupervised")

FOLDS = 5  # of the labelled rows, whose labels are hidden in turn
UNLABELLED = -1  # scikit-learn's mark; None in labels that are texts


class SemiSupervised(ClassifierMixin, BaseEstimator):
    """A classifier that is fitted on labelled and unlabelled rows together.

    `classes_`: [C], sorted. `transduction_`: a class for every fitted row [N]; a labelled row keeps its own.
    `label_distributions_`: calibrated probabilities of every fitted row [N, C], 1 for a labelled row's own class.
    `left_out_`: what each labelled row is told where its label is hidden, a fifth of each class at a time.
    `temperature_`: the one that suits those answers best.
    """

    @quiet_floats
    def fit(self: _S, X: ArrayLike, y: ArrayLike) -> _S:
        """Fit on features X [N, D] and labels y [N], where -1 or None marks a row without a label, as in scikit-learn.

        Raises ValueError for NaN, labels that are not classes, and where no row has a label.
        """
        rows = validate_data(self, X, dtype=(np.float32, np.float64))
        labelled, codes = self._marked(y, len(rows))
        unlabelled = np.setdiff1d(np.arange(len(rows)), labelled)
        self._prepare(rows)
        held = self._hidden(labelled, codes, unlabelled)
        self.temperature_ = temperature(held, codes)
        self.left_out_ = LeftOut(held, self.classes_, codes, self.temperature_)
        self.label_distributions_ = probabilities(self._solve(labelled, codes, unlabelled), self.temperature_)
        self._finish()
        self.label_distributions_[labelled] = np.eye(len(self.classes_))[codes]
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        return self

    @quiet_floats
    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return calibrated probabilities [M, C] of other rows X [M, D], in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return probabilities(self._scores(rows), self.temperature_)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class [M] of other rows X [M, D]."""
        probable = self.predict_proba(X)
        return self.classes_[probable.argmax(axis=1)]

    def _marked(self, y: ArrayLike, rows: int) -> tuple[Numbers, Numbers]:
        """Return the numbers [n] of the labelled rows, and their codes [n] of `classes_`."""
        if y is None:
            raise SampleError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        labels = column_or_1d(as_given(y), warn=True)
        if labels.shape != (rows,):
            raise SampleError(f"labels have shape {labels.shape} for {rows} rows; expected one label, -1 or None a row")
        labelled = np.flatnonzero([label is not None and label != UNLABELLED for label in labels.tolist()])
        if not len(labelled):
            raise SampleError(f"none of {rows} rows has a label (-1 and None mark those without); label some rows")
        known = labels_of(labels[labelled], len(labelled), "train")
        check_classes(known)
        self.classes_, codes = np.unique(known, return_inverse=True)
        return labelled, codes

    def _hidden(self, labelled: Numbers, codes: Numbers, unlabelled: Numbers) -> Floats:
        """Return scores [n, C] of the labelled rows, a fold of which is among the unlabelled rows at a time."""
        held = np.full((len(codes), len(self.classes_)), -np.inf)
        held[np.arange(len(codes)), codes] = 0
        folds = folds_of(codes)
        for fold in range(folds.max() + 1):
            hidden, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if len(rest):
                others = np.concatenate([labelled[hidden], unlabelled])
                held[hidden] = self._solve(labelled[rest], codes[rest], others)[labelled[hidden]]
        return held

    @abstractmethod
    def _prepare(self, rows: NDArray[Any]) -> None:
        """Do what does not depend on labels, for rows [N, D]."""

    @abstractmethod
    def _solve(self, labelled: Numbers, codes: Numbers, unlabelled: Numbers) -> Floats:
        """Return scores [N, C] of all fitted rows; the softmax of scores / temperature are probabilities.

        labelled: [n], row numbers. codes: [n], their classes; minus infinity is the score of a class that none has.
        unlabelled: [m], row numbers.
        """

    @abstractmethod
    def _finish(self) -> None:
        """Keep what `_scores` needs of the last `_solve`, and drop the rest."""

    @abstractmethod
    def _scores(self, rows: NDArray[Any]) -> Floats:
        """Return scores [M, C] of other rows [M, D]."""


def folds_of(codes: Numbers) -> Numbers:
    """Return the fold [n] of each labelled row, dealt out class by class: each has about as many rows of a class."""
    counts = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    folds = np.empty(len(codes), np.intp)
    folds[order] = (np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)) % min(FOLDS, counts.max())
    return folds
