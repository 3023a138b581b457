"""Gather batches into one array a block, NaN where a row has no features, and record what became of each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.data.assumptions import Assumptions
from sporeprint.errors import RowFailure, SampleError, warn
from sporeprint.features.batches import Batch
from sporeprint.features.failures import Failures, first_reasons

Blocks = dict[str, NDArray[np.float32]]


class Gathered:
    """Collects the blocks of rows, batch after batch, and counts the failures among them.

    seen: the number of rows so far. ids, positions: the rows that have features. truncated: names of those rows of
    which the backbone saw the beginning only. assumptions: about their values.
    """

    def __init__(self, inputs: Inputs, failures: Failures, assumptions: Assumptions | None = None):
        self.failures = failures
        self.assumptions = assumptions or Assumptions()
        self.seen = 0
        self.ids: list[str] = []
        self.positions: list[int] = []
        self.truncated: list[str] = []
        self._inputs = inputs
        self._parts: list[Blocks] = []

    def add(self, batch: Batch, kept: Sequence[int], blocks: Blocks, failures: Sequence[RowFailure]) -> None:
        """Add a batch whose rows at `kept` have blocks, and count its failures. Raises TooManyFailures."""
        self.ids += [batch.rows[at][0] for at in kept]
        self.positions += [self.seen + at for at in kept]
        self.truncated += [batch.names[at] for at in kept if self._inputs.truncates(batch.rows[at][1])]
        for at in kept:
            self.assumptions.add(batch.rows[at][1])
        self._parts += [blocks] if kept else []
        self.seen += len(batch.rows)
        self.failures.extend(failures)

    def computed(self) -> Blocks:
        """Return {block: [n, D]} of the rows that have features; without any, {}."""
        return {name: self._join(name) for name in (self._parts[0] if self._parts else ())}

    def blocks(self) -> Blocks:
        """Return {block: [rows, D]}, in the order of the rows. Raises SampleError where no row has any."""
        total, spread = self.failures.total, {}
        if not self._parts:
            raise SampleError(
                f"none of {total} rows has features; expected at least one readable sample{self._reasons()}"
            )
        for name in self._parts[0]:  # one at a time: joined and spread, a block exists twice
            values = self._join(name)
            spread[name] = np.full((total, values.shape[1]), np.nan, dtype=np.float32)
            spread[name][self.positions] = values
        return spread

    def warn(self) -> None:
        """Say what was assumed, which rows were cut at the backbone's limits, and which have no features."""
        for sentence in self.assumptions.sentences():
            warn(sentence)
        total, limits = self.failures.total, self._inputs.limits()
        if cut := self.truncated:
            limit = ", ".join(f"{name} {value:g}" for name, value in limits.items() if name.startswith("max"))
            warn(
                f"{len(cut)} of {total} rows are too long and were cut ({limit}): {', '.join(cut[:3])}"
                f"{', ...' if len(cut) > 3 else ''}"
            )
        if failed := self.failures.rows:
            message = f"{len(failed)} of {total} rows are NaN{self._reasons()}"
            warn(message)

    def _join(self, name: str) -> NDArray[np.float32]:
        return np.concatenate([part[name] for part in self._parts])

    def _reasons(self) -> str:
        rows = self.failures.rows
        return f": {first_reasons(rows, 3)}" if rows else ""


def readable(blocks: Blocks) -> Blocks:
    """Return the rows that have features."""
    finite = np.isfinite(blocks["embedding"]).all(axis=1)
    return {name: values[finite] for name, values in blocks.items()}
