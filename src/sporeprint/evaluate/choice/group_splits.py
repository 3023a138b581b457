"""Splits that keep the rows of a group together, with every class's share tested as well as whole groups allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.predictors.checks import label_array
from sporeprint.predictors.groups import group_codes

_ORDERS = 8


def groups_within(groups: ArrayLike | None, rows: NDArray[np.intp], total: int) -> NDArray[Any] | None:
    """The groups of some of all rows; None where these are of one group, which cannot be left out as a whole."""
    if groups is None or not np.ptp(group_codes(groups, total)[rows]):
        return None
    kept: NDArray[Any] = label_array(groups)[rows]
    return kept


def groups_note(apart: Sequence[NDArray[Any] | None], what: str) -> tuple[str, ...]:
    """What must be said where rows are grouped and some draws or splits are of one group. apart: of each."""
    alone = sum(groups is None for groups in apart)
    return (f"{alone} of {len(apart)} {what} are of one group: their rows are left out one by one",) if alone else ()


class GroupSplits:
    """Splits of N rows into whole groups. members: the rows of each class. wanted: how many of each to test.

    codes: [N], the group of each row, from 0. Every class keeps a row to train on, so a group that holds all of a class
    is never tested. Raises SampleError where that is every group.
    """

    def __init__(self, members: Sequence[NDArray[np.intp]], wanted: Sequence[int], codes: NDArray[np.intp]):
        classes = np.empty(len(codes), np.intp)
        for number, rows in enumerate(members):
            classes[rows] = number
        self.totals, self.wanted = np.array([len(rows) for rows in members]), np.array(wanted)
        self.rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        held = [np.unique(classes[rows], return_counts=True) for rows in self.rows]
        self.held = {at: of for at, of in enumerate(held) if (of[1] < self.totals[of[0]]).all()}
        if not self.held:
            raise SampleError(
                f"each of {len(self.rows)} groups holds all rows of a class; expected a class with rows in two groups, "
                "one to test and one to train on"
            )

    def tested(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw the rows to test: of a few random orders of the groups the one that comes nearest to what is wanted."""
        best, least = [], np.inf
        for _ in range(_ORDERS):
            taken, counts = self._taken(rng.permutation(len(self.rows)).tolist())
            if (apart := np.abs(counts - self.wanted).sum()) < least:
                best, least = taken, apart
            if least == 0:
                break
        return np.concatenate([self.rows[at] for at in best])

    def _taken(self, order: list[int]) -> tuple[list[int], NDArray[np.intp]]:
        """Groups in this order, each taken if the classes come nearer to what is wanted; and rows of each class.

        Then every class that has no tested row yet is given the group that takes the classes the least away.
        """
        counts, taken = np.zeros_like(self.totals), []
        able = [at for at in order if at in self.held]
        for at in able:
            if self._fits(counts, at) and self._change(counts, at) < 0:
                taken.append(at)
                counts[self.held[at][0]] += self.held[at][1]
        for missing in np.flatnonzero((counts == 0) & (self.wanted > 0)):
            spare = [at for at in able if missing in self.held[at][0] and self._fits(counts, at)]
            if not counts[missing] and spare:
                best = min(spare, key=lambda at: self._change(counts, at))
                taken.append(best)
                counts[self.held[best][0]] += self.held[best][1]
        return taken, counts

    def _fits(self, counts: NDArray[np.intp], at: int) -> bool:
        classes, rows = self.held[at]
        return bool((counts[classes] + rows < self.totals[classes]).all())

    def _change(self, counts: NDArray[np.intp], at: int) -> float:
        """How much further the classes are from what is wanted, in rows, if this group is tested too."""
        classes, rows = self.held[at]
        apart = counts[classes] - self.wanted[classes]
        return float((np.abs(apart + rows) - np.abs(apart)).sum())
