"""Pictures of label maps over their images, and of the differences between two predictions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.report.palette import RGB, VOID, label_bytes, table

if TYPE_CHECKING:
    from PIL import Image

BETTER: RGB = (0, 190, 130)  # bluish green and vermillion, which people of all colour vision tell apart
WORSE: RGB = (232, 72, 20)

_LINE = np.array((255, 255, 255), np.float32)
_LINE_OPACITY = 0.5  # thin things such as poles are all boundary, and should keep their colour


def overlay(
    image: Image.Image,
    labels: ArrayLike,
    palette: Sequence[RGB],
    opacity: float = 0.55,
    void: Collection[int] = (),
) -> Image.Image:
    """Draw the colours of labels [H, W] over an image, with thin light lines between segments; RGB, of its size.

    labels of another size are stretched over the image. opacity: of the colours, 0 to 1. void: labels that are greyed,
    as are all beyond the palette. Raises SampleError for labels that are not whole numbers of 0 to 255.
    """
    _check_opacity(opacity)
    base, spread = np.asarray(image.convert("RGB"), np.float32), stretched(labels, image.size)
    colours = table(palette).astype(np.float32)
    colours[[label for label in void if 0 <= label < len(colours)]] = VOID
    return _picture(_lined((1 - opacity) * base + opacity * colours[spread], spread))


def differences(
    image: Image.Image,
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    void: Collection[int] = (),
    opacity: float = 0.75,
) -> Image.Image:
    """Colour the greyed image: BETTER where only the second prediction is right, WORSE where only the first is.

    truth, first, second: labels [H, W], stretched over the image. Pixels whose truth is void stay grey.
    """
    _check_opacity(opacity)
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    true, before, after = (stretched(labels, image.size) for labels in (truth, first, second))
    counted = ~np.isin(true, list(void))
    shown = 0.6 * grey + 0.4 * 255 * 0.75  # paler, so that the colours stand out from dark scenes as well
    for where, colour in (
        (counted & (after == true) & (before != true), BETTER),
        (counted & (before == true) & (after != true), WORSE),
    ):
        shown[where] = (1 - opacity) * shown[where] + opacity * np.array(colour, np.float32)
    return _picture(shown)


def stretched(labels: ArrayLike, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize labels [H, W] to an image of `size` (width, height), by nearest pixel: [height, width]."""
    from PIL import Image

    array = label_bytes(labels)
    if array.shape == (size[1], size[0]):
        return array
    return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.NEAREST))


def _lined(colours: NDArray[np.float32], labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Add a line of one pixel on the upper and left side of every boundary between labels [H, W]."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    colours[edge] = (1 - _LINE_OPACITY) * colours[edge] + _LINE_OPACITY * _LINE
    return colours


def _picture(colours: NDArray[np.float32]) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.rint(colours).clip(0, 255).astype(np.uint8))


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise SampleError(f"opacity={opacity!r}; expected a fraction from 0, the image alone, to 1, the colours alone")
