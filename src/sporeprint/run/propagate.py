"""What `sporeprint propagate` does: from its words to masks, a sheet and a result."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sporeprint.backbones.load import load_backbone
from sporeprint.data.images import load_image
from sporeprint.data.scenes.marks import UNLABELLED
from sporeprint.data.scenes.masks import read_mask
from sporeprint.data.scenes.scenes import Scenes, open_scenes
from sporeprint.errors import RecipeError
from sporeprint.features.negatives import Progress
from sporeprint.report.tiles import Tile, tile_sheet
from sporeprint.run.known_images import refuse_foreign
from sporeprint.run.marked_images import Marks, find_marks
from sporeprint.run.propagate_scenes import propagate_scenes
from sporeprint.run.propagation import Result, Settings
from sporeprint.segment.propagate import VOID
from sporeprint.store.atomic import write_file

# Of scribbles and points: on CamVid, two points a class gave an mIoU of 32.6 so, 28.6 with all features; a temperature
# of 0.1 was up to 0.7 above 0.05.
FEW: Mapping[str, Any] = {"features": "embedding", "temperature": 0.1}

_MARKED = 4  # references on the sheet


@dataclass(frozen=True)
class Words:
    """What the command line said, beside what `Settings` holds."""

    images: Path
    out: Path
    backbone: str
    on: Sequence[str]
    mask: Sequence[Path] | None = None
    scribbles: Sequence[Path] | None = None
    points: Sequence[str] | None = None
    ignore: str | None = None
    scales: str = "1"
    id_column: str | None = None
    image_column: str | None = None
    split: str | None = None
    limit: int | None = None
    device: str | None = None


def run_propagate(words: Words, chosen: Mapping[str, Any], confidence: bool, sheet: int, progress: Progress) -> Result:
    """Masks, OUT/sheet.png and OUT/result.json. chosen: fields of `Settings`, None for the default.

    Raises RecipeError, SourceError and StoreError for words that make no sense, before any weight is loaded.
    """
    kinds = [name for name in ("mask", "scribbles", "points") if getattr(words, name)]
    if len(kinds) != 1:
        seen = " and ".join(f"--{kind}" for kind in kinds) or "none"
        raise RecipeError(f"{seen} of --mask, --scribbles, --points is given; give one of them for each --on")
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = Settings(**{**({} if words.mask else FEW), **given}, scales=_scales(words.scales))
    if words.points and words.ignore is not None:
        raise RecipeError("--ignore is of --mask and --scribbles; what has no point is unlabelled: leave it out")
    ignore = _ignored(words.ignore)
    _check_out(words)
    scenes = open_scenes(
        words.images,
        image_column=words.image_column,
        id_column=words.id_column,
        split=words.split,
        limit=words.limit,
        masks=False,
    )
    marks = find_marks(scenes, words.on, words.mask or words.scribbles or (), words.points or (), ignore)
    backbone = load_backbone(words.backbone, device=words.device, modality="image")
    found = propagate_scenes(
        scenes, marks.references, words.out, backbone, marks.palette, marks.names, settings, confidence, progress
    )
    if sheet:
        write_file(words.out / "sheet.png", _sheet(scenes, marks, found, sheet))
    write_file(words.out / "result.json", (json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n").encode())
    return found


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"--scales {text!r}; expected numbers, such as 1,1.5") from None


def _ignored(text: str | None) -> tuple[int, ...]:
    if text is None:
        return (VOID,)
    if text.strip().lower() == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"--ignore {text!r}; expected label values, such as 255 or 0,255, or none") from None


def _check_out(words: Words) -> None:
    """Masks that lie among the images would be images of the next run. Raises RecipeError, StoreError."""
    if words.out.is_file():
        raise RecipeError(f"--out '{words.out}' is a file; give the name of a folder")
    images, out = words.images.resolve(), words.out.resolve()
    if images.is_dir() and (out == images or images in out.parents):
        raise RecipeError(
            f"--out '{words.out}' is inside '{words.images}', where the masks would be taken for images; "
            f"give a folder beside it, such as '{words.images.absolute().parent / (images.name + '-masks')}'"
        )
    refuse_foreign(words.out)


def _sheet(scenes: Scenes, marks: Marks, found: Result, count: int) -> bytes:
    """PNG: each reference with its marks above, the first `count` other images below."""
    records = {record["id"]: record for record in found.images}

    def tile(scene: Any, said: str = "") -> Tile:
        record = records[scene.id]
        labels = read_mask(found.out / record["mask"])
        return Tile(load_image(scene.image), labels, f"{scene.id}{said}, sure {record['confidence']:.0%}")

    above = []
    for one in marks.references[:_MARKED]:
        image = load_image(one.image)
        above += [Tile(image, None, one.id), Tile(image, one.labels, f"{one.id}: the marks")]
        above += [tile(one, ": filled in")] if one.inside and (one.labels == UNLABELLED).any() else []
    others = (scene for scene in scenes if scene.id in records and not records[scene.id]["marked"])
    below = [tile(scene) for scene in islice(others, count)]
    picture = tile_sheet(
        [("Marked", above), ("Propagated", below)], marks.palette, list(found.labels.items()), found.out.absolute().name
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
