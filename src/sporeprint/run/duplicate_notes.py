"""What must be said of near-duplicates, where nobody said which rows belong together."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from sporeprint.evaluate.near_duplicates import NearDuplicates, near_duplicates
from sporeprint.run.row_groups import GROUP_FLAG
from sporeprint.run.store_pair import SAME, Pair, Single


def duplicate_notes(rows: Single) -> list[str]:
    """A sentence on near-duplicates by the raw embedding; none where there are none, or groups are given."""
    train = rows.blocks.get("embedding")
    if rows.groups is not None or SAME in rows.notes or train is None:
        return []
    return near_duplicate_notes(train, rows.test_blocks["embedding"] if isinstance(rows, Pair) else None)


def near_duplicate_notes(train: NDArray[Any], test: NDArray[Any] | None = None) -> list[str]:
    """A sentence on near-duplicates of embeddings [N, D], and of test rows [M, D] among them; none where none are."""
    seen = [_seen("training rows", near_duplicates(train), "nearly equal another one")]
    if test is not None:
        seen.append(_seen("test rows", near_duplicates(train, test), "nearly equal a training row"))
    if not any(seen):
        return []
    return [
        f"near-duplicates: {', '.join(filter(None, seen))}; where rows come from one source, such as a video or a "
        f"speaker, name the column that says which ({GROUP_FLAG}), or the figures are higher than on a new source"
    ]


def _seen(what: str, found: NearDuplicates, how: str) -> str:
    return f"{found.found:,} of {found.looked:,} {what} {how}" if found.found else ""
