"""Exact nearest neighbours in bounded memory: any number of queries and of training rows, memory-mapped or not.

Products in float32 find candidates and differences in float64 order them. A bound on the products' rounding says where
a neighbour may be missing among the candidates; those queries are searched once more, with every row in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.search.best_rows import SPARE, Scores, best_candidates, check_row_count, slices
from sporeprint.search.points import Points, points_of, scale_of, squared_distances

METRICS = ("euclidean", "cosine")

_QUERIES, _ROWS = 2048, 4096  # the most at a time: 32 MiB of scores, or two of them
_WIDE = 2**22  # numbers of the rows at a time, twice as many of the queries: 16 and 32 MiB
_SLICE = 2**20  # candidates at a time: up to 64 MiB with their row numbers

_TERMS = 2048  # dimensions of one product; the sum of several is off by less than one long product may be
_ROUNDING, _UNDERFLOW = 1.2 * 2.0**-24, 2.0**-125  # of float32; 1.2 covers the higher orders of the rounding

Rows = NDArray[np.intp]
Nearest = tuple[Rows, NDArray[np.float64]]


@quiet_floats
def neighbours(
    train: NDArray[Any], queries: NDArray[Any] | None, k: int, metric: str = "euclidean"
) -> Iterator[Nearest]:
    """Numbers of the k nearest training rows, and their distances, both [n, k], for one chunk of queries after another.

    train: [N, D], queries: [M, D], finite numbers. queries None: each training row's neighbours among the others; its
    duplicates are neighbours, itself never is. Nearest first; equal distances go by the order of the training rows, and
    exact duplicates are at distance 0. k is cut to the rows there are, which may be none.
    metric: "euclidean", or "cosine": 1 - cosine, where a row of zeros is at distance 1 from every row.
    Beyond the arrays 256 MiB suffice, for up to a million k and dimensions, and 8 bytes a row for the cosine. The
    training rows are read in order, once for each 2,048 queries (fewer beyond 4,096 dimensions or a k of 500), and once
    more where some of those are in doubt.
    Raises SampleError for numbers beyond 1e150 and for 2^32 rows.
    """
    check_row_count(len(train))
    own = queries is None
    queries = train if queries is None else queries
    most = len(train) - own
    k = min(k, most)
    if k < 1:
        yield np.empty((len(queries), 0), np.intp), np.empty((len(queries), 0))
        return
    keep = min(k + SPARE, most)
    scale = scale_of(train, queries)
    points = points_of(train, scale, metric)
    asking = points if own else points_of(queries, scale, metric)
    centre = points.centre()
    count = min(_QUERIES, 2 * _WIDE // train.shape[1], _SLICE // keep)
    for part in slices(len(queries), max(1, count)):
        chunk = _Chunk(points, asking, np.arange(part.start, part.stop), centre, own, metric)
        rows, squares, unsure = chunk.nearest(k, keep, complete=keep == most)
        if len(unsure):
            again = _Chunk(points, asking, part.start + unsure, centre, own, metric)
            rows[unsure], squares[unsure] = again.nearest_of_all(k, squares[unsure, -1])
        yield rows, squares / 2 if metric == "cosine" else np.sqrt(squares) * scale


class _Chunk:
    """A chunk of the queries, given by their numbers, and the search for it. own: queries are training rows."""

    def __init__(
        self, train: Points, queries: Points, numbers: Rows, centre: NDArray[np.float64], own: bool, metric: str
    ) -> None:
        self.train, self.queries, self.numbers, self.centre = train, queries, numbers, centre
        self.own, self.metric = own, metric
        self.fast, self.lengths = queries.fast(numbers, centre)
        self.fast[:, -1] = 1

    def nearest(self, k: int, keep: int, complete: bool) -> tuple[Rows, NDArray[np.float64], Rows]:
        """Rows [n, k], squared distances [n, k], and which queries are in doubt. complete: keep is all there are."""
        scores, rows = best_candidates(self._scores(_ROWS), len(self.numbers), keep)
        squares = np.full(scores.shape, np.inf)
        sure = np.zeros(scores.shape, bool)
        sure[:, :k] = True
        self._fill(squares, rows, sure)
        self._fill(squares, rows, ~sure & (scores >= self._floor(squares[:, :k].max(axis=1))[:, None]))
        order = np.lexsort((rows, squares), axis=1)[:, :k]
        rows, squares = np.take_along_axis(rows, order, 1), np.take_along_axis(squares, order, 1)
        doubt = np.zeros(len(rows), bool) if complete else scores[:, -1] >= self._floor(squares[:, -1])
        return rows, squares, np.flatnonzero(doubt)

    def nearest_of_all(self, k: int, limit: NDArray[np.float64]) -> Nearest:
        """As `nearest`, of every row that may be within the squared distance `limit` [n], which k rows are within."""
        rows = np.full((len(self.numbers), k), -1, np.intp)
        squares = np.full(rows.shape, np.inf)
        floor = self._floor(limit)
        for first, scores in self._scores(_ROWS // 8):
            for part in slices(len(scores), _SLICE // 4, scores.shape[1] + k):
                who, column = np.nonzero(scores[part] >= floor[part, None])
                who += part.start
                distances = squared_distances(self.train, self.queries, column + first, self.numbers[who], self.metric)
                nearer = distances < squares[who, -1]  # as near as the last is not enough: rows come in order
                _insert(rows, squares, who[nearer], column[nearer] + first, distances[nearer])
            floor[squares[:, -1] == 0] = np.inf
        return rows, squares

    def _scores(self, step: int) -> Iterator[tuple[int, Scores]]:
        """The first row's number and scores [n, R], overwritten by the next, of one chunk of rows after another."""
        count, width = self.train.rows.shape
        step = max(1, min(step, _WIDE // width, count))
        space = np.empty(len(self.numbers) * step, np.float32)
        for part in slices(count, step):
            rows = self.train.fast(part, self.centre)[0]
            scores = space[: len(self.numbers) * len(rows)].reshape(len(self.numbers), len(rows))
            np.matmul(self.fast[:, -_TERMS:], rows[:, -_TERMS:].T, out=scores)
            for at in range(0, rows.shape[1] - _TERMS, _TERMS):
                dimensions = slice(at, min(at + _TERMS, rows.shape[1] - _TERMS))
                scores += self.fast[:, dimensions] @ rows[:, dimensions].T
            if self.own:
                here = np.flatnonzero((self.numbers >= part.start) & (self.numbers < part.stop))
                scores[here, self.numbers[here] - part.start] = -np.inf
            yield part.start, scores

    def _floor(self, limit: NDArray[np.float64]) -> Scores:
        """The least score that a row within the squared distance `limit` [n] can have, rounding and all.

        Such a row is no further from the centre than the query's length and the distance together. A product of n
        numbers is off by at most n roundings of the product of the lengths (Higham, Accuracy and Stability, 3.1).
        """
        length = np.sqrt(self.lengths)
        reach = length + np.sqrt(limit)
        width = len(self.centre)
        terms = min(width, _TERMS) + width // _TERMS + 8
        error = terms * _ROUNDING * (length * reach + reach**2 / 2) + (width + 8) * _UNDERFLOW
        return np.nextafter(((self.lengths - limit) / 2 - error).astype(np.float32), np.float32(-np.inf))

    def _fill(self, squares: NDArray[np.float64], rows: Rows, where: NDArray[np.bool_]) -> None:
        who = self.numbers[np.nonzero(where)[0]]
        squares[where] = squared_distances(self.train, self.queries, rows[where], who, self.metric)


def _insert(rows: Rows, squares: NDArray[np.float64], who: Rows, new: Rows, distances: NDArray[np.float64]) -> None:
    """Put pairs [p] of a query and a row among the queries' k nearest [n, k], sorted; in place."""
    touched, k = np.unique(who), rows.shape[1]
    who = np.concatenate([np.repeat(touched, k), who])
    new, distances = np.concatenate([rows[touched].ravel(), new]), np.concatenate([squares[touched].ravel(), distances])
    order = np.lexsort((new, distances, who))
    rank = np.arange(len(who)) - np.searchsorted(who[order], who[order])
    taken = order[rank < k]
    rows[touched], squares[touched] = new[taken].reshape(-1, k), distances[taken].reshape(-1, k)
