"""Prediction sets at a stated error: conformal prediction on what each training row is told without itself.

A class is in a row's set where its probability is no lower than that of the error's share of the training rows had for
their own class, left out (Sadinle, Lei & Wasserman 2019: the smallest sets; Vovk 2015: cross-conformal). MAPIE takes
scores only by an estimator, and crepes needs pandas, for what is one sorted array; MAPIE is the tests' oracle.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError
from sporeprint.values import is_number

_ROUNDING = 1e-9  # relative: equal votes of neighbours give equal probabilities but for rounding


def own_probabilities(probabilities: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return what left-out rows' probabilities [N, C] give to their own classes `codes` [N], in rising order: [N]."""
    return np.sort(probabilities[np.arange(len(codes)), codes])


def rows_needed(error: float) -> int:
    """Return the least number of training rows whose sets can hold `error`: 19 for 0.05."""
    return math.ceil(1 / error - 1e-9) - 1


def least_probability(own: NDArray[np.float64], error: float) -> float:
    """Return the probability that puts a class into a row's set: at most `error` of new rows lack their own class.

    own: what `own_probabilities` returns. The share holds on average, for rows that are drawn as the training rows
    were, as far as one row hardly changes the predictor. Raises RecipeError for an error that is not between 0 and 1,
    and for fewer rows than it needs.

    >>> import numpy as np
    >>> from sporeprint.predictors.conformal import least_probability
    >>> round(least_probability(np.array([0.2, 0.5, 0.9]), error=0.5), 6)
    0.5
    """
    if not is_number(error) or not 0 < error < 1:
        raise RecipeError(f"error={error!r}; expected a fraction between 0 and 1, such as 0.05")
    last = math.floor(error * (len(own) + 1) + 1e-9)  # of the rows that may lie at or below
    if not last:
        raise RecipeError(
            f"an error of {error:g} takes at least {rows_needed(error)} labelled training rows, and there are "
            f"{len(own)}; label more, or allow a larger error"
        )
    return float(own[last - 1]) * (1 - _ROUNDING)
