"""Turn a PIL image into what an image backbone takes: resize, crop, scale, normalise. Pillow does the resizing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sporeprint.backbones.inputs.boxes import Box, resize_boxes
from sporeprint.backbones.inputs.inputs import ImageInputs
from sporeprint.errors import BackboneError, warn
from sporeprint.values import check_count

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SETTINGS = {"mean": "image_mean", "std": "image_std", "scale": "rescale_factor"}
_LONGEST = 32  # times the shorter side; of a longer image all but the middle is cut off anyway
_SHORTEST_EDGE = ("CLIP", "ChineseCLIP", "Bit")  # processors whose older configurations mean it by `"size": 224`


@dataclass(frozen=True)
class Preprocess(ImageInputs):
    """The checkpoint's image processor, for one image and for boxes cut from it.

    size: S, the side in pixels of the square that the backbone gets. resize: the image is first resized to this side
    (default S), as a square, or with keep_aspect its shorter side; then the centre S x S is cut. resample: Pillow's
    filter. scale: factor on [0, 255] pixels before mean and std. round_corner: the corner of the crop is rounded as
    torchvision and timm do it (half to even), not down as Hugging Face's Pillow processors do. patch: side in pixels of
    the backbone's patches, where it takes images of more or fewer patches too; for most networks `Backbone` finds it.
    Raises BackboneError for numbers that are not finite.

    Examples
    --------
    >>> from PIL import Image
    >>> from sporeprint import Preprocess
    >>> preprocess = Preprocess(size=224, resize=256, keep_aspect=True)
    >>> preprocess(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 224, 224])
    >>> Preprocess.from_huggingface({"size": {"height": 32, "width": 32}}).size
    32
    """

    size: int
    resize: int | None = None
    keep_aspect: bool = False
    resample: int = int(Image.Resampling.BICUBIC)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    scale: float = 1 / 255
    round_corner: bool = False
    patch: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Raise BackboneError for what makes no image, or numbers that are not finite."""
        check_count("size", self.size, error=BackboneError)
        if self.resize is not None:
            check_count("resize", self.resize, error=BackboneError)
        if self.resample not in list(Image.Resampling):
            raise BackboneError(
                f"resample={self.resample!r}; expected one of Pillow's filters, such as Image.Resampling.BICUBIC"
            )
        for name, numbers in {"mean": self.mean, "std": self.std, "scale": (self.scale,)}.items():
            positive = name != "mean"
            if not isinstance(numbers, (list, tuple)) or len(numbers) not in (1, 3):
                raise BackboneError(f"the images' {name} is {numbers!r}; expected three numbers, one for each colour")
            right = [isinstance(n, Real) and math.isfinite(n) and (n > 0 or not positive) for n in numbers]
            if not all(right):
                raise BackboneError(
                    f"the images' {name} is {numbers if len(numbers) > 1 else numbers[0]}; expected finite numbers"
                    f"{' above 0' if positive else ''}: correct {_SETTINGS[name]} in preprocessor_config.json, or "
                    f"{name} in Preprocess(...)"
                )

    def __call__(self, image: Image.Image) -> Tensor:
        """Return [3, S, S] of an RGB image."""
        side = self.resize or self.size
        if self.keep_aspect:
            image = _middle(image)
        width, height = image.size
        short = min(width, height)
        shape = (int(side * width / short), int(side * height / short)) if self.keep_aspect else (side, side)
        image = image.resize(shape, Image.Resampling(self.resample))
        left, top = (self._corner(margin - self.size) for margin in shape)
        return self._pixels(image.crop((left, top, left + self.size, top + self.size)))

    def at(self, image: Image.Image, height: int, width: int) -> Tensor:
        """Resize the whole RGB image, with no crop, and normalise it. Returns [3, height, width]."""
        return self._pixels(image.resize((width, height), Image.Resampling(self.resample)))

    def _pixels(self, image: Image.Image) -> Tensor:
        return self.normalise(torch.from_numpy(np.asarray(image).transpose(2, 0, 1).astype(np.float32)))

    def _corner(self, margins: int) -> int:
        """Return where the crop begins on one side; below 0 the image is smaller than the crop, and black is added."""
        if not self.round_corner:
            return margins // 2
        return round(margins / 2) if margins > 0 else -(-margins // 2)

    def boxes(self, image: Image.Image, boxes: list[Box], size: int | None = None) -> Tensor:
        """Resize each box to size x size (default S), bicubic. Returns [V, 3, size, size]."""
        gain = tuple(self.scale / std for std in self.std)
        shift = tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
        return resize_boxes(image, boxes, size or self.size, gain, shift)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise pixels [..., 3, S, S] from 0 to 255 in place."""
        mean = torch.tensor(self.mean).view(-1, 1, 1)
        std = torch.tensor(self.std).view(-1, 1, 1)
        return pixels.mul_(self.scale).sub_(mean).div_(std)

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON, for stores and for people."""
        return {name: value for name, value in asdict(self).items() if name != "patch"}  # the backbone's

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read the contents of `preprocessor_config.json`. Raises BackboneError where the result is not square."""
        size = config.get("size", 224)
        if isinstance(size, int) and _kind(config).startswith(_SHORTEST_EDGE):
            size = {"shortest_edge": size}
        size = _sides(size)
        crop = _sides(config["crop_size"]) if config.get("do_center_crop") and config.get("crop_size") else None
        final = crop or size
        if "height" not in final or final["height"] != final.get("width"):
            raise BackboneError(
                f"the image processor makes inputs of {final}, which are not square; sporeprint needs square ones: set "
                "size, or do_center_crop and crop_size, in preprocessor_config.json, or build "
                "Backbone(module, preprocess=Preprocess(size=...))"
            )
        if "longest_edge" in size or config.get("do_pad"):
            raise BackboneError(
                f"the image processor pads, or bounds the longer edge ({size}); sporeprint does neither"
            )
        keep_aspect = "shortest_edge" in size
        if not keep_aspect and size.get("height") != size.get("width"):
            raise BackboneError(f"the image processor resizes to {size} and crops {crop}; expected square sizes")
        resize = size["shortest_edge"] if keep_aspect else size["height"]
        if not config.get("do_resize", True):
            warn(
                f"the image processor does not resize (do_resize is false); images are resized to {final['height']} x "
                f"{final['width']} here, since the backbone needs inputs of one size"
            )
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


class CustomPreprocess(ImageInputs):
    """A user's function from an RGB PIL image to [3, S, S]. Boxes are cut, resized to S x S and given to it too."""

    def __init__(self, function: Callable[[Image.Image], Tensor]):
        self.function = function
        self.size = 0
        probe = self(Image.new("RGB", (97, 61), (128, 128, 128)))
        self.size = int(probe.shape[-1])

    def __call__(self, image: Image.Image) -> Tensor:
        """Return [3, S, S] of an RGB image. Raises BackboneError where the function gives another shape."""
        pixels = self.function(image)
        try:
            pixels = torch.as_tensor(pixels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BackboneError(f"preprocess gave a {type(pixels).__name__}; expected a tensor [3, S, S]") from error
        if pixels.dim() == 4 and pixels.shape[0] == 1:
            pixels = pixels[0]
        size = self.size or (pixels.shape[-1] if pixels.dim() else 0)
        if pixels.shape != (3, size, size):
            side = self.size or "S"
            raise BackboneError(
                f"preprocess gave shape {tuple(pixels.shape)} for a {image.width} x {image.height} image; expected "
                f"[3, {side}, {side}] for every image"
            )
        return pixels

    def at(self, image: Image.Image, height: int, width: int) -> Tensor:
        """Do what `Preprocess.at` does, at the function's own size. Raises BackboneError for another."""
        if (height, width) != (self.size, self.size):
            raise BackboneError(
                f"an image is needed at {height} x {width} pixels (height x width), but the preprocess is a function "
                f"that makes {self.size} x {self.size}; give preprocess=Preprocess(size={self.size}, mean=(...), "
                "std=(...)), which makes any size"
            )
        return self(image)

    def describe(self) -> str:
        """Return a sketch of what it makes of a fixed picture: it changes with the function, not with rounding."""
        raw = np.random.PCG64(0).random_raw(97 * 61 * 3 // 8 + 1).astype("<u8").view(np.uint8)
        pixels = self(Image.fromarray(raw[: 97 * 61 * 3].reshape(61, 97, 3))).double().flatten().cpu()
        bits = np.random.PCG64(1).random_raw(8 * pixels.numel()) >> 63
        signs = torch.from_numpy(bits.astype(np.float64) * 2 - 1).view(8, -1)
        size = float(pixels.norm())
        turned = (signs @ pixels / size if size else signs[:, 0]).tolist()  # each about 1, whatever the picture
        sketch = [f"{size:.3g}", *(f"{number + 0.0:.2f}" for number in turned)]
        return f"custom {hashlib.blake2b(' '.join(sketch).encode(), digest_size=8).hexdigest()}"

    def boxes(self, image: Image.Image, boxes: list[Box]) -> Tensor:
        """Return [V, 3, S, S]."""
        side = (self.size, self.size)
        # Not `resize(box=...)`, whose filter reads the pixels around the box too.
        return torch.stack([self(image.crop(box).resize(side, Image.Resampling.BICUBIC)) for box in boxes])


def _middle(image: Image.Image) -> Image.Image:
    """Return the image, or a very long one's middle: the crop needs no more, and the whole could take gigabytes."""
    width, height = image.size
    most = _LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")


def _sides(size: Any) -> dict[str, int]:
    return {"height": size, "width": size} if isinstance(size, int) else {k: v for k, v in dict(size).items() if v}
