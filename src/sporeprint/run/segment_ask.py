"""Test images through every bank: labels by each kind of features, compared with the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.scenes.scenes import Scene
from sporeprint.errors import RowFailure, SampleError
from sporeprint.evaluate.segmentation import Tally, confusion
from sporeprint.features.failures import Failures
from sporeprint.run.segment_checks import TEST, rows_of
from sporeprint.segment.labeller import Maps
from sporeprint.segment.training import Group, Labels, Progress, Truth, batched, read_ahead

Take = Callable[..., Any]  # number, id, image, truth or None, {kind: labels}


@dataclass
class Counts:
    """The confusions of one kind, image by image."""

    rows: list[NDArray[np.int64]] = field(default_factory=list)
    total: NDArray[np.int64] | int = 0

    def add(self, matrix: NDArray[np.int64]) -> None:
        """matrix: [C, C], of one image."""
        self.rows.append(np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)]))
        self.total = self.total + matrix

    def tally(self) -> Tally:
        hits, truth, predicted = np.stack(self.rows, axis=1)
        return Tally(hits, truth, predicted, np.asarray(self.total))


@dataclass
class Remembering(Group):
    """seen: ids of the contents of all images that it was given."""

    seen: set[str] = field(default_factory=set)

    def content(self, image: Image.Image) -> str:
        found = super().content(image)
        self.seen.add(found)
        return found


@dataclass
class Answers:
    """counts: by kind, of the same images; none without a truth. images: that were labelled. known: of these, those
    that are training images too."""

    counts: dict[str, Counts] = field(default_factory=dict)
    failures: list[RowFailure] = field(default_factory=list)
    images: int = 0
    known: int = 0


def ask(
    groups: Sequence[Remembering],
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
    for batch in batched(read_ahead(scenes, truth, workers), batch_size):
        images = [read[0] for _, read in batch if not isinstance(read, SampleError)]
        ids = [groups[0].content(one) for one in images]
        made = [iter(group.maps(images, ids)) for group in groups]
        numbers = iter(ids)
        for scene, read in batch:
            maps = [] if isinstance(read, SampleError) else [next(one) for one in made]
            known = not isinstance(read, SampleError) and next(numbers) in trained
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


def warned(runs: Sequence[Mapping[str, Any]]) -> str:
    """What there is to say of finished runs whose test images are training images too."""
    most = max(runs, key=lambda run: int(run.get("test_images_in_training", 0)))
    known = most.get("test_images_in_training", 0)
    if not known:
        return ""
    return (
        f"{known} of {most['test_images']} test images are training images too (the same pixels), so the figures are "
        "better than they would be on new images: take them out of one of the two"
    )


def _confusions(labels: Labels, predicted: dict[str, Labels], truth: Truth) -> dict[str, NDArray[np.int64]]:
    return {name: confusion(labels, said, truth.classes, truth.ignore) for name, said in predicted.items()}


def _predicted(groups: Sequence[Group], maps: Sequence[Maps | SampleError], size: tuple[int, int]) -> dict[str, Labels]:
    found: dict[str, Labels] = {}
    for group, one in zip(groups, maps, strict=True):
        if isinstance(one, SampleError):
            raise one
        found |= {name: labeller.labels(one, size) for name, labeller in group.labellers.items()}
    return found
