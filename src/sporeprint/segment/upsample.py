"""From class probabilities of patches to a label for each pixel."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sporeprint.errors import SampleError

_NUMBERS = 2**23  # interpolated probabilities at a time: 32 MiB


def upsample(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Labels [H, W] from probabilities [H_p, W_p, C]: bilinear, then the largest; a tie goes to the lower class.

    Patches and pixels are cells of one rectangle: the first patch's centre lies half a patch from the border
    (`align_corners=False`). Beyond 12 bytes a pixel, 64 MiB suffice for any number of classes.
    """
    if probabilities.ndim != 3 or not probabilities.size or min(size) < 1:
        raise SampleError(
            f"probabilities of shape {list(probabilities.shape)} for {size} pixels; "
            "expected [patch rows, patch columns, classes] and at least one pixel"
        )
    planes = torch.from_numpy(np.ascontiguousarray(probabilities.transpose(2, 0, 1), np.float32))
    best = torch.full(size, -torch.inf)
    labels = torch.zeros(size, dtype=torch.int32)
    first = 0
    for part in planes.split(max(1, _NUMBERS // (size[0] * size[1]))):
        found, label = torch.nn.functional.interpolate(part[None], size, mode="bilinear", align_corners=False)[0].max(0)
        better = found > best
        best[better], labels[better] = found[better], label[better].int() + first
        first += len(part)
    return labels.numpy()
