"""Pictures of sky above road, which any network tells apart, with their masks."""

from __future__ import annotations

import numpy as np
from PIL import Image

SKY, ROAD, VOID = 0, 1, 255


def street(number, size=(48, 32)):
    """An image `size` pixels wide and high, and its labels: sky over road, with a void line between them."""
    rng = np.random.default_rng(number)
    width, height = size
    horizon = int(rng.integers(height // 4, 3 * height // 4))
    labels = np.full((height, width), ROAD, np.uint8)
    labels[:horizon], labels[horizon] = SKY, VOID
    colours = np.array([[90, 160, 250], [120, 60, 20]])
    pixels = colours[np.where(labels == SKY, 0, 1)] + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), labels


def streets(folder, count, first=0, masks=True, names=None):
    """images/ and masks/ with `count` streets."""
    for number in range(first, first + count):
        image, labels = street(number)
        name = names[number - first] if names else f"s{number:02}"
        for below, picture in (("images", image), *([("masks", Image.fromarray(labels))] if masks else [])):
            path = folder / below / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return folder
