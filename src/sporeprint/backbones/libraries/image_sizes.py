"""Which image networks take images of other sizes than those they were made for, and how they are asked to."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

# Of Hugging Face's: they interpolate position embeddings, or need none, without being asked.
_UNASKED = {"dinov2", "dinov2_with_registers", "dinov3_vit", "beit", "data2vec-vision"}


def huggingface_patch(module: Any) -> int | None:
    """Side of its patches in pixels; None where it takes images of one size, or its tokens are no plain grid (Swin)."""
    config = module.config
    patch, asked = _side(getattr(config, "patch_size", None)), "interpolate_pos_encoding" in _arguments(module)
    return patch if (asked or config.model_type in _UNASKED) and not hasattr(config, "depths") else None


def huggingface_side(module: Any) -> int | None:
    """Of the images that it was made for, where it refuses others unless it is asked to take them."""
    return None if module.config.model_type in _UNASKED else _side(getattr(module.config, "image_size", None))


def interpolating(module: Any, images: Tensor) -> dict[str, bool]:
    """The argument that asks a Hugging Face network to take these images [N, 3, H, W], where it must be asked."""
    made_for = _side(getattr(module.config, "image_size", None))
    if made_for is None or _is_square(images, made_for) or "interpolate_pos_encoding" not in _arguments(module):
        return {}
    return {"interpolate_pos_encoding": True}


def timm_patch(module: Any) -> int | None:
    """As `huggingface_patch`. EVA's rotary positions are tabulated, so that it takes others only when built to."""
    embed: Any = getattr(module, "patch_embed", None)
    dynamic = getattr(module, "dynamic_img_size", None)  # of plain vision transformers alone
    if dynamic is None or not hasattr(embed, "strict_img_size") or getattr(module, "pos_embed", None) is None:
        return None
    return None if getattr(module, "rope", None) is not None and not dynamic else _side(embed.patch_size)


def timm_side(module: Any) -> int | None:
    """As `huggingface_side`."""
    dynamic = timm_patch(module) is None or module.dynamic_img_size
    return None if dynamic else _side(module.patch_embed.img_size)


def flexible(module: Any, images: Tensor) -> Any:
    """A timm network that takes images [N, 3, H, W]: itself, or for another size a twin that shares all its parts.

    The twin differs in two flags, which cannot be turned on the network itself while its owner runs it elsewhere.
    """
    made_for = timm_side(module)
    if made_for is None or _is_square(images, made_for):
        return module
    twin, embed = copy.copy(module), copy.copy(module.patch_embed)
    embed.__dict__ |= {"strict_img_size": False, "flatten": False, "output_fmt": type(embed.output_fmt)("NHWC")}
    twin.__dict__ |= {"dynamic_img_size": True, "_modules": {**module._modules, "patch_embed": embed}}
    return twin


def resize_positions(positions: Tensor, prefix: int, height: int, width: int | None = None) -> Tensor:
    """Position embeddings [1, prefix + P, E] of a square grid, for one of height x width (default: height).

    Returns [1, prefix + height * width, E]: bicubic, as in Hugging Face's vision transformers; unchanged where the grid
    is the same.
    """
    grid = round((positions.shape[1] - prefix) ** 0.5)
    size = (height, height if width is None else width)
    if size == (grid, grid):
        return positions
    first, patches = positions[:, :prefix], positions[:, prefix:]
    planes = patches.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)
    planes = interpolate(planes, size=size, mode="bicubic", align_corners=False)
    return torch.cat([first, planes.flatten(2).transpose(1, 2)], dim=1)


def patch_convolution(module: nn.Module) -> int | None:
    """Stride of the first convolution without overlap, which makes the patches; None where there is none."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.stride[0] > 1:
            return layer.stride[0]
    return None


def _is_square(images: Tensor, side: int) -> bool:
    return tuple(images.shape[-2:]) == (side, side)


def _arguments(module: nn.Module) -> Any:
    return inspect.signature(module.forward).parameters


def _side(value: Any) -> int | None:
    """An integer, or both of two equal ones."""
    if isinstance(value, (list, tuple)) and len(set(value)) == 1:
        value = value[0]
    return value if isinstance(value, int) else None
