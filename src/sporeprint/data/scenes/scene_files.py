"""Read images with masks from files: two folders of the same names, VOC's layout, or a list of pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from sporeprint.data.folders import SPLITS, SUFFIXES, FolderSource
from sporeprint.data.rows import brief, check_ids, check_limit, file_digests, shown_name
from sporeprint.data.scenes.masks import Colours
from sporeprint.data.texts import unicode_advice
from sporeprint.errors import SampleError, SourceError

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentationclass", "gtfine")
MASK_ENDINGS = ("", "_mask", "_label", "_labelIds", "_gtFine_labelIds")  # after the image's name; the first found
LISTS = (".txt", ".lst")
_SPLITS = (*SPLITS, "trainval")
_VOC_LISTS = Path("ImageSets", "Segmentation")


@dataclass(frozen=True)
class Scene:
    """An image with its mask, neither decoded. mask: None where there is none. colours: those of a mask in colour."""

    id: str
    image: Any
    mask: Any | None = None
    colours: Colours | None = field(default=None, repr=False, compare=False)


class SceneFiles:
    """Scenes whose images and masks are files."""

    def __init__(self, scenes: list[Scene], limit: int | None, **described: Any):
        check_limit(limit)
        check_ids([scene.id for scene in scenes], f"'{described['source']}', the images' names without suffix")
        self._scenes = scenes[:limit]
        self._described = {**described, "limit": limit}

    def __len__(self) -> int:
        return len(self._scenes)

    def scenes(self, start: int = 0) -> Iterator[Scene]:
        yield from self._scenes[start:]

    def digest(self) -> str:
        """Return a digest of the ids, and of every file's name and bytes."""
        digest = blake2b(json.dumps(self.describe()).encode(), digest_size=16)
        files = [(s.id, path) for s in self._scenes for path in (s.image, s.mask) if isinstance(path, Path)]
        for (scene_id, path), content in zip(files, file_digests(path for _, path in files), strict=True):
            digest.update(json.dumps([scene_id, path.name, content]).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {**self._described, "rows": len(self)}


def folder_scenes(folder: Path, split: str | None, limit: int | None, masks: bool) -> SceneFiles | None:
    """Return the scenes of a folder with VOC's layout or a folder of images; None for others. Raises SourceError."""
    lists = sorted((folder / _VOC_LISTS).glob("*.txt"))
    if lists and (masks or split is not None):
        if split is None and len(lists) == 1:
            split = lists[0].stem
        if split not in (stems := [path.stem for path in lists]):
            raise _unclear_split(folder, stems, split)
        return list_scenes(folder / _VOC_LISTS / f"{split}.txt", limit, masks, kind="voc")
    images, truth = _among(folder, IMAGE_FOLDERS), _among(folder, MASK_FOLDERS) if masks else None
    if images is None:
        splits = [name for name in _folders(folder) if _among(folder / name, IMAGE_FOLDERS)]
        if split is None and len(splits) == 1:
            split = splits[0]
        if split in splits:
            return folder_scenes(folder / str(split), None, limit, masks)
        if splits:
            raise _unclear_split(folder, splits, split)
        return None
    if masks and truth is None:
        raise SourceError(
            f"'{folder}' has images in '{images.name}', but no folder of masks; expected one of "
            f"{', '.join(MASK_FOLDERS)}; the folders here are: {', '.join(_folders(folder))}"
        )
    splits = [name for name in _folders(images) if name.lower() in _SPLITS]
    if (split is None and len(splits) > 1) or (split is not None and split not in _folders(images)):
        raise _unclear_split(folder, splits, split)
    below = split or ""
    if truth is None:
        return loose_scenes(images / below, limit)
    if not (truth / below).is_dir():
        raise SourceError(f"'{truth}' has no folder {below!r}, but '{images}' has; put the masks there")
    scenes, unused = _paired(images / below, truth / below)
    counts = {"without_mask": sum(scene.mask is None for scene in scenes), "masks_unused": unused}
    columns = [(part / below).relative_to(folder).as_posix() for part in (images, truth)]
    return SceneFiles(scenes, limit, **_folder(folder, *columns), **counts)


def loose_scenes(folder: Path, limit: int | None) -> SceneFiles:
    """Return every image below a folder, without masks; two of one name keep their suffixes. Raises SourceError."""
    rows = list(FolderSource(folder).rows())
    stems = [_stem(row.id) for row in rows]
    twins = {stem for stem, after in zip(sorted(stems), sorted(stems)[1:], strict=False) if stem == after}
    scenes = [Scene(row.id if stem in twins else stem, row.sample) for row, stem in zip(rows, stems, strict=True)]
    return SceneFiles(scenes, limit, **_folder(folder, None, None))


def list_scenes(path: Path, limit: int | None, masks: bool, kind: str = "list") -> SceneFiles:
    """Return the scenes of a text file, one a line: image and mask, relative to its folder, or a name of VOC's."""
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except (OSError, ValueError) as error:
        raise SourceError(f"'{path}' cannot be read as a list: {error}; give lines of text") from None
    root = voc_root(path)
    scenes = []
    for number, line in enumerate(lines, 1):
        parts = [part.strip() for part in (line.split("\t") if "\t" in line else line.split())]
        if wrong := unicode_advice(line):
            scenes.append(_bad_line(number, f"is {wrong}"))
            continue
        bare = len(parts) == 1 and PurePosixPath(parts[0]).suffix.lower() not in SUFFIXES["image"]
        if bare and root:
            truth = root / "SegmentationClass" / f"{parts[0]}.png"
            scenes.append(Scene(parts[0], _voc_image(root, parts[0]), truth if masks else None))
        elif len(parts) == 2 or (len(parts) == 1 and not bare and not masks):
            truth = path.parent / parts[-1]
            scenes.append(Scene(_plain(parts[0]), path.parent / parts[0], truth if masks else None))
        elif parts:
            form = (
                "expected an image and its mask with a space or a tab between them (a tab, where a name has spaces), "
                "or, next to JPEGImages and SegmentationClass, a name"
            )
            scenes.append(_bad_line(number, f"{brief(line)}; {form}"))
    if not scenes:
        raise SourceError(f"'{path}' lists nothing; expected an image and its mask on each line")
    if all(isinstance(scene.image, SampleError) for scene in scenes):
        raise SourceError(f"'{path}', {scenes[0].image}")
    columns = {"image": "1", "mask": "2" if masks else None, "id": "image"}
    return SceneFiles(scenes, limit, kind=kind, source=shown_name(path), columns=columns)


def _bad_line(number: int, problem: str) -> Scene:
    error = SampleError(f"line {number}: {problem}")
    return Scene(f"line {number}", error, error)


def voc_root(path: Path) -> Path | None:
    """Return the folder around a list that has VOC's folders."""
    return next((folder for folder in path.absolute().parents[:3] if (folder / "JPEGImages").is_dir()), None)


def _voc_image(root: Path, name: str) -> Path:
    files = [root / "JPEGImages" / f"{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
    return next((file for file in files if file.is_file()), files[0])


def _paired(images: Path, masks: Path) -> tuple[list[Scene], int]:
    """Return a scene for each image, with the mask of its name or None, and the number of masks without an image."""
    names = [row.id for row in FolderSource(masks).rows()]
    by_stem = {_stem(name): name for name in names}
    if len(by_stem) < len(names):
        twin = next(name for name in names if by_stem[_stem(name)] != name)
        raise SourceError(f"'{masks}' has {twin!r} and {by_stem[_stem(twin)]!r}, one name; keep the one with the mask")
    scenes = []
    for row in FolderSource(images).rows():
        key = _stem(row.id).removesuffix("_leftImg8bit")
        name = next((by_stem[key + ending] for ending in MASK_ENDINGS if key + ending in by_stem), None)
        scenes.append(Scene(_stem(row.id), row.sample, None if name is None else masks / name))
    used = {scene.mask for scene in scenes if scene.mask is not None}
    if not used:
        raise SourceError(
            f"no mask in '{masks}' goes with an image in '{images}': there are {len(scenes)} images, such as "
            f"{scenes[0].id!r}, and {len(by_stem)} masks, such as {min(by_stem)!r}; a mask has its image's path below "
            f"its folder and its name, and may end in {', '.join(MASK_ENDINGS[1:])}"
        )
    return scenes, len(by_stem) - len(used)


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _plain(path: str) -> str:
    """Return a listed path as an id: without suffix, and without what leads out of a folder."""
    return "/".join(part for part in PurePosixPath(path).with_suffix("").parts if part not in ("/", ".."))


def _among(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder below `folder` whose name, in lower case, comes first in `names`."""
    there = {name.lower(): name for name in reversed(_folders(folder))}
    return next((folder / there[name] for name in names if name in there), None)


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise SourceError(f"'{folder}' cannot be listed: {error.strerror or error}; fix its permissions") from None


def _folder(folder: Path, images: str | None, masks: str | None) -> dict[str, Any]:
    columns = {"image": images, "mask": masks, "id": "path"}
    return {"kind": "folder", "source": shown_name(folder), "columns": columns}


def _unclear_split(folder: Path, splits: list[str], split: str | None) -> SourceError:
    problem = "no split is chosen" if split is None else f"there is no split {split!r}"
    return SourceError(
        f"'{folder}': {problem}; there are {', '.join(splits) or 'none'}: choose one of them (split, --split)"
    )
