"""Which backbone? Several of them on the same rows: features and predictor of each, chosen together, and the price."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.choice.guard import GUARD, surely_better
from sporeprint.evaluate.choice.intervals import Interval, bootstrap_difference, bootstrap_mean
from sporeprint.evaluate.choice.judges import title_of_predictor
from sporeprint.evaluate.choice.leave_one_out import MOST_ROWS, Outcome, silent
from sporeprint.evaluate.choice.trained import Trained
from sporeprint.evaluate.choice.verdict import is_pair, is_worth, pair, passes_of
from sporeprint.evaluate.compare import blocks_of, comparison_of
from sporeprint.evaluate.comparison import Accuracy, Comparison
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.table import Costs, Entry, Info
from sporeprint.features.blocks import Blocks
from sporeprint.predictors.checks import check_classes, check_same_kind, labels_of
from sporeprint.values import check_count


@dataclass(frozen=True)
class BackboneRows:
    """What one backbone says of the training rows [N] and the test rows [M], by block, with their labels and ids.

    info: `Store.blocks_info`, or `Fungi.block_info()`. seconds, rows_timed: as of `compare`.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import BackboneRows
    >>> info = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
    >>> blocks = {"embedding": np.eye(2)}
    >>> BackboneRows("small", blocks, ["cat", "dog"], ["a", "b"], blocks, ["cat", "dog"], ["c", "d"], info).name
    'small'
    """

    name: str
    train: Blocks
    labels: ArrayLike
    ids: Sequence[str]
    test: Blocks
    test_labels: ArrayLike
    test_ids: Sequence[str]
    info: Info
    seconds: Mapping[str, float] | None = None
    rows_timed: int = 0


@dataclass(frozen=True)
class BackboneEntry:
    """One backbone of the table.

    base: the best that its embedding alone gives. choice: the features and the predictor that its training rows choose.
    Both have one result, whose gain is over the one reference of all backbones. behind: what the verdict says to use
    gains over this choice, on the same test rows.
    """

    name: str
    base: Entry
    choice: Entry
    behind: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "base": self.base.to_json(),
            "choice": self.choice.to_json(),
            "behind": self.behind.to_json(),
        }


@dataclass(frozen=True)
class BackboneComparison:
    """What `compare_backbones` returns.

    verdict: which backbone, which features, which predictor, the gain and the price, in at most 25 words. backbones: in
    the order given. reference: the name of the backbone whose embedding alone is best on the training rows. chosen:
    the name of the one to use, with its `used` entry: "choice", or "base", its embedding alone, where the training
    rows' choice is no better on the test rows. comparison: of the chosen one, as `compare` gives it. settings: rows,
    classes, level and the like. notes: what a reader must know.
    """

    verdict: str
    backbones: tuple[BackboneEntry, ...]
    reference: str
    chosen: str
    comparison: Comparison
    used: str = "choice"
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.verdict

    def backbone(self, name: str) -> BackboneEntry:
        """The entry of that name."""
        return next(entry for entry in self.backbones if entry.name == name)

    @property
    def advised(self) -> Entry:
        """The entry of the chosen backbone that the verdict says to use."""
        entry = self.backbone(self.chosen)
        return entry.choice if self.used == "choice" else entry.base

    def noted(self, notes: Iterable[str]) -> BackboneComparison:
        """This comparison with more notes, first."""
        return replace(self, notes=(*notes, *self.notes))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        whole = {**self.__dict__, "backbones": [entry.to_json() for entry in self.backbones]}
        return dict(plain({**whole, "comparison": self.comparison.to_json()}))


@quiet_floats
def compare_backbones(
    backbones: Sequence[BackboneRows],
    groups: Mapping[str, Any] | None = None,
    test_groups: Mapping[str, Any] | None = None,
    most_rows: int = MOST_ROWS,
    level: float = 0.95,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> BackboneComparison:
    """Which backbone to use, with which features and predictor: chosen on the training rows, measured on the test rows.

    backbones: two or more, of the same rows in any order; rows are joined by their ids, and those that one backbone
    lacks are left out. The reference is the best predictor on the embedding alone (raw or half-white) of all backbones,
    by leave-one-out loss. Every backbone makes its choice as in `compare`; of these the one with the least loss is
    taken that is surely better than the reference, else the reference's own backbone. groups, test_groups: {id: group}.
    Raises SampleError for fewer than two backbones, names that are not unique, no common row, and a row whose labels
    are not the same.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import BackboneRows, compare_backbones
    >>> labels, ids = np.arange(60) % 3, [str(row) for row in range(60)]
    >>> info = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
    >>> def rows(name, noise):
    ...     rng = np.random.default_rng(0)
    ...     train, test = ({"embedding": np.eye(8)[labels] + noise * rng.normal(size=(60, 8))} for _ in range(2))
    ...     return BackboneRows(name, train, labels, ids, test, labels, ids, info)
    >>> compare_backbones([rows("small", 0.7), rows("large", 0.2)]).chosen
    'large'
    """
    progress = progress or silent
    check_count("seed", seed, 0, SampleError)
    names = [backbone.name for backbone in backbones]
    if len(names) < 2 or len(set(names)) < len(names):
        raise SampleError(f"backbones are {', '.join(names) or 'none'}; expected two or more, each with its own name")
    ids, train_rows, labels, lost = _joined([(one.name, one.ids, one.labels) for one in backbones], "training row")
    test_ids, test_rows, test_labels, test_lost = _joined(
        [(one.name, one.test_ids, one.test_labels) for one in backbones], "test row"
    )
    check_classes(labels)
    check_same_kind(labels, test_labels)
    apart = None if groups is None else np.array([groups[row] for row in ids], object)
    drawn: dict[str, Any] = {"level": level, "seed": seed}
    drawn["groups"] = None if test_groups is None else np.array([test_groups[row] for row in test_ids], object)
    trained, tests, guesses = [], [], []
    for one, rows, others in zip(backbones, train_rows, test_rows, strict=True):

        def of_backbone(step: str, name: str = one.name) -> None:
            progress(f"{name}: {step}")

        train = blocks_of(
            {name: np.asarray(block)[rows] for name, block in one.train.items()}, list(one.train), "train"
        )
        test = blocks_of({name: np.asarray(block)[others] for name, block in one.test.items()}, list(train), "test")
        costs = Costs(one.info, one.seconds, one.rows_timed)
        choice = Trained(train, labels, costs, most_rows, seed, apart, of_backbone)
        trained.append(choice)
        tests.append(test)
        guesses.append(choice.guesses(test, of_backbone, {choice.reference, choice.recommended}))
    bases, choices = ([_outcome(choice, name) for choice, name in _named(trained, which)] for which in _WHICH)
    right = {
        which: [
            of[name][choice.entry(name).judge] == test_labels
            for of, (choice, name) in zip(guesses, _named(trained, which), strict=True)
        ]
        for which in _WHICH
    }
    first = min(range(len(names)), key=lambda at: bases[at].loss)
    best = _best(bases[first], choices, first, trained[first].labelled.groups)
    reference = right["reference"][first]

    def entry(which: str, at: int) -> Entry:
        choice, name = _named(trained, which)[at]
        outcome, hits = (bases if which == "reference" else choices)[at], right[which][at]
        accuracy = Accuracy(
            bootstrap_mean(hits, **drawn),
            mean_per_class(hits, test_labels),
            bootstrap_difference(reference, hits, **drawn),
            title_of_predictor(outcome.predictor),
            outcome.value,
            outcome.loss,
        )
        shown = choice.entry(name)
        return replace(shown, results={shown.judge: accuracy})

    gain = bootstrap_difference(reference, right["recommended"][best], **drawn)
    used, chosen = ("recommended", best) if is_worth(gain) else ("reference", first)
    entries = tuple(
        BackboneEntry(
            name,
            entry("reference", at),
            entry("recommended", at),
            bootstrap_difference(right["recommended"][at], right[used][chosen], **drawn),
        )
        for at, name in enumerate(names)
    )
    known: dict[str, Any] = {"train_rows": len(ids), "test_rows": len(test_ids), "classes": len(np.unique(labels))}
    known |= {"level": level, "seed": seed, **(settings or {})}
    if len(ids) > most_rows:
        known["rows that choose"] = most_rows
    of_chosen = comparison_of(
        trained[chosen], tests[chosen], test_labels, ids, test_ids, drawn["groups"], level, seed,
        {**known, "backbone": names[chosen]}, progress,
    )  # fmt: skip
    notes = [f"left out, since a backbone lacks them: {text}" for text in filter(None, (lost, test_lost))]
    return BackboneComparison(
        verdict=_verdict(entries, first, best),
        backbones=entries,
        reference=names[first],
        chosen=names[chosen],
        used="choice" if used == "recommended" else "base",
        comparison=of_chosen,
        settings=known,
        notes=tuple(notes),
    )


_WHICH = ("reference", "recommended")  # attributes of Trained: names of entries


def _named(trained: Sequence[Trained], which: str) -> list[tuple[Trained, str]]:
    return [(choice, getattr(choice, which)) for choice in trained]


def _outcome(choice: Trained, name: str) -> Outcome:
    return choice.outcomes[name][choice.entry(name).judge]


def _best(base: Outcome, choices: Sequence[Outcome], first: int, groups: Any) -> int:
    """The backbone to use: the least loss among the choices surely better than the reference, else the reference's."""
    for at in sorted(range(len(choices)), key=lambda at: choices[at].loss):
        if surely_better(base.losses - choices[at].losses, GUARD, groups):
            return at
    return first


def _joined(
    sets: Sequence[tuple[str, Sequence[str], ArrayLike]], what: str
) -> tuple[list[str], list[NDArray[np.intp]], NDArray[Any], str]:
    """The ids that all sets have, in the first one's order, where they stand in each, their labels, and what is lost.

    sets: name, ids and labels of each backbone. Raises SampleError.
    """
    where = [{row: at for at, row in enumerate(ids)} for _, ids, _ in sets]
    for (name, ids, _), places in zip(sets, where, strict=True):
        if len(places) < len(ids):
            raise SampleError(f"the {what}s of {name} have an id twice; expected ids that are unique")
    common = [row for row in sets[0][1] if all(row in places for places in where)]
    if not common:
        raise SampleError(
            f"no {what} of {sets[0][0]} is one of {sets[1][0]}: {', '.join(map(repr, list(sets[0][1])[:3]))} there, "
            f"{', '.join(map(repr, list(sets[1][1])[:3]))} here; make both from the same source, with the same --sample"
        )
    rows = [np.array([places[row] for row in common], np.intp) for places in where]
    labels = [labels_of(given, len(ids), what)[at] for (_, ids, given), at in zip(sets, rows, strict=True)]
    for (name, _, _), other in zip(sets[1:], labels[1:], strict=True):
        if len(differ := np.flatnonzero(labels[0].astype(object) != other.astype(object))):
            at = differ[0]
            own, theirs = labels[0].tolist()[at], other.tolist()[at]
            raise SampleError(
                f"{what} {common[at]!r} is labelled {own!r} with {sets[0][0]}, {theirs!r} with {name}; "
                "expected the same rows and labels: were both made from the same source?"
            )
    lost = [f"{len(ids) - len(common)} {what}s of {name}" for name, ids, _ in sets if len(ids) > len(common)]
    return common, rows, labels[0], ", ".join(lost)


def _verdict(entries: Sequence[BackboneEntry], first: int, best: int) -> str:
    base, choice, name = entries[first].base, entries[best].choice, entries[best].name
    alone = f"Use {entries[first].name}: {pair(base)}, {base.value.value:.1%}, {passes_of(base)}"
    if first == best and is_pair(choice, base):
        return f"{alone}; on the training rows no backbone, and nothing joined to it, is surely better."
    gain = choice.gain
    if not is_worth(gain):
        return f"{alone}; the training rows' choice, with {name}, is no better: {gain}."
    known = "no interval" if gain.low != gain.low else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
    chance = "" if gain.low > 0 else ", maybe chance"
    return (
        f"Use {name}: {pair(choice)}, {choice.value.value:.1%} where {entries[first].name}'s embedding has "
        f"{base.value.value:.1%} ({100 * gain.value:+.1f}, {known}{chance}); {passes_of(choice)}."
    )
