"""Predictions for the test images of `segment`: labels by each kind of features, counted, written and drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.scenes.scenes import Scene
from sporeprint.errors import RecipeError, RowFailure, SampleError
from sporeprint.evaluate.segmentation import Tally, confusion
from sporeprint.features.failures import Failures
from sporeprint.report.palette import MOST, RGB, palette
from sporeprint.report.sheet import SheetRow, contact_sheet
from sporeprint.run.output_folder import SegmentFolder
from sporeprint.run.segment_plan import EMBEDDING
from sporeprint.run.segment_scenes import TEST, rows_of
from sporeprint.segment.labeller import Maps
from sporeprint.segment.training import Group, Labels, Progress, Truth, batched, read_ahead

_VOID = 255

Take = Callable[..., Any]  # number, id, image, truth or None, {kind: labels}


@dataclass
class Counts:
    """Confusions of one kind are added up image by image."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    total: NDArray[np.int64] | int = 0

    def add(self, matrix: NDArray[np.int64]) -> None:
        """Add the confusion [C, C] of one image."""
        self.rows.append(np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]))
        self.total = self.total + matrix

    def tally(self) -> Tally:
        hits, truth, predicted = np.stack(self.rows, axis=1)
        return Tally(hits, truth, predicted, np.asarray(self.total))


@dataclass
class TrainingGroup(Group):
    """A group that knows which images it was given. seen: ids of their contents."""

    seen: set[str] = field(default_factory=set)

    def content(self, image: Image.Image) -> str:
        content = super().content(image)
        self.seen.add(content)
        return content


@dataclass
class Answers:
    """The outcome for all test images.

    counts: by kind, of the same images; empty without a truth. images: how many were labelled. known: how many of these
    are training images too.
    """

    counts: dict[str, Counts] = field(default_factory=dict)
    failures: list[RowFailure] = field(default_factory=list)
    images: int = 0
    known: int = 0


def label_images(
    groups: Sequence[TrainingGroup],
    scenes: Iterable[Scene],
    total: int,
    truth: Truth | None,
    batch_size: int,
    workers: int,
    max_failures: float,
    take: Take,
    progress: Progress,
) -> Answers:
    """Label every scene, of `total`, by every kind; an image that one kind cannot label counts for none.

    Raises TooManyFailures; SampleError where no image can be read.
    """
    failures = Failures(max_failures, total)
    answers = Answers(failures=failures.rows)
    trained = set(groups[0].seen)
    done = 0
    for batch in batched(read_ahead(scenes, truth, workers, groups[0].features.limits), batch_size):
        images = [read[0] for _, read in batch if not isinstance(read, SampleError)]
        contents = [groups[0].content(image) for image in images]
        results = [iter(group.maps(images, contents)) for group in groups]
        remaining = iter(contents)
        for scene, read in batch:
            maps = [] if isinstance(read, SampleError) else [next(result) for result in results]
            known = not isinstance(read, SampleError) and next(remaining) in trained
            try:
                if isinstance(read, SampleError):
                    raise read
                predicted = _predicted(groups, maps, (read[0].height, read[0].width))
                matrices = {} if truth is None else _confusions(read[1], predicted, truth)
                take(done, scene.id, read[0], read[1], predicted)
                for name, matrix in matrices.items():
                    answers.counts.setdefault(name, Counts()).add(matrix)
                answers.images += 1
                answers.known += known
            except SampleError as error:
                with rows_of(TEST):
                    failures.add(scene.id, error)
            done += 1
            progress(done, total)
    if not answers.images:
        first = answers.failures[0]
        raise SampleError(f"none of {total} test images can be read ({first.id}: {first.reason})")
    return answers


def warn_of_known(runs: Sequence[Mapping[str, Any]]) -> str:
    """A warning where test images of finished runs are training images too, else an empty text."""
    most = max(runs, key=lambda run: int(run.get("test_images_in_training", 0)))
    known = most.get("test_images_in_training", 0)
    if not known:
        return ""
    return (
        f"{known} of {most['test_images']} test images are training images too (the same pixels), so the figures are "
        "better than they would be on new images: take them out of one of the two"
    )


def _confusions(labels: Labels, predicted: dict[str, Labels], truth: Truth) -> dict[str, NDArray[np.int64]]:
    return {name: confusion(labels, maps, truth.classes, truth.ignore) for name, maps in predicted.items()}


def _predicted(groups: Sequence[Group], maps: Sequence[Maps | SampleError], size: tuple[int, int]) -> dict[str, Labels]:
    predicted: dict[str, Labels] = {}
    for group, blocks in zip(groups, maps, strict=True):
        if isinstance(blocks, SampleError):
            raise blocks
        predicted |= {name: labeller.labels(blocks, size) for name, labeller in group.labellers.items()}
    return predicted


class Pictures:
    """Pictures of a run: a palette PNG for each prediction, and a sheet of images spread evenly over the test set."""

    def __init__(self, folder: SegmentFolder, masks: bool, sheet: int, images: int, truth: Truth):
        if truth.classes >= MOST and (masks or sheet):
            raise RecipeError(
                f"{truth.classes} classes; masks and the sheet hold {MOST - 1}: give --sheet 0, no --masks"
            )
        self.folder, self.masks, self.truth = folder, masks, truth
        self.numbers = set(np.linspace(0, images - 1, min(sheet, images)).round().astype(int).tolist())
        self.rows: list[SheetRow] = []

    def take(self, colours: Sequence[RGB] | None, names: Sequence[str]) -> None:
        """Take the masks' own colours, where they are of every class, else ours."""
        classes = self.truth.classes
        own = colours is not None and len(set(colours[:classes])) == classes
        self.colours = list(colours[:classes]) if colours is not None and own else palette(classes)
        self.names = list(names)

    def add(
        self, number: int, image_id: str, image: Image.Image, truth: Labels | None, predicted: Mapping[str, Labels]
    ) -> None:
        if self.masks:
            for kind, labels in predicted.items():
                self.folder.write_mask(kind, image_id, labels, self.colours)
        if number in self.numbers:
            shown = None if truth is None else np.where(np.isin(truth, self.truth.ignore), _VOID, truth)
            self.rows.append(SheetRow(image_id, image.copy(), shown, predicted))

    def draw(self, values: Mapping[str, float | None], best: str | None, how: str) -> None:
        """Write the sheet of the embedding and the best other kind.

        values: mIoU of each kind on all test images, where known. best, how: of `best_of`.
        """
        if not self.rows:
            return
        kinds = [EMBEDDING, *([best] if best is not None else [])]
        rows = [row._replace(predictions={kind: row.predictions[kind] for kind in kinds}) for row in self.rows]
        known = {kind: values[kind] for kind in kinds}
        notes = {kind: f"all images: mIoU {value:.1%}" for kind, value in known.items() if value is not None}
        title = f"Segmentation by retrieval; '{best}' was {how}" if how else "Segmentation by retrieval"
        sheet = contact_sheet(rows, self.colours, self.names, (_VOID,), title, notes)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        self.folder.write_sheet(file.getvalue())
