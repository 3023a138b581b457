"""Rows as points whose squared distances order them, whichever the metric; made chunk by chunk, and never kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError

SMALL = 2**16  # float64 numbers at a time, to stay in the processor's cache
_LARGEST = 1e150  # beyond it squares overflow in float64
_PARALLEL = 1e-29  # squared distance of unit vectors that only float64's rounding keeps apart

Which = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Points:
    """Rows [N, D] by their units [N]: points whose squared distances order the rows, made when they are taken.

    A unit is a power of two that no number exceeds, one for all; for the cosine the row's length, infinite for zeros.
    """

    rows: NDArray[Any]
    units: NDArray[np.float64]

    def take(self, which: Which) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points [n, D]; and what a row of zeros adds to its squared distances [n] for its cosine to be 0."""
        units = self.units[which]
        points = self.rows[which].astype(np.float64, order="C")  # equal rows are then summed alike
        points /= units[:, None]
        return points, np.isinf(units).astype(np.float64)

    def fast(self, which: Which, centre: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """[n, D + 1]: points about the centre, then minus half their squared length; and those squares [n].

        The product with (query about the centre, 1) is the score: half of (query's square - squared distance).
        """
        some = Points(self.rows[which], self.units[which])
        made, squares = np.empty((len(some.rows), len(centre) + 1), np.float32), np.empty(len(some.rows))
        for part in slices(len(squares), SMALL, len(centre)):
            points, lost = some.take(part)
            points -= centre
            made[part, :-1] = points
            squares[part] = np.square(points, out=points).sum(axis=1) + lost
        made[:, -1] = squares / -2
        return made, squares

    def centre(self) -> NDArray[np.float64]:
        """A point amid: the mean of some rows [D]; products of differences from it are rounded less."""
        step = -(-len(self.rows) // 512)
        some = Points(self.rows[::step], self.units[::step])
        total = np.zeros(self.rows.shape[1])
        for part in slices(len(some.rows), SMALL, len(total)):
            total += some.take(part)[0].sum(axis=0)
        return total / len(some.rows)


def unit_of(*arrays: NDArray[Any]) -> float:
    """A power of two that no number exceeds."""
    largest = 0.0
    for rows in arrays:
        for part in slices(len(rows), SMALL, rows.shape[1]):
            largest = max(largest, float(rows[part].max()), -float(rows[part].min()))
    if largest > _LARGEST:
        raise SampleError(f"features of up to {largest:.0e} are too large for distances; scale them")
    return math.ldexp(1.0, max(math.frexp(largest)[1], -500)) if largest else 1.0


def points_of(rows: NDArray[Any], unit: float, metric: str) -> Points:
    same = Points(rows, np.broadcast_to(unit, len(rows)))
    if metric != "cosine":
        return same
    lengths = np.empty(len(rows))
    for part in slices(len(rows), SMALL, rows.shape[1]):
        points = same.take(part)[0]
        lengths[part] = np.sqrt(np.square(points, out=points).sum(axis=1)) * unit
    return Points(rows, np.where(lengths == 0, np.inf, lengths))


def squared_distances(
    points: Points, queries: Points, rows: NDArray[np.intp], who: NDArray[np.intp], metric: str
) -> NDArray[np.float64]:
    """Of pairs of a row and a query [p] by number, by differences: 0 for equal rows, and equal where the rows are."""
    squares = np.empty(len(rows))
    for part in slices(len(rows), SMALL, points.rows.shape[1]):
        apart, lost = points.take(rows[part])
        some, which = np.unique(who[part], return_inverse=True)
        asking, gone = queries.take(some)
        apart -= asking[which]
        squares[part] = np.square(apart, out=apart).sum(axis=1) + lost + gone[which]
    if metric == "cosine":
        squares[squares < _PARALLEL] = 0
    return squares


def slices(length: int, numbers: int, width: int = 1) -> Iterator[slice]:
    """Slices of so many rows of a width that each holds at most so many numbers, and at least one row."""
    step = max(1, numbers // width)
    return (slice(at, min(at + step, length)) for at in range(0, length, step))
