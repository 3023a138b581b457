"""Augmentation: random crops of a training image with its mask, for memory banks of a few images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from sporeprint.objectives.view_sets import generator

AREA, ASPECT, JITTER, TRIES = (0.3, 1.0), (3 / 4, 4 / 3), 0.2, 10


def augmented(
    image: Image.Image, labels: NDArray[np.int32], seed: int, image_id: str, epoch: int
) -> tuple[Image.Image, NDArray[np.int32]]:
    """The image and its labels [H, W] as an epoch sees them; epoch 0 sees the image itself.

    Other epochs see a crop of 0.3 to 1 of the area, its sides' ratio within 3/4 to 4/3 of the image's, enlarged to the
    image's size (bicubic; labels by nearest pixel), mirrored half of the time; brightness and contrast within 0.2 of
    what they were. Seeded by (seed, image_id, epoch) alone.
    """
    if epoch == 0:
        return image, labels
    rng = generator(seed, image_id, f"segment epoch {epoch}")
    left, top, wide, high = crop_box(image.width, image.height, rng)
    flipped = bool(rng.random() < 0.5)
    brightness, contrast = rng.uniform(1 - JITTER, 1 + JITTER, 2)
    cut = image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + wide, top + high))
    cut = ImageEnhance.Contrast(ImageEnhance.Brightness(cut).enhance(brightness)).enhance(contrast)
    rows, columns = _nearest(top, high, labels.shape[0]), _nearest(left, wide, labels.shape[1])
    cut_labels = labels[rows[:, None], columns]
    if flipped:
        cut, cut_labels = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), cut_labels[:, ::-1]
    return cut, np.ascontiguousarray(cut_labels)


def crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """The left, top, width and height of a random crop, in pixels; the whole image where ten tries do not fit."""
    for _ in range(TRIES):
        area = rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(*np.log(ASPECT)))
        wide = max(1, round(width * math.sqrt(area * aspect)))
        high = max(1, round(height * math.sqrt(area / aspect)))
        if wide <= width and high <= height:
            return int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1)), wide, high
    return 0, 0, width, height


def _nearest(start: int, length: int, pixels: int) -> NDArray[np.int64]:
    """The pixel of the whole image under each of the `pixels` that a crop is enlarged to."""
    return start + ((np.arange(pixels) + 0.5) * length / pixels).astype(np.int64)
