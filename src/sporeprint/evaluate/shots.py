"""Few-shot draws: a number of labelled rows of each class, other ones from each seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError
from sporeprint.values import check_count


def draws(labels: NDArray[Any], shots: int, count: int = 3, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Rows of each draw, in order: `shots` of each class without repeats, all of a class that has no more.

    labels: [N]. count: the number of draws; draw i is seeded with (seed, i), so more draws leave the first as they are.
    Raises SampleError for counts below 1, negative seeds, and more shots than the largest class has rows.
    """
    for name, value, least in (("shots", shots, 1), ("draws", count, 1), ("seed", seed, 0)):
        check_count(name, value, least, SampleError)
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if shots > largest:
        raise SampleError(
            f"shots={shots}, where the largest class has {largest} labelled rows; expected at most {largest}; "
            "without shots all labelled rows are used"
        )
    members = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield np.sort(np.concatenate([rng.permutation(rows)[:shots] for rows in members]))
