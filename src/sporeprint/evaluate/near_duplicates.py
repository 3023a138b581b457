"""Near-duplicates: rows whose nearest other row is all but the same, such as frames of one video or a text twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.features.unit import unit
from sporeprint.search.best_rows import slices

# Cosine of centred embeddings. By eye, every pair of TREC's above 0.955 is one question, and Flowers102's nearest
# pictures of two plants are at 0.951. 0.98 leaves room for larger sets, whose strangers are nearer; it finds 10 of
# TREC's 17 rows above 0.96, and few of Flowers102's images saved as JPEG again (median 0.91): few alarms are false,
# some duplicates are missed.
NEAR = 0.98
LEAST_WIDTH = 16  # dimensions: with fewer, rows are near one another by chance
_MOST_PRODUCTS = 10**11  # numbers multiplied: some seconds on one core
_NUMBERS = 2**24  # cosines at a time: 64 MiB


@dataclass(frozen=True)
class NearDuplicates:
    """How many of the rows that were looked at have a near-duplicate. looked: fewer than all where there are many."""

    found: int
    looked: int


@quiet_floats
def near_duplicates(rows: NDArray[Any], queries: NDArray[Any] | None = None, near: float = NEAR) -> NearDuplicates:
    """Count the queries [M, D] that have a near-duplicate among the rows [N, D]; without them, rows among the others.

    A near-duplicate has a cosine above `near` once the mean of the rows is taken off. Of very many rows evenly spaced
    ones are looked at, against all rows, in bounded memory. With NaN in a row, or fewer than 16 dimensions, none is
    found.
    """
    own = queries is None
    asking = rows if queries is None else queries
    count, width = rows.shape
    looked = min(len(asking), max(100, _MOST_PRODUCTS // (count * width)))
    which = np.arange(looked) * len(asking) // looked
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    if width < LEAST_WIDTH or not np.isfinite(centre).all():
        return NearDuplicates(0, looked)
    directions = unit(asking[which] - centre)
    nearest = np.full(looked, -1.0, np.float32)
    for part in slices(count, _NUMBERS, looked + width):
        cosines = directions @ unit(rows[part] - centre).T
        if own:
            here = np.flatnonzero((which >= part.start) & (which < part.stop))
            cosines[here, which[here] - part.start] = -1
        nearest = np.fmax(nearest, cosines.max(axis=1))
    return NearDuplicates(int((nearest > near).sum()), looked)
