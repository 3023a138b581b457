"""Rows as points whose squared distances order them, whichever the metric; made chunk by chunk, and never kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError
from sporeprint.search.best_rows import slices

SMALL = 2**16  # float64 numbers at a time, to stay in the processor's cache
_LARGEST = 1e150  # beyond it squares overflow in float64
_PARALLEL = 1e-29  # squared distance of unit vectors that only float64's rounding keeps apart

Which = slice | NDArray[np.intp]


@dataclass(frozen=True)
class Points:
    """Rows [N, D] by their scales [N]: points whose squared distances order the rows, made when they are taken.

    For Euclidean distances the scale is a power of two that no number exceeds, one for all rows; for the cosine it is
    the row's length, infinite for zeros.
    """

    rows: NDArray[Any]
    scales: NDArray[np.float64]

    def take(self, which: Which) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points [n, D]; and what a row of zeros adds to its squared distances [n] for its cosine to be 0."""
        scales = self.scales[which]
        points = self.rows[which].astype(np.float64, order="C")  # equal rows are then summed alike
        points /= scales[:, None]
        return points, np.isinf(scales).astype(np.float64)

    def fast(self, which: Which, centre: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """[n, D + 1]: points about the centre, then minus half their squared length; and those squares [n].

        The product with (query about the centre, 1) is the score: half of (query's square - squared distance).
        """
        subset = Points(self.rows[which], self.scales[which])
        factors, squares = np.empty((len(subset.rows), len(centre) + 1), np.float32), np.empty(len(subset.rows))
        for part in slices(len(squares), SMALL, len(centre)):
            points, lost = subset.take(part)
            points -= centre
            factors[part, :-1] = points
            squares[part] = np.square(points, out=points).sum(axis=1) + lost
        factors[:, -1] = squares / -2
        return factors, squares

    def centre(self) -> NDArray[np.float64]:
        """The mean of about 512 rows [D]; products of differences from it are rounded less."""
        step = -(-len(self.rows) // 512)
        sample = Points(self.rows[::step], self.scales[::step])
        total = np.zeros(self.rows.shape[1])
        for part in slices(len(sample.rows), SMALL, len(total)):
            total += sample.take(part)[0].sum(axis=0)
        return total / len(sample.rows)


def largest_of(*arrays: NDArray[Any]) -> float:
    """The greatest absolute value in arrays [N, D], read in parts."""
    largest = 0.0
    for rows in arrays:
        for part in slices(len(rows), SMALL, rows.shape[1]):
            largest = max(largest, float(rows[part].max()), -float(rows[part].min()))
    return largest


def scale_of(*arrays: NDArray[Any]) -> float:
    """A power of two that no number exceeds. Raises SampleError for numbers whose squared distances overflow."""
    largest = largest_of(*arrays)
    if largest > _LARGEST:
        raise SampleError(f"features of up to {largest:.0e} are too large for distances; scale them")
    return math.ldexp(1.0, max(math.frexp(largest)[1], -500)) if largest else 1.0


def points_of(rows: NDArray[Any], scale: float, metric: str) -> Points:
    """The points of rows [N, D] under a metric."""
    scaled = Points(rows, np.broadcast_to(scale, len(rows)))
    if metric != "cosine":
        return scaled
    lengths = np.empty(len(rows))
    for part in slices(len(rows), SMALL, rows.shape[1]):
        points = scaled.take(part)[0]
        lengths[part] = np.sqrt(np.square(points, out=points).sum(axis=1)) * scale
    return Points(rows, np.where(lengths == 0, np.inf, lengths))


def squared_distances(
    points: Points, queries: Points, rows: NDArray[np.intp], who: NDArray[np.intp], metric: str
) -> NDArray[np.float64]:
    """Squared distances [p] of pairs of a row and a query, given by number: 0 for equal rows, and equal where rows are.

    They are sums of squared differences, not products, which would be rounded. who: rising.
    """
    squares = np.empty(len(rows))
    for part in slices(len(rows), SMALL, points.rows.shape[1]):
        apart, lost = points.take(rows[part])
        own = who[part]
        if own[0] == own[-1]:  # one query, as of wide rows
            asking, gone = queries.take(own[:1])
        else:
            asked, which = np.unique(own, return_inverse=True)
            asking, gone = (each[which] for each in queries.take(asked))
        apart -= asking
        squares[part] = np.square(apart, out=apart).sum(axis=1) + lost + gone
    if metric == "cosine":
        squares[squares < _PARALLEL] = 0
    return squares
