"""k nearest neighbours: top-1 and mean per-class accuracy; k given, or chosen on the training rows; few-shot draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import multimode
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.shots import draws as rows_of_draws
from sporeprint.predictors.checks import check_same_kind, check_same_width, features_of, labels_of
from sporeprint.predictors.row_order import content_order
from sporeprint.predictors.votes import VOTES, weights_of, winners
from sporeprint.search.neighbours import METRICS
from sporeprint.search.ties import tied_neighbours
from sporeprint.values import check_choice, check_list, is_count, is_positive

CANDIDATES = (1, 3, 5, 10, 20)  # for k="auto"; METHOD's protocol

Metric = Literal["euclidean", "cosine"]
Vote = Literal["uniform", "distance", "softmax"]


@dataclass(frozen=True, kw_only=True)
class KNNResult(Result):
    """value: top-1 accuracy, a fraction. mean_per_class: mean of the test classes' accuracies, a fraction.

    k: of the neighbours that vote. leave_one_out: accuracy on the training rows by k, where k="auto" chose.
    Of few-shot draws both accuracies are the mean over the draws, spread and mean_per_class_spread their standard
    deviations (of a sample, n - 1), and values and ks hold each draw's top-1 and k; k is then the most frequent one,
    leave_one_out the mean over the draws, train_rows the number in one draw. test_rows, metric, vote: as they were.
    """

    mean_per_class: float
    k: int
    mean_per_class_spread: float | None = None
    values: tuple[float, ...] = ()
    ks: tuple[int, ...] = ()
    leave_one_out: dict[int, float] = field(default_factory=dict)
    train_rows: int = 0
    test_rows: int = 0
    metric: str = "euclidean"
    vote: str = "uniform"

    def __str__(self) -> str:
        top, classes = _percent(self.value, self.spread), _percent(self.mean_per_class, self.mean_per_class_spread)
        chosen = " (leave-one-out)" if self.leave_one_out else ""
        few = f", {len(self.values)} draws of {self.settings['shots']} per class" if self.values else ""
        vote = "" if self.vote == "uniform" else f", {self.vote} vote"
        return f"top-1 {top}, mean per class {classes}, k = {', '.join(map(str, self._ks()))}{chosen}{vote}{few}"

    def _ks(self) -> list[int]:
        return sorted(set(self.ks)) or [self.k]


@quiet_floats
def knn(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    k: int | Literal["auto"] = 20,
    metric: Metric = "euclidean",
    vote: Vote = "uniform",
    temperature: float = 0.07,
    shots: int | None = None,
    draws: int = 3,
    seed: int = 0,
    candidates: Sequence[int] = CANDIDATES,
) -> KNNResult:
    """Classify test rows [M, D] by a vote of their k nearest training rows [N, D]; exact search in bounded memory.

    k="auto" takes the candidate with the best leave-one-out accuracy on the training rows (`choose_k`), the smaller one
    in a tie; the test rows are not looked at. shots: training rows of each class, and no others (all of a class
    that has fewer), drawn `draws` times from `seed` and the rows' content; k="auto" then chooses in each draw, from its
    rows. vote, temperature: see `knn_predict`, as for fewer than k rows. A test class that is absent from train counts
    as wrong; with one class in train every row is of that class. With one training row k="auto" is the smallest
    candidate, its accuracy NaN.
    Raises SampleError for rows with NaN, labels that do not match, and settings that are not as above.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import knn
    >>> features, labels = load_iris(return_X_y=True)
    >>> train, test = slice(0, None, 2), slice(1, None, 2)
    >>> result = knn(features[train], labels[train], features[test], labels[test], k="auto")
    >>> print(result)
    top-1 98.7%, mean per class 98.7%, k = 5 (leave-one-out)
    >>> few = knn(features[train], labels[train], features[test], labels[test], k=3, shots=5)
    >>> len(few.values), few.value < result.value
    (3, True)
    """
    train, labels, test = _checked(train, labels, test, metric, vote, temperature)
    test_labels = labels_of(test_labels, len(test), "test")
    check_same_kind(labels, test_labels)
    candidates = counts_of(candidates, "candidates")
    k = k if k == "auto" else _check_k(k, " or 'auto'")
    way = (metric, vote, float(temperature))
    settings: dict[str, Any] = {"k": k, "metric": metric, "vote": vote}
    settings |= {"temperature": way[2]} if vote == "softmax" else {}
    settings |= {"candidates": candidates} if k == "auto" else {}
    settings |= {} if shots is None else {"shots": shots, "draws": draws, "seed": seed}
    everything: NDArray[np.intp] | slice = slice(None)
    if shots is not None:
        order = content_order(train, np.unique(labels, return_inverse=True)[1])
        train, labels = train[order], labels[order]
    tops, means, ks, tables, rows = [], [], [], [], 0
    for drawn in [everything] if shots is None else rows_of_draws(labels, shots, draws, seed):
        rows_drawn, labels_drawn = train[drawn], labels[drawn]
        table = _choose_k(rows_drawn, labels_drawn, candidates, *way) if k == "auto" else {}
        nearest = max(table, key=lambda candidate: (table[candidate], -candidate)) if k == "auto" else k
        right = _predict(rows_drawn, labels_drawn, test, nearest, *way) == test_labels
        tops.append(float(right.mean()))
        means.append(mean_per_class(right, test_labels))
        ks.append(nearest)
        tables.append(table)
        rows = len(rows_drawn)
    single = len(tops) == 1
    return KNNResult(
        value=float(np.mean(tops)),
        spread=None if single else float(np.std(tops, ddof=1)),
        settings=settings,
        mean_per_class=float(np.mean(means)),
        k=min(multimode(ks)),
        mean_per_class_spread=None if single else float(np.std(means, ddof=1)),
        values=() if shots is None else tuple(tops),
        ks=() if shots is None else tuple(ks),
        leave_one_out={candidate: float(np.mean([table[candidate] for table in tables])) for candidate in tables[0]},
        train_rows=rows,
        test_rows=len(test),
        metric=metric,
        vote=vote,
    )


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
    >>> from sporeprint.evaluate.knn import knn_predict
    >>> print(knn_predict([[0.0], [0.1], [1.0]], ["cat", "cat", "dog"], [[0.2], [0.9]], k=1))
    ['cat' 'dog']
    """
    train, labels, test = _checked(train, labels, test, metric, vote, temperature)
    return _predict(train, labels, test, _check_k(k), metric, vote, temperature)


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
    train, labels, _ = _checked(train, labels, None, metric, vote, temperature)
    return _leave_one_out(train, labels, counts_of(ks), metric, vote, temperature)


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
    train, labels, _ = _checked(train, labels, None, metric, vote, temperature)
    return _choose_k(train, labels, counts_of(candidates), metric, vote, temperature)


def _choose_k(
    train: NDArray[Any], labels: NDArray[Any], ks: list[int], metric: str, vote: str, temperature: float
) -> dict[int, float]:
    right = _leave_one_out(train, labels, ks, metric, vote, temperature)
    return {k: float(hits.mean()) for k, hits in right.items()} or {min(ks): float("nan")}


def _leave_one_out(
    train: NDArray[Any], labels: NDArray[Any], ks: list[int], metric: str, vote: str, temperature: float
) -> dict[int, NDArray[np.bool_]]:
    every = np.arange(len(train))
    return votes_of_others(train, labels, every, ks, metric, vote, temperature)


def votes_of_others(
    features: NDArray[Any],
    labels: NDArray[Any],
    asking: NDArray[np.intp],
    ks: Sequence[int] = CANDIDATES,
    metric: str = "euclidean",
    vote: str = "uniform",
    temperature: float = 0.07,
) -> dict[int, NDArray[np.bool_]]:
    """`leave_one_out` of the rows `asking` [M] only; all other rows [N, D] remain their neighbours."""
    possible = [k for k in ks if k < len(features)]
    if not possible:
        return {}
    codes = np.unique(labels, return_inverse=True)[1]
    queries = features if len(asking) == len(features) else features[asking]
    voted = _votes(features, codes, queries, possible, metric, vote, temperature, asking)
    return {k: winner == codes[asking] for k, winner in voted.items()}


def _predict(
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
) -> dict[int, NDArray[np.intp]]:
    """The winners' codes [n] of each k, after one search for the largest. own: the training row of each query."""
    classes = int(codes.max()) + 1
    chosen = {k: np.empty(len(queries), np.intp) for k in ks}
    for near in tied_neighbours(train, queries, max(ks), codes, metric, own):
        weights = weights_of(near.distances, vote, metric, temperature)
        for k in ks:
            chosen[k][near.queries] = winners(codes[near.rows], near.places(k) * weights, near.distances, classes)
    return chosen


def _checked(
    train: ArrayLike, labels: ArrayLike, test: ArrayLike | None, metric: str, vote: str, temperature: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    for name, value, allowed in (("metric", metric, METRICS), ("vote", vote, VOTES)):
        check_choice(name, value, allowed, SampleError)
    if not is_positive(temperature):
        raise SampleError(f"temperature={temperature!r}; expected a number above 0")
    rows = features_of(train, "train")
    names = labels_of(labels, len(rows), "train")
    others = rows if test is None else features_of(test, "test")
    check_same_width(rows, others)
    return rows, names, others


def counts_of(ks: Sequence[int], name: str = "ks") -> list[int]:
    """Return the numbers of neighbours to choose from, ascending. Raises SampleError."""
    counts = sorted({_check_k(k, ", or several of them") for k in check_list(name, ks, "(1, 5, 10)", SampleError)})
    if not counts:
        raise SampleError("there is no k to choose from; expected at least one positive integer")
    return counts


def _check_k(k: Any, more: str = "") -> int:
    if not is_count(k):
        raise SampleError(f"k={k!r}; expected a positive integer{more}")
    return int(k)


def _percent(value: float, spread: float | None) -> str:
    return f"{value:.1%}" if spread is None else f"{value:.1%} ± {spread:.1%}"
