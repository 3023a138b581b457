"""Sets of views: which objectives share one, what it costs, and the random numbers of a row's views."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.whole import Whole
from sporeprint.values import canonical


@dataclass(frozen=True)
class ViewSet:
    """Views that are made and pass the backbone once, and the objectives that share them."""

    name: str  # "whole", or the first objective's
    augmentation: Any
    objectives: tuple[Objective, ...]

    @property
    def views(self) -> int:
        return self.augmentation.views

    @property
    def logits(self) -> bool:
        """Whether an objective reads the checkpoint's own head."""
        return any(getattr(objective, "reads", "") == "logits" for objective in self.objectives)

    def cost(self, inputs: Inputs) -> float:
        """Return a row's cost in plain views: a view at half the side of an image has a quarter of its tokens."""
        own = getattr(self.augmentation, "cost", None)
        if own is not None:
            return float(own(inputs))
        sizes = getattr(self.augmentation, "sizes", None)
        return self.views if sizes is None else _cost_of(sizes(inputs), inputs)

    def first(self, views: int) -> ViewSet:
        """Return the same set with its first `views` views alone."""
        augmentation = self.augmentation
        if is_dataclass(augmentation) and any(field.name == "views" and field.init for field in fields(augmentation)):
            return replace(self, augmentation=replace(augmentation, views=views))  # type: ignore[type-var]
        return replace(self, augmentation=FirstViews(augmentation, views))


@dataclass(frozen=True)
class FirstViews:
    """The first `views` of an augmentation that can only make all of its views, such as a grid."""

    augmentation: Any
    views: int

    def __call__(self, sample: Any, inputs: Inputs, rng: np.random.Generator) -> Any:
        return self.augmentation(sample, inputs, rng)[: self.views]

    def cost(self, inputs: Inputs) -> float:
        """Return the cost in plain views; where the sizes are unknown, every view costs the same."""
        sizes = getattr(self.augmentation, "sizes", None)
        if sizes is not None:
            return _cost_of(sizes(inputs)[: self.views], inputs)
        return ViewSet("", self.augmentation, ()).cost(inputs) * self.views / self.augmentation.views


def _cost_of(sizes: Sequence[int], inputs: Inputs) -> float:
    return sum((side / inputs.side(1)) ** 2 for side in sizes)  # type: ignore[attr-defined]


def view_sets(objectives: Sequence[Objective]) -> list[ViewSet]:
    """Group objectives with equal augmentations into sets; the plain view comes first, since the embedding needs it."""
    shared: dict[Any, list[Objective]] = {Whole(): []}
    for objective in objectives:
        plain = objective.augmentation is None
        shared.setdefault(Whole() if plain else objective.augmentation, []).append(objective)
    return [
        ViewSet("whole" if augmentation == Whole() else members[0].name, augmentation, tuple(members))
        for augmentation, members in shared.items()
    ]


def generator(seed: int, row_id: str, name: str) -> np.random.Generator:
    """Return the generator of a row's views for an objective: the same for every batch, order, worker and platform."""
    key = hashlib.blake2b(canonical([seed, row_id, name]), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))
