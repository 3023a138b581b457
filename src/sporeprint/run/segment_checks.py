"""Both sets of images before anything is fitted: what their masks hold, and whether they are about the same classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from sporeprint.data.prefetch import ahead
from sporeprint.data.scenes.scenes import Scene, Scenes, read_mask
from sporeprint.errors import RecipeError, RowFailure, SampleError, SourceError, TooManyFailures
from sporeprint.features.dense.dense_features import DenseFeatures
from sporeprint.features.failures import Failures
from sporeprint.segment.training import Survey, Truth, survey

Progress = Callable[[str, int, int], None]
TRAIN, TEST = "TRAIN", "TEST"


@contextmanager
def rows_of(where: str) -> Iterator[None]:
    """Too many failures say in which set they are."""
    try:
        yield
    except TooManyFailures as error:
        raise TooManyFailures(f"{where}: {error}", error.failures) from None


def refuse_inside(out: Path, train: Path, test: Path) -> None:
    """Results that lie among the images would be images of the next run. Raises RecipeError."""
    inside = out.resolve()
    for where, source in ((TRAIN, train), (TEST, test)):
        folder = source.resolve()
        if folder.is_dir() and (inside == folder or folder in inside.parents):
            raise RecipeError(
                f"--out '{out}' is inside {where} ('{source}'), where its masks and sheet would be taken for images; "
                f"give a folder beside it, such as '{source.absolute().parent / (folder.name + '-segmented')}'"
            )


def refuse_other_names(train: Scenes, test: Scenes, truth: Truth) -> None:
    """Raises SourceError for the first class that has one name in TRAIN and another in TEST."""
    pairs = list(zip(train.names or (), test.names or (), strict=False))[: truth.classes]
    for label, (one, other) in enumerate(pairs):
        if one and other and label not in truth.ignore and _bare(one) != _bare(other):
            raise SourceError(
                f"class {label} is called {one!r} in TRAIN, {other!r} in TEST; expected the same classes by the same "
                "label values: mend classes.txt, classes.json or the masks of one of them"
            )


def look_at_training(
    scenes: Scenes,
    features: Sequence[DenseFeatures],
    truth: Truth,
    max_failures: float,
    progress: Progress,
    say: Callable[[str], None],
) -> Survey:
    """Training images that every group can take and that have a label; counts are those of the first group.

    Raises TooManyFailures, SampleError where no such image is left.
    """
    total = len(scenes)
    with rows_of(TRAIN):
        found, *others = (
            survey(scenes, one, truth, (max_failures, total), lambda done, all: progress("training masks", done, all))
            for one in features
        )
        reasons = {one.id: one for each in (found, *others) for one in each.failures}
        Failures(max_failures, total).extend(reasons.values())
    good = {row_id: count for row_id, count in found.counts.items() if row_id not in reasons}
    counts = {row_id: count for row_id, count in good.items() if count.any()}
    if len(counts) < len(good):
        say(f"{len(good) - len(counts)} of {total} training images are void all over, and left out")
    if not counts:
        raise SampleError(f"no training image of {total} has a label: look at --ignore, and at the masks of TRAIN")
    return Survey(counts, list(reasons.values()))


def look_at_test(
    scenes: Iterable[Scene], total: int, truth: Truth, workers: int, max_failures: float, progress: Progress
) -> dict[str, str]:
    """Why masks of TEST cannot be used, by id. Raises TooManyFailures, SampleError where no pixel has a label."""
    reasons: dict[str, str] = {}
    seen: set[int] = set()
    for done, (row_id, found) in enumerate(ahead(partial(_values, truth), scenes, workers), 1):
        if isinstance(found, SampleError):
            reasons[row_id] = f"mask: {found}"
            with rows_of(TEST):
                Failures(max_failures, total).extend(RowFailure(*failure) for failure in reasons.items())
        else:
            seen |= found
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


def told(train: Iterable[RowFailure], test: Iterable[RowFailure], reasons: Mapping[str, str]) -> list[dict[str, str]]:
    """Failures as in result.json. reasons: of `look_at_test`, which say more."""
    said = [RowFailure(one.id, reasons.get(one.id, one.reason)) for one in test]
    return [{**one.to_json(), "where": where} for where, rows in ((TRAIN, train), (TEST, said)) for one in rows]


def _values(truth: Truth, scene: Scene) -> tuple[str, set[int] | SampleError]:
    """The label values of a scene's mask."""
    try:
        values = set(np.unique(read_mask(scene.mask, None, truth.ignore, scene.colours)).tolist())
        if unknown := {one for one in values if one >= truth.classes} - set(truth.ignore):
            raise SampleError(
                f"label values {_listed(unknown)}; there are {truth.classes} classes, 0 to {truth.classes - 1}: leave "
                f"them out if they are void (--ignore {_listed({*truth.ignore, *unknown}, ',')}), give --classes "
                f"{max(unknown) + 1} if they are classes that TRAIN does not have, or mend the mask"
            )
        return scene.id, values
    except SampleError as error:
        return scene.id, error


def _listed(values: set[int], between: str = ", ") -> str:
    return between.join(map(str, sorted(values)))


def _bare(name: str) -> str:
    return name.strip().casefold()
