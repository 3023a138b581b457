"""What may go into a memory bank: patch features that have a direction, histograms that are fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError


def checked(
    features: NDArray[Any], histograms: NDArray[Any], width: int, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features [P, D] of length 1 and histograms [P, C], both in float32. Raises SampleError."""
    histograms = np.asarray(histograms)
    unit = unit_rows(features)
    if unit.shape[1] != width or histograms.shape != (len(unit), classes) or histograms.dtype.kind != "f":
        raise SampleError(
            f"features {list(unit.shape)}, histograms {list(histograms.shape)} of {histograms.dtype}; "
            f"expected floats [P, {width}] and [P, {classes}]"
        )
    fractions = histograms.astype(np.float32, copy=False)
    wrong = int((~((np.abs(fractions.sum(axis=1) - 1) < 1e-2) & (fractions >= 0).all(axis=1))).sum())
    if wrong:
        raise SampleError(f"{wrong} of {len(fractions)} histograms do not sum to 1; leave void patches out")
    return unit, fractions


def unit_rows(features: NDArray[Any]) -> NDArray[np.float32]:
    """Features [P, D] of length 1, in float32. Raises SampleError for those that have no direction."""
    features = np.asarray(features)
    if features.ndim != 2 or features.dtype.kind != "f":
        raise SampleError(f"features are {list(features.shape)} of {features.dtype}; expected floats [patches, D]")
    wide = features.astype(np.float32, copy=False)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    bad = int((~(np.isfinite(norms) & (norms > 0))).sum())
    if bad:
        raise SampleError(f"{bad} of {len(wide)} features are zero, NaN or infinite; they have no direction: drop them")
    unit: NDArray[np.float32] = wide / norms
    return unit
