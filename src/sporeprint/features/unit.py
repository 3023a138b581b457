"""Rows brought to length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2-normalise rows [N, D]; zeros stay zeros, NaN stays NaN."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, np.float32(1), norms)


def unit_float64(rows: NDArray[Any]) -> NDArray[np.float64]:
    """L2-normalise rows [N, D] of any magnitude, in float64; zeros stay zeros."""
    peaks = np.abs(rows.astype(np.float64)).max(axis=1, initial=0, keepdims=True)
    scaled = rows / np.where(peaks == 0, 1.0, peaks)  # squares of huge numbers overflow, those of tiny ones are 0
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    scaled /= np.where(norms == 0, 1.0, norms)
    return scaled
