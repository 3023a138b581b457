"""Read what an annotator marked on one image: a mask, scribbles, or points with a label each."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.encodings import read_utf8
from sporeprint.data.limits import Limits
from sporeprint.data.rows import brief
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.masks import read_mask
from sporeprint.errors import SampleError, SourceError

UNLABELLED = -1
MOST = 256  # labels that a written mask can hold

_FORM = '"x,y,label; x,y,label" or a CSV file with the columns x, y and label'


@dataclass(frozen=True)
class Point:
    """A pixel of an image, from its upper left corner, and its label: a number or a name."""

    x: int
    y: int
    label: str


def read_marks(path: Path, ignore: Collection[int], limits: Limits = Limits()) -> NDArray[np.int32]:
    """Read labels [H, W] of a mask or of scribbles, UNLABELLED where they are in `ignore`. Raises SourceError."""
    classes = find_class_list([path.parent])
    try:
        labels = read_mask(path, None, (), classes.colours if classes else None, limits)
    except SampleError as error:
        raise SourceError(f"the marks cannot be read: {error}") from None
    labels[np.isin(labels, list(ignore))] = UNLABELLED
    if labels.max() >= MOST:
        raise SourceError(
            f"'{path}' holds the label {labels.max()}; expected 0 to {MOST - 1}, which is what a written mask "
            "can hold: renumber the labels, or, if it is not a label, ignore it (--ignore)"
        )
    return labels


def read_points(given: str) -> list[Point]:
    """Read points from "x,y,label; x,y,label", or from a CSV file. Raises SourceError."""
    if os.path.isfile(given) or (";" not in given and given.count(",") != 2):
        return _from_file(Path(given))
    parts = [part.strip() for part in given.split(";")]
    return [_point(part.split(",", 2), f"point {brief(part)}") for part in parts if part]


def _from_file(path: Path) -> list[Point]:
    try:
        text = read_utf8(path)
    except OSError as error:
        raise SourceError(f"--points '{path}': there are no such points ({error.strerror}); expected {_FORM}") from None
    except ValueError as error:
        raise SourceError(f"--points '{path}' is not text ({error}); expected {_FORM}") from None
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise SourceError(f"--points '{path}' is not CSV ({error}); expected {_FORM}") from None
    if not rows:
        raise SourceError(f"--points '{path}' is empty; expected {_FORM}")
    head = [cell.strip().lower() for cell in rows[0]]
    places = [0, 1, 2]
    if {"x", "y", "label"} <= set(head):
        places, rows = [head.index(name) for name in ("x", "y", "label")], rows[1:]
    elif not _is_number(head[0]):
        raise SourceError(f"--points '{path}' has the columns {', '.join(head)[:80]}; expected x, y and label")
    points = []
    for number, row in enumerate(rows, 1):
        cells = [row[at] for at in places if at < len(row)]
        points.append(_point(cells, f"'{path}', point {number}, {brief(','.join(row))}"))
    return points


def _point(cells: Sequence[str], where: str) -> Point:
    cells = [cell.strip() for cell in cells]
    if len(cells) != 3 or not (_is_number(cells[0]) and _is_number(cells[1])) or not cells[2]:
        raise SourceError(f"{where}: expected x,y,label: two coordinates in pixels and a label")
    return Point(math.floor(float(cells[0])), math.floor(float(cells[1])), cells[2])


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def number_labels(
    points: Iterable[Point], names: Sequence[str] | None = None
) -> tuple[dict[str, int], list[str] | None]:
    """Return the number of each label, and the names by number: None where labels are numbers and no names are known.

    names: those already known, by number. Without them, names are numbered from 0 in the order they come.
    Raises SourceError for names among numbers, and for unknown names.
    """
    words = list(dict.fromkeys(point.label for point in points))
    if words and all(word.isdecimal() for word in words):
        if beyond := [word for word in words if len(word) > 640 or int(word) >= MOST]:  # 640: as Python converts
            raise SourceError(f"label {beyond[0][:80]}; expected 0 to {MOST - 1}")
        return {word: int(word) for word in words}, list(names) if names else None
    if names:
        if unknown := [word for word in words if word not in names]:
            raise SourceError(f"label {unknown[0]!r} is not among the classes: {', '.join(filter(None, names))}")
        return {word: list(names).index(word) for word in words}, list(names)
    if numbers := [word for word in words if word.isdecimal()]:
        other = next(word for word in words if not word.isdecimal())
        raise SourceError(
            f"labels are numbers ({numbers[0]}) and names ({other}); give all of them as one or the other"
        )
    if len(words) > MOST:
        raise SourceError(f"{len(words)} labels; expected {MOST} at most, what a mask can hold")
    return {word: number for number, word in enumerate(words)}, words


def point_labels(points: Iterable[Point], numbers: dict[str, int], size: tuple[int, int]) -> NDArray[np.int32]:
    """Return labels [H, W] for an image of `size` (width, height), one pixel a point. Raises SourceError."""
    width, height = size
    labels = np.full((height, width), UNLABELLED, np.int32)
    for point in points:
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise SourceError(
                f"point {point.x},{point.y},{point.label} is outside the image of {width} x {height} pixels; x goes "
                f"from 0 to {width - 1}, y from 0, at the top, to {height - 1}"
            )
        if labels[point.y, point.x] not in (UNLABELLED, numbers[point.label]):
            raise SourceError(f"pixel {point.x},{point.y} has two labels; give it one")
        labels[point.y, point.x] = numbers[point.label]
    return labels
