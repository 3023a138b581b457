"""Which class the neighbours vote for: every one alike, by nearness, or by a softmax of the similarities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sporeprint.search.best_rows import slices

VOTES = ("uniform", "distance", "softmax")
MOST_COUNTS = 2**21  # sums at a time, over rows and classes: 16 MiB
_ROUNDING = 1e-12  # of sums of shares, such as ten tenths


def weights_of(
    distances: NDArray[np.float64], vote: str, metric: str = "euclidean", temperature: float = 0.07
) -> NDArray[np.float64]:
    """Weight of each neighbour [M, k], relative to the nearest, which is the first of its row and weighs 1.

    "uniform": all alike. "distance": 1 / distance; neighbours at distance 0, where there are any, take all, as in
    scikit-learn. "softmax": exp(cosine / temperature), as in DINO's kNN protocol (Caron et al. 2021), and
    exp(-distance^2 / (2 temperature)) for Euclidean distances, which is the same for rows of length 1. An infinite
    distance, which stands for no neighbour, weighs 0 in the last two.
    """
    if vote == "uniform" or not distances.shape[1]:
        return np.ones(distances.shape)
    nearest = distances[:, :1]
    if vote == "distance":
        return np.where(nearest == 0, distances == 0, nearest / np.where(distances == 0, 1, distances))
    further = distances - nearest if metric == "cosine" else (distances - nearest) * (distances + nearest) / 2
    return np.exp(-further / temperature)


def winners(
    votes: NDArray[np.intp], weights: NDArray[np.float64], distances: NDArray[np.float64], classes: int
) -> NDArray[np.intp]:
    """The winners [M] of votes [M, k]: classes of the neighbours, nearest first, below `classes`.

    weights: [M, k], 0 for no vote. distances: [M, k], of the neighbours. A tie goes to the tied class whose nearest
    member is nearest, and of equally near ones to the first class. Sums are made in chunks of bounded memory.
    """
    chosen = np.empty(len(votes), np.intp)
    for part in slices(len(votes), MOST_COUNTS, classes):
        chosen[part] = _winners(votes[part], weights[part], distances[part], classes)
    return chosen


def vote_sums(votes: NDArray[np.intp], weights: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """The sums [M, classes] of the weights [M, k] of each class's votes [M, k]."""
    sums = np.empty((len(votes), classes))
    for part in slices(len(votes), MOST_COUNTS, max(classes, votes.shape[1])):
        sums[part] = _sums(votes[part], weights[part], classes)
    return sums


def _sums(votes: NDArray[np.intp], weights: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    cells = np.arange(len(votes))[:, None] * classes + votes
    return np.bincount(cells.ravel(), weights.ravel(), len(votes) * classes).reshape(-1, classes)


def _winners(
    votes: NDArray[np.intp], weights: NDArray[np.float64], distances: NDArray[np.float64], classes: int
) -> NDArray[np.intp]:
    of_each = np.take_along_axis(_sums(votes, weights, classes), votes, 1)
    tied = (weights > 0) & (of_each >= of_each.max(axis=1, keepdims=True) * (1 - _ROUNDING))
    nearest = np.where(tied, distances, np.inf).min(axis=1, keepdims=True)
    return np.where(tied & (distances == nearest), votes, classes).min(axis=1)
