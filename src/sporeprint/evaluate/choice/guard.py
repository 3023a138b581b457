"""The guard of a choice: what is taken must beat what it replaces by two standard errors, on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError

GUARD = 2.0  # standard errors


def surely_better(before: NDArray[np.bool_], after: NDArray[np.bool_], guard: float = GUARD) -> bool:
    """Whether the gain in accuracy from before [N] to after [N] is above `guard` of its standard errors."""
    gain, error = paired(before, after)
    return gain > guard * error


def paired(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, float]:
    """mean(after) - mean(before) and its standard error, over the same rows [N]."""
    change = after.astype(float) - before
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))


def check_guard(guard: float) -> None:
    """Raises SampleError."""
    if not 0 <= guard < np.inf:
        raise SampleError(f"guard={guard!r}; expected a number of standard errors, 0 or more")
