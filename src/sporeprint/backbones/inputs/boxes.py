"""Resize boxes of one image bicubically, as `interpolate(antialias=True)` does it.

Overlapping squares that are doubled, as the paper's patches are, share that work: only the pixels next to a square's
edge depend on where it ends.
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

_LARGE = 2**22  # pixels of a box, beyond which its channels are resized one by one
_EDGE = 4  # pixels of a doubled square, at each of its sides, whose window may reach beyond it


def resize_boxes(
    image: Image.Image, boxes: Sequence[Box], size: int, gain: Levels = (1, 1, 1), shift: Levels = (0, 0, 0)
) -> Tensor:
    """Cut boxes from an RGB image and resize each to size x size: float32 [V, 3, size, size].

    Pixels from 0 to 255 become pixel * gain + shift, by channel, clipped to the range of black to white.
    """
    resized = torch.empty(len(boxes), 3, size, size)
    ends = [sorted((plus, 255 * times + plus)) for times, plus in zip(gain, shift, strict=True)]
    around = (*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist())
    if _overlap_enough(boxes, around, size):
        pixels = _pixels(image, around).contiguous()
        _scale(pixels, gain, shift)
        _double_squares(pixels, [(left - around[0], top - around[1]) for left, top, _, _ in boxes], ends, resized)
        return resized
    for view, box in zip(resized, boxes, strict=True):
        view.copy_(_resized(image, box, size))
        _scale(view, gain, shift)
        _clip(view, ends)
    return resized


def _overlap_enough(boxes: Sequence[Box], around: Box, size: int) -> bool:
    """Return whether they are squares to be doubled, and together no smaller than what they lie in."""
    sides = {side for left, top, right, bottom in boxes for side in (right - left, bottom - top)}
    area = (around[2] - around[0]) * (around[3] - around[1])
    return sides == {size / 2} and size >= 4 * _EDGE and area <= len(boxes) * size**2 / 4


def _pixels(image: Image.Image, box: Box) -> Tensor:
    """Return [3, h, w], cut before the cast, since a whole photograph in float32 can take a gigabyte."""
    return torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1).float()


def _resized(image: Image.Image, box: Box, size: int) -> Tensor:
    """Return one box resized, [3, size, size]; of a large one, a gigabyte as floats, channel by channel."""
    left, top, right, bottom = box
    if (right - left) * (bottom - top) <= _LARGE:
        return _resize(_pixels(image, box), size)
    return torch.cat([_resize(_channel(image, box, channel), size) for channel in range(3)])


def _channel(image: Image.Image, box: Box, channel: int) -> Tensor:
    return torch.from_numpy(np.array(image.getchannel(channel).crop(box)))[None].float()


def _resize(planes: Tensor, size: int) -> Tensor:
    return interpolate(planes[None], (size, size), mode="bicubic", antialias=True)[0]


def _scale(view: Tensor, gain: Levels, shift: Levels) -> None:
    for plane, times, plus in zip(view, gain, shift, strict=True):
        plane.mul_(times).add_(plus)


def _clip(view: Tensor, ends: Sequence[Sequence[float]]) -> None:
    for plane, (low, high) in zip(view, ends, strict=True):
        plane.clamp_(low, high)


def _double_squares(
    pixels: Tensor, corners: Sequence[tuple[int, int]], ends: Sequence[Sequence[float]], doubled: Tensor
) -> None:
    """Double squares of S / 2, at (left, top) in `pixels` [3, h, w], into `doubled` [V, 3, S, S]."""
    size = doubled.shape[-1]
    side = size // 2
    wide = _double(pixels, 2)
    first, last = _doubling_weights()[:_EDGE, :_EDGE], _doubling_weights()[-_EDGE:, -_EDGE:]
    for left in dict.fromkeys(x for x, _ in corners):
        members = [(at, y) for at, (x, y) in enumerate(corners) if x == left]
        strip = wide[:, :, 2 * left : 2 * left + size].clone()
        near = pixels[..., left : left + side]
        strip[..., :_EDGE], strip[..., -_EDGE:] = near[..., :_EDGE] @ first.T, near[..., -_EDGE:] @ last.T
        tops = torch.tensor([[y] for _, y in members]) + torch.arange(_EDGE)
        above, below = first @ strip[:, tops], last @ strip[:, tops + side - _EDGE]  # [3, members, _EDGE, S]
        tall = _double(strip, 1)
        for part in (above, below, tall):
            _clip(part, ends)
        for number, (at, top) in enumerate(members):
            doubled[at] = tall[:, 2 * top : 2 * top + size]
            doubled[at, :, :_EDGE], doubled[at, :, -_EDGE:] = above[:, number], below[:, number]


def _double(planes: Tensor, dim: int) -> Tensor:
    """Make planes twice as long along `dim`, all but the first and last `_EDGE`, which are left undefined."""
    length = planes.shape[dim]
    doubled = planes.new_empty([2 * n if at == dim else n for at, n in enumerate(planes.shape)])
    inner = length - _EDGE
    for phase, taps in enumerate(_doubling_weights()[16:18].tolist()):
        every_other = doubled.unflatten(dim, (length, 2)).select(dim + 1, phase).narrow(dim, 2, inner)
        first, *others = [(at - 8, tap) for at, tap in enumerate(taps) if tap]
        torch.mul(planes.narrow(dim, 2 + first[0], inner), first[1], out=every_other)
        for offset, tap in others:
            every_other.add_(planes.narrow(dim, 2 + offset, inner), alpha=tap)
    return doubled


@lru_cache
def _doubling_weights() -> Tensor:
    """Return torch's weights of 16 pixels in a doubled side, [32, 16]; far from the ends, rows repeat in pairs."""
    return interpolate(torch.eye(16)[None, None], (32, 16), mode="bicubic", antialias=True)[0, 0]
