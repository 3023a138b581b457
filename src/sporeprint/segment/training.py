"""Training images are read once for their labels, then once more to fill all memory banks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.images import load_image
from sporeprint.data.limits import Limits
from sporeprint.data.prefetch import ahead
from sporeprint.data.scenes.scenes import Scene, read_scene
from sporeprint.errors import RecipeError, RowFailure, SampleError
from sporeprint.features.dense.dense_features import DenseFeatures
from sporeprint.features.failures import Failures
from sporeprint.objectives.view_sets import generator
from sporeprint.segment.augment import augmented
from sporeprint.segment.labeller import ASKED_IMAGES, ASKED_PATCHES, ASKED_PIXELS, Judged, Labeller, Maps
from sporeprint.segment.patches import class_counts, draw_patches, patch_histograms
from sporeprint.values import check_count

SAMPLINGS = ("balanced", "uniform")

Progress = Callable[[int, int], None]  # number done, number in all
Labels = NDArray[np.int32]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Truth:
    """The meaning of masks. classes: C, labels 0 to C - 1. ignore: labels that are void."""

    classes: int
    ignore: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """Settings of the draw of a bank's patches.

    patches: the most of them, of all images alike. balance: "balanced", rare classes first (Hummingbird), or "uniform".
    epochs: how often each image is seen, first as it is, then augmented.
    """

    patches: int = 102_400
    balance: str = "balanced"
    epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.balance not in SAMPLINGS:
            raise RecipeError(f"sampling {self.balance!r}; expected one of: {', '.join(SAMPLINGS)}")
        for name in ("patches", "epochs"):
            check_count(name, getattr(self, name))

    def share(self, number: int, images: int) -> int:
        """The number of patches of look `number`, of images * epochs looks, which together give `patches`."""
        looks = images * self.epochs
        return self.patches * (number + 1) // looks - self.patches * number // looks


@dataclass
class Survey:
    """A survey has the training images that can be read, with the patches of each class [C], and those that cannot."""

    counts: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    failures: list[RowFailure] = field(default_factory=list)


@dataclass
class Group:
    """A group of labellers whose features are made of the same blocks."""

    features: DenseFeatures
    labellers: dict[str, Labeller] = field(default_factory=dict)

    def maps(self, images: Sequence[Image.Image], ids: Sequence[str]) -> list[Maps | SampleError]:
        """The blocks of each image, or why there are none. ids: of their content, by which negatives are drawn."""
        results: list[Maps | SampleError] = []
        self.features.max_failures = 1.0  # the caller counts
        for _, maps in self.features.blocks(list(zip(ids, images, strict=True))):
            results.append(SampleError(self.features.failures[-1].reason) if maps is None else maps)
        return results

    def content(self, image: Image.Image) -> str:
        """The id by which an image is known again, in whatever set it is."""
        return self.features.engine.backbone.preprocess.digest(image)


def survey(
    scenes: Iterable[Scene],
    features: DenseFeatures,
    truth: Truth,
    most: tuple[float, int],
    progress: Progress = lambda done, all: None,
) -> Survey:
    """Count the patches of each class in every scene.

    most: the fraction of scenes that may fail, and the number of scenes. Raises TooManyFailures; SampleError where no
    scene can be read.
    """
    failures = Failures(*most)
    result = Survey(failures=failures.rows)
    for done, (scene, read) in enumerate(read_ahead(scenes, truth, features.workers, features.limits), 1):
        try:
            if isinstance(read, SampleError):
                raise read
            image, labels = read
            histograms = patch_histograms(labels, features.engine.grid_of(image), truth.classes, truth.ignore)
            result.counts[scene.id] = class_counts(histograms)
        except SampleError as error:
            failures.add(scene.id, error)
        progress(done, most[1])
    if not result.counts:
        first = f" ({result.failures[0].id}: {result.failures[0].reason})" if result.failures else ""
        raise SampleError(f"none of {most[1]} training images can be read with its mask{first}")
    return result


def fill(
    groups: Sequence[Group],
    scenes: Iterable[Scene],
    drawn: Sequence[str],
    truth: Truth,
    counts: Mapping[str, NDArray[np.float64]],
    sampling: Sampling,
    batch_size: int = 8,
    workers: int = 1,
    progress: Progress = lambda done, all: None,
) -> list[RowFailure]:
    """Put patches of the drawn scenes into the banks of every group, then close the banks.

    drawn: ids, in the order of the draw. counts: of the survey. Returns the images that have no features.
    """
    ranks = {row_id: rank for rank, row_id in enumerate(drawn)}
    total = np.sum([counts[row_id] for row_id in drawn], axis=0) if sampling.balance == "balanced" else None
    failures: dict[str, RowFailure] = {}
    done = 0
    wanted = (scene for scene in scenes if scene.id in ranks)
    for batch in batched(read_ahead(wanted, truth, workers, groups[0].features.limits), batch_size):
        good = [(scene, *read) for scene, read in batch if not isinstance(read, SampleError)]
        for scene, read in batch:
            if isinstance(read, SampleError):  # readable a moment ago
                failures[scene.id] = RowFailure(scene.id, str(read))
        for epoch in range(sampling.epochs):
            looks = [augmented(image, labels, sampling.seed, scene.id, epoch) for scene, image, labels in good]
            for group in groups:
                results = group.maps([image for image, _ in looks], [group.content(image) for _, image, _ in good])
                for (scene, _, _), (_, labels), maps in zip(good, looks, results, strict=True):
                    try:
                        if isinstance(maps, SampleError):
                            raise maps
                        number = ranks[scene.id] * sampling.epochs + epoch
                        _add(group, scene.id, maps, labels, truth, total, sampling, number, len(drawn))
                    except SampleError as error:
                        failures[scene.id] = RowFailure(scene.id, str(error))
        done += len(batch)
        progress(done, len(drawn))
    for group in groups:
        for labeller in group.labellers.values():
            labeller.close()
    return list(failures.values())


def _add(
    group: Group,
    image_id: str,
    maps: Maps,
    labels: Labels,
    truth: Truth,
    total: NDArray[np.float64] | None,
    sampling: Sampling,
    number: int,
    images: int,
) -> None:
    histograms = patch_histograms(labels, next(iter(maps.values())).shape[:2], truth.classes, truth.ignore)
    flat = histograms.reshape(-1, truth.classes)
    rank, epoch = divmod(number, sampling.epochs)
    rng = generator(sampling.seed, image_id, f"segment patches {epoch}")
    positions = draw_patches(flat, sampling.share(number, images), rng, total)
    asked, judged = None, None
    if epoch == 0 and rank < ASKED_IMAGES:
        asked = draw_patches(flat, ASKED_PATCHES, generator(sampling.seed, image_id, "segment asked"))
        judged = _pixels(labels, histograms.shape[:2], truth, generator(sampling.seed, image_id, "segment judged"))
    for labeller in group.labellers.values():
        auto = labeller.voting.auto
        labeller.add(maps, histograms, image_id, positions, asked if auto else None, judged if auto else None)


def _pixels(labels: Labels, grid: Sequence[int], truth: Truth, rng: np.random.Generator) -> Judged:
    """Labelled pixels, the same ones on every grid: the patch that each lies in, and its label."""
    rows, columns = np.nonzero(~np.isin(labels, truth.ignore))
    drawn = rng.permutation(len(rows))[:ASKED_PIXELS]
    rows, columns = rows[drawn], columns[drawn]
    inside = (rows * 2 + 1) * grid[0] // (2 * labels.shape[0]), (columns * 2 + 1) * grid[1] // (2 * labels.shape[1])
    return np.ravel_multi_index(inside, (grid[0], grid[1])), labels[rows, columns].astype(np.int64)


def read_ahead(
    scenes: Iterable[Scene], truth: Truth | None, workers: int, limits: Limits
) -> Iterator[tuple[Scene, tuple[Image.Image, Any] | SampleError]]:
    """Read scenes ahead: image and labels [H, W], or why they cannot be read. Without a truth labels are None."""
    yield from ahead(partial(_read, truth, limits), scenes, workers)


def _read(truth: Truth | None, limits: Limits, scene: Scene) -> tuple[Scene, tuple[Image.Image, Any] | SampleError]:
    try:
        if truth is None:
            return scene, (load_image(scene.image, limits), None)
        return scene, read_scene(scene, truth.classes, truth.ignore, limits)
    except SampleError as error:
        return scene, error


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items, the last one shorter."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
