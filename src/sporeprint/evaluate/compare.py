"""Does it help here, how much, at what cost: combinations against controls of equal cost, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.combine import Blocks, Combination, family
from sporeprint.errors import SampleError
from sporeprint.evaluate.analyse import analyse
from sporeprint.evaluate.comparison import Changed, Compared, Comparison, Neighbour
from sporeprint.evaluate.intervals import bootstrap_difference, bootstrap_mean, repeated_splits, split_interval
from sporeprint.evaluate.measure import ALL, FREE, Facts, Info, Measured
from sporeprint.evaluate.neighbours import neighbours
from sporeprint.evaluate.rows import check_same_kind, features_of, labels_of
from sporeprint.evaluate.select import MOST_ROWS, select

_SHOWN = 12  # test rows whose neighbours are kept


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
    splits: int = 10,
    most_rows: int = MOST_ROWS,
    level: float = 0.95,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Measure the embedding, every block, controls and combinations on the test rows; choose on the training rows.

    train, test: blocks [N, D], [M, D] by name. Without test, `splits` stratified splits of train stand in for it, 30 %
    of the rows held out in each, with Nadeau and Bengio's corrected interval. info: `Store.blocks_info`. seconds:
    spent on each set of views for `rows_timed` rows, as a store's cost says. ids: for the neighbours shown.
    k is chosen for every entry by leave-one-out on the training rows (at most `most_rows` of them ask), and so are the
    reference and what is called chosen: the test rows have no say. Of more training rows all remain neighbours.
    Raises SampleError for rows with NaN and labels that do not match.
    """
    train = {name: features_of(rows, f"train block {name!r}") for name, rows in train.items()}
    labels = labels_of(labels, len(train["embedding"]), "train")
    facts = Facts(info, seconds or {}, rows_timed)
    told = {"train_rows": len(labels), "classes": len(np.unique(labels)), "metric": "euclidean", "vote": "uniform"}
    told |= {"level": level, "seed": seed, **(settings or {})}
    if test is None:
        return _of_splits(train, labels, facts, splits, most_rows, level, seed, told)
    test = {name: features_of(test[name], f"test block {name!r}") for name in train}
    names = labels_of(test_labels if test_labels is not None else [], len(test["embedding"]), "test")
    check_same_kind(labels, names)
    measured = Measured(train, labels, test, names, facts, most_rows, seed)
    right = {name: guess == names for name, guess in measured.guesses.items()}
    base = right[measured.reference]
    entries = [
        replace(
            entry,
            value=bootstrap_mean(right[entry.name], level=level, seed=seed),
            gain=bootstrap_difference(base, right[entry.name], level=level, seed=seed),
        )
        for entry in measured.entries
    ]
    before, after = (measured.guesses[one] for one in (measured.reference, ALL))
    figures = analyse(train, names, before, after, seed=seed)
    return Comparison(
        verdict=verdict(entries, measured.reference),
        entries=tuple(entries),
        reference=measured.reference,
        free=FREE,
        chosen=ALL,
        classes=figures.classes,
        analysis=figures,
        changed=tuple(_changed(measured, ids, test_ids)),
        settings={**told, "test_rows": len(names), "intervals": "bootstrap over test rows"},
    )


def verdict(entries: Sequence[Compared], reference: str) -> str:
    """One sentence: what to use here, the expected gain with its interval, and its price."""
    by_name = {one.name: one for one in entries}
    base, free, everything = by_name[reference], by_name[FREE], by_name[ALL]
    sure = [one for one in (free, everything) if one.gain.low > 0]
    if not sure:
        most = max((free, everything), key=lambda one: one.gain.value)
        tried = f"the best choice brought {most.gain}" if most.combination != base.combination else "nothing beat it"
        return f"The {reference} alone is as good here (top-1 {base.value}): {tried}."
    best = sure[0]
    # More passes must show that they bring more, not only that they bring something.
    if everything in sure and (best is not free or everything.gain.low > free.gain.value):
        best = everything
    what = f"{' + '.join(_families(best))}, {_how(best.combination)}"
    return (
        f"Use {what}: {best.gain} over the {reference} (top-1 {base.value.value:.1%}), for {_price(best, base)}"
        f"{_also(best, free, everything)}."
    )


def _also(best: Compared, free: Compared, everything: Compared) -> str:
    if best is free and everything.passes > free.passes:
        return f"; {everything.passes} passes instead bring {everything.gain}"
    return f"; one pass brings {free.gain}" if best is everything and best.passes > 1 else ""


def _families(entry: Compared) -> list[str]:
    return list(dict.fromkeys(family(name) for name in entry.blocks))


def _how(one: Combination) -> str:
    how = "as they are" if one.whiten is None else f"whitened with exponent {one.exponent:g}"
    return f"{how}, every family alike" if one.weights is not None else how


def _price(entry: Compared, base: Compared) -> str:
    passes = "one pass" if entry.passes == 1 else f"{entry.passes} passes"
    rate = "" if entry.rows_per_second is None else f", {entry.rows_per_second:,.3g} rows/s"
    return f"{passes} a row{rate}, {entry.bytes_per_row:,} bytes a row against {base.bytes_per_row:,}"


def _changed(measured: Measured, ids: Sequence[str] | None, test_ids: Sequence[str] | None) -> Iterator[Changed]:
    """Test rows that one of the two classifies rightly and the other not, in turn; nothing is picked by its look."""
    names = measured.test_labels
    before, after = measured.guesses[measured.reference], measured.guesses[ALL]
    better = np.flatnonzero((before != names) & (after == names))
    worse = np.flatnonzero((before == names) & (after != names))
    half = _SHOWN // 2
    many = min(len(better), max(half, _SHOWN - len(worse)))
    rows = np.concatenate([better[:many], worse[: _SHOWN - many]])
    if not len(rows):
        return
    found = []
    for name in (measured.reference, ALL):
        combination = next(one.combination for one in measured.entries if one.name == name)
        _, features, asked = measured.features(combination)
        found.append(np.concatenate([near for near, _ in neighbours(features, asked[rows], min(5, len(features)))]))

    def show(near: NDArray[np.intp]) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(int(row), str(row) if ids is None else ids[row], str(measured.labels[row])) for row in near
        )

    for at, row in enumerate(rows.tolist()):
        yield Changed(
            row=row,
            id=str(row) if test_ids is None else test_ids[row],
            label=str(names[row]),
            before=str(before[row]),
            after=str(after[row]),
            neighbours_before=show(found[0][at]),
            neighbours_after=show(found[1][at]),
        )


def _of_splits(
    blocks: Blocks,
    labels: NDArray[Any],
    facts: Facts,
    splits: int,
    most_rows: int,
    level: float,
    seed: int,
    told: dict[str, Any],
) -> Comparison:
    """The same without a test set: choice and measure are repeated on splits, each blind to its own test rows."""
    runs: list[Measured] = []
    held = 0.0
    for train_rows, test_rows in repeated_splits(labels, 0.3, splits, seed):
        parts = [{name: block[rows] for name, block in blocks.items()} for rows in (train_rows, test_rows)]
        runs.append(Measured(parts[0], labels[train_rows], parts[1], labels[test_rows], facts, most_rows, seed))
        held += len(test_rows) / len(labels) / splits
    if not runs:
        raise SampleError(f"splits={splits}; expected at least one")
    whole = select(blocks, labels, most_rows=most_rows, seed=seed)
    scores = {
        one.name: np.array([(run.guesses[one.name] == run.test_labels).mean() for run in runs])
        for one in runs[0].entries
    }
    base = np.array([(run.guesses[run.reference] == run.test_labels).mean() for run in runs])
    free = select({name: blocks[name] for name in facts.free(list(blocks))}, labels, most_rows=most_rows, seed=seed)
    entries = []
    for at, entry in enumerate(runs[0].entries):
        mean = split_interval(scores[entry.name], held, level)
        now = {FREE: free, ALL: whole}.get(entry.name)
        if now is not None:  # the price is of what all rows choose, the gain of choosing
            combiner = now.combination.fit(blocks)
            entry = replace(entry, combination=now.combination, k=now.k, **facts.price(combiner))
        entries.append(
            replace(
                entry,
                value=replace(mean, difference=False),
                gain=split_interval(scores[entry.name] - base, held, level),
                leave_one_out=float(np.mean([run.entries[at].leave_one_out for run in runs])),
                mean_per_class=float(np.mean([run.entries[at].mean_per_class for run in runs])),
            )
        )
    names = np.concatenate([run.test_labels for run in runs])
    before = np.concatenate([run.guesses[run.reference] for run in runs])
    after = np.concatenate([run.guesses[ALL] for run in runs])
    figures = analyse(blocks, names, before, after, seed=seed)
    return Comparison(
        verdict=verdict(entries, whole.reference),
        entries=tuple(entries),
        reference=whole.reference,
        free=FREE,
        chosen=ALL,
        classes=figures.classes,
        analysis=figures,
        settings={**told, "splits": splits, "held_out": held, "intervals": "repeated splits (Nadeau and Bengio)"},
        notes=("no test set: figures are means over repeated splits of the training rows",),
    )
