"""The mean of the nearest neighbours' numbers, k by leave-one-out R^2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.predictors.groups import Groups, check_two_groups
from sporeprint.predictors.knn import (
    MOST_CANDIDATES,
    Metric,
    NearestRows,
    Vote,
    check_k,
    check_voting,
    counts_of,
    weights_of_nearest,
)
from sporeprint.predictors.other_rows import others_of_rows
from sporeprint.predictors.predictor import MOST_ASKING
from sporeprint.predictors.principal import Floats
from sporeprint.predictors.regressor import Regressor
from sporeprint.predictors.row_order import content_order
from sporeprint.search.best_rows import slices
from sporeprint.search.ties import Nearest, Numbers, tied_neighbours

_DIGITS = 9  # of scores that are told apart
_VALUES = 2**21  # of neighbours at a time: 16 MiB


class KNNRegressor(NearestRows, Regressor):
    """The mean of the k nearest training rows' numbers, weighted by a vote, with exact leave-one-out.

    k: a number, or several to choose from; "auto" are 1, 3, 5, 10, 20, 50, 100, 200. Of those below the number of rows
    the best leave-one-out R^2 (the mean over targets) chooses, the smaller k in a tie, the smallest where there is no
    R^2: too few rows, or constant targets. Of more than 3,000 rows 3,000 ask, and all are neighbours. metric, vote,
    temperature: as of `KNN`. With fewer than k rows all of them count; rows as near as the k-th share the places that
    are left.
    `k_`: that one. `leave_one_out_`: {k: R^2}, empty where there was one k. `rows_`: [N, D], `targets_`: [N, T].

    Examples
    --------
    >>> from sporeprint import KNNRegressor
    >>> model = KNNRegressor(k=2).fit([[0.0], [1.0], [2.0]], [0.0, 10.0, 20.0])
    >>> model.predict([[0.4]]).tolist()
    [5.0]
    """

    _kept: ClassVar[Mapping[str, Any]] = {"rows_": "ND", "targets_": "NT", "k_": "", "flat_": ""}

    def __init__(
        self,
        k: int | Sequence[int] | Literal["auto"] = "auto",
        metric: Metric = "euclidean",
        vote: Vote = "uniform",
        temperature: float = 0.07,
    ) -> None:
        self.k = k
        self.metric = metric
        self.vote = vote
        self.temperature = temperature

    @quiet_floats
    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> KNNRegressor:
        """Fit on features X [N, D] and targets y [N] or [N, T]. groups: [N], rows of one group are left out together.

        Raises SampleError for NaN, targets that are not numbers, counts that do not match, and settings that are none.
        """
        self._solve(X, y, groups)
        return self

    @quiet_floats
    def leave_one_out(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Floats:
        """Fit, and return what all rows outside its group predict for each row: numbers like y.

        k is chosen once, by all rows. Raises SampleError as `fit`, and for a single row.
        """
        apart = self._solve(X, y, groups)
        check_two_groups(apart)
        means = self._left_means(self._centred(), np.arange(len(self.rows_)), apart, [self.k_])[self.k_]
        return self._like_targets(means + self.targets_.mean(axis=0))

    @quiet_floats
    def predict(self, X: ArrayLike) -> Floats:
        """Return the targets [M] or [M, T] of rows X [M, D]. Raises SampleError."""
        queries = self._checked_queries(X)
        centred = self._centred()
        near = tied_neighbours(self.rows_, queries, self.k_, centred, self.metric)
        means = neighbour_means(near, centred, len(queries), [self.k_], *self._voting())[self.k_]
        return self._like_targets(means + self.targets_.mean(axis=0))

    def _solve(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None) -> Groups:
        check_voting(*self._voting())
        ks = MOST_CANDIDATES if self.k == "auto" else self.k
        ks = counts_of(ks, "k") if isinstance(ks, Iterable) else [check_k(ks, ", several of them, or 'auto'")]
        self.rows_, self.targets_, apart = self._checked(X, y, groups)
        self.leave_one_out_ = {} if len(ks) == 1 else self._scores(ks, apart)
        self.k_ = best_k(self.leave_one_out_) if self.leave_one_out_ else ks[0]
        return apart

    def _scores(self, ks: Sequence[int], groups: Groups) -> dict[int, float]:
        if not (possible := [k for k in ks if k < len(self.rows_)]):
            return {min(ks): float("nan")}
        asking = np.arange(len(self.rows_))
        if len(asking) > MOST_ASKING:
            asking = np.sort(content_order(self.rows_, self.targets_)[:: -(-len(asking) // MOST_ASKING)])
        centred = self._centred()
        means = self._left_means(centred, asking, groups, possible)
        return {k: mean_of(r2_of(centred[asking], answers)) for k, answers in means.items()}

    def _left_means(self, values: Floats, asking: Numbers, groups: Groups, ks: Sequence[int]) -> dict[int, Floats]:
        near = others_of_rows(self.rows_, values, self.metric, asking, groups, max(ks))
        return {
            k: means[asking] for k, means in neighbour_means(near, values, len(self.rows_), ks, *self._voting()).items()
        }

    def _centred(self) -> Floats:
        """Targets [N, T] around their mean, so rounding adds too little to means of constant ones to rank them."""
        return self.targets_ - self.targets_.mean(axis=0)

    def _voting(self) -> tuple[str, str, float]:
        return self.metric, self.vote, self.temperature


def neighbour_means(
    nearest: Iterable[Nearest],
    values: Floats,
    queries: int,
    ks: Sequence[int],
    metric: str,
    vote: str,
    temperature: float,
) -> dict[int, Floats]:
    """Return the weighted means [queries, T] of the k nearest rows' values [N, T], for each k; NaN where none asked."""
    means = {k: np.full((queries, values.shape[1]), np.nan) for k in ks}
    for every in nearest:
        for k in ks:
            near = every.first(k)
            weights = weights_of_nearest(near, k, vote, metric, temperature)
            for part in slices(len(weights), _VALUES, weights.shape[1] * values.shape[1]):
                sums = np.einsum("qk,qkt->qt", weights[part], values[near.rows[part]])
                means[k][near.queries[part]] = sums / weights[part].sum(axis=1, keepdims=True)
    return means


def best_k(scores: dict[int, float]) -> int:
    """Return the k of the best score, the smaller one where only rounding tells them apart; NaN is the worst."""
    return max(scores, key=lambda k: (round(np.nan_to_num(scores[k], nan=-np.inf), _DIGITS), -k))


def r2_of(truth: Floats, predicted: Floats) -> Floats:
    """Return R^2 [T], NaN for constant targets."""
    from sklearn.metrics import r2_score

    scores = np.full(truth.shape[1], np.nan)
    varied = ~constant(truth)
    if varied.any():
        scores[varied] = r2_score(truth[:, varied], predicted[:, varied], multioutput="raw_values")
    return scores


def constant(values: Floats) -> NDArray[np.bool_]:
    """Return whether each column [T] of values [N, T] holds one number."""
    return np.asarray((values == values[:1]).all(axis=0))


def mean_of(values: Sequence[float] | Floats) -> float:
    """Return the mean of the values that are not NaN; NaN where all are."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")
