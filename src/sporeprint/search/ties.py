"""The nearest rows with all that are as near as the last of them, so that no answer depends on the order of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.search.best_rows import slices
from sporeprint.search.neighbours import neighbours

_PAIRS = 2**20  # of a query and a row at a time
_NUMBERS = 2**20  # of rows that are digested at a time
_FURTHER = 4  # times as many neighbours where those that were found end within a tie

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class Nearest:
    """Rows [n, K] of some queries, nearest first, with their distances [n, K]; infinite where a query has fewer rows.

    queries: [n], their numbers. counts: [n, K], how many rows a row stands for. ties: what `ties_of` gives, where many
    k are asked of the same rows.
    """

    queries: Numbers
    rows: Numbers
    distances: NDArray[np.float64]
    counts: Numbers
    ties: tuple[Numbers, Numbers] | None = None

    def with_ties(self) -> Nearest:
        """The same rows, for the places of many k."""
        return replace(self, ties=ties_of(self.distances, self.counts))

    def first(self, k: int) -> Nearest:
        """Only as many columns as hold the k nearest rows of every query, and those that tie with the k-th."""
        limit = self.distances[:, [min(k, self.distances.shape[1]) - 1]]
        width = int((self.distances <= limit).sum(axis=1).max(initial=1))
        ties = None if self.ties is None else (self.ties[0][:, :width], self.ties[1][:, :width])
        return Nearest(self.queries, self.rows[:, :width], self.distances[:, :width], self.counts[:, :width], ties)

    def places(self, k: int) -> NDArray[np.float64]:
        """How many of the k nearest places each row [n, K] takes: rows at one distance share those that are left."""
        before, tied = self.ties or ties_of(self.distances, self.counts)
        return np.asarray(self.counts * np.clip((k - before) / np.maximum(tied, 1), 0.0, 1.0), np.float64)


def ties_of(distances: NDArray[np.float64], counts: Numbers) -> tuple[Numbers, Numbers]:
    """How many rows are nearer than each row [n, K], and how many are as near as it is."""
    columns = np.arange(distances.shape[1])
    bounds = np.ones((len(distances), len(columns) + 1), bool)
    bounds[:, 1:-1] = distances[:, 1:] != distances[:, :-1]
    starts = np.maximum.accumulate(np.where(bounds[:, :-1], columns, 0), axis=1)
    ends = np.minimum.accumulate(np.where(bounds[:, 1:], columns, len(columns))[:, ::-1], axis=1)[:, ::-1]
    through = np.cumsum(counts, axis=1)
    before = np.take_along_axis(through - counts, starts, 1)
    return before, np.take_along_axis(through, ends, 1) - before


def tied_neighbours(
    train: NDArray[Any],
    queries: NDArray[Any],
    k: int,
    values: NDArray[Any],
    metric: str = "euclidean",
    own: Numbers | None = None,
    groups: Numbers | None = None,
) -> Iterator[Nearest]:
    """The k nearest training rows of each query, and every row as near as the k-th, for some queries after others.

    As `neighbours` otherwise. values: [N] or [N, T], a label or targets: of duplicates with equal values one may stand
    for all. own: [M], the training row that each query is: it is no neighbour of its own, its duplicates are.
    groups: [N], a number for each training row; then no row of its own row's group is a query's neighbour.
    The distinct rows are copied once, and searched, where more than k rows tie and where half are duplicates.
    """
    if own is not None:
        k += 1 if groups is None else int(np.bincount(groups)[groups[own]].max())
    distinct = _Distinct(train, values, own, groups)
    if 2 * len(distinct.firsts) <= len(train):
        yield from distinct.nearest(queries, np.arange(len(queries)), k, metric)
        return
    first = 0
    for rows, distances in neighbours(train, queries, k + 1, metric):
        numbers = np.arange(first, first + len(rows))
        first += len(rows)
        last = min(k, rows.shape[1])
        more = distances[:, last - 1] == distances[:, -1] if rows.shape[1] > last else np.zeros(len(rows), bool)
        near = Nearest(
            numbers[~more], rows[~more, :last], distances[~more, :last], np.ones((sum(~more), last), np.intp)
        )
        if own is not None:
            alone = near.rows == own[near.queries, None]
            near = _without(near, alone if groups is None else _of_own_group(near, own, groups))
        yield near
        yield from distinct.nearest(queries, numbers[more], k, metric)


class _Distinct:
    """The distinct rows among training rows, and those among their duplicates that differ in value."""

    def __init__(self, train: NDArray[Any], values: NDArray[Any], own: Numbers | None, groups: Numbers | None) -> None:
        self.train, self.own, self.groups = train, own, groups
        values = values.reshape(len(values), -1)
        if groups is not None:  # duplicates of several groups are not alike
            values = np.column_stack([values, groups])
        seen: dict[bytes, int] = {}
        codes = np.empty(len(train), np.intp)
        for part in slices(len(train), _NUMBERS, train.shape[1]):
            for at, row in enumerate(train[part] + train.dtype.type(0), part.start):  # + 0: there is one zero
                codes[at] = seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), len(seen))
        self.firsts = np.unique(codes, return_index=True)[1]  # the first row of each distinct one
        parts = np.unique(values, axis=0, return_inverse=True)[1].reshape(-1)
        keys, self.voters, self.kind, self.counts = np.unique(
            codes * (parts.max() + 1) + parts, return_index=True, return_inverse=True, return_counts=True
        )
        self.starts = np.searchsorted(keys // (parts.max() + 1), np.arange(len(self.firsts) + 1))
        self.totals = np.bincount(codes)

    @cached_property
    def rows(self) -> NDArray[Any]:
        """The distinct rows [n, D]."""
        return self.train if len(self.firsts) == len(self.train) else self.train[self.firsts]

    def nearest(self, queries: NDArray[Any], numbers: Numbers, k: int, metric: str) -> Iterator[Nearest]:
        width = min(k + 1, len(self.firsts))
        while len(numbers):
            within_a_tie, first = [], 0
            for rows, distances in neighbours(self.rows, queries[numbers], width, metric):
                asked = numbers[first : first + len(rows)]
                first += len(rows)
                reach = np.cumsum(self.totals[rows], axis=1) >= min(k, len(self.train))
                limit = distances[np.arange(len(rows)), reach.argmax(axis=1)]
                more = (limit == distances[:, -1]) & (width < len(self.firsts))
                within_a_tie.append(asked[more])
                yield from self._voters(
                    asked[~more], rows[~more], distances[~more] <= limit[~more, None], distances[~more]
                )
            numbers = np.concatenate(within_a_tie)
            width = min(_FURTHER * width, len(self.firsts))

    def _voters(
        self, numbers: Numbers, rows: Numbers, near: NDArray[np.bool_], distances: NDArray[np.float64]
    ) -> Iterator[Nearest]:
        """Each distinct row that is near as the rows of different values that it stands for."""
        repeats = np.where(near, np.diff(self.starts)[rows], 0)
        totals = repeats.sum(axis=1)
        for part in slices(len(numbers), _PAIRS, int(totals.max(initial=1))):
            times = repeats[part].ravel()
            offsets = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
            inside = np.arange(totals[part].max()) < totals[part, None]
            kinds, apart = np.zeros(inside.shape, np.intp), np.full(inside.shape, np.inf)
            kinds[inside] = np.repeat(self.starts[rows[part]].ravel(), times) + offsets
            apart[inside] = np.repeat(distances[part].ravel(), times)
            nearest = Nearest(numbers[part], self.voters[kinds], apart, np.where(inside, self.counts[kinds], 0))
            if self.own is not None:
                alone = inside & (kinds == self.kind[self.own[numbers[part]], None])
                gone = alone if self.groups is None else _of_own_group(nearest, self.own, self.groups)
                nearest = _without(nearest, gone)
            yield nearest


def _of_own_group(nearest: Nearest, own: Numbers, groups: Numbers) -> Numbers:
    """How many rows [n, K] of each query's own group the rows stand for."""
    return nearest.counts * (groups[nearest.rows] == groups[own[nearest.queries], None])


def _without(nearest: Nearest, gone: NDArray[Any]) -> Nearest:
    """The rows [n, K] without those that are gone: as many of each as the numbers say."""
    counts = nearest.counts - gone
    distances = np.where(counts > 0, nearest.distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    rows, distances, counts = (np.take_along_axis(each, order, 1) for each in (nearest.rows, distances, counts))
    return Nearest(nearest.queries, rows, distances, counts)
