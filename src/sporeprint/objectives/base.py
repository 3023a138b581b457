"""What an objective is: the views it needs, its head, and one loss per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor


def is_positive(value: Any) -> bool:
    """Whether a temperature can be one: a finite number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True)
class Objective:
    """Base of the objectives: subclass it as a frozen dataclass and define `loss`.

    name: of the block and of the head. latent: width of the head's output. augmentation: makes the views; None for the
    modality's plain view. Sample i's loss must not read sample j.
    """

    normalize: ClassVar[bool] = True  # L2-normalise the embedding before the head
    extra_heads: ClassVar[tuple[str, ...]] = ()  # further heads, without gradient, given to `loss` by these names
    negatives: int = 0  # samples of the fitting set whose latents are given to `loss` as `negatives` [M, L]

    name: str = ""
    latent: int = 768
    augmentation: Any = None

    @property
    def views(self) -> int:
        """Number of views of one sample."""
        return 1 if self.augmentation is None else self.augmentation.views

    def loss(self, latents: Tensor, *args: Any, **extras: Any) -> Tensor:
        """latents: [N, V, L]. extras: what `extra_heads` and `negatives` ask for.

        Returns [N]: one loss a sample, neither their mean nor their sum.
        """
        raise NotImplementedError

    def head_names(self) -> list[str]:
        """Names in `Fungi.heads`: the head's, then those of `extra_heads`."""
        return [self.name, *(f"{self.name}_{extra}" for extra in self.extra_heads)]
