"""From the command line's words to references: which image, and what is marked on it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.files import opened
from sporeprint.data.images import load_image
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import UNLABELLED, number_labels, point_labels, read_marks, read_points
from sporeprint.data.scenes.masks import mask_palette
from sporeprint.data.scenes.scenes import Scene, Scenes
from sporeprint.errors import SampleError, SourceError
from sporeprint.report.palette import RGB, VOID
from sporeprint.report.palette import palette as colours_of
from sporeprint.segment.propagate import check_size

_LISTED = 5


@dataclass(frozen=True, eq=False)
class Reference:
    """An image and its marks, labels [H, W], UNLABELLED where there is none. inside: it is among the images."""

    id: str
    image: Any
    labels: NDArray[np.int32]
    inside: bool

    def digest(self) -> str:
        """Of the marks, and of an image that is not among the images."""
        digest = blake2b(repr(self.labels.shape).encode() + self.labels.tobytes(), digest_size=16)
        if not self.inside:
            with opened(self.image, "an image") as (file, _):
                digest.update(file.read())
        return digest.hexdigest()


@dataclass(frozen=True)
class Marks:
    """References, the labels' names by number where they are known, and the colour of each label."""

    references: list[Reference]
    names: list[str] | None
    palette: list[RGB]


def find_marks(
    scenes: Scenes,
    on: Sequence[str],
    masks: Sequence[Path] = (),
    points: Sequence[str] = (),
    ignore: Collection[int] = (),
) -> Marks:
    """Of each image named in `on` its mask, or its points. Raises SourceError."""
    given: Sequence[Any] = masks or points
    if len(on) != len(given):
        raise SourceError(
            f"--on was given {len(on)} times, marks {len(given)} times; give each --on its own --mask, "
            "--scribbles or --points, in the same order"
        )
    found = [_find(scenes, name) for name in on]
    if len({scene.id for scene, _ in found}) < len(found):
        raise SourceError(
            f"--on names one image twice ({', '.join(on)}); put its marks into one mask or list of points"
        )
    names, own = scenes.names, None
    sizes = [_size(scene) for scene, _ in found]
    if masks:
        maps = [read_marks(path, ignore) for path in masks]
        classes = find_class_list([masks[0].parent])
        names = classes.names if classes else names
        own = list(classes.colours) if classes and classes.colours else mask_palette(masks[0])
    else:
        lists = [read_points(one) for one in points]
        numbers, names = number_labels([point for some in lists for point in some], names)
        maps = [point_labels(some, numbers, size) for some, size in zip(lists, sizes, strict=True)]
    for name, labels, size in zip(on, maps, sizes, strict=True):
        try:
            check_size(labels, size)
        except SampleError as error:
            raise SourceError(f"{name!r}: {error}") from None
    _check_two(maps, names, ignore if masks else ())
    references = [
        Reference(scene.id, scene.image, labels, inside) for (scene, inside), labels in zip(found, maps, strict=True)
    ]
    return Marks(references, names, _palette(maps, own))


def _check_two(maps: Sequence[NDArray[np.int32]], names: Sequence[str] | None, ignore: Collection[int]) -> None:
    values = sorted({int(one) for labels in maps for one in np.unique(labels)} - {UNLABELLED})
    if len(values) > 1:
        return
    seen = "no label is given"
    if values:
        name = names[values[0]] if names and values[0] < len(names) else ""
        seen = f"only the label {name or values[0]} is given"
    void = ", ".join(map(str, ignore))
    if void and any((labels == UNLABELLED).any() for labels in maps):
        seen += f", beside what is unlabelled ({void})"
        void = f"; or, if {void} is a label of yours, say --ignore none"
    else:
        void = ""
    raise SourceError(f"{seen}; two are needed at least: mark the background too{void}")


def _find(scenes: Scenes, name: str) -> tuple[Scene, bool]:
    """The image of an id, of a file name, or of a path; and whether it is among the scenes."""
    ids = []
    named = []
    path = Path(name)
    for scene in scenes:
        if scene.id == name:
            return scene, True
        ids.append(scene.id)
        if isinstance(scene.image, Path):
            if scene.image.name == name:
                named.append(scene)
            elif _same(scene.image, path):
                return scene, True
    if len(named) == 1:
        return named[0], True
    if named:
        raise SourceError(
            f"--on {name!r} is the name of {len(named)} images: {', '.join(s.id for s in named[:_LISTED])}"
        )
    if os.path.isfile(path):
        return Scene(str(path), path), False
    near = difflib.get_close_matches(name, ids, _LISTED, 0.3) or ids[:_LISTED]
    raise SourceError(
        f"--on {name!r} is neither an image of the {len(ids)} given nor a file; there are: {', '.join(near)}"
        + (", ..." if len(ids) > len(near) else "")
    )


def _same(image: Path, path: Path) -> bool:
    try:
        return image.samefile(path)
    except (OSError, ValueError):  # one of them is not there: a broken link among the images, or `path` is an id
        return False


def _size(scene: Scene) -> tuple[int, int]:
    try:
        return load_image(scene.image).size
    except SampleError as error:
        raise SourceError(f"--on {scene.id!r}: the image cannot be read: {error}") from None


def _palette(maps: Sequence[NDArray[np.int32]], own: Sequence[RGB] | None) -> list[RGB]:
    """The mask's own colours, where it has some; else ours."""
    values = sorted({int(one) for labels in maps for one in np.unique(labels)} - {UNLABELLED})
    if not values:
        return []
    if own is not None and values[-1] < len(own):
        shown = {own[value] for value in values}
        if len(shown) == len(values) and any(len(set(colour)) > 1 for colour in shown):
            return list(own[: values[-1] + 1])
    if values[-1] < len(values) or len(values) > 20 or values[-1] < 20:
        return colours_of(values[-1] + 1)
    chosen = [VOID] * (values[-1] + 1)
    for value, colour in zip(values, colours_of(len(values)), strict=True):
        chosen[value] = colour
    return chosen
