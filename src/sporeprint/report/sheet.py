"""Contact sheets with a legend: segmentations compared with their truth row by row, or labels shown tile by tile."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.segmentation import confusion, tally
from sporeprint.report.letters import drawable, height, length, write
from sporeprint.report.overlay import BETTER, WORSE, differences, overlay
from sporeprint.report.palette import RGB, VOID, label_bytes

if TYPE_CHECKING:
    from PIL import Image

IMAGE, TRUTH, DIFFERENCE = "Image", "Truth", "Difference"  # columns apart from those of the predictions

_INK, _QUIET, _RULE, _EMPTY, _PAPER = (28, 28, 30), (100, 100, 106), (216, 216, 220), (244, 244, 246), (255, 255, 255)
_DESIGNED_FOR = 1400  # pixels of width for which the sizes below are; at other widths they grow and shrink with it
_MARGIN, _GAP, _ROW_GAP, _SWATCH = 28, 12, 20, 18
_TITLE, _HEADING, _TEXT = 27, 20, 16
_OPACITY, _TILE_OPACITY = 0.62, 0.55  # of the colours: a row shows the image itself too
_TALLEST = 1.25  # of a picture's width; taller pictures are made narrower
_LEAST = 40  # pixels of a picture's width
_TILES = 4  # in a row
_FEW = 500  # labelled pixels at most, that are drawn as dots


class SheetRow(NamedTuple):
    """A row of a sheet shows one image, its truth and its predictions.

    truth: labels [H, W], void or below the palette's length. predictions: {name: labels of the truth's size}, the same
    names in every row; their order is that of the columns.
    """

    id: str
    image: Image.Image
    truth: ArrayLike | None
    predictions: Mapping[str, ArrayLike]


class Tile(NamedTuple):
    """A tile shows one picture over a caption. labels: [H, W] over the picture; where below 0, the picture alone."""

    image: Image.Image
    labels: NDArray[np.int32] | None
    caption: str


def contact_sheet(
    rows: Sequence[SheetRow | tuple[Any, ...]],
    palette: Sequence[RGB],
    names: Sequence[str] | None = None,
    void: Collection[int] = (),
    title: str = "",
    notes: Mapping[str, str] | None = None,
    difference: bool = True,
    width: int = _DESIGNED_FOR,
) -> Image.Image:
    """Draw a sheet `width` pixels wide: image, truth (where any row has one) and predictions, headings and a legend.

    Under a prediction stands the mIoU of that image, over the classes of its own truth, and how many points that is
    above the first prediction's. The legend has the labels that occur in a truth or prediction of the rows.
    names: of the labels, their numbers by default. notes: {column: text} under its heading, such as the mIoU of the
    whole set. difference: with two predictions, a column where they differ, green where only the second is right.
    Raises SampleError for no rows, rows of other predictions than the first, maps of different sizes, and too little
    width.
    """
    given = [SheetRow(*row) for row in rows]
    _check(given, palette, names)
    columns = [IMAGE, *([TRUTH] if any(row.truth is not None for row in given) else []), *given[0].predictions]
    if difference and TRUTH in columns and len(given[0].predictions) == 2:
        columns.append(DIFFERENCE)
    look = _Look(width, tuple(columns))
    if look.cell < _LEAST:
        raise SampleError(f"width={width!r} leaves {look.cell} pixels a picture; expected {_LEAST}: make it wider")
    parts = [_head(look, title, notes or {})]
    parts += [_row(look, row, palette, void) for row in given]
    parts.append(_legend(look, given, palette, names, void))
    return _stacked(look, parts)


def tile_sheet(
    groups: Sequence[tuple[str, Sequence[Tile]]],
    palette: Sequence[RGB],
    names: Sequence[tuple[int, str]],
    title: str = "",
    width: int = _DESIGNED_FOR,
) -> Image.Image:
    """Draw groups of tiles, each with its heading, four in a row, `width` pixels wide, and a legend.

    names: label value and name of those in the legend. Few labelled pixels, such as points, are drawn as dots. Raises
    SampleError for no tiles.
    """
    if not any(tiles for _, tiles in groups):
        raise SampleError("there are no tiles; expected at least one image for a sheet")
    look = _Look(width, ("",) * _TILES)
    parts = [_line(look, title, _TITLE, 14)] if title else []
    for heading, tiles in groups:
        if tiles:
            parts.append(_line(look, heading, _TEXT, 6))
            parts += [_tiles(look, tiles[at : at + _TILES], palette) for at in range(0, len(tiles), _TILES)]
    parts.append(_swatches(look, [[(palette[value], _name(value, name)) for value, name in names]]))
    return _stacked(look, parts)


@dataclass(frozen=True)
class _Look:
    """The layout of a sheet `width` pixels wide. lefts: of the columns, each `cell` wide."""

    width: int
    columns: tuple[str, ...]

    def units(self, length: float) -> int:
        return max(1, round(length * self.width / _DESIGNED_FOR))

    def size(self, letters: float) -> float:
        return max(9.0, letters * self.width / _DESIGNED_FOR)

    @property
    def margin(self) -> int:
        return self.units(_MARGIN)

    @property
    def cell(self) -> int:
        return (self.width - 2 * self.margin - self.units(_GAP) * (len(self.columns) - 1)) // len(self.columns)

    @property
    def lefts(self) -> list[int]:
        return [self.margin + number * (self.cell + self.units(_GAP)) for number in range(len(self.columns))]

    def strip(self, height: int) -> Image.Image:
        from PIL import Image

        return Image.new("RGB", (self.width, height), _PAPER)

    def fitted(self, image: Image.Image) -> Image.Image:
        """The image in RGB, as wide as a column unless it is too tall."""
        from PIL import Image

        scale = min(self.cell / image.width, _TALLEST * self.cell / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _stacked(look: _Look, parts: Sequence[Image.Image]) -> Image.Image:
    """The parts of a sheet, one below the other."""
    sheet = look.strip(sum(part.height for part in parts) + 2 * look.margin)
    top = look.margin
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _line(look: _Look, text: str, letters: float, below: float) -> Image.Image:
    picture = look.strip(height(look.size(letters)) + look.units(below))
    write(picture, (look.margin, 0), text, look.size(letters), look.width - 2 * look.margin, _INK)
    return picture


def _head(look: _Look, title: str, notes: Mapping[str, str]) -> Image.Image:
    """The title, and each column's heading with its note."""
    above = height(look.size(_TITLE)) + look.units(14) if title else 0
    beneath = above + height(look.size(_HEADING))
    noted = height(look.size(_TEXT)) if any(notes.get(column) for column in look.columns) else 0
    picture = look.strip(beneath + noted + look.units(8))
    write(picture, (look.margin, 0), title, look.size(_TITLE), look.width - 2 * look.margin, _INK)
    for column, left in zip(look.columns, look.lefts, strict=True):
        write(picture, (left, above), column, look.size(_HEADING), look.cell, _INK)
        write(picture, (left, beneath), notes.get(column, ""), look.size(_TEXT), look.cell, _QUIET)
    return picture


def _row(look: _Look, row: SheetRow, palette: Sequence[RGB], void: Collection[int]) -> Image.Image:
    from PIL import ImageDraw

    image = look.fitted(row.image)
    captions = _captions(row, len(palette), void)
    under, text = image.height + look.units(5), look.size(_TEXT)
    picture = look.strip(under + height(text) + look.units(_ROW_GAP))
    for column, left in zip(look.columns, look.lefts, strict=True):
        shown = _cell(row, column, image, palette, void)
        if shown is None:
            place = (left, 0, left + image.width - 1, image.height - 1)
            ImageDraw.Draw(picture).rectangle(place, fill=_EMPTY, outline=_RULE)
        else:
            picture.paste(shown, (left, 0))
        ink = _QUIET if column in (IMAGE, TRUTH) else _INK
        write(picture, (left, under), captions.get(column, ""), text, look.cell, ink)
    return picture


def _cell(
    row: SheetRow, column: str, image: Image.Image, palette: Sequence[RGB], void: Collection[int]
) -> Image.Image | None:
    """The picture of a column, or None where it needs a truth that the row lacks."""
    if column == IMAGE:
        return image
    if column in row.predictions:
        return overlay(image, row.predictions[column], palette, _OPACITY, void)
    if row.truth is None:
        return None
    if column == TRUTH:
        return overlay(image, row.truth, palette, _OPACITY, void)
    first, second = row.predictions.values()
    return differences(image, row.truth, first, second, void)


def _captions(row: SheetRow, classes: int, void: Collection[int]) -> dict[str, str]:
    """The text under each picture of a row."""
    captions = {IMAGE: row.id}
    if row.truth is None:
        return captions | {TRUTH: "not known"}
    truth = np.asarray(row.truth)
    maps = {name: np.asarray(labels) for name, labels in row.predictions.items()}
    shares = tally(confusion(truth, labels, classes, tuple(void)) for labels in maps.values()).by_image()
    for name, share in zip(maps, shares.tolist(), strict=True):
        points = 100 * (share - shares[0])
        above = "" if name == next(iter(maps)) or abs(points) < 0.05 else f" ({points:+.1f})"
        captions[name] = "no labelled pixel" if share != share else f"mIoU {share:.1%}{above}"
    counted = ~np.isin(truth, list(void))
    if len(maps) == 2 and counted.any():
        first, second = (labels[counted] == truth[counted] for labels in maps.values())
        captions[DIFFERENCE] = f"{(second & ~first).mean():.1%} better, {(first & ~second).mean():.1%} worse"
    return captions


def _legend(
    look: _Look, rows: Sequence[SheetRow], palette: Sequence[RGB], names: Sequence[str] | None, void: Collection[int]
) -> Image.Image:
    """A swatch and a name for every label that occurs, in as many lines as they take; then those of the differences."""
    maps = [labels for row in rows for labels in (row.truth, *row.predictions.values()) if labels is not None]
    labels = sorted({int(label) for label_map in maps for label in np.unique(label_bytes(label_map))})
    coloured = [label for label in labels if label < len(palette) and label not in void]
    groups = [[(palette[label], _name(label, names[label]) if names else str(label)) for label in coloured]]
    if len(coloured) < len(labels):
        groups[0].append((VOID, "void"))
    if DIFFERENCE in look.columns:
        first, second = rows[0].predictions
        groups.append([(BETTER, f"only {second} right"), (WORSE, f"only {first} right")])
    return _swatches(look, groups)


def _name(label: int, name: str) -> str:
    """The name of a label, after its number where the font lacks the name's letters: names would look alike."""
    lacking = drawable(name).count("?") > name.count("?")
    return f"{label}: {name}" if lacking else name


def _swatches(look: _Look, groups: Sequence[Sequence[tuple[RGB, str]]]) -> Image.Image:
    from PIL import ImageDraw

    text, side, gap = look.size(_TEXT), look.units(_SWATCH), look.units(8)
    line, right = round(1.3 * height(text)), look.width - look.margin
    places, top = [], look.units(14)
    for group in groups:
        wide = [side + gap + length(name, text) + look.units(24) for _, name in group]
        if sum(wide) > right - look.margin:  # several lines: in columns
            wide = [max(wide)] * len(group)
        left = look.margin
        for (colour, name), step in zip(group, wide, strict=True):
            if left > look.margin and left + step > right:
                left, top = look.margin, top + line
            places.append((left, top, colour, name))
            left += step
        top += line
    picture = look.strip(top)
    pen = ImageDraw.Draw(picture)
    pen.line((look.margin, 0, right, 0), fill=_RULE, width=look.units(1))
    for left, top, colour, name in places:
        down, far = top + (height(text) - side) // 2, left + side
        pen.rectangle((left, down, far - 1, down + side - 1), fill=colour, outline=_QUIET)
        write(picture, (far + gap, top), name, text, right - far - gap, _INK)
    return picture


def _tiles(look: _Look, tiles: Sequence[Tile], palette: Sequence[RGB]) -> Image.Image:
    pictures = [_tile(look, tile, palette) for tile in tiles]
    under, text = max(picture.height for picture in pictures) + look.units(5), look.size(_TEXT)
    strip = look.strip(under + height(text) + look.units(16))
    for tile, picture, left in zip(tiles, pictures, look.lefts, strict=False):
        strip.paste(picture, (left, 0))
        write(strip, (left, picture.height + look.units(5)), tile.caption, text, look.cell, _QUIET)
    return strip


def _tile(look: _Look, tile: Tile, palette: Sequence[RGB]) -> Image.Image:
    from PIL import Image

    image = look.fitted(tile.image)
    if tile.labels is None:
        return image
    labelled = tile.labels >= 0
    if labelled.sum() <= _FEW:
        return _dotted(image, tile.labels, palette, max(3, look.units(6)))
    sides = zip((image.height, image.width), labelled.shape, strict=True)
    at = [(2 * np.arange(new) + 1) * old // (2 * new) for new, old in sides]
    labels, shown = tile.labels[np.ix_(*at)], labelled[np.ix_(*at)]
    coloured = overlay(image, np.maximum(labels, 0), palette, _TILE_OPACITY)
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


def _check(rows: Sequence[SheetRow], palette: Sequence[RGB], names: Sequence[str] | None) -> None:
    if not rows:
        raise SampleError("there are no rows; expected at least one image for a sheet")
    if names is not None and len(names) < len(palette):
        raise SampleError(f"{len(names)} names for {len(palette)} colours; expected a name for each label")
    expected = list(rows[0].predictions)
    for row in rows:
        if list(row.predictions) != expected or set(expected) & {IMAGE, TRUTH, DIFFERENCE}:
            raise SampleError(
                f"row {row.id!r} has the predictions {list(row.predictions)}; expected {expected} as in the first row, "
                f"and none called {IMAGE}, {TRUTH} or {DIFFERENCE}"
            )
