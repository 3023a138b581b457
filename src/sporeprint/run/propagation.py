"""Run `sporeprint propagate`: masks for images of which a few are marked, resumable image by image."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.data.images import load_image
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.marks import UNLABELLED
from sporeprint.data.scenes.masks import read_mask
from sporeprint.data.scenes.scenes import Scene, Scenes, open_scenes
from sporeprint.errors import RecipeError, RowFailure, SampleError
from sporeprint.features.dense.support import least
from sporeprint.features.fungi import Fungi
from sporeprint.features.progress import Progress, silent
from sporeprint.features.recipe import Recipe
from sporeprint.report.palette import RGB, mask_png
from sporeprint.report.sheet import Tile, tile_sheet
from sporeprint.run.dense_options import parse_ignore, parse_scales
from sporeprint.run.estimate import Estimate
from sporeprint.run.marked_images import Marks, Reference, find_marks
from sporeprint.run.output_folder import (
    CLASSES,
    CONFIDENCE,
    LOG,
    MASKS,
    RESULT,
    SHEET,
    MaskLog,
    held,
    is_of_propagate,
    mask_name,
    refuse_among_images,
    refuse_foreign,
)
from sporeprint.run.propagate_plan import FEW, LONGEST, Settings, Words
from sporeprint.segment.propagate import Propagated, Propagator, label_values
from sporeprint.store.atomic import canonical, write_file
from sporeprint.store.schema import NUMBER, TEXT, YES_OR_NO, mismatch
from sporeprint.values import json_text

logger = logging.getLogger(__name__)

FORMAT = 1
LEAST_SURE = 10

_RECORD = {"mask": TEXT, "shares": {...: NUMBER}, "confidence": NUMBER, "marked": YES_OR_NO}
_SHOWN = 5  # least sure images that are printed
_LABELS = 8  # whose shares of the pixels are printed
_MARKED = 4  # references on the sheet
_BATCH = 8  # images in memory


@dataclass(frozen=True)
class Result:
    """The result of a propagation.

    images: a record each, in order: id, mask (its file), shares by label, confidence, marked. made: masks of this run.
    removed: files of earlier runs, with other settings or for images that are gone.
    """

    out: Path
    images: list[dict[str, Any]]
    references: list[str]
    labels: dict[int, str]
    made: int
    failures: list[RowFailure] = field(default_factory=list)
    removed: int = 0

    @property
    def least_sure(self) -> list[dict[str, Any]]:
        """The unmarked images to label next, those of the lowest mean confidence first."""
        unmarked = [record for record in self.images if not record["marked"]]
        chosen = sorted(unmarked, key=lambda record: record["confidence"])[:LEAST_SURE]
        return [{"id": record["id"], "confidence": record["confidence"]} for record in chosen]

    def lines(self, everything: bool = True) -> list[str]:
        """Say in lines what was made, and what to label next. everything: of all labels and images."""
        kept = len(self.images) - self.made
        lines = [f"{self.out / 'masks'}: {len(self.images)} masks{f', {kept} of them there already' if kept else ''}"]
        if self.removed:
            lines.append(f"removed: {self.removed} files that earlier runs made with other settings or of other images")
        shares = {name: np.mean([record["shares"][name] for record in self.images]) for name in self.labels.values()}
        largest = sorted(shares, key=lambda name: -shares[name])
        shown = list(shares) if everything or len(shares) <= _LABELS else largest[:_LABELS]
        more = f", and {len(shares) - len(shown)} more labels: --all" if len(shown) < len(shares) else ""
        lines.append("pixels: " + ", ".join(f"{name} {shares[name]:.1%}" for name in shown) + more)
        if self.least_sure:
            lines.append("least sure, label these next:")
            next_ones = self.least_sure if everything else self.least_sure[:_SHOWN]
            lines += [f"  {record['id']}  {record['confidence']:.1%}" for record in next_ones]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "out": str(self.out),
            "references": self.references,
            "labels": {str(value): name for value, name in self.labels.items()},
            "made": self.made,
            "kept": len(self.images) - self.made,
            "removed": self.removed,
            "label_next": self.least_sure,
            "images": self.images,
            "failures": [failure.to_json() for failure in self.failures],
        }


def run_propagate(words: Words, chosen: Mapping[str, Any], confidence: bool, sheet: int, progress: Progress) -> Result:
    """Write masks, OUT/sheet.png and OUT/result.json. chosen: fields of `Settings`, None for the default.

    Raises RecipeError, SourceError and StoreError for options that do not fit together, before any weight is loaded.
    """
    kinds = [name for name in ("mask", "scribbles", "points") if getattr(words, name)]
    if len(kinds) != 1:
        seen = " and ".join(f"--{kind}" for kind in kinds) or "none"
        raise RecipeError(f"{seen} of --mask, --scribbles, --points is given; give one of them for each --on")
    given = {key: value for key, value in chosen.items() if value is not None}
    settings = Settings(**{**({} if words.mask else FEW), **given}, scales=parse_scales(words.scales))
    if words.points and words.ignore is not None:
        raise RecipeError("--ignore goes with --mask and --scribbles; what has no point is unlabelled: leave it out")
    ignore = parse_ignore(words.ignore)
    refuse_among_images(words.out, "masks", IMAGES=words.images)
    refuse_foreign(words.out, LOG, is_of_propagate)
    scenes = open_scenes(
        words.images,
        image_column=words.image_column,
        id_column=words.id_column,
        split=words.split,
        limit=words.limit,
        masks=False,
    )
    marks = find_marks(scenes, words.on, words.mask or words.scribbles or (), words.points or (), ignore, words.limits)
    backbone = load_backbone(
        words.backbone,
        device=words.device,
        modality="image",
        trust_remote_code=words.trust_remote_code,
        allow_random=words.allow_random,
    )
    result = propagate_scenes(
        scenes,
        marks.references,
        words.out,
        backbone,
        marks.palette,
        marks.names,
        settings,
        confidence,
        progress,
        words.limits,
    )
    if sheet:
        write_file(words.out / SHEET, _sheet(scenes, marks, result, sheet, words.limits))
    write_file(words.out / RESULT, f"{json_text(result.to_json())}\n".encode())
    return result


def propagate_scenes(
    scenes: Scenes,
    references: Sequence[Reference],
    out: Path,
    backbone: Backbone,
    palette: Sequence[RGB],
    names: Sequence[str] | None = None,
    settings: Settings | None = None,
    confidence: bool = False,
    progress: Progress = silent,
    limits: Limits = Limits(),
) -> Result:
    """Write masks of all scenes to OUT/masks, and confidences to OUT/confidence where asked for; existing ones stay.

    Marked pixels keep their marks. Files that earlier runs wrote with other settings, or for images that are gone
    since, are removed at the end. Raises SampleError for fewer than two labels, and where no image can be read;
    StoreError where OUT holds other results, or a file in it is not what a run wrote.
    """
    values = label_values((reference.labels for reference in references), (UNLABELLED,)).tolist()
    known = dict(enumerate(names or ()))
    labels = {value: known.get(value) or str(value) for value in values}
    settings = settings or Settings()
    recipe = Recipe(  # whose objectives compute nothing here, and are in the fingerprint of earlier results
        objectives=None, dense=settings.dense(backbone.depth), projection="tensorsketch", seed=settings.seed
    )
    # A person who labels by hand goes on with the others.
    fungi = Fungi(recipe, backbone=backbone, max_failures=1.0, limits=limits)
    with held(out, LOG, is_of_propagate):
        log = MaskLog(out, _fingerprint(recipe, fungi, scenes, references, settings, palette))
        folders = (MASKS, CONFIDENCE) if confidence else (MASKS,)
        result = _Run(scenes, references, fungi, settings, log, labels, palette, folders).run(progress)
        if names:
            write_file(out / CLASSES, "".join(f"{name}\n" for name in names).encode())
    return result


@dataclass
class _Run:
    scenes: Scenes
    references: Sequence[Reference]
    fungi: Fungi
    settings: Settings
    log: MaskLog
    labels: dict[int, str]
    palette: Sequence[RGB]
    folders: tuple[str, ...]

    def run(self, progress: Progress) -> Result:
        marked = {reference.id: reference.labels for reference in self.references if reference.inside}
        ids = [scene.id for scene in self.scenes]
        self.log.refuse_changed(name for row_id in ids for name in self._files(row_id))
        records = {row_id: self._record(row_id) for row_id in ids}
        missing = {row_id for row_id, record in records.items() if record is None}
        done = len(ids) - len(missing)
        if done:
            logger.info("going on after %d of %d images", done, len(ids))
        progress("images", done, len(ids))
        estimate = Estimate("images", len(ids), logger.info)
        failures: dict[str, str] = {}
        if missing:
            try:
                self._fit(ids, failures)
                propagator = self._propagator()
                estimate(done)
                for row_id, size, features in self._features((s for s in self.scenes if s.id in missing), failures):
                    records[row_id] = self._write(row_id, propagator(features, size), marked.get(row_id))
                    done += 1
                    progress("images", done + len(failures.keys() & missing), len(ids))
                    estimate(done)
            except KeyboardInterrupt:
                kept = f"{done} of {len(ids)} masks are kept; the same command makes the others"
                raise KeyboardInterrupt(
                    kept if done else "no mask is written yet; the same command starts again"
                ) from None
        images = [record for record in records.values() if record is not None]
        failed = [RowFailure(row_id, failures[row_id]) for row_id in ids if row_id in failures]
        references, new = [reference.id for reference in self.references], len(missing) - len(failed)
        removed = self.log.remove_stale()
        return Result(self.log.folder, images, references, self.labels, new, failed, removed)

    def _files(self, row_id: str) -> list[str]:
        return [f"{folder}/{mask_name(row_id)}" for folder in self.folders]

    def _record(self, row_id: str) -> dict[str, Any] | None:
        """What `_write` gave for an image in an earlier run; None where it has to be called."""
        record, (mask, *_) = self.log.record(row_id, self._files(row_id)), self._files(row_id)
        if record is None or mismatch(record, _RECORD) or record["mask"] != mask:
            return None
        return record if record["shares"].keys() == set(self.labels.values()) else None

    def _fit(self, ids: Sequence[str], failures: dict[str, str]) -> None:
        logger.info("fitting features on up to %d images ...", self.settings.fit_images)
        chosen = set(least(self.settings.seed, ids, self.settings.fit_images))
        rows = list(self._scale((scene for scene in self.scenes if scene.id in chosen), failures))
        if not rows:
            row_id, reason = next(iter(failures.items()))
            raise SampleError(f"none of {len(chosen)} images can be read; the first, {row_id!r}: {reason}")
        self.fungi.fit_dense([image for _, _, image in rows], [row_id for row_id, _, _ in rows])

    def _propagator(self) -> Propagator:
        failures: dict[str, str] = {}
        scenes = (Scene(reference.id, reference.image) for reference in self.references)
        maps = {row_id: features for row_id, _, features in self._features(scenes, failures)}
        for row_id, reason in failures.items():
            raise SampleError(f"{row_id!r}, which is marked, cannot be used: {reason}")
        marked = [(maps[reference.id], reference.labels) for reference in self.references]
        return Propagator.of(marked, (UNLABELLED,), self.settings.k, self.settings.temperature)

    def _features(
        self, scenes: Iterable[Scene], failures: dict[str, str]
    ) -> Iterator[tuple[str, tuple[int, int], NDArray[np.float32]]]:
        """Yield the id, height and width, and features of each scene that can be read."""
        rows = self._scale(scenes, failures)
        while batch := list(islice(rows, _BATCH)):
            maps = self.fungi.patches.maps([(row_id, image) for row_id, _, image in batch])
            for (row_id, size, _), (_, features) in zip(batch, maps, strict=True):
                if features is not None:
                    yield row_id, size, features
            failures.update((failure.id, failure.reason) for failure in self.fungi.patches.failures)

    def _scale(
        self, scenes: Iterable[Scene], failures: dict[str, str]
    ) -> Iterator[tuple[str, tuple[int, int], Image.Image]]:
        """Yield the id, height and width, and the image as the backbone gets it, of each scene that can be read."""
        for scene in scenes:
            try:
                image = load_image(scene.image, self.fungi.engine.limits)
            except SampleError as error:
                failures[scene.id] = str(error)
                continue
            longest = max(image.size)
            target = self.settings.size or min(longest, LONGEST)
            sides = [max(1, round(side * target / longest)) for side in image.size]
            scaled = image if target == longest else image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
            yield scene.id, (image.height, image.width), scaled

    def _write(self, row_id: str, propagated: Propagated, marks: NDArray[np.int32] | None) -> dict[str, Any]:
        labels, sure = propagated.labels, propagated.confidence
        if marks is not None:
            labels = np.where(marks != UNLABELLED, marks, labels)
            sure = np.where(marks != UNLABELLED, np.float32(1), sure)
        record = {
            "id": row_id,
            "mask": self._files(row_id)[0],
            "shares": {name: round(float((labels == value).mean()), 6) for value, name in self.labels.items()},
            "confidence": round(float(sure.mean()), 4),
            "marked": marks is not None,
        }
        pictures = [mask_png(labels, self.palette), _grey_png(sure)]
        self.log.write(record, dict(zip(self._files(row_id), pictures, strict=False)))
        return record


def _grey_png(sure: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * sure.clip(0, 1)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _fingerprint(
    recipe: Recipe,
    fungi: Fungi,
    scenes: Scenes,
    references: Sequence[Reference],
    settings: Settings,
    palette: Sequence[RGB],
) -> str:
    """Return the fingerprint of everything that decides the masks."""
    marks = [[reference.id, reference.digest()] for reference in references]
    parts = [recipe.to_json(), fungi.describe(), asdict(settings), scenes.digest(), marks, list(map(list, palette))]
    return sha256(canonical([FORMAT, parts])).hexdigest()[:16]


def _sheet(scenes: Scenes, marks: Marks, result: Result, count: int, limits: Limits) -> bytes:
    """Draw a PNG of references with their marks above, and the first `count` other images below."""
    records = {record["id"]: record for record in result.images}

    def tile(scene: Any, note: str = "") -> Tile:
        record = records[scene.id]
        labels = read_mask(result.out / record["mask"], limits=limits)
        return Tile(load_image(scene.image, limits), labels, f"{scene.id}{note}, sure {record['confidence']:.0%}")

    above = []
    for reference in marks.references[:_MARKED]:
        image, labels = load_image(reference.image, limits), reference.labels
        above += [Tile(image, None, reference.id), Tile(image, labels, f"{reference.id}: the marks")]
        above += [tile(reference, ": filled in")] if reference.inside and (labels == UNLABELLED).any() else []
    others = (scene for scene in scenes if scene.id in records and not records[scene.id]["marked"])
    below = [tile(scene) for scene in islice(others, count)]
    picture = tile_sheet(
        [("Marked", above), ("Propagated", below)],
        marks.palette,
        list(result.labels.items()),
        result.out.absolute().name,
    )
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
