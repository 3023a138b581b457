"""A colour for each label, and label maps as PNG files that are data and picture at once."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError, StoreError
from sporeprint.store.atomic import write_file
from sporeprint.values import is_count

RGB = tuple[int, int, int]

VOID: RGB = (80, 80, 80)  # the colour of labels beyond a palette; no palette has it: its greys are multiples of 32
MOST = 256  # labels that a palette PNG can hold

_FEW: tuple[RGB, ...] = (
    (96, 178, 240),  # sky blue
    (176, 88, 64),  # brick
    (250, 212, 56),  # yellow
    (128, 76, 152),  # violet
    (242, 132, 200),  # pink
    (56, 152, 60),  # green
    (255, 136, 0),  # orange
    (196, 164, 110),  # sand
    (28, 62, 204),  # blue
    (226, 24, 52),  # red
    (0, 204, 200),  # turquoise
    (160, 224, 48),  # lime
    (108, 8, 36),  # maroon
    (168, 244, 196),  # mint
    (196, 172, 255),  # lavender
    (122, 120, 12),  # olive
    (214, 40, 228),  # magenta
    (255, 214, 206),  # rose
    (4, 78, 62),  # pine
    (4, 116, 152),  # petrol
)


def palette(classes: int) -> list[RGB]:
    """The colours of labels 0 to classes - 1, as (red, green, blue) of 0 to 255.

    Up to 20 labels: our own, far from each other and none of them black, so that label 0 shows on a photograph, and a
    label keeps its colour when others are added. Above: PASCAL VOC's, which other tools know, with black for label 0.
    Raises SampleError for fewer than 1 or more than 256.
    """
    if not is_count(classes) or classes > MOST:
        raise SampleError(f"classes={classes!r}; expected an integer from 1 to {MOST}, the labels of a palette PNG")
    return list(_FEW[:classes]) if classes <= len(_FEW) else [_voc(label) for label in range(classes)]


def mask_png(labels: ArrayLike, palette: Sequence[RGB]) -> bytes:
    """Encode a PNG of mode P whose indices are the labels [H, W]; labels beyond the palette are shown as void.

    Raises SampleError for labels that are not whole numbers of 0 to 255.
    """
    from PIL import Image

    image = Image.fromarray(label_bytes(labels))
    image.putpalette(table(palette).tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", bits=8)
    return file.getvalue()


def write_mask(path: Path, labels: ArrayLike, palette: Sequence[RGB]) -> None:
    """Write `mask_png` to a file, complete or absent; its folders are made.

    Raises SampleError; StoreError where it cannot be written.
    """
    data = mask_png(labels, palette)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        why = getattr(error, "strerror", None) or error
        raise StoreError(
            f"the folder of '{path}' cannot be made: {why}; move away the file of that name, or fix"
            " the permissions, then run the same command again"
        ) from error
    write_file(Path(path), data)


def table(palette: Sequence[RGB]) -> NDArray[np.uint8]:
    """The colours of all 256 labels, [256, 3]; those beyond the palette are void."""
    colours = np.full((MOST, 3), VOID, np.uint8)
    colours[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    return colours


def label_bytes(labels: ArrayLike) -> NDArray[np.uint8]:
    """Labels [H, W] as bytes. Raises SampleError for what a palette PNG cannot hold."""
    array = np.asarray(labels)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biu":
        raise SampleError(f"labels have shape {array.shape} of {array.dtype}; expected whole numbers [height, width]")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MOST:
        raise SampleError(
            f"labels go from {low} to {high}; expected 0 to {MOST - 1}, which is what a palette PNG holds: "
            "give void a label of that range, such as 255"
        )
    return np.ascontiguousarray(array, np.uint8)


def _voc(label: int) -> RGB:
    """PASCAL VOC's colour of a label: its bits dealt to red, green and blue in turn, the lowest as the highest."""
    colour = [0, 0, 0]
    for place in range(8):
        colour[place % 3] |= (label >> place & 1) << 7 - place // 3
    return colour[0], colour[1], colour[2]
