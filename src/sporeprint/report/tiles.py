"""A sheet of labels carried from a few images to others: what was marked above, what was made of it below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError
from sporeprint.report.letters import height, write
from sporeprint.report.overlay import overlay
from sporeprint.report.palette import RGB
from sporeprint.report.sheet import _INK, _QUIET, _TEXT, _TITLE, _Look, _swatches

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS = 4
_OPACITY = 0.55
_TALLEST = 1.25  # of a picture's width; taller pictures are made narrower
_FEW = 500  # labelled pixels at most, that are drawn as dots


class Tile(NamedTuple):
    """A picture and what stands under it. labels: [H, W] over the picture; where below 0, the picture alone."""

    image: Image.Image
    labels: NDArray[np.int32] | None
    caption: str


def tile_sheet(
    groups: Sequence[tuple[str, Sequence[Tile]]],
    palette: Sequence[RGB],
    names: Sequence[tuple[int, str]],
    title: str = "",
    width: int = 1400,
) -> Image.Image:
    """Groups of tiles with a heading each, four beside each other, `width` pixels wide, and a legend.

    names: label value and name of those in the legend. Few labelled pixels, as points are, are drawn as dots. Raises
    SampleError for no tiles.
    """
    from PIL import Image

    if not any(tiles for _, tiles in groups):
        raise SampleError("there are no tiles; expected at least one image for a sheet")
    look = _Look(width, ("",) * _COLUMNS)
    parts = [_line(look, title, _TITLE, 14)] if title else []
    for heading, tiles in groups:
        if tiles:
            parts.append(_line(look, heading, _TEXT, 6))
            parts += [_row(look, tiles[at : at + _COLUMNS], palette) for at in range(0, len(tiles), _COLUMNS)]
    parts.append(_swatches(look, [[(palette[value], name) for value, name in names]]))
    sheet = Image.new("RGB", (width, sum(part.height for part in parts) + 2 * look.margin), (255, 255, 255))
    top = look.margin
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _line(look: _Look, text: str, letters: float, below: float) -> Image.Image:
    picture = look.strip(height(look.size(letters)) + look.units(below))
    write(picture, (look.margin, 0), text, look.size(letters), look.width - 2 * look.margin, _INK)
    return picture


def _row(look: _Look, tiles: Sequence[Tile], palette: Sequence[RGB]) -> Image.Image:
    shown = [_picture(look, tile, palette) for tile in tiles]
    under, text = max(one.height for one in shown) + look.units(5), look.size(_TEXT)
    picture = look.strip(under + height(text) + look.units(16))
    for tile, one, left in zip(tiles, shown, look.lefts, strict=False):
        picture.paste(one, (left, 0))
        write(picture, (left, one.height + look.units(5)), tile.caption, text, look.cell, _QUIET)
    return picture


def _picture(look: _Look, tile: Tile, palette: Sequence[RGB]) -> Image.Image:
    from PIL import Image

    scale = min(look.cell / tile.image.width, _TALLEST * look.cell / tile.image.height)
    size = max(1, round(tile.image.width * scale)), max(1, round(tile.image.height * scale))
    image = tile.image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if tile.labels is None:
        return image
    labelled = tile.labels >= 0
    if labelled.sum() <= _FEW:
        return _dotted(image, tile.labels, palette, max(3, look.units(6)))
    at = [(2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size[::-1], labelled.shape, strict=True)]
    labels, shown = tile.labels[np.ix_(*at)], labelled[np.ix_(*at)]
    coloured = overlay(image, np.maximum(labels, 0), palette, _OPACITY)
    return Image.composite(coloured, image, Image.fromarray(shown))


def _dotted(image: Image.Image, labels: NDArray[np.int32], palette: Sequence[RGB], radius: int) -> Image.Image:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    for row, column in np.argwhere(labels >= 0):
        x = (column + 0.5) / labels.shape[1] * image.width
        y = (row + 0.5) / labels.shape[0] * image.height
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(box, fill=palette[labels[row, column]], outline=(255, 255, 255), width=max(1, radius // 3))
    return image
