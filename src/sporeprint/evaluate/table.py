"""One row of a table, for every command that compares features: a way to make them, what it takes, what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sporeprint.evaluate.choice.candidates import Candidate
from sporeprint.evaluate.result import plain
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import Combination, Combiner
from sporeprint.features.whiten import Axes
from sporeprint.values import to_json

Info = Mapping[str, Mapping[str, Any]]  # of each block: its family, its set of views, and that set's passes


@dataclass(frozen=True)
class Entry:
    """One way to make features: what it takes and what it gives.

    role: see `Candidate`. passes: of the backbone, a row; a gradient's way back is not counted. rows_per_second: as
    measured when the blocks were computed, None where nobody measured; what is read in the embedding's own pass is
    timed with it. whitened: {block: dimensions}.
    note: what a reader must know of its blocks, such as that the paper's views are others.
    results: by k ("20", "auto"), or by the judge ("knn", "probe", "cluster", ...); each has a `value` and a `to_json`.
    judge: the result by which a table is read, where it is neither that of k = "auto" nor the first.
    features: what is joined, and how, in words; the name where none are given.
    """

    name: str
    role: str
    combination: Combination
    blocks: tuple[str, ...]
    width: int
    passes: float
    rows_per_second: float | None = None
    whitened: dict[str, int] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    judge: str = ""
    features: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", self.features or self.name)

    @property
    def title(self) -> str:
        """The name as a printed table shows it, which says of controls that they are."""
        return f"control: {self.name}" if self.role == "control" else self.name

    @property
    def bytes_per_row(self) -> int:
        """Of a feature in float32."""
        return 4 * self.width

    @property
    def result(self) -> Any:
        """The result by which a table is read: the judge's, that of k = "auto" among several, or the first."""
        if self.judge:
            return self.results[self.judge]
        return self.results["auto"] if "auto" in self.results else next(iter(self.results.values()))

    @property
    def value(self) -> Any:
        """The headline figure of `result`."""
        return self.result.value

    @property
    def gain(self) -> Any:
        """The gain over the reference, which only `compare` measures."""
        return self.result.gain

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        results = {name: result.to_json() for name, result in self.results.items()}
        fields = {**self.__dict__, "combination": to_json(self.combination), "bytes_per_row": self.bytes_per_row}
        return dict(plain({**fields, "results": results}))


class Costs:
    """What blocks cost. info: `Store.blocks_info`; seconds: that each set of views took, over `rows` rows."""

    def __init__(self, info: Info, seconds: Mapping[str, float] | None = None, rows: int = 0):
        self.info, self.seconds, self.rows = info, seconds or {}, rows

    def passes(self, names: Iterable[str]) -> float:
        """Backbone passes a row for these blocks: each set of views once; a smaller view is a fraction of a pass."""
        total = round(sum({self.info[name]["views"]: self.info[name]["passes"] for name in names}.values()), 1)
        return int(total) if total == int(total) else total

    def rows_per_second(self, names: Sequence[str]) -> float | None:
        """The rate of computing these blocks; None where the seconds of one are not known."""
        sets = {self.info[name]["views"] for name in names}
        if not self.rows or not sets <= set(self.seconds):
            return None
        spent = sum(self.seconds[view_set] for view_set in sets)
        gradients = [name for name, block in self.info.items() if block["family"] == "gradients"]
        if gradients:  # the projection's time is shared by the gradient blocks alike
            share = sum(name in names for name in gradients) / len(gradients)
            spent += self.seconds.get("projection", 0.0) * share
        return self.rows / spent if spent else None

    def free(self, names: Sequence[str]) -> list[str]:
        """The blocks of the embedding's own pass. Another single view is one pass more, and not free."""
        return [name for name in names if self.info[name]["views"] == self.info["embedding"]["views"]]


class Features(NamedTuple):
    """rows [N, width] that the combiner was fitted on, others [M, width] or None."""

    combiner: Combiner
    rows: NDArray[np.float32]
    others: Any


Judge = Callable[[Features], Mapping[str, Any]]


def features(blocks: Blocks, others: Blocks | None, combinations: Iterable[Combination]) -> Iterator[Features]:
    """Each combination fitted on `blocks` [N, D], as `Combination.fit` does; every block is whitened once for all.

    Features are made when asked for, and not kept.
    """
    finite = all(np.isfinite(block).all() for block in blocks.values())
    whiteners: dict[tuple[str, Any], Axes] | None = {} if finite else None  # NaN leaves other rows to each combination
    for combination in combinations:
        combiner = combination.fit(blocks, whiteners)
        yield Features(combiner, combiner.transform(blocks), None if others is None else combiner.transform(others))


def entry_of(candidate: Candidate, combiner: Combiner, costs: Costs, results: Mapping[str, Any]) -> Entry:
    """A fitted candidate with its price and its results."""
    return Entry(
        name=candidate.name,
        role=candidate.role,
        combination=candidate.combination,
        blocks=combiner.names,
        width=combiner.width,
        passes=costs.passes(combiner.names),
        rows_per_second=costs.rows_per_second(combiner.names),
        whitened={name: len(axes.variance) for name, axes in combiner.whiteners.items()},
        results=results,
    )


def entries_of(
    candidates: Sequence[Candidate],
    blocks: Blocks,
    others: Blocks | None,
    costs: Costs,
    judge: Judge,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Entry]:
    """Each candidate fitted on `blocks`, judged on its features of `blocks` and of `others`.

    judge: from features to results by name. progress: called with the next candidate.
    """
    entries: list[Entry] = []
    fitted = features(blocks, others, (candidate.combination for candidate in candidates))
    for candidate in candidates:
        progress(f"{candidate.name} ({len(entries) + 1} of {len(candidates)})")
        of_candidate = next(fitted)
        entries.append(entry_of(candidate, of_candidate.combiner, costs, judge(of_candidate)))
    return entries
