"""Both sets of images of `segment` before anything is fitted: opened, and their masks and classes checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sporeprint.data.limits import Limits
from sporeprint.data.prefetch import ahead
from sporeprint.data.scenes.masks import label_values, read_mask
from sporeprint.data.scenes.scenes import Scene, Scenes, open_scenes
from sporeprint.errors import RowFailure, SampleError, SourceError, TooManyFailures
from sporeprint.features.dense.dense_features import DenseFeatures
from sporeprint.features.failures import Failures
from sporeprint.segment.training import Survey, Truth, survey

Progress = Callable[[str, int, int], None]
TRAIN, TEST = "TRAIN", "TEST"


@dataclass(frozen=True)
class Pair:
    """A pair of sets of images. truth: whether the test images have masks. note: for the user, about the two."""

    train: Scenes
    test: Scenes
    truth: bool
    note: str = ""


def open_pair(
    train: Path,
    test: Path,
    train_split: str | None,
    test_split: str | None,
    columns: dict[str, Any],
    limit: int | None,
    truth: bool,
) -> Pair:
    """Open both sets of images. Where no masks of TEST are found, and none were asked for, `note` says so.

    Raises SourceError.
    """
    train_scenes = open_scenes(train, split=train_split, limit=limit, **columns)
    alone: dict[str, Any] = {**columns, "mask_column": None}
    if not truth:
        return Pair(train_scenes, open_scenes(test, split=test_split, limit=limit, masks=False, **alone), False)
    try:
        return Pair(train_scenes, open_scenes(test, split=test_split, limit=limit, **columns), True)
    except SourceError as error:
        if columns["mask_column"] is not None:
            raise
        try:
            images = open_scenes(test, split=test_split, limit=limit, masks=False, **alone)
        except SourceError:
            raise error from None
        return Pair(train_scenes, images, False, f"TEST has no masks, so this predicts only: {error}")


@contextmanager
def rows_of(where: str) -> Iterator[None]:
    """Add the name of the set to a failure of too many rows."""
    try:
        yield
    except TooManyFailures as error:
        raise TooManyFailures(f"{where}: {error}", error.failures) from None


def refuse_other_names(train: Scenes, test: Scenes, truth: Truth) -> None:
    """Raise SourceError for the first class that has one name in TRAIN and another in TEST."""
    pairs = list(zip(train.names or (), test.names or (), strict=False))[: truth.classes]
    for label, (name, other) in enumerate(pairs):
        if name and other and label not in truth.ignore and _bare(name) != _bare(other):
            raise SourceError(
                f"class {label} is called {name!r} in TRAIN, {other!r} in TEST; expected the same classes by the same "
                "label values: correct classes.txt, classes.json or the masks of one of them"
            )


def look_at_training(
    scenes: Scenes,
    features: Sequence[DenseFeatures],
    truth: Truth,
    max_failures: float,
    progress: Progress,
    say: Callable[[str], None],
) -> Survey:
    """Survey the training images: those that every group can take and that have a label, with the first group's counts.

    Raises TooManyFailures, SampleError where no such image is left.
    """
    total = len(scenes)
    with rows_of(TRAIN):
        first, *others = (
            survey(scenes, dense, truth, (max_failures, total), lambda done, all: progress("training masks", done, all))
            for dense in features
        )
        reasons = {failure.id: failure for surveyed in (first, *others) for failure in surveyed.failures}
        Failures(max_failures, total).extend(reasons.values())
    good = {row_id: count for row_id, count in first.counts.items() if row_id not in reasons}
    counts = {row_id: count for row_id, count in good.items() if count.any()}
    if len(counts) < len(good):
        say(f"{len(good) - len(counts)} of {total} training images are void all over, and left out")
    if not counts:
        raise SampleError(f"no training image of {total} has a label: look at --ignore, and at the masks of TRAIN")
    return Survey(counts, list(reasons.values()))


def look_at_test(
    scenes: Iterable[Scene],
    total: int,
    truth: Truth,
    workers: int,
    limits: Limits,
    max_failures: float,
    progress: Progress,
) -> dict[str, str]:
    """The reason why a mask of TEST cannot be used, by id. Raises TooManyFailures; SampleError where all is void."""
    reasons: dict[str, str] = {}
    failures = Failures(max_failures, total)
    seen: set[int] = set()
    for done, (row_id, values) in enumerate(ahead(partial(_values, truth, limits), scenes, workers), 1):
        if isinstance(values, SampleError):
            reasons[row_id] = f"mask: {values}"
            with rows_of(TEST):
                failures.add(row_id, reasons[row_id])
        else:
            seen |= values
        progress("test masks", done, total)
    if not seen - set(truth.ignore):
        first = next(iter(reasons.items()), None)
        held = f"they hold {_listed(seen)}" if seen else f"none can be read ({': '.join(first or ())})"
        void = f", and {_listed(set(truth.ignore))} are void" if truth.ignore else ""
        raise SampleError(
            f"no pixel of the masks of TEST is labelled: {held}{void}; give another --ignore, or --no-truth to predict "
            "without comparing"
        )
    return reasons


def failures_json(
    train: Iterable[RowFailure], test: Iterable[RowFailure], reasons: Mapping[str, str]
) -> list[dict[str, str]]:
    """The failures of both sets as result.json has them. reasons: of `look_at_test`, which say more."""
    explained = [RowFailure(failure.id, reasons.get(failure.id, failure.reason)) for failure in test]
    sets = ((TRAIN, train), (TEST, explained))
    return [{**failure.to_json(), "where": where} for where, failures in sets for failure in failures]


def _values(truth: Truth, limits: Limits, scene: Scene) -> tuple[str, set[int] | SampleError]:
    """The label values of a scene's mask."""
    try:
        values = set(label_values(read_mask(scene.mask, None, truth.ignore, scene.colours, limits)))
        if unknown := {value for value in values if value >= truth.classes} - set(truth.ignore):
            raise SampleError(
                f"label values {_listed(unknown)}; there are {truth.classes} classes, 0 to {truth.classes - 1}: leave "
                f"them out if they are void (--ignore {_listed({*truth.ignore, *unknown}, ',')}), give --classes "
                f"{max(unknown) + 1} if they are classes that TRAIN does not have, or correct the mask"
            )
        return scene.id, values
    except SampleError as error:
        return scene.id, error


def _listed(values: set[int], between: str = ", ") -> str:
    return between.join(map(str, sorted(values)))


def _bare(name: str) -> str:
    return name.strip().casefold()
