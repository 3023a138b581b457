"""Which class the neighbours vote for: every one alike, by nearness, or by a softmax of the similarities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VOTES = ("uniform", "distance", "softmax")
MOST_COUNTS = 2**21  # sums at a time, over rows and classes: 16 MiB


def weights_of(
    distances: NDArray[np.float64], vote: str, metric: str = "euclidean", temperature: float = 0.07
) -> NDArray[np.float64]:
    """Weight of each neighbour [M, k], relative to the nearest, which is the first of its row and weighs 1.

    "uniform": all alike. "distance": 1 / distance; neighbours at distance 0, where there are any, take all, as in
    scikit-learn. "softmax": exp(cosine / temperature), as in DINO's kNN protocol (Caron et al. 2021), and
    exp(-distance^2 / (2 temperature)) for Euclidean distances, which is the same for rows of length 1.
    """
    if vote == "uniform" or not distances.shape[1]:
        return np.ones(distances.shape)
    nearest = distances[:, :1]
    if vote == "distance":
        return np.where(nearest == 0, distances == 0, nearest / np.where(distances == 0, 1, distances))
    further = distances - nearest if metric == "cosine" else (distances - nearest) * (distances + nearest) / 2
    return np.exp(-further / temperature)


def winners(votes: NDArray[np.intp], weights: NDArray[np.float64], classes: int) -> NDArray[np.intp]:
    """The winners [M] of votes [M, k]: classes of the neighbours, nearest first, below `classes`. weights: [M, k].

    A tie goes to the tied class whose nearest member is nearest. Sums are made in chunks of bounded memory.
    """
    chosen = np.empty(len(votes), np.intp)
    size = max(1, MOST_COUNTS // classes)
    for at in range(0, len(votes), size):
        chosen[at : at + size] = _winners(votes[at : at + size], weights[at : at + size], classes)
    return chosen


def _winners(votes: NDArray[np.intp], weights: NDArray[Any], classes: int) -> NDArray[np.intp]:
    rows = np.arange(len(votes))
    sums = np.zeros((len(votes), classes))
    for column, weight in zip(votes.T, weights.T, strict=True):  # nearest first: equal weights make equal sums
        sums[rows, column] += weight
    of_each = sums[rows[:, None], votes]
    return votes[rows, (of_each == of_each.max(axis=1, keepdims=True)).argmax(axis=1)]
