"""Open images with masks: `open_scenes` recognises folders, lists and tables; a scene is read on demand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.formats import Table
from sporeprint.data.images import load_image
from sporeprint.data.limits import Limits
from sporeprint.data.metadata_files import find_metadata
from sporeprint.data.scenes.class_lists import ClassList, find_class_list
from sporeprint.data.scenes.masks import Colour, label_values, mask_palette, read_mask
from sporeprint.data.scenes.scene_files import LISTS, Scene, folder_scenes, list_scenes, loose_scenes, voc_root
from sporeprint.data.scenes.scene_tables import TableScenes, table_below
from sporeprint.data.sources import _TABLES
from sporeprint.data.text_tables import table_suffix
from sporeprint.errors import SampleError, SourceError

__all__ = ["Scene", "Scenes", "find_classes", "open_scenes", "read_mask", "read_scene"]

_GAP, _MANY = 50, 1000  # a few images of a set of 150 classes do leave gaps, but small ones


class _Rows(Protocol):
    def __len__(self) -> int: ...
    def scenes(self, start: int = 0) -> Iterator[Scene]: ...
    def digest(self) -> str: ...
    def describe(self) -> dict[str, Any]: ...


class Scenes:
    """Scenes in a fixed order; of a table, a few rows are in memory at a time.

    names: class names by label value, where the source knows them, "" for a label without; void may be among them.
    By number, scenes of a table are fastest in ascending order. One thread at a time.
    """

    def __init__(self, rows: _Rows, names: list[str] | None = None, classes: ClassList | None = None):
        self.names = classes.names if classes else names
        self._rows = rows
        self._classes = classes
        self._next = 0  # the number of the scene that _ahead gives next
        self._ahead: Iterator[Scene] | None = None
        self._last: Scene | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Scene]:
        return self._from(0)

    def __getitem__(self, number: int) -> Scene:
        number = range(len(self))[number]
        if self._last is not None and number == self._next - 1:
            return self._last
        if self._ahead is None or number < self._next:
            self._ahead, self._next = self._from(number), number
        for scene in self._ahead:
            self._next += 1
            if self._next > number:
                self._last = scene
                return scene
        raise SourceError(f"scene {number} of {len(self)} is no longer there; open the source again")

    def palette(self, limits: Limits = Limits()) -> list[Colour] | None:
        """Return the colours by label value: from classes.json, else from the first mask that can be read; or None."""
        if self._classes and self._classes.colours:
            return list(self._classes.colours)
        for scene in self:
            if scene.mask is not None:
                try:
                    return mask_palette(scene.mask, limits)
                except SampleError:
                    continue
        return None

    def digest(self) -> str:
        """Return a hex digest of everything that decides the scenes, their contents and their classes."""
        colours = sorted(self._classes.colours.items()) if self._classes and self._classes.colours else None
        decisive = json.dumps([self._rows.digest(), self.names, colours])
        return blake2b(decisive.encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return, as JSON, kind, source (no folder above it), rows, columns, limit and the file of the class names."""
        return {**self._rows.describe(), "classes": self._classes.file if self._classes else None}

    def _from(self, start: int) -> Iterator[Scene]:
        colours = self._classes.colours if self._classes else None
        for scene in self._rows.scenes(start):
            yield scene if colours is None else replace(scene, colours=colours)


def open_scenes(
    source: str | Path,
    *,
    image_column: str | None = None,
    mask_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    masks: bool = True,
) -> Scenes:
    """Open images with their masks; masks=False: images alone, for predicting.

    source: a folder with `images` and `masks` (or `annotations`, `labels`, ...), paired by path without suffix, perhaps
    below a folder of the split, or each with a folder of it (ADE20K, Cityscapes); VOC's layout; a .txt file of lines
    "image mask", relative to it; a table, folder of Parquet shards or `datasets` folder with a column of each. A
    table's columns are found where not given. A classes.json or classes.txt in it or next to it names the classes.
    limit: the first scenes only.
    Raises SourceError; `read_scene` raises what is wrong with one scene.
    """
    path = Path(source)
    given = {"image_column": image_column, "mask_column": mask_column, "id_column": id_column}
    if not os.path.exists(path):
        what = "images and masks" if masks else "images"
        raise SourceError(f"there is no '{path}'; give a folder with {what}, a list of them, or a table")
    table: Table | None = None
    at = path
    if path.is_dir():
        files = folder_scenes(path, split, limit, masks)
        if files is None:
            table, at = table_below(path, split)
            if table is None and masks and (metadata := find_metadata(at)):
                table, at = _TABLES[metadata.suffix](metadata), metadata
            files = loose_scenes(at, limit) if table is None and not masks else None
        lookup = [*([path / split] if split else []), path, path.parent]
    else:
        if split is not None:
            raise SourceError(f"'{path}' is one file; split={split!r} chooses within a folder: leave it out")
        suffix = table_suffix(path)
        if suffix not in (*LISTS, *_TABLES):
            known = ", ".join((*LISTS, *_TABLES))
            raise SourceError(f"'{path}' is neither a list nor a table; known are {known}; or give a folder")
        files = list_scenes(path, limit, masks) if suffix in LISTS else None
        table = _TABLES[suffix](path) if files is None else None
        lookup = [path.parent, *(folder for folder in [voc_root(path)] if files and folder)]
    classes = find_class_list(lookup)
    if table is not None:
        rows = TableScenes(table, at, image_column, mask_column, id_column, limit, masks)
        return Scenes(rows, rows.names, classes)
    if files is None:
        raise SourceError(
            f"'{at}' holds no pairs of image and mask; expected folders 'images' and 'masks', VOC's layout, or Parquet "
            "files with a column of each"
        )
    if set(given.values()) != {None}:
        names = ", ".join(name for name, value in given.items() if value is not None)
        raise SourceError(f"'{path}' has files, not columns; leave out {names}")
    return Scenes(files, classes=classes)


def find_classes(scenes: Iterable[Scene], ignore: Sequence[int], limits: Limits = Limits()) -> int:
    """Return the greatest label value that is not in `ignore`, plus one, over every mask that can be read.

    Raises SourceError where no mask can be read, where nothing but class 0 and void is left, and where the greatest
    value is too far above the others to be a class.
    """
    values: set[int] = set()
    first = ""
    for scene in scenes:
        try:
            values.update(label_values(read_mask(scene.mask, None, ignore, scene.colours, limits)))
        except SampleError as error:
            first = first or f"{scene.id!r}: {error}"
    left = values - set(ignore)
    if not values:
        raise SourceError(f"no mask can be read; {f'the first is {first}' if first else 'there is no scene'}")
    if not left or (left == {0} and values != left):
        raise SourceError(
            f"the masks hold the values {sorted(values)}; with {sorted(set(ignore))} left out (--ignore), fewer than "
            'two classes remain; if 255 is the object, put a classes.json next to them: {"background": [0, 0, 0], '
            '"object": [255, 255, 255]}'
        )
    _check_greatest(sorted(left))
    return max(left) + 1


def _check_greatest(values: Sequence[int]) -> None:
    """Raise SourceError for a lone greatest value: an unnamed void of 65535 would make 65,536 classes."""
    greatest, below = values[-1], values[-2] if len(values) > 1 else 0
    lone = greatest - below > _GAP and greatest > 2 * len(values) + _GAP
    if lone or (greatest > _MANY and greatest >= len(values)):
        raise SourceError(
            f"the masks hold the label {greatest}, but only {len(values)} different ones, {below} the next below it: "
            f"that would make {greatest + 1:,} classes; if {greatest} is void, leave it out (--ignore {greatest}), "
            "else number the labels from 0, or give the number of classes (--classes)"
        )


def read_scene(
    scene: Scene, classes: int | None = None, ignore: Sequence[int] = (), limits: Limits = Limits()
) -> tuple[Image.Image, NDArray[np.int32]]:
    """Return the image (RGB, upright) and its label values [H, W], read as `read_mask` does.

    Raises SampleError for an image or a mask that cannot be read, or masks of another size or with other values.
    """
    try:
        image = load_image(scene.image, limits)
    except SampleError as error:
        raise SampleError(f"image: {error}") from None
    try:
        labels = read_mask(scene.mask, classes, ignore, scene.colours, limits)
    except SampleError as error:
        raise SampleError(f"mask: {error}") from None
    height, width = labels.shape
    if (width, height) != image.size:
        turned = ", which an EXIF tag may have turned" if (height, width) == image.size else ""
        raise SampleError(
            f"mask: {width} x {height}; its image is {image.width} x {image.height}{turned}; expected the same size: "
            "resize the mask by nearest neighbour, or give the image that it was drawn on"
        )
    return image, labels
