"""From a folder of images, a few of which are marked, to a mask for each: resumable, image by image."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.backbones.backbone import Backbone
from sporeprint.data.images import load_image
from sporeprint.data.scenes.marks import UNLABELLED
from sporeprint.data.scenes.scenes import Scene, Scenes
from sporeprint.errors import RowFailure, SampleError, StoreError
from sporeprint.features.dense.support import least
from sporeprint.features.fungi import Fungi
from sporeprint.features.negatives import Progress
from sporeprint.features.recipe import Recipe
from sporeprint.report.palette import RGB, mask_png
from sporeprint.run.known_images import Made, file_name, refuse_foreign
from sporeprint.run.marked_images import Reference
from sporeprint.run.propagation import LONGEST, Result, Settings
from sporeprint.segment.propagate import Propagated, Propagator, label_values
from sporeprint.store.atomic import canonical, lock, write_file

log = logging.getLogger(__name__)

FORMAT = 1

_TOGETHER = 8  # images in memory


def propagate_scenes(
    scenes: Scenes,
    references: Sequence[Reference],
    out: Path,
    backbone: Backbone,
    palette: Sequence[RGB],
    names: Sequence[str] | None = None,
    settings: Settings | None = None,
    confidence: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Result:
    """Masks for all scenes into OUT/masks, and into OUT/confidence where asked for. What is there already is kept.

    Marked pixels keep their marks. What earlier runs wrote with other settings, or for images that have gone since, is
    removed at the end. Raises SampleError for fewer than two labels, and where no image can be read; StoreError where
    OUT is of something else, or a file in it not as a run wrote it.
    """
    values = label_values((one.labels for one in references), (UNLABELLED,)).tolist()
    known = dict(enumerate(names or ()))
    labels = {value: known.get(value) or str(value) for value in values}
    settings = settings or Settings()
    recipe = Recipe(dense=settings.dense(backbone.depth), projection="tensorsketch", seed=settings.seed)
    fungi = Fungi(recipe, backbone=backbone, max_failures=1.0)  # whoever labels by hand goes on with the others
    refuse_foreign(out)
    held = _hold(out)
    try:
        made = Made(out, _fingerprint(recipe, fungi, scenes, references, settings, palette))
        run = _Run(
            scenes, references, fungi, settings, made, labels, palette, ("masks", "confidence")[: 1 + confidence]
        )
        result = run.all(progress)
        if names:
            write_file(out / "classes.txt", "".join(f"{name}\n" for name in names).encode())
    finally:
        if held is not None:
            held.close()
    return result


@dataclass
class _Run:
    scenes: Scenes
    references: Sequence[Reference]
    fungi: Fungi
    settings: Settings
    made: Made
    labels: dict[int, str]
    palette: Sequence[RGB]
    folders: tuple[str, ...]

    def all(self, progress: Progress) -> Result:
        marked = {one.id: one.labels for one in self.references if one.inside}
        ids = [scene.id for scene in self.scenes]
        self.made.refuse_others(name for row_id in ids for name in self._files(row_id))
        records = {row_id: self.made.record(row_id, self._files(row_id)) for row_id in ids}
        missing = {row_id for row_id, record in records.items() if record is None}
        done = len(ids) - len(missing)
        if done:
            log.info("going on after %d of %d images", done, len(ids))
        progress("images", done, len(ids))
        failures: dict[str, str] = {}
        if missing:
            self._fit(ids, failures)
            carry = self._propagator()
            for row_id, size, features in self._features((s for s in self.scenes if s.id in missing), failures):
                records[row_id] = self._write(row_id, carry(features, size), marked.get(row_id))
                done += 1
                progress("images", done + len(failures.keys() & missing), len(ids))
        found = [record for record in records.values() if record is not None]
        failed = [RowFailure(row_id, failures[row_id]) for row_id in ids if row_id in failures]
        references, new = [one.id for one in self.references], len(missing) - len(failed)
        removed = self.made.remove_stale()
        return Result(self.made.folder, found, references, self.labels, new, failed, removed)

    def _files(self, row_id: str) -> list[str]:
        return [f"{folder}/{file_name(row_id)}" for folder in self.folders]

    def _fit(self, ids: Sequence[str], failures: dict[str, str]) -> None:
        log.info("looking at up to %d images for what is common among them ...", self.settings.fit_images)
        chosen = set(least(self.settings.seed, ids, self.settings.fit_images))
        rows = list(self._scaled((scene for scene in self.scenes if scene.id in chosen), failures))
        if not rows:
            row_id, reason = next(iter(failures.items()))
            raise SampleError(f"none of {len(chosen)} images can be read; the first, {row_id!r}: {reason}")
        self.fungi.fit_dense([image for _, _, image in rows], [row_id for row_id, _, _ in rows])

    def _propagator(self) -> Propagator:
        failures: dict[str, str] = {}
        scenes = (Scene(one.id, one.image) for one in self.references)
        found = {row_id: features for row_id, _, features in self._features(scenes, failures)}
        for row_id, reason in failures.items():
            raise SampleError(f"{row_id!r}, which is marked, cannot be used: {reason}")
        given = [(found[one.id], one.labels) for one in self.references]
        return Propagator.of(given, (UNLABELLED,), self.settings.k, self.settings.temperature)

    def _features(
        self, scenes: Iterable[Scene], failures: dict[str, str]
    ) -> Iterator[tuple[str, tuple[int, int], NDArray[np.float32]]]:
        """(id, height and width, features) of those that can be read."""
        rows = self._scaled(scenes, failures)
        while some := list(islice(rows, _TOGETHER)):
            maps = self.fungi.patches.maps([(row_id, image) for row_id, _, image in some])
            for (row_id, size, _), (_, features) in zip(some, maps, strict=True):
                if features is not None:
                    yield row_id, size, features
            failures.update((one.id, one.reason) for one in self.fungi.patches.failures)

    def _scaled(
        self, scenes: Iterable[Scene], failures: dict[str, str]
    ) -> Iterator[tuple[str, tuple[int, int], Image.Image]]:
        """(id, height and width, the image as the backbone gets it) of those that can be read."""
        for scene in scenes:
            try:
                image = load_image(scene.image)
            except SampleError as error:
                failures[scene.id] = str(error)
                continue
            longest = max(image.size)
            wanted = self.settings.size or min(longest, LONGEST)
            sides = [max(1, round(side * wanted / longest)) for side in image.size]
            scaled = image if wanted == longest else image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
            yield scene.id, (image.height, image.width), scaled

    def _write(self, row_id: str, found: Propagated, marks: NDArray[np.int32] | None) -> dict[str, Any]:
        labels, sure = found.labels, found.confidence
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
        pictures = [mask_png(labels, self.palette), _grey(sure)]
        self.made.write(record, dict(zip(self._files(row_id), pictures, strict=False)))
        return record


def _grey(sure: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * sure.clip(0, 1)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _hold(out: Path) -> IO[bytes] | None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return lock(out / ".lock")
    except OSError as error:
        raise StoreError(f"--out '{out}' cannot be a folder: {error.strerror}; give another name") from error


def _fingerprint(
    recipe: Recipe,
    fungi: Fungi,
    scenes: Scenes,
    references: Sequence[Reference],
    settings: Settings,
    palette: Sequence[RGB],
) -> str:
    """Of everything that decides the masks."""
    marks = [[one.id, one.digest()] for one in references]
    said = [
        recipe.to_json(),
        fungi.describe(),
        asdict(settings),
        scenes.digest(),
        marks,
        list(map(list, palette)),
    ]
    return sha256(canonical([FORMAT, said])).hexdigest()[:16]
