"""Which patches of an image go into the memory bank: rare classes first, or all alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError


def class_counts(histograms: NDArray[Any]) -> NDArray[np.float64]:
    """How many patches [..., C] have each class, float64 [C]; the sum over the training images balances all of them."""
    present = np.asarray(histograms) > 0
    return present.reshape(-1, present.shape[-1]).sum(axis=0, dtype=np.float64)


def choose(
    histograms: NDArray[Any], count: int, rng: np.random.Generator, class_counts: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Positions, rising, of up to `count` patches of one image with histograms [P, C]; never one without a label.

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
