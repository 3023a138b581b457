"""Marked images, as the command line names them: which image it is, and the labels that are marked on it."""

from __future__ import annotations

import difflib
import logging
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
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import UNLABELLED, number_labels, point_labels, read_marks, read_points
from sporeprint.data.scenes.masks import mask_palette
from sporeprint.data.scenes.scenes import Scene, Scenes
from sporeprint.errors import SampleError, SourceError
from sporeprint.report.palette import RGB, VOID
from sporeprint.report.palette import palette as colours_of
from sporeprint.run.segment_plan import VOID_NAMES
from sporeprint.segment.propagate import VOID as VOID_LABEL
from sporeprint.segment.propagate import check_size

logger = logging.getLogger(__name__)

_LISTED = 5


@dataclass(frozen=True, eq=False)
class Reference:
    """A marked image with labels [H, W], UNLABELLED where there is no mark. inside: it is among the images."""

    id: str
    image: Any
    labels: NDArray[np.int32]
    inside: bool

    def digest(self) -> str:
        """The digest of the marks, and of an image that is not among the images."""
        digest = blake2b(repr(self.labels.shape).encode() + self.labels.tobytes(), digest_size=16)
        if not self.inside:
            with opened(self.image, "an image") as (file, _):
                digest.update(file.read())
        return digest.hexdigest()


@dataclass(frozen=True)
class Marks:
    """The references, the labels' names by number where they are known, and the colour of each label."""

    references: list[Reference]
    names: list[str] | None
    palette: list[RGB]


def find_marks(
    scenes: Scenes,
    on: Sequence[str],
    masks: Sequence[Path] = (),
    points: Sequence[str] = (),
    ignore: Collection[int] | None = None,
    limits: Limits = Limits(),
) -> Marks:
    """Find each image named in `on`, and read its mask or its points. Raises SourceError.

    ignore: label values that mean unlabelled; None for 255 and those whose name says so.
    """
    given: Sequence[Any] = masks or points
    if len(on) != len(given):
        raise SourceError(
            f"--on was given {len(on)} times, marks {len(given)} times; give each --on its own --mask, "
            "--scribbles or --points, in the same order"
        )
    named = [_find(scenes, name) for name in on]
    if len({scene.id for scene, _ in named}) < len(named):
        raise SourceError(
            f"--on names one image twice ({', '.join(on)}); put its marks into one mask or list of points"
        )
    names, own = scenes.names, None
    sizes = [_size(scene, limits) for scene, _ in named]
    if masks:
        classes = find_class_list([masks[0].parent])
        names = classes.names if classes else names
        ignore = _void(names) if ignore is None else ignore
        maps = [read_marks(path, ignore, limits) for path in masks]
        own = list(classes.colours) if classes and classes.colours else mask_palette(masks[0], limits)
    else:
        lists = [read_points(words) for words in points]
        numbers, names = number_labels([point for listed in lists for point in listed], names)
        maps = [point_labels(listed, numbers, size) for listed, size in zip(lists, sizes, strict=True)]
    for name, labels, size in zip(on, maps, sizes, strict=True):
        try:
            check_size(labels, size)
        except SampleError as error:
            raise SourceError(f"{name!r}: {error}") from None
    if ignore and VOID_LABEL not in ignore and VOID_LABEL in _values(maps):
        with_void = ",".join(map(str, sorted({*ignore, VOID_LABEL})))
        logger.info("label 255 counts as a class; if it is void, leave it out too: --ignore %s", with_void)
    _check_two(maps, names, (ignore or ()) if masks else ())
    references = [
        Reference(scene.id, scene.image, labels, inside) for (scene, inside), labels in zip(named, maps, strict=True)
    ]
    return Marks(references, names, _palette(maps, own))


def _void(names: Sequence[str] | None) -> list[int]:
    """The label values that mean unlabelled where nobody says which: 255, and those of a class that is called so."""
    named = [label for label, name in enumerate(names or ()) if name.strip().lower() in VOID_NAMES]
    if named and names:
        words = ", ".join(f"{label} ({names[label]})" for label in named)
        logger.info("left out as unlabelled, by its name: label %s; --ignore none makes it a class", words)
    return sorted({VOID_LABEL, *named})


def _check_two(maps: Sequence[NDArray[np.int32]], names: Sequence[str] | None, ignore: Collection[int]) -> None:
    values = _values(maps)
    if len(values) > 1:
        return
    seen = "no label is given"
    if values:
        name = names[values[0]] if names and values[0] < len(names) else ""
        seen = f"only the label {name or values[0]} is given"
    void = ", ".join(map(str, ignore))
    if void and any((labels == UNLABELLED).any() for labels in maps):
        seen += f", apart from what is unlabelled ({void})"
        void = f"; or, if {void} is a label of yours, give --ignore none"
    else:
        void = ""
    raise SourceError(f"{seen}; at least two are needed: mark the background too{void}")


def _values(maps: Sequence[NDArray[np.int32]]) -> list[int]:
    """The label values that are marked, rising."""
    return sorted({int(value) for labels in maps for value in np.unique(labels)} - {UNLABELLED})


def _find(scenes: Scenes, name: str) -> tuple[Scene, bool]:
    """The image with this id, file name or path, and whether it is among the scenes."""
    ids = []
    matches = []
    path = Path(name)
    for scene in scenes:
        if scene.id == name:
            return scene, True
        ids.append(scene.id)
        if isinstance(scene.image, os.PathLike):
            image = Path(scene.image)
            if image.name == name:
                matches.append(scene)
            elif _same(image, path):
                return scene, True
    if len(matches) == 1:
        return matches[0], True
    if matches:
        raise SourceError(
            f"--on {name!r} is the name of {len(matches)} images: {', '.join(s.id for s in matches[:_LISTED])}"
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
    except (OSError, ValueError):  # a path that does not exist: a broken link among the images, or `path` is an id
        return False


def _size(scene: Scene, limits: Limits) -> tuple[int, int]:
    try:
        return load_image(scene.image, limits).size
    except SampleError as error:
        raise SourceError(f"--on {scene.id!r}: the image cannot be read: {error}") from None


def _palette(maps: Sequence[NDArray[np.int32]], own: Sequence[RGB] | None) -> list[RGB]:
    """The mask's own colours, where it has some; else ours."""
    values = _values(maps)
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
