"""An order of rows that their content decides, so that what is drawn by a seed does not depend on the order given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def content_order(features: NDArray[Any], values: NDArray[Any]) -> NDArray[np.intp]:
    """Row numbers [N] by features [N, D], then by values [N] or [N, T]. Rows that are equal in both are alike."""
    places = np.zeros(len(features), np.intp)  # of each row: how many come before it, as far as is known
    for column in (*features.T, *values.reshape(len(values), -1).T):
        tied = np.flatnonzero(np.bincount(places)[places] > 1)
        if not len(tied):
            break
        tied = tied[np.lexsort((column[tied], places[tied]))]
        place, value = places[tied], column[tied]
        differs = np.append(True, (place[1:] != place[:-1]) | (value[1:] != value[:-1]))
        firsts = np.maximum.accumulate(np.where(differs, np.arange(len(tied)), 0))
        places[tied] = place + firsts - np.searchsorted(place, place)
    return np.argsort(places, kind="stable")
