"""Shifted, flipped and scaled copies of an image pass the backbone; their feature maps are aligned again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from sporeprint.errors import RecipeError
from sporeprint.gradients.projections.projection import normalise
from sporeprint.values import check_count, is_positive, kind, short_repr


@dataclass(frozen=True)
class Copy:
    """A copy is an image at `height` x `width` pixels, its content moved down and right, then mirrored."""

    height: int
    width: int
    down: int = 0
    right: int = 0
    flipped: bool = False

    def __call__(self, image: Tensor) -> Tensor:
        """Copy an image [3, height, width]; pixels moved in from outside repeat the border."""
        down, right = self.down, self.right
        room = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
        moved = pad(image.unsqueeze(0), room, mode="replicate")[0]
        moved = moved[:, max(-down, 0) :, max(-right, 0) :][:, : self.height, : self.width]
        return moved.flip(-1) if self.flipped else moved

    def register(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Sample the copy's features [h, w, D] bilinearly at the centres of `grid` over the image: [H, W, D]."""
        if self.flipped:
            features = features.flip(1)
        if (self.down, self.right) == (0, 0) and tuple(features.shape[:2]) == grid:
            return features
        rows = (torch.arange(grid[0], dtype=features.dtype) + 0.5) / grid[0] + self.down / self.height
        columns = (torch.arange(grid[1], dtype=features.dtype) + 0.5) / grid[1] + self.right / self.width
        places = torch.stack(torch.meshgrid(columns * 2 - 1, rows * 2 - 1, indexing="xy"), dim=-1)  # [H, W, 2]
        planes = features.permute(2, 0, 1).unsqueeze(0)
        sampled = grid_sample(
            planes, places.to(features.device).unsqueeze(0), mode="bilinear", padding_mode="border", align_corners=False
        )
        return sampled[0].permute(1, 2, 0)


@kind("copies")
@dataclass(frozen=True)
class Copies:
    """Copies says which copies of an image pass the backbone; their L2-normalised features are averaged on one grid.

    shifts: n moves the content by n x n fractions of a patch, centred, on a grid n times as fine as the patches.
    flip: add mirrored copies. scales: factors of the image's sides, which are rounded to whole patches.
    An image takes shifts ** 2 * (1 + flip) * len(scales) passes, at its scaled sizes. Raises RecipeError.

    Examples
    --------
    >>> from sporeprint import Copies
    >>> copies = Copies(shifts=2, flip=True)
    >>> copies.passes, copies.grid(height=16, width=24, patch=4)
    (8.0, (8, 12))
    """

    shifts: int = 1
    flip: bool = False
    scales: Sequence[float] = (1.0,)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_count("Copies shifts", self.shifts)
        if not isinstance(self.flip, bool):
            raise RecipeError(f"Copies flip={self.flip!r}; expected True or False")
        scales = self.scales if isinstance(self.scales, (list, tuple)) else (self.scales,)
        if not scales or not all(map(is_positive, scales)):
            raise RecipeError(f"Copies scales={self.scales!r}; expected positive numbers, such as (1.0, 1.5)")
        object.__setattr__(self, "scales", tuple(float(scale) for scale in scales))

    @property
    def passes(self) -> float:
        """Cost of the copies in passes over the plain image, by their numbers of patches."""
        return self.shifts**2 * (1 + self.flip) * sum(scale**2 for scale in self.scales)

    def of(self, height: int, width: int, patch: int) -> list[Copy]:
        """List the copies of an image that the backbone takes at height x width pixels."""
        fractions = [(at - (self.shifts - 1) / 2) / self.shifts for at in range(self.shifts)]
        moves = [round(fraction * patch) for fraction in fractions]
        sizes = [[patch * max(1, round(side * scale / patch)) for side in (height, width)] for scale in self.scales]
        combinations = itertools.product(sizes, moves, moves, (False, True) if self.flip else (False,))
        return [Copy(tall, wide, down, right, flipped) for (tall, wide), down, right, flipped in combinations]

    def grid(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """Return rows and columns of the features of an image at height x width pixels."""
        return height // patch * self.shifts, width // patch * self.shifts


def add_copy(total: Tensor | None, copy: Copy, features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add a copy's features [h, w, D], L2-normalised and aligned, to the sum so far [H, W, D]."""
    placed = copy.register(normalise(features), grid)
    return placed if total is None else total + placed
