"""Soft label histograms: which classes lie under each patch, as fractions of its labelled pixels."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError


def patch_histograms(
    labels: NDArray[np.integer], grid: tuple[int, int], classes: int, ignore: Collection[int] = ()
) -> NDArray[np.float32]:
    """Histograms [H_p, W_p, C] of labels [H, W] over a grid (H_p, W_p) of patches; each sums to 1.

    A pixel belongs to the patch that its centre lies in, so H and W need not be multiples of the grid. `ignore`: label
    values that are void and counted nowhere; a patch without any other pixel is all zeros.
    Raises SampleError for a label value that is neither a class, 0..C-1, nor void.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "iu":
        raise SampleError(f"labels are {list(labels.shape)} of {labels.dtype}; expected integers [height, width]")
    if min(grid) < 1 or classes < 1:
        raise SampleError(f"a grid of {grid} patches and {classes} classes; expected at least 1 of each")
    counted = ~np.isin(labels, list(ignore))
    stray = np.unique(labels[counted & ((labels < 0) | (labels >= classes))])
    if len(stray):
        raise SampleError(
            f"label values {stray[:10].tolist()} are neither classes, 0 to {classes - 1}, nor void "
            f"({sorted(ignore) or 'none'}); name them as void or correct the mask"
        )
    rows, columns = (
        (2 * np.arange(pixels) + 1) * patches // (2 * pixels)
        for pixels, patches in zip(labels.shape, grid, strict=True)
    )
    patch = rows[:, None] * grid[1] + columns
    keys = patch[counted] * classes + labels[counted].astype(np.int64)
    counts = np.bincount(keys, minlength=grid[0] * grid[1] * classes).reshape(*grid, classes)
    return (counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)).astype(np.float32)
