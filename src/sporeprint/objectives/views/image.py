"""Views of one image: random crops, a grid of patches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from sporeprint.backbones.inputs.boxes import Box
from sporeprint.errors import RecipeError
from sporeprint.values import check_fraction, kind, later, short_repr

if TYPE_CHECKING:
    from sporeprint.backbones.inputs.inputs import ImageInputs
    from sporeprint.backbones.inputs.preprocess import Preprocess


@kind("crops")
@dataclass(frozen=True)
class Crops:
    """Random resized crops as in DINO, all resized to the full input: no flip, no colour. Global ones come first.

    Areas are fractions of the image's; aspect is the range of width / height, drawn log-uniformly. side, local_side:
    sides of global and local crops, as a fraction of the backbone's input; below 1 they take fewer tokens.
    """

    global_crops: int = 2
    local_crops: int = 10
    global_area: tuple[float, float] = (0.25, 1.0)
    local_area: tuple[float, float] = (0.05, 0.25)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    side: float = later(1.0)
    local_side: float = later(1.0)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.global_crops < 1 or self.local_crops < 0:
            raise RecipeError(f"{self.global_crops} global and {self.local_crops} local crops; expected >= 1 and >= 0")
        for low, high in (self.global_area, self.local_area, self.aspect):
            if not 0 < low <= high:
                raise RecipeError(f"range ({low}, {high}); expected 0 < low <= high")
        check_fraction("side", self.side)
        check_fraction("local_side", self.local_side)

    @property
    def views(self) -> int:
        return self.global_crops + self.local_crops

    def sizes(self, preprocess: ImageInputs) -> list[int]:
        """Return the side of each view in pixels. Raises RecipeError for one that the backbone cannot take."""
        sides = [self.side] * self.global_crops + [self.local_side] * self.local_crops
        return [preprocess.side(side) for side in sides]

    def __call__(self, image: Image.Image, preprocess: Preprocess, rng: np.random.Generator) -> Tensor | list[Tensor]:
        """Return [V, 3, S, S]; where the sizes differ, a list of V views [3, s, s]."""
        areas = [self.global_area] * self.global_crops + [self.local_area] * self.local_crops
        boxes = [random_box(image.size, area, self.aspect, rng) for area in areas]
        sizes, first = self.sizes(preprocess), self.global_crops
        if len(set(sizes)) == 1:
            return _cut(preprocess, image, boxes, sizes[0])
        return [
            *_cut(preprocess, image, boxes[:first], sizes[0]),
            *_cut(preprocess, image, boxes[first:], sizes[-1]),
        ]


@kind("patches")
@dataclass(frozen=True)
class Patches:
    """The image squashed to S x S, cut into grid x grid overlapping squares of S / 2, each resized back to S x S.

    The stride of 7 is int(S / 2 / 6), which at S = 224 gives the paper's 49 patches of 112 with stride 18; other grids
    spread from edge to edge. side: a view's, as a fraction of the backbone's input: at 0.5 a patch is not resized.
    """

    grid: int = 7
    side: float = later(1.0)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= 7:
            raise RecipeError(f"grid={self.grid}; expected 1 to 7 patches a side")
        check_fraction("side", self.side)

    @property
    def views(self) -> int:
        return self.grid**2

    def sizes(self, preprocess: ImageInputs) -> list[int]:
        """Return the side of each view in pixels. Raises RecipeError where the backbone cannot take it."""
        return [preprocess.side(self.side)] * self.views

    def __call__(self, image: Image.Image, preprocess: Preprocess, rng: np.random.Generator) -> Tensor:
        """Return [grid * grid, 3, s, s], row by row."""
        size = preprocess.size
        side = size // 2
        squashed = image.resize((size, size), Image.Resampling.BICUBIC)
        starts = self.starts(size)
        boxes = [(x, y, x + side, y + side) for y in starts for x in starts]
        return _cut(preprocess, squashed, boxes, self.sizes(preprocess)[0])

    def starts(self, size: int) -> list[int]:
        """Return where the squares begin, in pixels of the squashed image: the same down and across."""
        side = size // 2
        if self.grid == 7:
            return [step * (side // 6) for step in range(7)]
        if self.grid == 1:
            return [(size - side) // 2]
        return [step * (size - side) // (self.grid - 1) for step in range(self.grid)]


def _cut(preprocess: Preprocess, image: Image.Image, boxes: list[Box], size: int) -> Tensor:
    # A user's own preprocess may make one size alone.
    return preprocess.boxes(image, boxes) if size == preprocess.size else preprocess.boxes(image, boxes, size)


def random_box(size: tuple[int, int], area: Any, aspect: Any, rng: np.random.Generator) -> Box:
    """Draw a box for a random resized crop (Szegedy et al. 2015, as torchvision does it): ten tries, then the centre.

    Only `rng.random` is used, whose bits NumPy keeps stable.
    """
    width, height = size
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for _ in range(10):
        wanted = width * height * (area[0] + (area[1] - area[0]) * rng.random())
        ratio = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w = min(width, max(1, round(height * ratio)))
    h = min(height, max(1, round(width / ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
