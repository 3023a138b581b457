"""The mean of the classes' accuracies, by which a rare class counts as much as a frequent one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean_per_class(right: NDArray[np.bool_], labels: NDArray[Any]) -> float:
    """The mean over the classes that rows have.

    right: [M], whether a row is classified rightly. labels: [M], the row's class.
    """
    members = np.unique(labels, return_inverse=True)[1]
    return float((np.bincount(members, right) / np.bincount(members)).mean())
