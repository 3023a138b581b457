"""From batches to one array a block, NaN where a row has no features; and what became of which row."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RowFailure, SampleError

Blocks = dict[str, NDArray[np.float32]]


class Gathered:
    """The blocks of so many rows, a batch after the other. failures, truncated: grow as batches come."""

    def __init__(self, rows: int):
        self.failures: list[RowFailure] = []
        self.truncated: list[str] = []
        self._rows, self._seen = rows, 0
        self._positions: list[int] = []
        self._parts: list[Blocks] = []

    def add(self, count: int, kept: Sequence[int], blocks: Blocks, failures: Sequence[RowFailure]) -> None:
        """A batch of `count` rows, of which those at `kept` have blocks."""
        self._positions += [self._seen + at for at in kept]
        if kept:
            self._parts.append(blocks)
        self.failures += failures
        self._seen += count

    def blocks(self) -> Blocks:
        """{block: [rows, D]}, in the order of the rows. Raises SampleError where no row has any."""
        if not self._parts:
            raise SampleError(
                f"none of {self._rows} rows has features; expected at least one readable sample{_shown(self.failures)}"
            )
        made = {}
        for name in self._parts[0]:
            values = np.concatenate([part[name] for part in self._parts])
            made[name] = np.full((self._rows, values.shape[1]), np.nan, dtype=np.float32)
            made[name][self._positions] = values
        return made

    def warn(self, limits: Mapping[str, Any], stacklevel: int) -> None:
        """Say which rows were cut at the backbone's limits, and which have no features."""
        if cut := self.truncated:
            limit = ", ".join(f"{name} {value:g}" for name, value in limits.items() if name.startswith("max"))
            warnings.warn(
                f"{len(cut)} of {self._rows} rows are too long and were cut ({limit}): {', '.join(cut[:3])}"
                f"{', ...' if len(cut) > 3 else ''}",
                stacklevel=stacklevel + 1,
            )
        if failed := self.failures:
            warnings.warn(
                f"{len(failed)} of {self._rows} rows are NaN{_shown(failed)}",
                stacklevel=stacklevel + 1,
            )


def readable(blocks: Blocks) -> Blocks:
    """The rows that have features."""
    found = np.isfinite(blocks["embedding"]).all(axis=1)
    return {name: values[found] for name, values in blocks.items()}


def _shown(failures: Sequence[RowFailure]) -> str:
    named = "; ".join(f"{failure.id}: {failure.reason}" for failure in failures[:3])
    return f": {named}" if named else ""
