"""Find which networks take images of other sizes than they were made for, and make them do so."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from sporeprint.backbones.libraries.adapter import forward_arguments

# Hugging Face's types that interpolate position embeddings, or need none, without an argument.
_INTERPOLATING = {"dinov2", "dinov2_with_registers", "dinov3_vit", "beit", "data2vec-vision"}


def huggingface_patch(module: Any) -> int | None:
    """Return the side of its patches in pixels; None where it takes one size, or has no plain grid of tokens (Swin)."""
    config = module.config
    patch, asked = _side(getattr(config, "patch_size", None)), "interpolate_pos_encoding" in forward_arguments(module)
    return patch if (asked or config.model_type in _INTERPOLATING) and not hasattr(config, "depths") else None


def huggingface_side(module: Any) -> int | None:
    """Return the side of the images that it was made for, where it takes others only with an argument."""
    return None if module.config.model_type in _INTERPOLATING else _side(getattr(module.config, "image_size", None))


def interpolation_argument(module: Any, images: Tensor) -> dict[str, bool]:
    """Return the argument, if one is needed, for a Hugging Face network to take these images [N, 3, H, W]."""
    made_for = _side(getattr(module.config, "image_size", None))
    if made_for is None or _is_square(images, made_for) or "interpolate_pos_encoding" not in forward_arguments(module):
        return {}
    return {"interpolate_pos_encoding": True}


def timm_patch(module: Any) -> int | None:
    """Do the same as `huggingface_patch`. EVA's rotary positions are tabulated: other sizes need another build."""
    embed: Any = getattr(module, "patch_embed", None)
    dynamic = getattr(module, "dynamic_img_size", None)  # plain vision transformers alone have it
    if dynamic is None or not hasattr(embed, "strict_img_size") or getattr(module, "pos_embed", None) is None:
        return None
    return None if getattr(module, "rope", None) is not None and not dynamic else _side(embed.patch_size)


def timm_side(module: Any) -> int | None:
    """Do the same as `huggingface_side`."""
    dynamic = timm_patch(module) is None or module.dynamic_img_size
    return None if dynamic else _side(module.patch_embed.img_size)


def flexible(module: Any, images: Tensor) -> Any:
    """Return a timm network that takes images [N, 3, H, W]: itself, or for another size a twin that shares its parts.

    The twin differs in flags, which cannot be set on the network itself while its owner runs it elsewhere.
    """
    made_for = timm_side(module)
    if made_for is None or _is_square(images, made_for):
        return module
    twin, embed = copy.copy(module), copy.copy(module.patch_embed)
    embed.__dict__ |= {"strict_img_size": False, "flatten": False, "output_fmt": type(embed.output_fmt)("NHWC")}
    twin.__dict__ |= {"dynamic_img_size": True, "_modules": {**module._modules, "patch_embed": embed}}
    return twin


def resize_positions(positions: Tensor, prefix: int, height: int, width: int | None = None) -> Tensor:
    """Resize position embeddings [1, prefix + P, E] of a square grid to one of height x width (default: height).

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
    """Return the stride of the first convolution without overlap, which makes the patches; None where there is none."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.stride[0] > 1:
            return layer.stride[0]
    return None


def _is_square(images: Tensor, side: int) -> bool:
    return tuple(images.shape[-2:]) == (side, side)


def _side(value: Any) -> int | None:
    """Return an integer, or the value of two equal ones."""
    if isinstance(value, (list, tuple)) and len(set(value)) == 1:
        value = value[0]
    return value if isinstance(value, int) else None
