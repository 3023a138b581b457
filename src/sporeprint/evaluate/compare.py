"""Does it help here, how much, at what cost? Combinations against controls of equal cost, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.analyse import analyse
from sporeprint.evaluate.choice.candidates import CHOICES, FREE
from sporeprint.evaluate.choice.group_splits import groups_note, groups_within
from sporeprint.evaluate.choice.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    repeated_splits,
    split_interval,
)
from sporeprint.evaluate.choice.leave_one_out import MOST_ROWS, silent
from sporeprint.evaluate.choice.trained import Guesses, Trained
from sporeprint.evaluate.choice.verdict import reasons, verdict
from sporeprint.evaluate.comparison import Changed, Comparison, Neighbour
from sporeprint.evaluate.few_shot_comparison import few_shot_comparison
from sporeprint.evaluate.table import Costs, Info
from sporeprint.features.blocks import Blocks, check_blocks
from sporeprint.predictors.checks import check_classes, check_same_kind, features_of, labels_of
from sporeprint.predictors.groups import groups_of
from sporeprint.search.neighbours import neighbours
from sporeprint.values import check_count, check_mapping

_SHOWN = 12  # test rows whose neighbours are kept


@quiet_floats
def compare(
    train: Blocks,
    labels: ArrayLike,
    test: Blocks | None,
    test_labels: ArrayLike | None,
    info: Info,
    seconds: Mapping[str, float] | None = None,
    rows_timed: int = 0,
    ids: Sequence[str] | None = None,
    test_ids: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    test_groups: ArrayLike | None = None,
    splits: int = 10,
    shots: int | None = None,
    draws: int = 5,
    most_rows: int = MOST_ROWS,
    level: float = 0.95,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Measure the embedding, every block, controls and combinations on the test rows; choose on the training rows.

    train, test: blocks [N, D], [M, D] by name. Without test, `splits` stratified splits of train stand in for it, 30 %
    of the rows held out in each, with Nadeau and Bengio's corrected interval: every split makes its own choice, of
    every k too, while entries show what all rows choose. All rows, tested ones too, name the reference that all splits
    share, and say which choice is recommended: that of one pass, or the one among everything.
    info: `Store.blocks_info`. seconds: spent on each set of views for `rows_timed` rows, as a store's cost says. ids,
    test_ids: of the rows, for the neighbours shown. groups, test_groups: [N], [M]; rows of one group (clips of one
    source, frames of one video) are left out, drawn and held out together. progress: called with each step as it
    begins.
    Every entry has an accuracy by three judges: kNN, closed form (the best of LDA, ridge and class means) and, for the
    main entries, the probe. What they choose (k, the penalty, which of the three) is chosen by leave-one-out on the
    training rows (at most `most_rows` of them), and so are the reference and what is called chosen: the test rows have
    no say. Each predictor is then fitted on all training rows.
    shots: labelled rows of each class, drawn `draws` times; see `few_shot_comparison`. It needs test rows.
    Intervals are of these choices on other test rows; other training rows, which might choose otherwise, are not in
    the bootstrap. A test row whose label no training row has is wrong for every entry.
    Raises SampleError for rows with NaN, blocks and labels that do not match, labels that are amounts (`regress` is for
    them), fewer than two training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import KL, Fungi, Recipe, compare
    >>> images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    >>> images[::2, ..., 0] = 255  # every second image is red
    >>> labels = ["red", "grey"] * 8
    >>> fungi = Fungi(Recipe(backbone="tiny", objectives=[KL()], layers=0))
    >>> train, test = fungi.fit_blocks(images[:8]), fungi.blocks(images[8:])
    >>> comparison = compare(train, labels[:8], test, labels[8:], fungi.block_info())
    >>> print(comparison)  # doctest: +ELLIPSIS
    Use the embedding with ...
    >>> comparison.entry("kl alone").passes
    1
    """
    progress = progress or silent
    check_count("seed", seed, 0, SampleError)
    check_mapping("info", info, "what `Fungi.block_info()` gives, or `Store.blocks_info`", SampleError)
    check_blocks(train, SampleError, "train blocks")
    train = blocks_of(train, list(train), "train")
    labels = labels_of(labels, len(train["embedding"]), "train")
    check_classes(labels)
    if missing := [name for name in train if name not in info]:
        raise SampleError(f"info says nothing of block {missing[0]!r}; expected its family, views and passes")
    _check_ids(ids, len(labels), "train")
    costs = Costs(info, seconds, rows_timed)
    known: dict[str, Any] = {"train_rows": len(labels), "classes": len(np.unique(labels))}
    known |= {"level": level, "seed": seed, **(settings or {})}
    if len(labels) > most_rows:
        known["rows that choose"] = most_rows
    if groups is not None:
        known["groups"] = len(groups_of(groups, len(labels)))
    if test is None:
        if shots is not None:
            raise SampleError(f"shots={shots!r} without test rows; give test rows, or leave out shots")
        return _of_splits(train, labels, groups, costs, splits, most_rows, level, seed, known, progress)
    test = blocks_of(test, list(train), "test")
    names = labels_of(test_labels if test_labels is not None else [], len(test["embedding"]), "test")
    check_same_kind(labels, names)
    _check_ids(test_ids, len(names), "test")
    if shots is not None:
        return few_shot_comparison(
            train,
            labels,
            test,
            names,
            costs,
            shots,
            draws,
            groups,
            test_groups,
            most_rows,
            level,
            seed,
            known,
            progress,
        )
    trained = Trained(train, labels, costs, most_rows, seed, groups, progress)
    return comparison_of(trained, test, names, ids, test_ids, test_groups, level, seed, known, progress)


def comparison_of(
    trained: Trained,
    test: Blocks,
    names: NDArray[Any],
    ids: Sequence[str] | None,
    test_ids: Sequence[str] | None,
    test_groups: ArrayLike | None,
    level: float,
    seed: int,
    known: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Comparison:
    """What the training rows decided, measured on the test rows and their labels, `names` [M]."""
    guesses = trained.guesses(test, progress)
    progress("intervals, and what the blocks share")
    right = {name: {judge: guess == names for judge, guess in judged.items()} for name, judged in guesses.items()}
    base = right[trained.reference][trained.entry(trained.reference).judge]
    drawn: dict[str, Any] = {"level": level, "seed": seed, "groups": test_groups}
    entries = trained.measured(
        lambda name, judge: (
            bootstrap_mean(right[name][judge], **drawn),
            mean_per_class(right[name][judge], names),
            bootstrap_difference(base, right[name][judge], **drawn),
        )
    )
    before, after = (guesses[name][trained.entry(name).judge] for name in (trained.reference, trained.recommended))
    figures = analyse(trained.train, names, before, after, seed=seed)
    return Comparison(
        verdict=verdict(entries, trained.reference, trained.recommended),
        entries=entries,
        reference=trained.reference,
        free=FREE,
        chosen=trained.recommended,
        classes=figures.classes,
        analysis=figures,
        predictor=trained.predictor,
        changed=tuple(_changed(trained, test, names, before, after, ids, test_ids)),
        settings={**known, "test_rows": len(names), "intervals": "bootstrap over test rows"},
        notes=(*reasons(entries, trained.reference, trained.recommended), *trained.notes),
    )


def blocks_of(blocks: Blocks, names: Sequence[str], which: str) -> dict[str, NDArray[np.float32]]:
    check_blocks(blocks, SampleError, f"{which} blocks")
    if missing := [name for name in ("embedding", *names) if name not in blocks]:
        raise SampleError(f"{which} has no block {missing[0]!r}; there are: {', '.join(blocks)}")
    arrays = {name: features_of(blocks[name], f"{which} block {name!r}") for name in names}
    if len(rows := {len(block) for block in arrays.values()}) > 1:
        raise SampleError(f"{which} blocks have {sorted(rows)} rows; expected the same rows in each")
    return arrays


def _check_ids(ids: Sequence[str] | None, rows: int, which: str) -> None:
    if ids is not None and len(ids) != rows:
        raise SampleError(f"{len(ids)} {which} ids for {rows} rows; expected one a row, or None")


def _share(interval: Interval) -> Interval:
    """The interval of an accuracy, which a t interval may take below 0 or above 1."""
    low, high = np.clip((interval.low, interval.high), 0, 1).tolist()  # NaN stays
    return replace(interval, low=low, high=high, difference=False)


def _changed(
    trained: Trained,
    test: Blocks,
    names: NDArray[Any],
    before: NDArray[Any],
    after: NDArray[Any],
    ids: Sequence[str] | None,
    test_ids: Sequence[str] | None,
) -> Iterator[Changed]:
    """The test rows that only one of the two classifies rightly: those that gain, then those that lose.

    Where there are many, as many of each are taken, evenly spaced, since sources often come sorted by class; nothing is
    picked by its look.
    """
    better = np.flatnonzero((before != names) & (after == names))
    worse = np.flatnonzero((before == names) & (after != names))
    most = max(_SHOWN // 2, _SHOWN - len(worse))
    better = _spaced(better, most)
    rows = np.concatenate([better, _spaced(worse, _SHOWN - len(better))])
    if not len(rows):
        return
    nearest = []
    for name in (trained.reference, trained.recommended):
        features, others = trained.features(name, {block: test[block][rows] for block in trained.train})
        nearest.append(np.concatenate([near for near, _ in neighbours(features, others, 5)]))

    def show(near: NDArray[np.intp]) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(int(row), str(row) if ids is None else ids[row], str(trained.labels[row])) for row in near
        )

    for at, row in enumerate(rows.tolist()):
        yield Changed(
            row=row,
            id=str(row) if test_ids is None else test_ids[row],
            label=str(names[row]),
            before=str(before[row]),
            after=str(after[row]),
            neighbours_before=show(nearest[0][at]),
            neighbours_after=show(nearest[1][at]),
        )


def _spaced(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def _of_splits(
    blocks: Blocks,
    labels: NDArray[Any],
    groups: ArrayLike | None,
    costs: Costs,
    splits: int,
    most_rows: int,
    level: float,
    seed: int,
    known: dict[str, Any],
    progress: Callable[[str], None],
) -> Comparison:
    """A comparison without a test set: choice and measure are repeated on splits, each blind to its own test rows.

    All rows name the reference: one that moved with the splits would be no baseline that anyone could use, and a weaker
    one, from fewer rows. They also say which choice is recommended, of one pass or among everything: each is an entry,
    and measured as each split makes it.
    """
    if groups is not None and (count := len(groups_of(groups, len(labels)))) < 3:
        raise SampleError(
            f"{len(labels)} rows are of {count} groups; splits test whole groups, and leave out others of the rest: "
            "expected at least 3 groups, or test rows"
        )
    whole = Trained(blocks, labels, costs, most_rows, seed, groups, progress, probe=False)
    apart: list[NDArray[Any] | None] = []
    runs: list[tuple[Trained, Guesses, NDArray[Any]]] = []  # of each split, with the labels that it tests
    for number, (rows, others) in enumerate(repeated_splits(labels, 0.3, splits, seed, groups), 1):

        def of_split(step: str, number: int = number) -> None:
            progress(f"split {number} of {splits}: {step}")

        part, rest = ({name: block[subset] for name, block in blocks.items()} for subset in (rows, others))
        apart.append(groups_within(groups, rows, len(labels)))
        trained = Trained(part, labels[rows], costs, most_rows, seed, apart[-1], of_split, probe=False)
        trained.refer_to(*whole.pair)
        runs.append((trained, trained.guesses(rest, of_split), labels[others]))
    named = np.concatenate([names for *_, names in runs])
    held = len(named) / len(runs) / len(labels)
    progress("intervals, and what the blocks share")

    def guesses(name: str, judge: str) -> list[NDArray[Any]]:
        """What each split says; of a choice with its own predictor, each split has its own choice of both."""
        own = name in CHOICES and judge == whole.entry(name).judge
        return [guess[name][trained.entry(name).judge if own else judge] for trained, guess, _ in runs]

    def rights(name: str, judge: str) -> list[NDArray[np.bool_]]:
        return [guess == names for guess, (*_, names) in zip(guesses(name, judge), runs, strict=True)]

    def scores(name: str, judge: str) -> NDArray[np.float64]:
        return np.array([right.mean() for right in rights(name, judge)])

    base = scores(whole.reference, whole.entry(whole.reference).judge)
    entries = whole.measured(
        lambda name, judge: (
            _share(split_interval(scores(name, judge), held, level)),
            float(
                np.mean([mean_per_class(right, run[2]) for right, run in zip(rights(name, judge), runs, strict=True)])
            ),
            split_interval(scores(name, judge) - base, held, level),
        )
    )
    before, after = (
        np.concatenate(guesses(name, whole.entry(name).judge)) for name in (whole.reference, whole.recommended)
    )
    figures = analyse(blocks, named, before, after, seed=seed)
    return Comparison(
        verdict=verdict(entries, whole.reference, whole.recommended),
        entries=entries,
        reference=whole.reference,
        free=FREE,
        chosen=whole.recommended,
        classes=figures.classes,
        analysis=figures,
        predictor=whole.predictor,
        settings={**known, "splits": splits, "held_out": held, "intervals": "repeated splits (Nadeau and Bengio)"},
        notes=(
            *reasons(entries, whole.reference, whole.recommended),
            *whole.notes,
            *(() if groups is None else groups_note(apart, "splits")),
            f"no test set: {splits} times {held:.0%} of the rows were held out for testing, and the rest chose "
            "features and predictors; figures are means of these splits, and a class's test rows count once in each",
            "what is named here (the reference, the choices, the predictors, and that the choice is of one pass or of "
            "all) was chosen on all rows, held-out ones too; in a split, its own rows may have chosen otherwise",
        ),
    )
