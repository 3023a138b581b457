"""Sets of views: which objectives share one, what it costs, and the random numbers of a row's views."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sporeprint.backbones.inputs import Inputs
from sporeprint.objectives.base import Objective
from sporeprint.recipe import canonical
from sporeprint.views.whole import Whole


@dataclass(frozen=True)
class ViewSet:
    """Views that are made once and pass the backbone once, and the objectives that share them."""

    name: str  # "whole", or the first objective's
    augmentation: Any
    objectives: tuple[Objective, ...]

    @property
    def views(self) -> int:
        return self.augmentation.views

    @property
    def logits(self) -> bool:
        """Whether an objective reads the checkpoint's own head."""
        return any(getattr(one, "reads", "") == "logits" for one in self.objectives)

    def cost(self, inputs: Inputs) -> float:
        """What a row's views cost, in plain views: a view at half the side of an image has a quarter of its tokens."""
        own = getattr(self.augmentation, "cost", None)
        if own is not None:
            return float(own(inputs))
        sizes = getattr(self.augmentation, "sizes", None)
        if sizes is None:
            return self.views
        return sum((side / inputs.side(1)) ** 2 for side in sizes(inputs))  # type: ignore[attr-defined]


def view_sets(objectives: Sequence[Objective]) -> list[ViewSet]:
    """The plain view first, since the embedding needs it; objectives with equal augmentations share a set."""
    shared: dict[Any, list[Objective]] = {Whole(): []}
    for objective in objectives:
        plain = objective.augmentation is None
        shared.setdefault(Whole() if plain else objective.augmentation, []).append(objective)
    return [
        ViewSet("whole" if augmentation == Whole() else members[0].name, augmentation, tuple(members))
        for augmentation, members in shared.items()
    ]


def generator(seed: int, row_id: str, name: str) -> np.random.Generator:
    """The random numbers of one row's views for one objective: the same for every batch, order, worker and platform."""
    key = hashlib.blake2b(canonical([seed, row_id, name]), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
