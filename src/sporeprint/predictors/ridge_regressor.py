"""Ridge regression on numbers, the penalty of each target by exact leave-one-out squared error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.predictors.groups import Groups, check_two_groups
from sporeprint.predictors.principal import Floats, Principal
from sporeprint.predictors.regressor import Regressor
from sporeprint.predictors.ridge import PENALTIES, RidgePath
from sporeprint.search.points import scale_of


class RidgeRegressor(Regressor):
    """Ridge regression on numbers [N] or [N, T], with an intercept: mean squared error + penalty * |w|^2.

    penalties: as of `Ridge`; each target takes the one with the least leave-one-out error, the stronger one in a tie.
    One row, or features that are all constant: the mean target. `penalty_`: [T]. `coef_`: [T, D]. `intercept_`: [T].
    `leave_one_out_`: {penalty: mean squared error of each target [T]}, empty of one penalty.

    Examples
    --------
    >>> from sporeprint import RidgeRegressor
    >>> ridge = RidgeRegressor().fit([[0.0], [1.0], [2.0]], [0.0, 10.0, 20.0])
    >>> ridge.predict([[0.5]]).round(3).tolist(), ridge.penalty_.tolist()
    ([5.0], [1e-08])
    """

    _kept: ClassVar[Mapping[str, Any]] = {
        "coef_": "TD",
        "intercept_": "T",
        "penalty_": "T",
        "flat_": "",
    }  # what `save_predictor` keeps

    def __init__(self, penalties: Sequence[float] = PENALTIES) -> None:
        self.penalties = penalties

    @quiet_floats
    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> RidgeRegressor:
        """Fit on features X [N, D] and targets y [N] or [N, T]. groups: [N], rows of one group are left out together.

        Raises SampleError for NaN, targets that are not numbers, and counts that do not match.
        """
        self._solve(X, y, groups)
        return self

    @quiet_floats
    def leave_one_out(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Floats:
        """Fit, and return what all rows outside its group predict for each row: numbers like y.

        Penalties are chosen once, by all rows. Raises SampleError as `fit`, and for a single row.
        """
        path, rows, apart = self._solve(X, y, groups)
        check_two_groups(apart)
        answers = np.empty(path.targets.shape)
        for penalty in np.unique(self.penalty_):
            of = self.penalty_ == penalty
            answers[:, of] = path.left_out(rows, apart, penalty)[:, of]
        return self._like_targets(answers)

    def _solve(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None) -> tuple[RidgePath, NDArray[Any], Groups]:
        rows, targets, apart = self._checked(X, y, groups)
        scale_of(rows)  # refuses numbers whose squares overflow
        path = RidgePath(Principal.fit(rows), rows, targets, self.penalties)
        chosen, self.leave_one_out_ = np.zeros(targets.shape[1], np.intp), dict[float, Floats]()
        if len(path.penalties) > 1:
            errors = path.errors(rows, apart)
            chosen = path.least(errors)
            self.leave_one_out_ = dict(zip(path.penalties, errors.T, strict=True))
        self.penalty_ = np.array(path.penalties)[chosen]
        self.coef_, self.intercept_ = np.empty((len(chosen), rows.shape[1])), np.empty(len(chosen))
        for penalty in np.unique(self.penalty_):
            of = self.penalty_ == penalty
            coefficients, intercepts = path.line(rows, penalty)
            self.coef_[of], self.intercept_[of] = coefficients[of], intercepts[of]
        return path, rows, apart

    @quiet_floats
    def predict(self, X: ArrayLike) -> Floats:
        """Return the targets [M] or [M, T] of rows X [M, D]."""
        rows = self._checked_queries(X)
        return self._like_targets(rows.astype(np.float64) @ self.coef_.T + self.intercept_)
