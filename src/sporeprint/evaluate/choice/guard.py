"""The guard of a choice: what is taken must beat what it replaces by some standard errors, on the same rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.predictors.groups import Groups

GUARD = 1.0  # standard errors, by which a pair must beat the reference
SURE = 2.0  # standard errors, by which more passes must beat one
LEAST = 0.002  # of loss: a smaller gain, as sure as it may be, is worth no block more


def surely_better(gains: NDArray[np.float64], guard: float, groups: Groups | None = None) -> bool:
    """Whether the mean of gains [N], losses before less losses after, is above `guard` standard errors and `LEAST`."""
    gain, error = mean_and_error(gains, groups)
    return gain > max(guard * error, LEAST)


def mean_and_error(gains: ArrayLike, groups: Groups | None = None) -> tuple[float, float]:
    """The mean of gains [N] and its standard error; rows of one group count together."""
    values = np.asarray(gains, float)
    mean = float(values.mean())
    sums = values - mean if groups is None else np.array([(values[group] - mean).sum() for group in groups])
    count = len(sums)
    return mean, float(np.sqrt(count / max(count - 1, 1) * (sums**2).sum()) / len(values))


def check_guard(guard: float) -> None:
    """Raises SampleError."""
    if not 0 <= guard < np.inf:
        raise SampleError(f"guard={guard!r}; expected a number of standard errors, 0 or more")
