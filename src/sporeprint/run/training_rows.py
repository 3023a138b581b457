"""The training rows that a prediction is shown with: the three nearest, by the cosine of their features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.features.unit import unit
from sporeprint.search.neighbours import neighbours

SHOWN = 3


@dataclass(frozen=True)
class TrainingRows:
    """Labelled rows [N]: ids, labels and directions [N, D] of their features, in float16, which halves a saved model.

    own: probability of each row's own class, left out, in rising order [N]; empty where labels are numbers to predict.
    """

    ids: list[str]
    labels: NDArray[Any]
    directions: NDArray[np.float16]
    own: NDArray[np.float64]

    @classmethod
    def of(
        cls, ids: list[str], labels: NDArray[Any], features: NDArray[np.float32], own: NDArray[np.float64] | None = None
    ) -> TrainingRows:
        """Keep rows of features [N, D]."""
        return cls(ids, labels, unit(features).astype(np.float16), np.empty(0) if own is None else own)

    def nearest(self, features: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the nearest rows and their cosines, both [M, at most 3], nearest first. Zeros have cosine 0."""
        found = list(neighbours(self.directions, features, SHOWN, "cosine"))
        rows, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return rows, 1 - distances
