"""What training rows choose, by leave-one-out: families to join, how far to even them out, at what weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.candidates import (
    ALL,
    EMBEDDINGS,
    FREE,
    HALF_WHITE,
    PLAIN,
    RAW,
    REFERENCES,
    Candidate,
    choices,
    full_table,
)
from sporeprint.evaluate.choice.guard import GUARD, check_guard, paired, surely_better
from sporeprint.evaluate.choice.leave_one_out import MOST_ROWS, leave_one_out_of, silent
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.table import Costs, Entry, entry_of
from sporeprint.features.blocks import Blocks, check_blocks, family
from sporeprint.features.combine import Combination
from sporeprint.features.whiten import Axes
from sporeprint.predictors.knn import CANDIDATES, knn_predict, votes_of_others
from sporeprint.values import check_count, check_mapping


@dataclass(frozen=True)
class Selection(Result):
    """What `select` returns: the chosen combination, and how it fared against the others.

    value: leave-one-out accuracy of the chosen combination, on the very rows that chose it: a little optimistic.
    name, combination, k: the choice. gain: leave-one-out accuracy over the raw embedding's. error: its standard error,
    by the paired rows; it knows nothing of the number of candidates that were tried. table: the accuracy of every
    candidate, each with its best k.
    """

    name: str = ""
    combination: Combination = field(default_factory=Combination)
    k: int = 1
    gain: float = 0.0
    error: float = 0.0
    table: dict[str, float] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        from sporeprint.values import to_json

        return {**super().to_json(), "combination": to_json(self.combination)}

    def __str__(self) -> str:
        chosen = f"{self.name}: leave-one-out {self.value:.1%}, k = {self.k}"
        points = f"{100 * self.gain:+.1f} ± {100 * self.error:.1f} points"
        return chosen if self.name == RAW else f"{chosen}; {points} over the raw embedding"


@quiet_floats
def select(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination] | None = None,
    ks: Sequence[int] = CANDIDATES,
    guard: float = GUARD,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Selection:
    """The combination with the best leave-one-out kNN accuracy on the labelled rows, k chosen along with it.

    blocks: of the training rows, each [N, D]. labels: [N], None (or NaN) for a row without one: whitening is fitted on
    all rows, which costs no label; leave-one-out asks the labelled ones only, at most `most_rows` of them, drawn by
    `seed`, about each other. Rows with NaN in any block are left out of both. candidates: by name; they must not reduce
    (`size`), which can be added to the choice. The raw and the half-white embedding are always among them.
    guard: see `choose`.
    progress: called with each candidate as its turn comes. Raises SampleError for fewer than two labelled rows,
    blocks of other rows or that are not there, candidates that reduce or take the name of one of these two, and
    numbers out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import select
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> blocks = {"embedding": rng.normal(size=(60, 8)), "kl": np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3))}
    >>> chosen = select(blocks, labels)
    >>> chosen.combination.blocks, chosen.gain > 0.3
    (('embedding', 'kl'), True)
    """
    check_blocks(blocks, SampleError)
    check_count("seed", seed, 0, SampleError)
    check_count("most_rows", most_rows, 2, SampleError)
    if candidates is not None:
        check_mapping("candidates", candidates, "combinations by name, {'mine': Combination(...)}", SampleError)
    listed = choices(list(blocks)) if candidates is None else dict(candidates)
    for name, reference in REFERENCES.items():
        if listed.get(name, reference) != reference:
            raise SampleError(f"a candidate is called {name!r}, which is another's name; give it a name of its own")
    listed = {**REFERENCES, **listed}
    check_guard(guard)
    rights = leave_one_out_of(blocks, labels, listed, ks, most_rows, seed, progress or silent)
    choice = choose(listed, rights, guard, {"ks": list(ks), "seed": seed})
    return replace(choice, combination=choice.combination.over(list(blocks)))  # the same where there are more blocks


@quiet_floats
def choose(
    candidates: Mapping[str, Combination],
    rights: Mapping[str, Mapping[int, NDArray[np.bool_]]],
    guard: float = GUARD,
    settings: Mapping[str, Any] | None = None,
) -> Selection:
    """The best of the candidates, the raw and the half-white embedding among them, from what `leave_one_out_of` gave.

    Each candidate has its best k, the smaller one in a tie. A candidate is taken only if it beats both of these two by
    more than `guard` standard errors of the paired difference, the half-white embedding if it so beats the raw one; the
    best of those is taken, the earlier one in a tie; where there is none, the raw embedding stays. The errors are of
    one difference and many are looked at, so labels that say nothing still move the choice: in half of our trials at
    guard 1, in a sixth at 2, hardly ever at 3.
    """
    check_guard(guard)
    best = {name: max(rights[name], key=lambda k: (rights[name][k].mean(), -k)) for name in candidates}
    right = {name: rights[name][k] for name, k in best.items()}
    table = {name: float(hits.mean()) for name, hits in right.items()}
    chosen, gain, error = RAW, 0.0, 0.0
    for name in sorted(table, key=lambda name: -table[name]):  # stable: the earlier one in a tie
        references = [reference for reference in (RAW, HALF_WHITE) if reference != name]
        if name != RAW and all(surely_better(right[reference], right[name], guard) for reference in references):
            chosen, (gain, error) = name, paired(right[RAW], right[name])
            break
    whole = {"labelled_rows": len(right[chosen]), "guard": guard, "candidates": len(candidates), **(settings or {})}
    return Selection(
        value=table[chosen],
        settings=whole,
        name=chosen,
        combination=candidates[chosen],
        k=best[chosen],
        gain=gain,
        error=error,
        table=table,
    )


class Trained:
    """What the training rows decide for `compare`: the choices, the reference, each entry's k. It sees no test row.

    entries: without results. ks, leave_one_out: of each entry by name, the k of the best accuracy on the training rows
    and that accuracy. reference: the best of the raw and the white embeddings by leave-one-out.
    recommended: the choice among everything if it beats the choice of one pass by two standard errors, else that.
    """

    def __init__(
        self,
        train: Blocks,
        labels: NDArray[Any],
        costs: Costs,
        most_rows: int,
        seed: int,
        progress: Callable[[str], None] = silent,
    ):
        self.train, self.labels = train, labels
        self.whiteners: dict[tuple[str, Any], Axes] = {}
        asking = np.arange(len(labels))
        if len(labels) > most_rows:
            asking = np.sort(np.random.default_rng(seed).choice(len(labels), most_rows, replace=False))
        self.entries: list[Entry] = []
        self.ks: dict[str, int] = {}
        self.leave_one_out: dict[str, float] = {}
        rights: dict[str, NDArray[np.bool_]] = {}
        candidates = [*full_table(list(train)), *self._chosen(costs, most_rows, seed, progress)]
        for number, candidate in enumerate(candidates, 1):
            name = candidate.name
            progress(f"leave-one-out: {name} ({number} of {len(candidates)})")
            combiner = candidate.combination.fit(train, self.whiteners)
            right = votes_of_others(combiner.transform(train), labels, asking)
            k = max(right, key=lambda k: (right[k].mean(), -k))
            self.entries.append(entry_of(candidate, combiner, costs, {}))
            self.ks[name], self.leave_one_out[name], rights[name] = k, float(right[k].mean()), right[k]
        self.reference = max(EMBEDDINGS, key=self.leave_one_out.__getitem__)
        self.recommended = recommended(rights[FREE], rights[ALL])

    def _chosen(self, costs: Costs, most_rows: int, seed: int, progress: Callable[[str], None]) -> list[Candidate]:
        names = list(self.train)
        listed = choices(names)
        rights = leave_one_out_of(self.train, self.labels, listed, most_rows=most_rows, seed=seed, progress=progress)
        free = {name: self.train[name] for name in costs.free(names)}
        cheap = select(free, self.labels, most_rows=most_rows, seed=seed, progress=progress).combination
        chosen = [Candidate(FREE, "chosen", cheap)]
        plain = [name for name in names if family(name) != "gradients"]
        if len(plain) < len(names):  # the control is chosen with the same care, from the same candidates
            subset = {name: listed[name] for name in choices(plain)}
            chosen.append(Candidate(PLAIN, "control", choose(subset, rights).combination.over(plain)))
        return [*chosen, Candidate(ALL, "chosen", choose(listed, rights).combination.over(names))]

    def entry(self, name: str) -> Entry:
        """The entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    @quiet_floats
    def guesses(self, test: Blocks, progress: Callable[[str], None] = silent) -> dict[str, NDArray[Any]]:
        """The label of each test row by each entry."""
        predicted = {}
        for number, entry in enumerate(self.entries, 1):
            progress(f"test rows: {entry.name} ({number} of {len(self.entries)})")
            rows, others = self.features(entry.name, test)
            predicted[entry.name] = knn_predict(rows, self.labels, others, self.ks[entry.name])
        return predicted

    def features(self, name: str, test: Blocks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """An entry's features of the training rows, and of the test rows."""
        combiner = self.entry(name).combination.fit(self.train, self.whiteners)
        return combiner.transform(self.train), combiner.transform(test)


def recommended(free: NDArray[np.bool_], everything: NDArray[np.bool_]) -> str:
    """The name of the choice to recommend, from which training rows [N] each of the two classifies rightly.

    The choice among everything is recommended only if it is surely better than the choice of one pass (`GUARD`).
    """
    return ALL if surely_better(free, everything) else FREE
