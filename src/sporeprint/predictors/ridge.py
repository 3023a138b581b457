"""Ridge regression on one-hot labels or numbers, its penalty by exact leave-one-out squared error (Allen's PRESS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError
from sporeprint.predictors.groups import Groups, absent_classes, parts_of, rows_in
from sporeprint.predictors.predictor import LinearPredictor
from sporeprint.predictors.principal import Floats, Principal
from sporeprint.search.best_rows import slices
from sporeprint.values import check_list, is_positive

PENALTIES = tuple(float(f"{digit}e{power}") for power in range(1, -9, -1) for digit in (3, 1))[1:]  # 10 first
_NUMBERS = 2**22  # of coordinates at a time
_LEAST = 1e-10  # of one minus a row's leverage


class Ridge(LinearPredictor):
    """Ridge regression on one-hot labels, with an intercept: it minimises mean squared error + penalty * |w|^2.

    It is a classifier, as scikit-learn's RidgeClassifierCV; `RidgeRegressor` predicts numbers.
    penalties: to choose from, for rows of mean squared length 1 around their mean, whatever their scale; by default 10,
    3, 1, ... 1e-8. The one with the least leave-one-out squared error is taken, the stronger one in a tie. Of many
    classes the one-hot labels are what takes memory: 8 bytes for each row and class.
    `penalty_`: that one. `leave_one_out_`: {penalty: mean squared error, summed over classes}, empty of one penalty.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import Ridge
    >>> features, labels = load_iris(return_X_y=True)
    >>> ridge = Ridge().fit(features, labels)
    >>> ridge.predict(features[:1]).tolist(), ridge.predict_proba(features[:1]).shape
    ([0], (1, 3))
    """

    _kept: ClassVar[Mapping[str, Any]] = {**LinearPredictor._kept, "penalty_": ""}
    _working = ("_path",)

    def __init__(self, penalties: Sequence[float] = PENALTIES) -> None:
        self.penalties = penalties

    def _fit(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> None:
        self._solve(Principal.fit(rows), rows, codes, groups)
        self.coef_, self.intercept_ = self._path.line(rows, self.penalty_)

    def _solve(self, principal: Principal, rows: NDArray[Any] | None, codes: NDArray[np.intp], groups: Groups) -> None:
        self._path = RidgePath(principal, rows, np.eye(len(self.classes_))[codes], self.penalties)
        penalties = self._path.penalties
        self.penalty_, self.leave_one_out_ = penalties[0], dict[float, float]()
        if len(penalties) > 1:
            errors = self._path.errors(rows, groups).sum(axis=0, keepdims=True)
            self.penalty_ = penalties[int(self._path.least(errors)[0])]
            self.leave_one_out_ = dict(zip(penalties, errors[0].tolist(), strict=True))

    def _left_out(self, rows: NDArray[Any] | None, codes: NDArray[np.intp], groups: Groups) -> Floats:
        scores = self._path.left_out(rows, groups, self.penalty_)
        scores[absent_classes(codes, groups, len(self.classes_), rows_in(groups))] = -np.inf
        return scores


def grid_of(penalties: Sequence[float]) -> tuple[float, ...]:
    """Return distinct penalties, strongest first. Raises SampleError."""
    grid = check_list("penalties", penalties, "(0.01, 0.001)", SampleError)
    if not grid or not all(map(is_positive, grid)):
        raise SampleError(f"penalties={penalties!r}; expected one or more positive numbers")
    return tuple(sorted({float(penalty) for penalty in grid}, reverse=True))


class RidgePath:
    """Ridge regressions of the same targets at several penalties, for the price of one.

    rows: [N, D], which may be None where principal holds their coordinates. targets: [N, T]. penalties: strongest
    first.
    """

    def __init__(
        self, principal: Principal, rows: NDArray[Any] | None, targets: Floats, penalties: Sequence[float]
    ) -> None:
        self.principal, self.targets = principal, targets
        self.penalties = grid_of(penalties)
        self.means = targets.mean(axis=0)
        products: Floats = np.zeros(())
        for part in slices(len(targets), _NUMBERS, principal.width):
            products = products + (targets[part] - self.means).T @ principal.centred(rows, part)
        self.products = principal.turn(products).T  # of coordinates and targets [R, T]

    def line(self, rows: NDArray[Any], penalty: float) -> tuple[Floats, Floats]:
        """Return the coefficients [T, D] and intercepts [T] at a penalty."""
        coefficients = self.principal.line(rows, (self.products * self._shrink(penalty)[:, None]).T)
        return coefficients, self.means - coefficients @ self.principal.centre

    def left_out(self, rows: NDArray[Any] | None, groups: Groups, penalty: float) -> Floats:
        """Return what is predicted for each of the M fitted rows in the groups, by number, without its group [M, T]."""
        asked = rows_in(groups)
        values = np.empty((len(asked), self.targets.shape[1]))
        for part, together in parts_of(groups, self.principal.width):
            points = self.principal.points(rows, part)
            (residuals,) = self._residuals(points, self.targets[part], (penalty,), together)
            values[np.searchsorted(asked, part)] = self.targets[part] - residuals
        return values

    def errors(self, rows: NDArray[Any] | None, groups: Groups) -> Floats:
        """Return the mean squared leave-one-out error of each target at each penalty [T, P]."""
        sums = np.zeros((self.targets.shape[1], len(self.penalties)))
        for part, together in parts_of(groups, self.principal.width):
            points = self.principal.points(rows, part)
            for at, residuals in enumerate(self._residuals(points, self.targets[part], self.penalties, together)):
                sums[:, at] += (residuals**2).sum(axis=0)
        return sums / sum(map(len, groups))

    def least(self, errors: Floats) -> NDArray[np.intp]:
        """Return the number of the penalty with the least error [T] of errors [T, P], the stronger one in a tie."""
        rounding = 1e-24 * (self.targets**2).mean(axis=0).max()
        return (errors <= errors.min(axis=1, keepdims=True) * (1 + 1e-9) + rounding).argmax(axis=1)

    def _residuals(
        self, points: Floats, targets: Floats, penalties: Sequence[float], together: bool
    ) -> Iterator[Floats]:
        """Leave-one-out residuals [n, T] at each penalty of coordinates [n, R], left out one by one or together."""
        shrinks = [self._shrink(penalty) for penalty in penalties]
        leverages = np.zeros((0, 0)) if together else 1 / len(self.targets) + points**2 @ np.stack(shrinks, axis=1)
        for at, shrink in enumerate(shrinks):
            residuals = targets - self.means - points @ (shrink[:, None] * self.products)
            if together:
                yield self._without_group(points, residuals, shrink)
            else:
                yield residuals / np.maximum(1 - leverages[:, at], _LEAST)[:, None]

    def _without_group(self, points: Floats, residuals: Floats, shrink: Floats) -> Floats:
        """The residuals [n, T] of rows that are left out together, from those of the fit on all rows."""
        # A: A A' are the leverages of these rows and the intercept. (I - A A')^-1 is as well I + A (I - A' A)^-1 A'.
        spread = np.column_stack([np.full(len(points), len(self.targets) ** -0.5), points * np.sqrt(shrink)])
        solved: Floats
        if spread.shape[0] <= spread.shape[1]:
            solved = np.linalg.solve(np.eye(len(points)) - spread @ spread.T, residuals)
        else:
            core = np.eye(spread.shape[1]) - spread.T @ spread
            solved = residuals + spread @ np.linalg.solve(core, spread.T @ residuals)
        return solved

    def _shrink(self, penalty: float) -> Floats:
        return 1 / (self.principal.squares + penalty * self.principal.squares.sum())
