"""Boxes of one image, each resized bicubically as `interpolate(antialias=True)` does it.

Overlapping squares that are doubled, as the paper's patches are, share that work: only the pixels next to a square's
edge know where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Levels = tuple[float, ...]  # a number for each channel

_EDGE = 4  # pixels of a doubled square, at each of its sides, whose window may reach out of it


def resize_boxes(
    image: Image.Image, boxes: Sequence[Box], size: int, gain: Levels = (1, 1, 1), shift: Levels = (0, 0, 0)
) -> Tensor:
    """Boxes cut from an RGB image, each resized to size x size: float32 [V, 3, size, size].

    Pixels from 0 to 255 become pixel * gain + shift of their channel, clipped to what black and white become.
    """
    made = torch.empty(len(boxes), 3, size, size)
    ends = [sorted((plus, 255 * times + plus)) for times, plus in zip(gain, shift, strict=True)]
    around = (*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist())
    if _share(boxes, around, size):
        pixels = _pixels(image, around).contiguous()
        _scale(pixels, gain, shift)
        _double_squares(pixels, [(left - around[0], top - around[1]) for left, top, _, _ in boxes], ends, made)
        return made
    for view, box in zip(made, boxes, strict=True):
        view.copy_(interpolate(_pixels(image, box).unsqueeze(0), (size, size), mode="bicubic", antialias=True)[0])
        _scale(view, gain, shift)
        _clip(view, ends)
    return made


def _share(boxes: Sequence[Box], around: Box, size: int) -> bool:
    """Whether they are squares to be doubled, and together no smaller than what they lie in."""
    sides = {side for left, top, right, bottom in boxes for side in (right - left, bottom - top)}
    area = (around[2] - around[0]) * (around[3] - around[1])
    return sides == {size / 2} and size >= 4 * _EDGE and area <= len(boxes) * size**2 / 4


def _pixels(image: Image.Image, box: Box) -> Tensor:
    """[3, h, w]: cut before the cast, since a whole photograph in float32 can take a gigabyte."""
    return torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1).float()


def _scale(view: Tensor, gain: Levels, shift: Levels) -> None:
    for plane, times, plus in zip(view, gain, shift, strict=True):
        plane.mul_(times).add_(plus)


def _clip(view: Tensor, ends: Sequence[Sequence[float]]) -> None:
    for plane, (low, high) in zip(view, ends, strict=True):
        plane.clamp_(low, high)


def _double_squares(
    pixels: Tensor, corners: Sequence[tuple[int, int]], ends: Sequence[Sequence[float]], made: Tensor
) -> None:
    """Squares of S / 2, at (left, top) in `pixels` [3, h, w], doubled into `made` [V, 3, S, S]."""
    size = made.shape[-1]
    side = size // 2
    wide = _double(pixels, 2)
    first, last = _weights()[:_EDGE, :_EDGE], _weights()[-_EDGE:, -_EDGE:]
    for left in dict.fromkeys(x for x, _ in corners):
        members = [(at, y) for at, (x, y) in enumerate(corners) if x == left]
        strip = wide[:, :, 2 * left : 2 * left + size].clone()
        near = pixels[..., left : left + side]
        strip[..., :_EDGE], strip[..., -_EDGE:] = near[..., :_EDGE] @ first.T, near[..., -_EDGE:] @ last.T
        tops = torch.tensor([[y] for _, y in members]) + torch.arange(_EDGE)
        above, below = first @ strip[:, tops], last @ strip[:, tops + side - _EDGE]  # [3, members, _EDGE, S]
        tall = _double(strip, 1)
        for one in (above, below, tall):
            _clip(one, ends)
        for number, (at, top) in enumerate(members):
            made[at] = tall[:, 2 * top : 2 * top + size]
            made[at, :, :_EDGE], made[at, :, -_EDGE:] = above[:, number], below[:, number]


def _double(planes: Tensor, dim: int) -> Tensor:
    """Twice as long along `dim`, all but the first and last `_EDGE`, which are left undefined."""
    length = planes.shape[dim]
    made = planes.new_empty([2 * n if at == dim else n for at, n in enumerate(planes.shape)])
    inner = length - _EDGE
    for phase, taps in enumerate(_weights()[16:18].tolist()):
        found = made.unflatten(dim, (length, 2)).select(dim + 1, phase).narrow(dim, 2, inner)
        first, *others = [(at - 8, tap) for at, tap in enumerate(taps) if tap]
        torch.mul(planes.narrow(dim, 2 + first[0], inner), first[1], out=found)
        for offset, tap in others:
            found.add_(planes.narrow(dim, 2 + offset, inner), alpha=tap)
    return made


@lru_cache
def _weights() -> Tensor:
    """Of 16 pixels in a doubled side, by torch itself: [32, 16]; far from its ends, every second row is the same."""
    return interpolate(torch.eye(16)[None, None], (32, 16), mode="bicubic", antialias=True)[0, 0]
