"""Compute the blocks of decoded rows, and say which rows have none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sporeprint.errors import RowFailure
from sporeprint.features.batches import Decoded, separate
from sporeprint.features.engine import Engine
from sporeprint.features.engine_setup import check_state
from sporeprint.features.gathered import Blocks


def compute(
    engine: Engine, batch: Sequence[Decoded], names: Sequence[str] | None = None
) -> tuple[list[int], Blocks, list[RowFailure]]:
    """Return the positions of the rows that have features, their blocks, and the failures by name and reason.

    names: of the rows, for people; default their ids.
    Raises NotFitted where an objective needs negatives and has none.
    """
    check_state(engine)
    rows, reasons = separate(batch)
    blocks = engine.blocks(list(rows.values())) if rows else {}
    kept = list(rows)
    for name, values in blocks.items():
        for at in np.flatnonzero(~np.isfinite(values).all(axis=1)):
            reasons.setdefault(kept[at], f"block {name!r} is not finite: the backbone overflows on this input")
    good = [at for at, position in enumerate(kept) if position not in reasons]
    if len(good) < len(kept):
        blocks = {name: values[good] for name, values in blocks.items()}
    shown = [row[0] for row in batch] if names is None else names
    failures = [RowFailure(shown[i], reason) for i, reason in sorted(reasons.items())]
    return [kept[at] for at in good], blocks, failures
