"""A predictor answers from features: a scikit-learn classifier in closed form, with exact leave-one-out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import warn
from sporeprint.features.unit import unit_float64
from sporeprint.predictors.calibration import probabilities, temperature
from sporeprint.predictors.checks import CHECKS, as_given, as_sample_errors, check_classes, features_of, labels_of
from sporeprint.predictors.groups import Groups, check_two_groups, groups_of, rows_in
from sporeprint.predictors.principal import Principal
from sporeprint.predictors.row_order import content_order
from sporeprint.search.best_rows import slices
from sporeprint.search.points import scale_of

_NUMBERS = 2**22  # of rows at a time
_P = TypeVar("_P", bound="Predictor")
MOST_ASKING = 3000  # rows whose leave-one-out sets the temperature, drawn evenly; all rows answer


@dataclass(frozen=True)
class LeftOut:
    """What a predictor says of each training row without having seen it, nor its group.

    scores: [N, C], of whatever kind the predictor gives; minus infinity for a class that no other row has. classes:
    [C]. codes: [N], the number of each row's own class. temperature: of `probabilities`, fitted on these scores.
    """

    scores: NDArray[np.float64]
    classes: NDArray[Any]
    codes: NDArray[np.intp]
    temperature: float

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities [N, C]."""
        return probabilities(self.scores, self.temperature)

    @property
    def predictions(self) -> NDArray[Any]:
        """The most probable class of each row [N]."""
        return self.classes[self.scores.argmax(axis=1)]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each row [N] is classified rightly."""
        right: NDArray[np.bool_] = self.scores.argmax(axis=1) == self.codes
        return right & np.isfinite(self.scores[np.arange(len(self.codes)), self.codes])

    @property
    def losses(self) -> NDArray[np.float64]:
        """The squared error of the probabilities of each row [N], summed over classes: from 0 to 2 (Brier 1950)."""
        wrong = self.probabilities
        wrong[np.arange(len(wrong)), self.codes] -= 1
        return (wrong**2).sum(axis=1)


class Predictor(ClassifierMixin, BaseEstimator):
    """The base of the classifiers: it checks rows and labels, calibrates, and leaves the solve to `_fit`.

    `classes_`: [C], sorted. `temperature_`: what scores are divided by before they become probabilities.
    """

    _kept: ClassVar[Mapping[str, Any]] = {"temperature_": ""}  # what `save_predictor` keeps
    _working: ClassVar[tuple[str, ...]] = ()  # what only leave-one-out reads: attributes that go when it is done

    @quiet_floats
    def fit(self: _P, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> _P:
        """Fit on features X [N, D] and labels y [N]. groups: [N], rows of one group are left out together.

        scikit-learn's `cross_val_score(groups=g)` gives them to its splitter alone; add `params={"groups": g}` for this
        fit. Raises SampleError for NaN, labels that are not classes, and counts that do not match.
        """
        rows, codes, apart = self._checked(X, y, groups)
        self._fit(rows, codes, apart)
        asking = _drawn(rows, codes, apart)
        self.temperature_ = self._calibrated(self._left_out(rows, codes, asking), codes[rows_in(asking)])
        self._forget()
        return self

    @quiet_floats
    def fit_uncalibrated(self: _P, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> _P:
        """`fit` for who asks for labels alone: `predict` is the same, probabilities are as the scores come."""
        rows, codes, apart = self._checked(X, y, groups)
        self._fit(rows, codes, apart)
        self.temperature_ = 1.0
        self._forget()
        return self

    @quiet_floats
    def leave_one_out(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> LeftOut:
        """Fit on X [N, D], y [N], and return what all rows outside its group say of each row.

        It is what N fits would give, for the price of about one; what they choose (a penalty, k) is chosen once, by all
        rows. Raises SampleError as `fit`, and for a single row.
        """
        rows, codes, apart = self._checked(X, y, groups)
        check_two_groups(apart)
        self._fit(rows, codes, apart)
        scores = self._left_out(rows, codes, apart)
        self.temperature_ = self._calibrated(scores, codes)
        self._forget()
        return LeftOut(scores, self.classes_, codes, self.temperature_)

    @quiet_floats
    def leave_one_out_of(self, principal: Principal, codes: NDArray[np.intp], groups: Groups) -> LeftOut:
        """`leave_one_out` from coordinates that several predictors share; codes [N] count from 0. Fits nothing else."""
        self.classes_ = np.arange(codes.max() + 1)
        points = principal.hold()
        self._solve(principal, points, codes, groups)
        scores = self._left_out(points, codes, groups)
        self._forget()
        return LeftOut(scores, self.classes_, codes, temperature(scores, codes))

    def _checked(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[np.intp], Groups]:
        with as_sample_errors():
            rows, labels = validate_data(self, X, as_given(y), **CHECKS)
            labels = labels_of(labels, len(features_of(rows, "train")), "train")
            check_classes(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        return rows, codes, groups_of(groups, len(rows))

    def _calibrated(self, scores: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
        if len(self.classes_) > 1 and np.isneginf(scores[np.arange(len(codes)), codes]).all():
            warn(
                f"{type(self).__name__}: every class has one row, or rows of one group, alone, so probabilities "
                "are not calibrated; give two rows of a class, of different groups"
            )
        return temperature(scores, codes)

    def _forget(self) -> None:
        for name in self._working:
            self.__dict__.pop(name, None)

    @quiet_floats
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities [M, C] of rows X [M, D], in the order of `classes_`."""
        return probabilities(self._checked_scores(X), self.temperature_)

    @quiet_floats
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class [M] of rows X [M, D]."""
        scores = self._checked_scores(X)
        return self.classes_[scores.argmax(axis=1)]

    def _checked_scores(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        with as_sample_errors():
            rows = features_of(validate_data(self, X, reset=False, **CHECKS), "test")
        return self._scores(rows)

    @abstractmethod
    def _fit(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> None:
        """Solve for rows [N, D] and codes [N] of `classes_`. groups: for what leave-one-out chooses."""

    def _solve(self, principal: Principal, rows: Any, codes: NDArray[np.intp], groups: Groups) -> None:
        """Solve for coordinates [N, R] that are given; for a predictor that needs no other, they are rows."""
        self._fit(rows, codes, groups)

    @abstractmethod
    def _scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Scores [M, C] of rows [M, D]; the softmax of scores / temperature are probabilities."""

    @abstractmethod
    def _left_out(self, rows: Any, codes: NDArray[np.intp], groups: Groups) -> NDArray[np.float64]:
        """Scores [M, C] of the M fitted rows that are in the groups, by number, each without its group."""


def _drawn(rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> Groups:
    """Return at most MOST_ASKING groups, evenly spread over all in an order that the rows' content decides."""
    if len(groups) <= MOST_ASKING:
        return groups
    places = np.argsort(content_order(rows, codes))
    ordered = sorted(groups, key=lambda group: int(places[group].min()))
    return ordered[:: -(-len(groups) // MOST_ASKING)]


class LinearPredictor(Predictor):
    """A predictor whose scores are linear in the rows. `coef_`: [C, D], `intercept_`: [C]."""

    _kept: ClassVar[Mapping[str, Any]] = {**Predictor._kept, "coef_": "CD", "intercept_": "C"}
    _unit = False  # whether rows are brought to length 1
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]

    def _checked(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[np.intp], Groups]:
        rows, codes, apart = super()._checked(X, y, groups)
        if not self._unit:
            scale_of(rows)  # refuses numbers whose squares overflow
        return rows, codes, apart

    def _scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        return linear_scores(rows, self.coef_, self.intercept_, self._unit)


def linear_scores(
    rows: NDArray[Any], weights: NDArray[np.float64], intercepts: NDArray[np.float64], unit: bool
) -> NDArray[np.float64]:
    """Return scores [M, C] of rows [M, D], part by part. weights: [C, D]. unit: rows are brought to length 1 first."""
    scores = np.empty((len(rows), len(weights)))
    for part in slices(len(rows), _NUMBERS, rows.shape[1]):
        numbers = unit_float64(rows[part]) if unit else rows[part].astype(np.float64)
        scores[part] = numbers @ weights.T + intercepts
    return scores
