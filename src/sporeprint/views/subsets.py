"""Views of one image as subsets of its own tokens: nothing is resized, and patches are embedded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sporeprint.values import check_count, check_fraction, kind

if TYPE_CHECKING:
    from sporeprint.backbones.inputs import ImageInputs

View = dict[str, Tensor]  # "pixel_values": [3, S, S], the same tensor in all views of an image; "kept": [K]


@kind("windows")
@dataclass(frozen=True)
class Windows:
    """Square windows of the image's patches, grid x grid of them from edge to edge.

    side: of a window, as a fraction of the image's: with 14 x 14 patches 0.5 keeps 7 x 7. For networks whose positions
    are added before the first block (ViT, DeiT, CLIP, DINOv2); others are refused.
    """

    subsets = True  # of tokens, which not every backbone allows

    grid: int = 3
    side: float = 0.5

    def __post_init__(self) -> None:
        check_count("grid", self.grid)
        check_fraction("side", self.side)

    @property
    def views(self) -> int:
        return self.grid**2

    def __call__(self, image: Image.Image, preprocess: ImageInputs, rng: np.random.Generator) -> list[View]:
        """Returns one input for each view, row by row."""
        return _views(image, preprocess, self.kept(preprocess.tokens_a_side()))

    def kept(self, tokens: int) -> NDArray[np.int64]:
        """Numbers of the patches of each window, of tokens x tokens, row by row: [V, K]."""
        side = _window(self.side, tokens)
        room = tokens - side
        starts = [room // 2] if self.grid == 1 else [step * room // (self.grid - 1) for step in range(self.grid)]
        rows = [np.arange(start, start + side) for start in starts]
        return np.stack([(tokens * down[:, None] + across).ravel() for down in rows for across in rows])

    def cost(self, preprocess: ImageInputs) -> float:
        """In plain views."""
        tokens = preprocess.tokens_a_side()
        return self.views * (_window(self.side, tokens) / tokens) ** 2


@kind("scatter")
@dataclass(frozen=True)
class Scatter:
    """Random subsets of the image's patches, a fraction `keep` of them in each view. For the networks of `Windows`."""

    subsets = True

    views: int = 9
    keep: float = 0.25

    def __post_init__(self) -> None:
        check_count("views", self.views)
        check_fraction("keep", self.keep)

    def __call__(self, image: Image.Image, preprocess: ImageInputs, rng: np.random.Generator) -> list[View]:
        """Returns one input for each view."""
        patches = preprocess.tokens_a_side() ** 2
        count = max(1, round(self.keep * patches))
        # Only `rng.random` is used, whose bits NumPy keeps stable.
        kept = [np.sort(rng.random(patches).argsort(kind="stable")[:count]) for _ in range(self.views)]
        return _views(image, preprocess, np.stack(kept))

    def cost(self, preprocess: ImageInputs) -> float:
        """In plain views."""
        patches = preprocess.tokens_a_side() ** 2
        return self.views * max(1, round(self.keep * patches)) / patches


def _views(image: Image.Image, preprocess: ImageInputs, kept: NDArray[np.int64]) -> list[View]:
    plain = preprocess(image)
    return [{"pixel_values": plain, "kept": torch.from_numpy(one)} for one in kept]


def _window(side: float, tokens: int) -> int:
    return max(1, round(side * tokens))
