"""What stands between a user's sample and a backbone: reading, preparing, one view's input, a batch of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sporeprint.data import images
from sporeprint.errors import RecipeError

Batch = Tensor | dict[str, Tensor]  # [N, 3, S, S]; or named tensors, each with N first

BESIDE = ("pooled", "frames", "labels")  # of a batch's names: for us, never given to the network


class Inputs:
    """Base of what prepares one modality for one backbone; `Preprocess`, `Tokens` and `Sound` are the kinds there are.

    A sample goes through `load` (decoded, the same for every backbone), `prepare` (made ready for this one), then an
    augmentation, which calls the object itself for each view's input; `collate` makes a batch of them.
    """

    modality: ClassVar[str]
    sample: ClassVar[str]  # what people call one
    budget: ClassVar[int]  # of a pass: the sum of its views' lengths; a row beyond it takes several

    def load(self, sample: object) -> Any:
        """What a user gives, decoded. Raises SampleError."""
        raise NotImplementedError

    def digest(self, loaded: Any) -> str:
        """Hex digest of a decoded sample: the id of one that has no other."""
        raise NotImplementedError

    def prepare(self, loaded: Any) -> Any:
        """What augmentations are given. Raises SampleError where this backbone cannot take it."""
        return loaded

    def truncates(self, ready: Any) -> bool:
        """Whether the backbone sees only a part of it, since it is too long."""
        return False

    def bulk(self, ready: Any) -> int:
        """Bytes that a prepared sample takes."""
        raise NotImplementedError

    def length(self, ready: Any) -> int:
        """What one view costs, in units of `budget`; rows of like length share a pass."""
        return 1

    def same(self, ready: Any) -> int:
        """Samples for which this is equal may share a pass."""
        return 0

    def __call__(self, ready: Any) -> Any:
        """The input of one view."""
        raise NotImplementedError

    def collate(self, views: Sequence[Any]) -> Batch:
        """A batch of the inputs of N views."""
        raise NotImplementedError

    def probes(self) -> list[Any]:
        """The inputs of three harmless views, of different lengths where those may share a pass."""
        raise NotImplementedError

    def describe(self) -> Any:
        """Everything that decides a view's input, as JSON."""
        raise NotImplementedError

    def limits(self) -> dict[str, Any]:
        """What people want to know of it: the size of images, the longest text, the rate of sound."""
        return {}


class ImageInputs(Inputs):
    """RGB images to squares of one size."""

    modality = "image"
    sample = "image"
    budget = 64  # about so many views go through the backbone at once
    size: int
    patch: int | None = None  # side of the backbone's patches in pixels, where it takes images of fewer of them too

    def side(self, fraction: float) -> int:
        """Side in pixels of a view at `fraction` of S: the nearest multiple of the patches' side, at least two of them.

        Raises RecipeError where the backbone takes images of S x S alone.
        """
        if fraction == 1:
            return self.size
        if not self.patch:
            raise RecipeError(
                f"views at {fraction:g} of the input's side, but this backbone is only known to take images of "
                f"{self.size} x {self.size}; use another preset ('free' or 'paper'), or views at full size (side=1, "
                "local_side=1), or, if your network takes smaller images and its preprocess is a Preprocess, say so: "
                "Preprocess(..., patch=16), the side of its patches in pixels"
            )
        return min(self.size, self.patch * max(2, round(self.size * fraction / self.patch)))

    def load(self, sample: object) -> Any:
        """An RGB PIL image. Raises SampleError."""
        return images.load_image(sample)

    def digest(self, loaded: Any) -> str:
        """Of size and pixels."""
        return images.content_digest(loaded)

    def bulk(self, ready: Any) -> int:
        """Three bytes a pixel."""
        return 3 * ready.width * ready.height

    def collate(self, views: Sequence[Any]) -> Batch:
        """views: one size of [3, s, s]. Returns [N, 3, s, s]."""
        return views if isinstance(views, Tensor) else torch.stack(list(views))

    def probes(self) -> list[Tensor]:
        """Noise, [3, S, S] each."""
        return list(torch.randn(3, 3, self.size, self.size, generator=torch.Generator().manual_seed(0)))

    def limits(self) -> dict[str, Any]:
        return {"image_size": self.size}


def batch_to(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """On a device, floats in the weights' precision, and never an inference tensor, which autograd cannot save."""
    if isinstance(batch, Mapping):
        return {name: _tensor_to(tensor, device, dtype) for name, tensor in batch.items()}
    return _tensor_to(batch, device, dtype)


def _tensor_to(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor = tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
    if tensor.is_inference():
        with torch.inference_mode(False):
            tensor = tensor.clone()
    return tensor


def batch_size(batch: Batch) -> int:
    """N."""
    return len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)


def for_network(batch: Batch) -> Batch:
    """Without what is only for us."""
    if isinstance(batch, Mapping):
        return {name: tensor for name, tensor in batch.items() if name not in BESIDE}
    return batch
