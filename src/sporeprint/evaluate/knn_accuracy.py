"""k nearest neighbours: top-1 and mean per-class accuracy; k given, or chosen on the training rows; few-shot draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import multimode
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.shots import draws as rows_of_draws
from sporeprint.predictors.checks import check_same_kind, labels_of
from sporeprint.predictors.knn import (
    CANDIDATES,
    Metric,
    Vote,
    accuracies,
    check_k,
    checked,
    counts_of,
    predicted,
)
from sporeprint.predictors.row_order import content_order


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
    train, labels, test = checked(train, labels, test, metric, vote, temperature)
    test_labels = labels_of(test_labels, len(test), "test")
    check_same_kind(labels, test_labels)
    candidates = counts_of(candidates, "candidates")
    k = k if k == "auto" else check_k(k, " or 'auto'")
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
        table = accuracies(rows_drawn, labels_drawn, candidates, *way) if k == "auto" else {}
        nearest = max(table, key=lambda candidate: (table[candidate], -candidate)) if k == "auto" else k
        right = predicted(rows_drawn, labels_drawn, test, nearest, *way) == test_labels
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


def _percent(value: float, spread: float | None) -> str:
    return f"{value:.1%}" if spread is None else f"{value:.1%} ± {spread:.1%}"
