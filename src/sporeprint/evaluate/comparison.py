"""What a comparison found, as values: for the command line, for JSON, for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sporeprint.combine import Combination
from sporeprint.evaluate.analyse import Analysis, ClassChange
from sporeprint.evaluate.intervals import Interval
from sporeprint.evaluate.result import plain
from sporeprint.recipe import to_json

ROLES = ("embedding", "block", "control", "paper", "combined", "chosen")


@dataclass(frozen=True)
class Compared:
    """One way to make features: what it takes and what it gives.

    role: "embedding" (raw and white), "block" (one gradient alone), "control" (no gradient in it, at a price that a
    gradient would have), "paper", "combined" (families joined), "chosen" (by leave-one-out on the training rows).
    passes: of the backbone, a row. rows_per_second: as measured when the store was made, None where it does not say.
    bytes_per_row: of a feature in float32. k, leave_one_out: the k of the best accuracy on the training rows, and that
    accuracy, a fraction. value: top-1 accuracy on the test rows. gain: over the reference, on the same test rows.
    """

    name: str
    role: str
    combination: Combination
    blocks: tuple[str, ...]
    width: int
    passes: int
    rows_per_second: float | None
    bytes_per_row: int
    k: int
    leave_one_out: float
    value: Interval
    mean_per_class: float
    gain: Interval

    def to_json(self) -> dict[str, Any]:
        whole = {**self.__dict__, "combination": to_json(self.combination)}
        whole |= {"value": self.value.to_json(), "gain": self.gain.to_json()}
        return dict(plain(whole))


@dataclass(frozen=True)
class Neighbour:
    """A training row: where it stands among them, its id and its label."""

    row: int
    id: str
    label: str


@dataclass(frozen=True)
class Changed:
    """A test row that the chosen features classify otherwise than the reference, and its neighbours under both."""

    row: int
    id: str
    label: str
    before: str  # predicted label
    after: str
    neighbours_before: tuple[Neighbour, ...]  # nearest first
    neighbours_after: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Comparison:
    """entries: in the order of the table. reference, free, chosen: names of entries.

    reference: the better of the raw and the whitened embedding. free: the choice among what the embedding's own pass
    gives. chosen: the choice among everything. All three are chosen by leave-one-out on the training rows; no test row
    has a say. classes: per-class change of accuracy from the reference to the chosen. analysis: of the blocks.
    settings: backbone, rows, classes, metric, level, seed and the like. notes: what a reader must know about the rows.
    """

    verdict: str
    entries: tuple[Compared, ...]
    reference: str
    free: str
    chosen: str
    classes: tuple[ClassChange, ...]
    analysis: Analysis
    changed: tuple[Changed, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def entry(self, name: str) -> Compared:
        """The entry of that name."""
        return next(one for one in self.entries if one.name == name)

    def noted(self, notes: Iterable[str]) -> Comparison:
        """The same with more notes."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        whole = {**self.__dict__, "entries": [one.to_json() for one in self.entries]}
        whole |= {"classes": [one.__dict__ for one in self.classes], "analysis": self.analysis.to_json()}
        whole["changed"] = [
            {**one.__dict__, **{key: [n.__dict__ for n in getattr(one, key)] for key in _NEIGHBOURS}}
            for one in self.changed
        ]
        return dict(plain(whole))


_NEIGHBOURS = ("neighbours_before", "neighbours_after")
