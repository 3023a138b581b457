"""The patches of an image: the classes under each, which go into a memory bank, and what a bank may hold."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.values import check_list


def void_labels(ignore: int | Collection[int]) -> tuple[int, ...]:
    """Return the label values that are void, of one or of several. Raises RecipeError."""
    return (int(ignore),) if isinstance(ignore, Integral) else tuple(check_list("ignore", ignore, "(255,)"))


@quiet_floats
def patch_histograms(
    labels: NDArray[np.integer], grid: tuple[int, int], classes: int, ignore: Collection[int] = ()
) -> NDArray[np.float32]:
    """Soft label histograms [H_p, W_p, C] of labels [H, W] over a grid (H_p, W_p) of patches; each sums to 1.

    A histogram holds the fraction of a patch's labelled pixels that each class has. A pixel belongs to the patch that
    its centre lies in, so H and W need not be multiples of the grid. ignore: label values that are void and counted
    nowhere; a patch without any other pixel is all zeros.
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


def class_counts(histograms: NDArray[Any]) -> NDArray[np.float64]:
    """The number of patches [..., C] that have each class, float64 [C]; the sum over images balances all of them."""
    present = np.asarray(histograms) > 0
    return present.reshape(-1, present.shape[-1]).sum(axis=0, dtype=np.float64)


def draw_patches(
    histograms: NDArray[Any], count: int, rng: np.random.Generator, class_counts: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Positions, rising, of up to `count` labelled patches of one image with histograms [P, C].

    class_counts: [C], of the whole training set or of this image. A patch's score is the sum of the counts of its
    classes times a uniform number, and the lowest are taken: Hummingbird's balance (Balazevic et al. 2023), which
    takes the image's own counts. None: every labelled patch is as likely as another.
    The choice depends on nothing but the arguments: an rng seeded by the image's id makes it the same in every order.
    """
    histograms = np.asarray(histograms)
    if histograms.ndim != 2:
        raise SampleError(f"histograms are {list(histograms.shape)}; expected [patches, classes]")
    if count < 0:
        raise SampleError(f"{count} patches to choose; expected 0 or more")
    present = histograms > 0
    scores = rng.random(len(histograms))  # one for each patch, so that labels elsewhere do not change a patch's
    if class_counts is not None:
        counts = np.asarray(class_counts, np.float64)
        wrong = counts.shape != histograms.shape[1:] or not (np.isfinite(counts) & (counts >= 0)).all()
        if wrong:
            raise SampleError(f"class counts are {counts}; expected {histograms.shape[1]} numbers, 0 or more")
        if (present.any(axis=0) & (counts == 0)).any():
            raise SampleError("a class of this image has a count of 0; count the classes of this image too")
        scores *= present @ counts
    labelled = np.flatnonzero(present.any(axis=1))
    order = np.argsort(scores[labelled], kind="stable")
    return np.sort(labelled[order[:count]]).astype(np.int64)


@quiet_floats
def check_patches(
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


@quiet_floats
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
