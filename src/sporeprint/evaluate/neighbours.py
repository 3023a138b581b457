"""Exact nearest neighbours in bounded memory: any number of queries and of training rows, memory-mapped or not.

Products in float32 find candidates and differences in float64 order them. A bound on the products' rounding says where
a neighbour may be missing among the candidates; those queries are searched once more, with every row in doubt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError

METRICS = ("euclidean", "cosine")
SPARE = 16  # candidates beyond k: where fewer are in doubt, no second search is needed

_QUERIES, _ROWS = 2048, 4096  # at most so many at a time: 32 MiB of scores, or two of them
_WIDE = 2**22  # numbers of the rows at a time, twice as many of the queries: 16 and 32 MiB
_SLICE = 2**20  # scores or candidates at a time: up to 64 MiB with their row numbers
_SMALL = 2**17  # float64 numbers at a time, to stay in the processor's cache

_TERMS = 2048  # dimensions of one product; the sum of several is off by less than one long product may be
_ROUNDING, _UNDERFLOW = 1.2 * 2.0**-24, 2.0**-125  # of float32; 1.2 covers the higher orders of the rounding
_LARGEST = 1e150  # beyond it squares overflow in float64
_PARALLEL = 1e-29  # squared distance of unit vectors that only float64's rounding keeps apart

Rows = NDArray[np.intp]
Found = tuple[Rows, NDArray[np.float64]]


def rows_of(rows: ArrayLike, which: str) -> NDArray[Any]:
    """`features_of`, for arrays of any size: rows [N, D] as they are, not copied, and checked in bounded memory."""
    array = np.asarray(rows)
    if array.ndim != 2 or not array.size:
        raise SampleError(
            f"{which} features have shape {array.shape}; expected [rows, dimensions], at least one row and dimension"
        )
    if array.dtype.kind not in "fiub":
        raise SampleError(f"{which} features are {array.dtype}; expected real numbers")
    bad = sum(int((~np.isfinite(array[part]).all(axis=1)).sum()) for part in _slices(len(array), _WIDE, array.shape[1]))
    if bad:
        raise SampleError(f"{bad} of {len(array)} {which} rows are NaN or infinite (unreadable samples?); drop them")
    return array


def neighbours(train: NDArray[Any], queries: NDArray[Any] | None, k: int, metric: str = "euclidean") -> Iterator[Found]:
    """Numbers of the k nearest training rows, and their distances, both [n, k], for one chunk of queries after another.

    train: [N, D], queries: [M, D], finite (see `rows_of`). queries None: each training row's neighbours among the
    others; its duplicates are neighbours, itself never is. Nearest first; equal distances go by the order of the
    training rows, and exact duplicates are at distance 0. k is cut to the rows there are, which may be none.
    metric: "euclidean", or "cosine": 1 - cosine, where a row of zeros is at distance 1 from every row.
    Beyond the arrays 256 MiB suffice, for up to a million k and dimensions; training rows are read in order, once for
    each 2,048 queries (fewer beyond 4,096 dimensions or a k of 500), and once more where some of those are in doubt.
    Raises SampleError for numbers beyond 1e150.
    """
    own = queries is None
    queries = train if queries is None else queries
    most = len(train) - own
    k = min(k, most)
    if k < 1:
        yield np.empty((len(queries), 0), np.intp), np.empty((len(queries), 0))
        return
    keep = min(k + SPARE, most)
    space = _space(train, queries, metric)
    count = min(_QUERIES, 2 * _WIDE // train.shape[1], _SLICE // keep)
    for part in _slices(len(queries), max(1, count)):
        chunk = _Chunk(space, train, queries, np.arange(part.start, part.stop), own)
        rows, squares, unsure = chunk.nearest(k, keep, complete=keep == most)
        if len(unsure):
            again = _Chunk(space, train, queries, part.start + unsure, own)
            rows[unsure], squares[unsure] = again.nearest_of_all(k, squares[unsure, -1])
        yield rows, squares / 2 if space.cosine else np.sqrt(squares) / space.scale


@dataclass(frozen=True)
class _Space:
    """How rows become points whose squared distances order them. scale: a power of two. centre: [D], any point amid."""

    cosine: bool
    scale: float
    centre: NDArray[np.float64]

    def points(self, rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points [n, D]; and what a row without direction adds to its squared distances [n]: its cosine is 0."""
        points = np.multiply(rows, self.scale, dtype=np.float64, order="C")  # equal rows are then summed alike
        if not self.cosine:
            return points, np.zeros(len(points))
        lengths = np.sqrt(np.square(points).sum(axis=1))
        points /= np.where(lengths == 0, 1, lengths)[:, None]
        return points, (lengths == 0).astype(np.float64)

    def fast(self, rows: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """[n, D + 1]: points about the centre, then minus half their squared length; and those squares [n].

        The product with (query about the centre, 1) is the score: half of (query's square - squared distance).
        """
        made, squares = np.empty((len(rows), rows.shape[1] + 1), np.float32), np.empty(len(rows))
        for part in _slices(len(rows), _SMALL, rows.shape[1]):
            points, lost = self.points(rows[part])
            points -= self.centre
            made[part, :-1] = points
            squares[part] = np.square(points, out=points).sum(axis=1) + lost
        made[:, -1] = squares / -2
        return made, squares


def _space(train: NDArray[Any], queries: NDArray[Any], metric: str) -> _Space:
    largest = 0.0
    for rows in (train, queries):
        for part in _slices(len(rows), _SMALL, rows.shape[1]):
            largest = max(largest, float(rows[part].max()), -float(rows[part].min()))
    if largest > _LARGEST:
        raise SampleError(f"features of up to {largest:.0e} are too large for distances; scale them")
    scale = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000)) if largest else 1.0
    space = _Space(metric == "cosine", scale, np.zeros(train.shape[1]))
    some = train[:: -(-len(train) // 512)]
    total = np.zeros(train.shape[1])
    for part in _slices(len(some), _SMALL, train.shape[1]):
        total += space.points(some[part])[0].sum(axis=0)
    return _Space(space.cosine, scale, total / len(some))


class _Chunk:
    """Some queries, given by their numbers, and the search for their neighbours. own: they are training rows."""

    def __init__(self, space: _Space, train: NDArray[Any], queries: NDArray[Any], numbers: Rows, own: bool) -> None:
        self.space, self.train, self.queries, self.numbers, self.own = space, train, queries, numbers, own
        in_order = slice(int(numbers[0]), int(numbers[-1]) + 1)
        self.fast, self.lengths = space.fast(
            queries[in_order if in_order.stop - in_order.start == len(numbers) else numbers]
        )
        self.fast[:, -1] = 1

    def nearest(self, k: int, keep: int, complete: bool) -> tuple[Rows, NDArray[np.float64], Rows]:
        """Rows [n, k], squared distances [n, k], and which queries are in doubt. complete: keep is all there are."""
        scores = np.full((len(self.numbers), keep), -np.inf, np.float32)
        rows = np.full(scores.shape, -1, np.intp)
        for first, found in self._scores(_ROWS):
            for part in _slices(len(found), _SLICE, found.shape[1] + keep):
                _merge(scores[part], rows[part], found[part], first)
        order = np.argsort(-scores, axis=1)
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
        squares = np.full(scores.shape, np.inf)
        sure = np.zeros(scores.shape, bool)
        sure[:, :k] = True
        self._fill(squares, rows, sure)
        self._fill(squares, rows, ~sure & (scores >= self._floor(squares[:, :k].max(axis=1))[:, None]))
        order = np.lexsort((rows, squares), axis=1)[:, :k]
        rows, squares = np.take_along_axis(rows, order, 1), np.take_along_axis(squares, order, 1)
        doubt = np.zeros(len(rows), bool) if complete else scores[:, -1] >= self._floor(squares[:, -1])
        return rows, squares, np.flatnonzero(doubt)

    def nearest_of_all(self, k: int, limit: NDArray[np.float64]) -> Found:
        """As `nearest`, of every row that may be within the squared distance `limit` [n], which k rows are within."""
        rows = np.full((len(self.numbers), k), -1, np.intp)
        squares = np.full(rows.shape, np.inf)
        floor = self._floor(limit)
        for first, found in self._scores(_ROWS // 8):
            for part in _slices(len(found), _SLICE // 4, found.shape[1] + k):
                who, column = np.nonzero(found[part] >= floor[part, None])
                who += part.start
                distances = self._squares(who, column + first)
                nearer = distances < squares[who, -1]  # as near as the last is not enough: rows come in order
                _insert(rows, squares, who[nearer], column[nearer] + first, distances[nearer])
            floor[squares[:, -1] == 0] = np.inf
        return rows, squares

    def _scores(self, step: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The first row's number and scores [n, R], overwritten by the next, of one chunk of rows after another."""
        step = max(1, min(step, _WIDE // self.train.shape[1], len(self.train)))
        space = np.empty(len(self.numbers) * step, np.float32)
        for part in _slices(len(self.train), step):
            rows = self.space.fast(self.train[part])[0]
            scores = space[: len(self.numbers) * len(rows)].reshape(len(self.numbers), len(rows))
            np.matmul(self.fast[:, -_TERMS:], rows[:, -_TERMS:].T, out=scores)
            for at in range(0, rows.shape[1] - _TERMS, _TERMS):
                dimensions = slice(at, min(at + _TERMS, rows.shape[1] - _TERMS))
                scores += self.fast[:, dimensions] @ rows[:, dimensions].T
            if self.own:
                here = np.flatnonzero((self.numbers >= part.start) & (self.numbers < part.stop))
                scores[here, self.numbers[here] - part.start] = -np.inf
            yield part.start, scores

    def _floor(self, limit: NDArray[np.float64]) -> NDArray[np.float32]:
        """The least score that a row within the squared distance `limit` [n] can have, rounding and all.

        Such a row is no further from the centre than the query's length and the distance together. A product of n
        numbers is off by at most n roundings of the product of the lengths (Higham, Accuracy and Stability, 3.1).
        """
        length = np.sqrt(self.lengths)
        reach = length + np.sqrt(limit)
        width = self.train.shape[1]
        terms = min(width, _TERMS) + width // _TERMS + 8
        error = terms * _ROUNDING * (length * reach + reach**2 / 2) + (width + 8) * _UNDERFLOW
        return np.nextafter(((self.lengths - limit) / 2 - error).astype(np.float32), np.float32(-np.inf))

    def _fill(self, squares: NDArray[np.float64], rows: Rows, where: NDArray[np.bool_]) -> None:
        squares[where] = self._squares(np.nonzero(where)[0], rows[where])

    def _squares(self, who: Rows, rows: Rows) -> NDArray[np.float64]:
        """Squared distances [p] of pairs, by differences: 0 for equal rows, and equal where the rows are."""
        squares = np.empty(len(rows))
        for part in _slices(len(rows), _SMALL, self.train.shape[1]):
            points, lost = self.space.points(self.train[rows[part]])
            some, which = np.unique(who[part], return_inverse=True)
            queries, gone = self.space.points(self.queries[self.numbers[some]])
            points -= queries[which]
            squares[part] = np.square(points, out=points).sum(axis=1) + lost + gone[which]
        if self.space.cosine:
            squares[squares < _PARALLEL] = 0
        return squares


def _merge(scores: NDArray[np.float32], rows: Rows, found: NDArray[np.float32], first: int) -> None:
    """Keep the best of the scores [n, keep] and of those found [n, R] in rows from `first` on; in place."""
    keep = scores.shape[1]
    better = found > scores.min(axis=1)[:, None]
    counts = np.count_nonzero(better, axis=1)
    touched = np.flatnonzero(counts)
    if not len(touched):
        return
    counts = counts[touched]
    if counts.max() > 2 * keep:
        column = np.argpartition(found[touched], -keep, axis=1)[:, -keep:]
        new = np.take_along_axis(found[touched], column, 1)
    else:
        column = np.zeros((len(touched), counts.max()), np.intp)
        new = np.full(column.shape, -np.inf, np.float32)
        filled = np.arange(column.shape[1]) < counts[:, None]
        column[filled] = np.nonzero(better)[1]
        new[filled] = found[better]
    joined = np.concatenate([scores[touched], new], axis=1)
    numbers = np.concatenate([rows[touched], column + first], axis=1)
    best = np.argpartition(joined, -keep, axis=1)[:, -keep:]
    scores[touched], rows[touched] = np.take_along_axis(joined, best, 1), np.take_along_axis(numbers, best, 1)


def _insert(rows: Rows, squares: NDArray[np.float64], who: Rows, new: Rows, distances: NDArray[np.float64]) -> None:
    """Put pairs [p] of a query and a row among the queries' k nearest [n, k], sorted; in place."""
    touched, k = np.unique(who), rows.shape[1]
    who = np.concatenate([np.repeat(touched, k), who])
    new, distances = np.concatenate([rows[touched].ravel(), new]), np.concatenate([squares[touched].ravel(), distances])
    order = np.lexsort((new, distances, who))
    rank = np.arange(len(who)) - np.searchsorted(who[order], who[order])
    taken = order[rank < k]
    rows[touched], squares[touched] = new[taken].reshape(-1, k), distances[taken].reshape(-1, k)


def _slices(length: int, numbers: int, width: int = 1) -> Iterator[slice]:
    """Slices of so many rows of a width that each holds at most so many numbers, and at least one row."""
    step = max(1, numbers // width)
    return (slice(at, min(at + step, length)) for at in range(0, length, step))
