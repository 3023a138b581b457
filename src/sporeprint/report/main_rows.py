"""Which rows of a long table matter: those with a name, what was chosen, and the best of each family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sporeprint.evaluate.choice.candidates import DECORRELATED, RAW, WHITE
from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import FAMILIES, family

_FEW = 8  # rows that are all shown


def main_rows(
    entries: Sequence[Entry], score: Callable[[Entry], float], named: Sequence[str] = (RAW, WHITE, DECORRELATED)
) -> list[int]:
    """The numbers of the rows that matter: those named, the paper's, what was chosen, and the best of each family.

    score: on the training rows, by which a family's best is found; NaN where there is none.
    """
    if len(entries) <= _FEW:
        return list(range(len(entries)))
    kept = {entry.name for entry in entries if entry.name in named or entry.role == "chosen"}
    kept |= {entry.name for entry in [row for row in entries if row.role == "paper"][:1]}
    for kind in FAMILIES:
        others = [entry for entry in entries if entry.name not in named and not math.isnan(score(entry))]
        members = [entry for entry in others if _only(entry, kind)]
        kept |= {entry.name for entry in sorted(members, key=score)[-1:]}
    return [at for at, entry in enumerate(entries) if entry.name in kept]


def _only(entry: Entry, kind: str) -> bool:
    """Whether an entry has blocks of this family, and of no other but the embedding."""
    return {family(name) for name in entry.blocks} - {RAW} == {kind} and entry.role not in ("paper", "chosen")
