"""What a patch is called, from the label histograms of its neighbours in the memory bank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError


def vote(similarities: NDArray[Any], histograms: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """Mean of the neighbours' histograms [Q, k, C], weighted by softmax(similarity / temperature). Returns [Q, C].

    similarities: [Q, k], cosines. Hummingbird (Balazevic et al. 2023) takes 30 neighbours and a temperature of 0.02.
    """
    if not temperature > 0:
        raise SampleError(f"a temperature of {temperature}; expected more than 0, such as 0.02")
    scaled = np.asarray(similarities, np.float32) / np.float32(temperature)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.matmul(weights[:, None], histograms.astype(np.float32, copy=False))[:, 0]
