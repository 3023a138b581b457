"""Views of one image: random crops, a grid of patches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from sporeprint.errors import RecipeError
from sporeprint.recipe import kind
from sporeprint.views.cutting import Box

if TYPE_CHECKING:
    from sporeprint.backbones.preprocess import Preprocess


@kind("crops")
@dataclass(frozen=True)
class Crops:
    """Random resized crops as in DINO, all resized to the full input: no flip, no colour. Global ones come first.

    Areas are fractions of the image's; aspect is the range of width / height, drawn log-uniformly.
    """

    global_crops: int = 2
    local_crops: int = 10
    global_area: tuple[float, float] = (0.25, 1.0)
    local_area: tuple[float, float] = (0.05, 0.25)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.global_crops < 1 or self.local_crops < 0:
            raise RecipeError(f"{self.global_crops} global and {self.local_crops} local crops; expected >= 1 and >= 0")
        for low, high in (self.global_area, self.local_area, self.aspect):
            if not 0 < low <= high:
                raise RecipeError(f"range ({low}, {high}); expected 0 < low <= high")

    @property
    def views(self) -> int:
        return self.global_crops + self.local_crops

    def __call__(self, image: Image.Image, preprocess: Preprocess, rng: np.random.Generator) -> Tensor:
        """Returns [V, 3, S, S]."""
        areas = [self.global_area] * self.global_crops + [self.local_area] * self.local_crops
        boxes = [random_box(image.size, area, self.aspect, rng) for area in areas]
        return preprocess.boxes(image, boxes)


@kind("patches")
@dataclass(frozen=True)
class Patches:
    """The image squashed to S x S, cut into grid x grid overlapping squares of S / 2, each resized back to S x S.

    The stride is int(S / 2 / 6), which at S = 224 and grid 7 is the paper's 49 patches of 112 with stride 18.
    """

    grid: int = 7

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= 7:
            raise RecipeError(f"grid={self.grid}; expected 1 to 7 patches a side")

    @property
    def views(self) -> int:
        return self.grid**2

    def __call__(self, image: Image.Image, preprocess: Preprocess, rng: np.random.Generator) -> Tensor:
        """Returns [grid * grid, 3, S, S], row by row."""
        size = preprocess.size
        side = size // 2
        starts = [step * (side // 6) for step in range(self.grid)]
        squashed = image.resize((size, size), Image.Resampling.BICUBIC)
        return preprocess.boxes(squashed, [(x, y, x + side, y + side) for y in starts for x in starts])


def random_box(size: tuple[int, int], area: Any, aspect: Any, rng: np.random.Generator) -> Box:
    """A box for a random resized crop (Szegedy et al. 2015, as torchvision does it): ten tries, then the centre.

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
