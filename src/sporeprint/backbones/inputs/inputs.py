"""The steps from a user's sample to a backbone: reading, preparing, one view's input, a batch of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sporeprint.data import images
from sporeprint.data.limits import Limits
from sporeprint.errors import RecipeError

Batch = Tensor | dict[str, Tensor]  # [N, 3, S, S]; or named tensors, each with N first

NOT_FOR_NETWORK = ("pooled", "frames", "labels")  # names in a batch that are for us, never given to the network


class Inputs:
    """The base of what prepares one modality for one backbone: of `Preprocess`, `Tokens` and `Sound`.

    A sample goes through `load` (decoded, the same for every backbone), `prepare` (made ready for this one), then an
    augmentation, which calls the object itself for each view's input; `collate` makes a batch of them.
    """

    modality: ClassVar[str]
    sample: ClassVar[str]  # the word for one sample
    budget: ClassVar[int]  # the sum of a pass's view lengths; a longer row takes several passes

    def load(self, sample: object, limits: Limits = Limits()) -> Any:
        """Decode what a user gives. Raises SampleError, also for what is larger than `limits`."""
        raise NotImplementedError

    def digest(self, loaded: Any) -> str:
        """Return a hex digest of a decoded sample: the id of one that has no other."""
        raise NotImplementedError

    def prepare(self, loaded: Any) -> Any:
        """Return what augmentations take. Raises SampleError where this backbone cannot take it."""
        return loaded

    def truncates(self, ready: Any) -> bool:
        """Return whether it is too long, so that the backbone sees only a part of it."""
        return False

    def bulk(self, ready: Any) -> int:
        """Return the bytes that a prepared sample takes."""
        raise NotImplementedError

    def length(self, ready: Any) -> int:
        """Return the cost of one view in units of `budget`; rows of like length share a pass."""
        return 1

    def same(self, ready: Any) -> int:
        """Return a key; samples of equal keys may share a pass."""
        return 0

    def __call__(self, ready: Any) -> Any:
        """Return the input of one view."""
        raise NotImplementedError

    def collate(self, views: Sequence[Any]) -> Batch:
        """Return a batch of the inputs of N views."""
        raise NotImplementedError

    def probes(self) -> list[Any]:
        """Return the inputs of three harmless views, of different lengths where those may share a pass."""
        raise NotImplementedError

    def describe(self) -> Any:
        """Return everything that decides a view's input, as JSON."""
        raise NotImplementedError

    def limits(self) -> dict[str, Any]:
        """Return what people want to know about it: the size of images, the longest text, the rate of sound."""
        return {}


class ImageInputs(Inputs):
    """The base of what turns RGB images into squares of one size."""

    modality = "image"
    sample = "image"
    budget = 64  # about this many views go through the backbone at once
    size: int
    patch: int | None = None  # side of the backbone's patches in pixels, where it also takes images of fewer

    def side(self, fraction: float) -> int:
        """Return the side in pixels of a view at `fraction` of S: the nearest multiple of a patch's side, at least two.

        Raises RecipeError where the backbone takes images of S x S alone.
        """
        if fraction == 1:
            return self.size
        if not self.patch:
            raise RecipeError(
                f"views at {fraction:g} of the input's side, but this backbone is only known to take images of "
                f"{self.size} x {self.size}; use another preset ('free' or 'paper'), or views at full size (side=1, "
                "local_side=1), or, if your network takes smaller images and its preprocess is a Preprocess, declare "
                "it: Preprocess(..., patch=16), the side of its patches in pixels"
            )
        return min(self.size, self.patch * max(2, round(self.size * fraction / self.patch)))

    def load(self, sample: object, limits: Limits = Limits()) -> Any:
        """Decode an RGB PIL image. Raises SampleError."""
        return images.load_image(sample, limits)

    def digest(self, loaded: Any) -> str:
        """Return a digest of size and pixels."""
        return images.content_digest(loaded)

    def bulk(self, ready: Any) -> int:
        """Return three bytes for each pixel."""
        return 3 * ready.width * ready.height

    def collate(self, views: Sequence[Any]) -> Batch:
        """Return [N, 3, s, s] of N views [3, s, s] of one size."""
        return views if isinstance(views, Tensor) else torch.stack(list(views))

    def probes(self) -> list[Tensor]:
        """Return three views of noise, [3, S, S] each."""
        return list(torch.randn(3, 3, self.size, self.size, generator=torch.Generator().manual_seed(0)))

    def limits(self) -> dict[str, Any]:
        return {"image_size": self.size}


def batch_to(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """Move a batch to a device, floats in the weights' precision; no inference tensors, which autograd cannot save."""
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
    """Return N."""
    return len(next(iter(batch.values())) if isinstance(batch, Mapping) else batch)


def for_network(batch: Batch) -> Batch:
    """Return the batch without what is only for us."""
    if isinstance(batch, Mapping):
        return {name: tensor for name, tensor in batch.items() if name not in NOT_FOR_NETWORK}
    return batch
