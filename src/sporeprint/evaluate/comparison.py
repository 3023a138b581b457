"""What a comparison found, as values: for the command line, for JSON, for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sporeprint.evaluate.analyse import Analysis, ClassChange
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.result import plain
from sporeprint.features.blocks import family
from sporeprint.features.combine import Combination
from sporeprint.values import to_json

_FEW = 3  # blocks of a family that are named


@dataclass(frozen=True)
class Compared:
    """One way to make features: what it takes and what it gives.

    role: "embedding" (raw and white), "block" (one gradient alone), "control" (no gradient in it, at a price that a
    gradient would have; one of them chosen as the chosen are), "paper", "combined" (families joined), "chosen" (by
    leave-one-out on the training rows).
    passes: of the backbone, a row; a gradient's way back is not counted. rows_per_second: as measured when the store
    was made, None where it does not say; what is read in the embedding's own pass is timed with it.
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

    @property
    def joins(self) -> str:
        """What an entry joins, and how, in words: its families, a few blocks by their names, many by their number."""
        of: dict[str, list[str]] = {}
        for name in self.blocks:
            of.setdefault(family(name), []).append(name)
        parts = [
            " + ".join(names) if len(names) <= _FEW else f"{kind} ({len(names)} blocks)" for kind, names in of.items()
        ]
        how = self.combination
        words = [" + ".join(parts), "as they are" if how.whiten is None else "whitened"]
        if how.whiten is not None and how.whiten != "auto":
            words[1] += f" to {how.whiten} dimensions"
        if how.whiten is not None and how.exponent != 1:
            words[1] += f" with exponent {how.exponent:g}"
        if how.weights is not None:
            words.append("every family alike" if self._families_alike() else "weighed")
        return ", ".join(words) if len(self.blocks) > 1 or how.whiten is not None else parts[0]

    def _families_alike(self) -> bool:
        shares: dict[str, float] = {}
        for name, weight in self.combination.members(self.blocks).items():
            shares[family(name)] = shares.get(family(name), 0.0) + weight**2
        return max(shares.values()) - min(shares.values()) < 1e-6

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

    reference: the best of the raw and the whitened embeddings. free: the choice among what the embedding's own pass
    gives, gradients read in it included. chosen: that, or the choice among everything where it is surely better. All
    three are chosen by leave-one-out on the training rows; no test row has a say, but in repeated splits: there all
    rows name the one reference, and each split makes its own choices, while the entries show those of all rows.
    classes: per-class change of accuracy from the reference to the chosen. analysis: of the blocks.
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
