"""k nearest neighbours: top-1 and mean per-class accuracy; k given, or chosen on the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.rows import check_same_kind, check_same_width, features_of, labels_of

METRICS = ("euclidean", "cosine")
CANDIDATES = (1, 3, 5, 10, 20)  # for k="auto"; METHOD's protocol
MOST_COUNTS = 2**22  # votes counted at a time, over rows and classes: 16 MB


@dataclass(frozen=True)
class KNNResult:
    """value: top-1 accuracy, a fraction. mean_per_class: mean of the classes' accuracies, a fraction."""

    value: float
    mean_per_class: float
    k: int
    leave_one_out: dict[int, float] = field(default_factory=dict)  # training accuracy by k, where k="auto" chose
    train_rows: int = 0
    test_rows: int = 0
    metric: str = "euclidean"

    def to_json(self) -> dict[str, Any]:
        chosen = {k: None if np.isnan(value) else value for k, value in self.leave_one_out.items()}  # JSON has no NaN
        return {**asdict(self), "leave_one_out": chosen}

    def __str__(self) -> str:
        chosen = " (leave-one-out)" if self.leave_one_out else ""
        return f"top-1 {self.value:.1%}, mean per class {self.mean_per_class:.1%}, k = {self.k}{chosen}"


def knn(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    k: int | Literal["auto"] = 20,
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> KNNResult:
    """Classify test rows [M, D] by a uniform vote of their k nearest training rows [N, D]; exact search.

    k="auto" takes the k of 1, 3, 5, 10, 20 with the best leave-one-out accuracy on the training rows, the smaller one
    in a tie; the test rows are not looked at. With fewer than k training rows all of them vote. A vote's tie goes to
    the tied class whose nearest member is nearest. A test class that is absent from train counts as wrong.
    Raises SampleError for rows with NaN, and for labels that do not match.
    """
    if metric not in METRICS:
        raise SampleError(f"metric={metric!r}; expected one of: {', '.join(METRICS)}")
    train, test = features_of(train, "train"), features_of(test, "test")
    labels, test_labels = labels_of(labels, len(train), "train"), labels_of(test_labels, len(test), "test")
    check_same_width(train, test)
    check_same_kind(labels, test_labels)
    if not (k == "auto" or (isinstance(k, (int, np.integer)) and k >= 1)):
        raise SampleError(f"k={k!r}; expected a positive integer or 'auto'")
    leave_one_out = choose_k(train, labels, metric) if k == "auto" else {}
    nearest = max(leave_one_out, key=lambda one: (leave_one_out[one], -one)) if k == "auto" else int(k)
    classes, codes = np.unique(labels, return_inverse=True)
    neighbours = _neighbours(train, metric, min(nearest, len(train)), test)
    right = classes[_vote(codes[neighbours], len(classes))] == test_labels
    per_class = [right[test_labels == name].mean() for name in np.unique(test_labels)]
    return KNNResult(
        float(right.mean()), float(np.mean(per_class)), nearest, leave_one_out, len(train), len(test), metric
    )


def choose_k(
    train: NDArray[np.float32], labels: NDArray[Any], metric: str = "euclidean", candidates: Sequence[int] = CANDIDATES
) -> dict[int, float]:
    """Leave-one-out accuracy on the training rows for each candidate k that they have enough rows for."""
    codes = np.unique(labels, return_inverse=True)[1]
    possible = [k for k in candidates if k < len(train)]
    if not possible:
        return {1: float("nan")}
    neighbours = _neighbours(train, metric, max(possible), None)
    return {k: float((_vote(codes[neighbours[:, :k]], codes.max() + 1) == codes).mean()) for k in possible}


def _neighbours(train: NDArray[Any], metric: str, k: int, queries: NDArray[Any] | None) -> NDArray[np.intp]:
    from sklearn.neighbors import NearestNeighbors

    return (
        NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric)
        .fit(train)
        .kneighbors(queries, return_distance=False)
    )


def _vote(votes: NDArray[np.intp], classes: int) -> NDArray[np.intp]:
    """votes [M, k], nearest first. Returns the winner of each row; counted in chunks of bounded memory."""
    if len(votes) * classes > MOST_COUNTS and len(votes) > 1:
        size = max(1, MOST_COUNTS // classes)
        return np.concatenate([_vote(votes[at : at + size], classes) for at in range(0, len(votes), size)])
    rows = np.arange(len(votes))
    counts = np.zeros((len(votes), classes), dtype=np.int32)
    for column in votes.T:
        np.add.at(counts, (rows, column), 1)
    most = counts.max(axis=1)
    among = counts[rows[:, None], votes] == most[:, None]  # [M, k]: does this neighbour's class win?
    return votes[rows, among.argmax(axis=1)]
