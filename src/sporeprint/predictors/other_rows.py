"""The nearest rows of a training row among the others: those that are not of its group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.groups import Groups
from sporeprint.predictors.principal import Floats
from sporeprint.search.best_rows import slices
from sporeprint.search.ties import Nearest, Numbers, tied_neighbours

_SMALL = 100  # rows of a group that are found with the others and dropped; a greater one's others are searched
_DISTANCES = 2**20  # at a time: 8 MiB
_ROUNDING = 1e-10  # of squared distances from products in float64, relative to the greatest squared length

Others = Callable[[Numbers, Groups, int], Iterator[Nearest]]  # of the rows that ask, of all groups, for k neighbours


def others_of_rows(
    rows: NDArray[Any], values: NDArray[Any], metric: str, asking: Numbers, groups: Groups, k: int
) -> Iterator[Nearest]:
    """The k nearest rows of each row that asks, outside its group, and every row as near as the k-th.

    rows: [N, D]. values: [N] or [N, T], a label or targets. asking: [M], numbers of rows, rising. Beyond the rows it
    takes a copy of those that ask and, where the group of one has more than 100 rows, of all others.
    """
    group_of, size_of = _group_of(groups, len(rows))
    large = size_of[asking] > _SMALL
    if not large.all():
        own = asking[~large]
        queries = rows if len(own) == len(rows) else rows[own]
        apart = np.where(size_of > _SMALL, np.arange(len(rows)), group_of) if (size_of[own] > 1).any() else None
        for near in tied_neighbours(rows, queries, k, values, metric, own, apart):
            yield replace(near, queries=own[near.queries])
    for group in np.unique(group_of[asking[large]]):
        others, members = np.flatnonzero(group_of != group), asking[group_of[asking] == group]
        for near in tied_neighbours(rows[others], rows[members], k, values[others], metric):
            yield replace(near, queries=members[near.queries], rows=others[near.rows])


def others_of_points(points: Floats, metric: str, asking: Numbers, groups: Groups, k: int) -> Iterator[Nearest]:
    """As `others_of_rows`, from coordinates [N, R], whose products are exact to rounding.

    metric "cosine": rows have length 1, though their coordinates have another origin.
    """
    group_of, lengths = _group_of(groups, len(points))[0], (points**2).sum(axis=1)
    rounding, last = _ROUNDING * lengths.max(), min(k, len(points)) - 1
    for part in slices(len(asking), _DISTANCES, len(points)):
        own = asking[part]
        asked = points if len(own) == len(points) else points[own]  # of all rows only half of the products are made
        squares = lengths[own, None] + lengths - 2 * (asked @ points.T)
        squares[group_of[own, None] == group_of] = np.inf
        near = np.argpartition(squares, last, axis=1)[:, : last + 1]
        limit = np.take_along_axis(squares, near, 1).max(axis=1) + rounding
        width = int((squares <= limit[:, None]).sum(axis=1).max())  # with all that tie for the last place
        if width > last + 1:
            near = np.argpartition(squares, width - 1, axis=1)[:, :width]
        near = np.take_along_axis(near, np.take_along_axis(squares, near, 1).argsort(axis=1, kind="stable"), 1)
        apart = _snapped(np.take_along_axis(squares, near, 1), rounding)
        distances = apart / 2 if metric == "cosine" else np.sqrt(apart)
        yield Nearest(own, near, distances, np.isfinite(apart).astype(np.intp))


def _group_of(groups: Groups, rows: int) -> tuple[Numbers, Numbers]:
    """The number of each row's group, its own where it is in none, and the group's size: [N] both."""
    group_of, size_of = np.arange(rows), np.ones(rows, np.intp)
    for group in groups:
        group_of[group], size_of[group] = group[0], len(group)
    return group_of, size_of


def _snapped(squares: Floats, rounding: float) -> Floats:
    """Squared distances [n, K], rising, where those that only rounding keeps apart are equal, and the least are 0."""
    squares = np.where(squares <= rounding, 0.0, squares)
    steps = np.diff(squares, axis=1, prepend=-np.inf)
    firsts = np.maximum.accumulate(np.where(steps > rounding, np.arange(squares.shape[1]), 0), axis=1)
    return np.take_along_axis(squares, firsts, 1)
