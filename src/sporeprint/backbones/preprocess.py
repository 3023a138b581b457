"""From a PIL image to what an image backbone takes: resize, crop, scale, normalise. Pillow does the resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sporeprint.errors import BackboneError
from sporeprint.views.image import Box, resize_boxes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """What the checkpoint's image processor does to one image, and to boxes cut from it.

    size: S, the side in pixels of the square that the backbone gets. resize: the image is first resized to this side
    (default S), as a square, or with keep_aspect its shorter side; then the centre S x S is cut. resample: Pillow's
    filter. scale: factor on [0, 255] pixels before mean and std.
    """

    size: int
    resize: int | None = None
    keep_aspect: bool = False
    resample: int = int(Image.Resampling.BICUBIC)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    scale: float = 1 / 255

    def __call__(self, image: Image.Image) -> Tensor:
        """image: RGB. Returns [3, S, S]."""
        side = self.resize or self.size
        width, height = image.size
        short = min(width, height)
        shape = (int(side * width / short), int(side * height / short)) if self.keep_aspect else (side, side)
        image = image.resize(shape, Image.Resampling(self.resample))
        left, top = (shape[0] - self.size) // 2, (shape[1] - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        return self.normalise(torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32)))

    def boxes(self, image: Image.Image, boxes: list[Box]) -> Tensor:
        """Each box resized to S x S, bicubic. Returns [V, 3, S, S]."""
        return self.normalise(resize_boxes(image, boxes, self.size))

    def normalise(self, pixels: Tensor) -> Tensor:
        """pixels: [..., 3, S, S] from 0 to 255, changed in place."""
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return pixels.mul_(self.scale).sub_(mean).div_(std)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> Preprocess:
        """From the contents of `preprocessor_config.json`. Raises BackboneError where the result is not square."""
        size = _sides(config.get("size", 224))
        crop = _sides(config["crop_size"]) if config.get("do_center_crop") and config.get("crop_size") else None
        final = crop or size
        if "height" not in final or final["height"] != final.get("width"):
            raise BackboneError(
                f"the image processor makes inputs of {final}, which are not square; sporeprint needs square ones: set "
                "size, or do_center_crop and crop_size, in preprocessor_config.json, or build "
                "Backbone(module, preprocess=Preprocess(size=...))"
            )
        keep_aspect = "shortest_edge" in size
        if not keep_aspect and size.get("height") != size.get("width"):
            raise BackboneError(f"the image processor resizes to {size} and crops {crop}; expected square sizes")
        resize = size["shortest_edge"] if keep_aspect else size["height"]
        normalised = config.get("do_normalize", True)
        return cls(
            size=final["height"],
            resize=resize if config.get("do_resize", True) else final["height"],
            keep_aspect=keep_aspect,
            resample=int(config.get("resample", Image.Resampling.BICUBIC)),
            mean=tuple(config.get("image_mean") or IMAGENET_MEAN) if normalised else (0.0, 0.0, 0.0),
            std=tuple(config.get("image_std") or IMAGENET_STD) if normalised else (1.0, 1.0, 1.0),
            scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        )


class CustomPreprocess:
    """A user's function from an RGB PIL image to [3, S, S]. Boxes are cut, resized to S x S and given to it too."""

    def __init__(self, function: Callable[[Image.Image], Tensor]):
        self.function = function
        probe = self(Image.new("RGB", (97, 61), (128, 128, 128)))
        self.size = int(probe.shape[-1])

    def __call__(self, image: Image.Image) -> Tensor:
        """image: RGB. Returns [3, S, S]. Raises BackboneError where the function gives another shape."""
        made = torch.as_tensor(self.function(image))
        if made.dim() == 4 and made.shape[0] == 1:
            made = made[0]
        if made.dim() != 3 or made.shape[-1] != made.shape[-2]:
            raise BackboneError(f"preprocess gave shape {tuple(made.shape)}; expected a square [3, S, S] tensor")
        return made

    def boxes(self, image: Image.Image, boxes: list[Box]) -> Tensor:
        """Returns [V, 3, S, S]."""
        side = (self.size, self.size)
        return torch.stack([self(image.resize(side, Image.Resampling.BICUBIC, box=box)) for box in boxes])


def _sides(size: Any) -> dict[str, int]:
    return {"height": size, "width": size} if isinstance(size, int) else {k: v for k, v in dict(size).items() if v}
