"""Draw banks of negatives: rows of the fitting set, and their latents."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sporeprint.features.batches import decoded_batches, name_rows, separate
from sporeprint.features.engine import Engine
from sporeprint.features.progress import Progress
from sporeprint.gradients.switches import own_settings
from sporeprint.values import canonical


@own_settings()
def draw_negatives(
    engine: Engine, rows: Iterable[tuple[str, Any]], batch_size: int, progress: Progress
) -> dict[str, Tensor]:
    """Draw latents [M, L] for each objective that wants them, of the rows (id, sample) whose seeded digest is least.

    The draw depends on the ids alone, so not on the order of the rows. A few rows more are drawn than are wanted, to
    stand in for unreadable ones; a source of fewer rows gives all of them.
    """
    wanting = [objective for objective in engine.objectives if objective.negatives]
    if not wanting:
        return {}
    most = max(objective.negatives for objective in wanting)

    def key(row: tuple[str, Any]) -> bytes:
        return hashlib.blake2b(canonical([engine.seed, "negatives", row[0]]), digest_size=16).digest()

    inputs = engine.backbone.preprocess
    named_rows = name_rows(inputs, rows, batch_size, engine.workers, limits=engine.limits)
    drawn = {row[0]: row for row in heapq.nsmallest(most + most // 10 + 16, named_rows, key=key)}
    banks: dict[str, list[Tensor]] = {objective.name: [] for objective in wanting}
    all_of_them = min(most, len(drawn))
    progress("negatives", 0, all_of_them)
    for batch in decoded_batches(inputs, drawn.values(), batch_size, engine.workers, limits=engine.limits):
        readable = list(separate(batch.rows)[0].values())
        for objective in wanting:
            bank, rest = banks[objective.name], readable
            while rest and len(bank) < objective.negatives:
                missing = objective.negatives - len(bank)
                latents = engine.encode(objective, rest[:missing])
                rest = rest[missing:]
                # A row that overflows the backbone would make every other row's loss NaN: the next one is taken.
                bank += [latent for latent in latents if latent.isfinite().all()]
        progress("negatives", max(map(len, banks.values())), all_of_them)
        if all(len(banks[objective.name]) == objective.negatives for objective in wanting):
            break
    return {o.name: torch.cat([torch.empty(0, o.latent), *banks[o.name]]) for o in wanting}
