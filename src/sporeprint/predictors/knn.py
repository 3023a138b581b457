"""k nearest neighbours: a classifier with exact leave-one-out that chooses k and the vote, and its vote alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.predictors.calibration import temperature as fitted_temperature
from sporeprint.predictors.checks import (
    CHECKS,
    as_sample_errors,
    check_classes,
    check_same_width,
    features_of,
    labels_of,
)
from sporeprint.predictors.groups import Groups, absent_classes, check_two_groups, rows_in
from sporeprint.predictors.other_rows import Others, others_of_points, others_of_rows
from sporeprint.predictors.predictor import MOST_ASKING, LeftOut, Predictor
from sporeprint.predictors.principal import Floats, Principal
from sporeprint.predictors.row_order import content_order
from sporeprint.predictors.votes import VOTES, vote_sums, weights_of, winners
from sporeprint.search.neighbours import METRICS, neighbours
from sporeprint.search.ties import Nearest, Numbers, tied_neighbours
from sporeprint.store.schema import one_of
from sporeprint.values import check_choice, check_list, is_count, is_positive

CANDIDATES = (1, 3, 5, 10, 20)  # of `knn`; METHOD's protocol
MOST_CANDIDATES = (*CANDIDATES, 50, 100, 200)  # of `KNN`: leave-one-out wants more than 20 on 8 of 10 sets
_CHOSEN_VOTES = ("uniform", "softmax")
_SCORES = 2**20  # of rows that ask and classes: 8 MiB for each candidate
_TIE = 1e-9  # added to the score of the class that wins a tie
_DIGITS = 9  # of losses that are told apart

Metric = Literal["euclidean", "cosine"]
Vote = Literal["uniform", "distance", "softmax"]


class NearestRows:
    """What predictors of neighbours share: the nearest of `rows_` [N, D] can be asked for."""

    rows_: NDArray[Any]
    k_: int
    metric: str

    @quiet_floats
    def kneighbors(self, X: ArrayLike, n_neighbors: int | None = None) -> tuple[Floats, Numbers]:
        """Return distances and numbers [M, n] of the training rows nearest to X [M, D], nearest first.

        n_neighbors: k_ by default, and at most the number of rows. distances: 1 - cosine where the metric is cosine.
        Equally near rows are in the order of training. Raises SampleError.
        """
        check_is_fitted(self)
        with as_sample_errors():
            queries = features_of(validate_data(self, X, reset=False, **CHECKS), "test")
        count = check_k(self.k_ if n_neighbors is None else n_neighbors)
        rows, distances = zip(*neighbours(self.rows_, queries, count, self.metric), strict=True)
        return np.concatenate(distances), np.concatenate(rows)


class KNN(NearestRows, Predictor):
    """The vote of the k nearest training rows, with exact leave-one-out; ties go to the nearest, as in `knn`.

    k: a number, or "auto": of 1, 3, 5, 10, 20, 50, 100, 200, those below the number of rows. metric: "euclidean" or
    "cosine". vote: "uniform", "distance" (1 / distance, where exact matches take all), "softmax" of the similarities at
    `temperature`, or "auto": uniform or softmax. What is "auto" is chosen by the least leave-one-out squared error of
    calibrated probabilities, the smaller k and the uniform vote in a tie; of more than 3,000 rows, 3,000 ask and all
    are neighbours. A class's score is log(its votes + 1 / classes), where the nearest row has one vote.
    `k_`, `vote_`: those. `leave_one_out_`: {(vote, k): squared error, summed over classes}, of each that was tried.
    `temperature_`: of the probabilities, not of the vote.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import KNN
    >>> features, labels = load_iris(return_X_y=True)
    >>> model = KNN().fit(features[::2], labels[::2])
    >>> model.k_, model.vote_, round(model.score(features[1::2], labels[1::2]), 2)
    (5, 'uniform', 0.99)
    """

    _kept: ClassVar[Mapping[str, Any]] = {
        **Predictor._kept,
        "rows_": "ND",
        "codes_": "N",
        "k_": "",
        "vote_": one_of(VOTES),
    }

    def __init__(
        self,
        k: int | Literal["auto"] = "auto",
        metric: Metric = "euclidean",
        vote: Vote | Literal["auto"] = "auto",
        temperature: float = 0.07,
    ) -> None:
        self.k = k
        self.metric = metric
        self.vote = vote
        self.temperature = temperature

    @quiet_floats
    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> KNN:
        """Fit on features X [N, D] and labels y [N]. groups: [N], rows of one group do not vote for each other.

        Raises SampleError for NaN, labels that are not classes, counts that do not match, and settings that are none.
        """
        rows, codes, apart = self._checked(X, y, groups)
        self.rows_, self.codes_ = rows, codes
        asking, scores = self._choose(self._others(rows, codes), rows, codes, apart)
        self.temperature_ = self._calibrated(scores, codes[asking])
        return self

    @quiet_floats
    def fit_uncalibrated(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> KNN:
        """`fit` for who asks for labels alone: where k and the vote are given, no row asks."""
        if self.k == "auto" or self.vote == "auto":
            return self.fit(X, y, groups)
        self.rows_, self.codes_, _ = self._checked(X, y, groups)
        self.k_, self.vote_, self.temperature_ = int(self.k), str(self.vote), 1.0
        self.leave_one_out_ = dict[tuple[str, int], float]()
        return self

    @quiet_floats
    def leave_one_out(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> LeftOut:
        """Fit on X [N, D], y [N], and return the vote of all rows outside its group for each row.

        k and the vote are chosen once, by all rows. Raises SampleError as `fit`, and for a single row.
        """
        rows, codes, apart = self._checked(X, y, groups)
        check_two_groups(apart)
        self.rows_, self.codes_ = rows, codes
        left = self._leave_out(self._others(rows, codes), rows, codes, apart)
        self.temperature_ = self._calibrated(left.scores, codes)
        return left

    @quiet_floats
    def leave_one_out_of(self, principal: Principal, codes: NDArray[np.intp], groups: Groups) -> LeftOut:
        """`leave_one_out` from coordinates that several predictors share; codes [N] count from 0. Fits nothing else.

        The cosine needs coordinates of rows of length 1. Raises SampleError.
        """
        if self.metric != "euclidean" and not principal.unit:
            raise SampleError(f"metric={self.metric!r}: coordinates of rows of any length have no angle; give the rows")
        points = principal.hold()
        self.classes_ = np.arange(codes.max() + 1)
        return self._leave_out(partial(others_of_points, points, self.metric), points, codes, groups)

    def _checked(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None
    ) -> tuple[NDArray[Any], NDArray[np.intp], Groups]:
        check_voting(self.metric, "uniform" if self.vote == "auto" else self.vote, self.temperature)
        if self.k != "auto":
            check_k(self.k, " or 'auto'")
        return super()._checked(X, y, groups)

    def _others(self, rows: NDArray[Any], codes: Numbers) -> Others:
        return partial(others_of_rows, rows, codes, self.metric)

    def _fit(self, rows: NDArray[Any], codes: Numbers, groups: Groups) -> None:
        self.rows_, self.codes_ = rows, codes
        self._choose(self._others(rows, codes), rows, codes, groups)

    def _leave_out(self, others: Others, rows: NDArray[Any], codes: Numbers, groups: Groups) -> LeftOut:
        asking, scores = self._choose(others, rows, codes, groups)
        if len(asking) < len(codes):
            scores = self._left_scores(others, codes, groups, np.arange(len(codes)), [self._chosen])[self._chosen]
        return LeftOut(scores, self.classes_, codes, fitted_temperature(scores, codes))

    @property
    def _chosen(self) -> tuple[str, int]:
        return self.vote_, self.k_

    def _choose(self, others: Others, rows: NDArray[Any], codes: Numbers, groups: Groups) -> tuple[Numbers, Floats]:
        """Choose k and the vote; return the rows that asked [M] and their scores [M, C]."""
        votes = _CHOSEN_VOTES if self.vote == "auto" else (self.vote,)
        ks = [k for k in MOST_CANDIDATES if k < len(codes)] or [1] if self.k == "auto" else [int(self.k)]
        asking = self._asking(rows, codes)
        tried = [(vote, k) for k in ks for vote in votes]
        scores, own = self._left_scores(others, codes, groups, asking, tried), codes[asking]
        losses = {}
        for pair, each in scores.items():
            left = LeftOut(each, self.classes_, own, fitted_temperature(each, own))
            # Without any other row there are no probabilities, and nothing to choose.
            losses[pair] = float(np.nan_to_num(left.losses, nan=2.0).mean())
        self.vote_, self.k_ = min(losses, key=lambda pair: round(losses[pair], _DIGITS))
        self.leave_one_out_ = losses
        return asking, scores[self._chosen]

    def _asking(self, rows: NDArray[Any], codes: Numbers) -> Numbers:
        """The rows that ask: all, or evenly many of each class, drawn from an order that the rows' content decides."""
        step = -(-len(codes) // min(MOST_ASKING, max(1, _SCORES // len(self.classes_))))
        if step == 1:
            return np.arange(len(codes))
        order = content_order(rows, codes)
        return np.sort(order[np.argsort(codes[order], kind="stable")[::step]])

    def _left_scores(
        self, others: Others, codes: Numbers, groups: Groups, asking: Numbers, pairs: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], Floats]:
        """Scores [M, C] of the rows that ask, for each vote and k, after one search for the largest."""
        scores = {pair: np.empty((len(asking), len(self.classes_))) for pair in pairs}
        for near in others(asking, groups, max(k for _, k in pairs)):
            at, near = np.searchsorted(asking, near.queries), near.with_ties()
            for k in {k for _, k in pairs}:
                first = near.first(k)
                for pair in pairs:
                    if pair[1] == k:
                        scores[pair][at] = self._scores_of(first, codes, *pair)
        absent = absent_classes(codes, groups, len(self.classes_), asking)
        for each in scores.values():
            each[absent] = -np.inf
        return scores

    def _scores(self, rows: NDArray[Any]) -> Floats:
        scores = np.empty((len(rows), len(self.classes_)))
        for near in tied_neighbours(self.rows_, rows, self.k_, self.codes_, self.metric):
            scores[near.queries] = self._scores_of(near.first(self.k_), self.codes_, *self._chosen)
        return scores

    def _scores_of(self, near: Nearest, codes: Numbers, vote: str, k: int) -> Floats:
        classes = len(self.classes_)
        weights, votes = weights_of_nearest(near, k, vote, self.metric, self.temperature), codes[near.rows]
        scores = np.log(vote_sums(votes, weights, classes) + 1 / classes)
        voted = np.flatnonzero(weights.any(axis=1))
        wins = winners(votes[voted], weights[voted], near.distances[voted], classes)
        scores[voted, wins] += _TIE
        return scores

    def _left_out(self, rows: NDArray[Any], codes: Numbers, groups: Groups) -> Floats:
        others = self._others(rows, codes)
        return self._left_scores(others, codes, groups, rows_in(groups), [self._chosen])[self._chosen]


@quiet_floats
def knn_predict(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    k: int = 20,
    metric: Metric = "euclidean",
    vote: Vote = "uniform",
    temperature: float = 0.07,
) -> NDArray[Any]:
    """The label [M] that the k nearest training rows [N, D] vote for, of each test row [M, D].

    metric: "euclidean", or "cosine", where a row of zeros is unlike every row. vote: "uniform"; "distance", weights of
    1 / distance, where exact matches take all; "softmax", weights of exp(cosine / temperature), for Euclidean distances
    exp(-distance^2 / (2 temperature)). Rows as near as the k-th share the places that are left, so that the order of
    rows has no say: of constant features the most frequent class wins. A tie goes to the tied class whose nearest
    member is nearest, then to the first by name. With fewer than k training rows all of them vote.
    Raises SampleError as `knn`.

    Examples
    --------
    >>> from sporeprint.predictors.knn import knn_predict
    >>> print(knn_predict([[0.0], [0.1], [1.0]], ["cat", "cat", "dog"], [[0.2], [0.9]], k=1))
    ['cat' 'dog']
    """
    train, labels, test = checked(train, labels, test, metric, vote, temperature)
    return predicted(train, labels, test, check_k(k), metric, vote, temperature)


@quiet_floats
def leave_one_out(
    train: ArrayLike,
    labels: ArrayLike,
    ks: Sequence[int] = CANDIDATES,
    metric: Metric = "euclidean",
    vote: Vote = "uniform",
    temperature: float = 0.07,
) -> dict[int, NDArray[np.bool_]]:
    """For each k whether the vote of the others is right, of each training row [N].

    Every k below the number of rows; so none for one row. A row's duplicates are among the others. Raises SampleError
    as `knn`.
    """
    train, labels, _ = checked(train, labels, None, metric, vote, temperature)
    return votes_of_others(train, labels, np.arange(len(train)), counts_of(ks), metric, vote, temperature)


@quiet_floats
def choose_k(
    train: ArrayLike,
    labels: ArrayLike,
    metric: Metric = "euclidean",
    candidates: Sequence[int] = CANDIDATES,
    vote: Vote = "uniform",
    temperature: float = 0.07,
) -> dict[int, float]:
    """Leave-one-out accuracy on the training rows of each candidate k below their number.

    Where there is none, the smallest candidate alone, its accuracy NaN. Raises SampleError as `knn`.
    """
    train, labels, _ = checked(train, labels, None, metric, vote, temperature)
    return accuracies(train, labels, counts_of(candidates), metric, vote, temperature)


def accuracies(
    train: NDArray[Any],
    labels: NDArray[Any],
    ks: list[int],
    metric: str,
    vote: str,
    temperature: float,
    groups: NDArray[np.intp] | None = None,
) -> dict[int, float]:
    every = np.arange(len(train))
    right = votes_of_others(train, labels, every, ks, metric, vote, temperature, groups)
    return {k: float(hits.mean()) for k, hits in right.items()} or {min(ks): float("nan")}


def votes_of_others(
    features: NDArray[Any],
    labels: NDArray[Any],
    asking: NDArray[np.intp],
    ks: Sequence[int] = CANDIDATES,
    metric: str = "euclidean",
    vote: str = "uniform",
    temperature: float = 0.07,
    groups: NDArray[np.intp] | None = None,
) -> dict[int, NDArray[np.bool_]]:
    """`leave_one_out` of the rows `asking` [M] only; all other rows [N, D] remain their neighbours.

    groups: [N], numbers; rows of a row's own group are none of its neighbours.
    """
    possible = [k for k in ks if k < len(features)]
    if not possible:
        return {}
    codes = np.unique(labels, return_inverse=True)[1]
    queries = features if len(asking) == len(features) else features[asking]
    voted = _votes(features, codes, queries, possible, metric, vote, temperature, asking, groups)
    return {k: winner == codes[asking] for k, winner in voted.items()}


def predicted(
    train: NDArray[Any], labels: NDArray[Any], test: NDArray[Any], k: int, metric: str, vote: str, temperature: float
) -> NDArray[Any]:
    classes, codes = np.unique(labels, return_inverse=True)
    return classes[_votes(train, codes, test, [k], metric, vote, temperature)[k]]


def _votes(
    train: NDArray[Any],
    codes: NDArray[np.intp],
    queries: NDArray[Any],
    ks: Sequence[int],
    metric: str,
    vote: str,
    temperature: float,
    own: NDArray[np.intp] | None = None,
    groups: NDArray[np.intp] | None = None,
) -> dict[int, NDArray[np.intp]]:
    """The winners' codes [n] of each k, after one search for the largest. own: the training row of each query."""
    classes = int(codes.max()) + 1
    chosen = {k: np.empty(len(queries), np.intp) for k in ks}
    for near in tied_neighbours(train, queries, max(ks), codes, metric, own, groups):
        for k in ks:
            first = near.first(k)
            weights = weights_of_nearest(first, k, vote, metric, temperature)
            chosen[k][near.queries] = winners(codes[first.rows], weights, first.distances, classes)
    return chosen


def weights_of_nearest(near: Nearest, k: int, vote: str, metric: str, temperature: float) -> Floats:
    """The weight [n, K] of each row's vote; 0 where it is none of the k nearest."""
    weights = weights_of(near.distances, vote, metric, temperature)
    return np.where(near.counts > 0, near.places(k) * weights, 0.0)


def checked(
    train: ArrayLike, labels: ArrayLike, test: ArrayLike | None, metric: str, vote: str, temperature: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    check_voting(metric, vote, temperature)
    rows = features_of(train, "train")
    names = labels_of(labels, len(rows), "train")
    check_classes(names)
    others = rows if test is None else features_of(test, "test")
    check_same_width(rows, others)
    return rows, names, others


def check_voting(metric: str, vote: str, temperature: float) -> None:
    """Raise SampleError for values that no neighbours can vote with."""
    for name, value, allowed in (("metric", metric, METRICS), ("vote", vote, VOTES)):
        check_choice(name, value, allowed, SampleError)
    if not is_positive(temperature):
        raise SampleError(f"temperature={temperature!r}; expected a number above 0")


def counts_of(ks: Sequence[int], name: str = "ks") -> list[int]:
    """Return the numbers of neighbours to choose from, ascending. Raises SampleError."""
    counts = sorted({check_k(k, ", or several of them") for k in check_list(name, ks, "(1, 5, 10)", SampleError)})
    if not counts:
        raise SampleError("there is no k to choose from; expected at least one positive integer")
    return counts


def check_k(k: Any, more: str = "") -> int:
    """Return a number of neighbours. Raises SampleError."""
    if not is_count(k):
        raise SampleError(f"k={k!r}; expected a positive integer{more}")
    return int(k)
