"""The plain view, of any modality: what the backbone's own preprocessing makes of the sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sporeprint.values import kind


@kind("whole")
@dataclass(frozen=True)
class Whole:
    """The sample as the backbone's own preprocessing gives it: one view, shared with the embedding."""

    views = 1

    def __call__(self, sample: Any, preprocess: Any, rng: np.random.Generator) -> list[Any]:
        """Return one view's input."""
        return [preprocess(sample)]
