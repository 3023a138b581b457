"""All that the training rows decide for `compare`: the choices, the reference, and each entry's predictors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SporeprintWarning
from sporeprint.evaluate.choice.candidates import (
    ALL,
    DECORRELATED,
    EMBEDDINGS,
    FREE,
    PAPER,
    PLAIN,
    REFERENCES,
    Candidate,
    choices,
    full_table,
    title_of,
)
from sporeprint.evaluate.choice.guard import SURE, surely_better
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.judges import CHOSEN, JUDGES, PREDICTORS, judge_of, title_of_predictor, word_of
from sporeprint.evaluate.choice.leave_one_out import (
    FEW,
    MOST_ROWS,
    Outcome,
    labelled_rows,
    leave_one_out_of,
    silent,
)
from sporeprint.evaluate.choice.select import choose, reference_of
from sporeprint.evaluate.comparison import Accuracy
from sporeprint.evaluate.table import Costs, Entry, entry_of
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.whiten import Axes
from sporeprint.predictors.checks import label_array
from sporeprint.predictors.predictor import Predictor

_ROLES = {FREE: "chosen", PLAIN: "control", ALL: "chosen"}
Guesses = dict[str, dict[str, NDArray[Any]]]  # the label of each test row, by entry and judge


class Trained:
    """What the training rows decide. It sees no test row.

    labels: [N], None for a row without one, which only serves whitening; the rest is decided, and fitted, without it.
    labelled: the rows that choose. whiteners: of the same blocks, for the next choice from them.
    entries: without results. outcomes: of each entry by name, {judge: leave-one-out of its best predictor}. reference:
    the name of the entry that is best on the embedding alone, with its `judge`. recommended: the choice among
    everything if its loss is below that of the choice of one pass by two standard errors, else that.
    probe: whether the probe is asked of more than the embeddings that may be the reference: of the named combinations
    and the choices, which takes longer.
    """

    def __init__(
        self,
        train: Blocks,
        labels: NDArray[Any],
        costs: Costs,
        most_rows: int = MOST_ROWS,
        seed: int = 0,
        groups: ArrayLike | None = None,
        progress: Callable[[str], None] = silent,
        whiteners: dict[tuple[str, Any], Axes] | None = None,
        probe: bool = True,
    ):
        self.train = self.answering = train
        self.labels, self.groups = labels, groups
        if labels.dtype == object:
            has = np.array([label is not None for label in labels], bool)
            self.answering = {name: block[has] for name, block in train.items()}
            self.labels = np.array(labels[has].tolist())
            self.groups = None if groups is None else label_array(groups)[has]
        self.classes, self.codes = np.unique(self.labels, return_inverse=True)
        self.whiteners = {} if whiteners is None else whiteners
        self.labelled = labelled = labelled_rows(train, labels, groups, most_rows, seed)
        names = list(train)
        table = full_table(names)
        plain = [name for name in names if family(name) != "gradients"]
        blocks_of = {FREE: costs.free(names), PLAIN: plain, ALL: names}
        if len(plain) == len(names):
            del blocks_of[PLAIN]
        among = {
            choice: {name: how.over(members) for name, how in choices(members).items()}
            for choice, members in blocks_of.items()
        }

        asked = {candidate.name: candidate.combination for candidate in table}
        probed = {*REFERENCES, *((*EMBEDDINGS, PAPER, DECORRELATED) if probe else ())}  # all would take too long
        for choice, listed in among.items():
            asked |= {_of(choice, name): combination for name, combination in listed.items()}
            probed |= {_of(choice, name) for name in REFERENCES}
        options: dict[str, Any] = {"groups": groups, "most_rows": most_rows, "seed": seed, "progress": progress}
        options["whiteners"] = self.whiteners
        outcomes = leave_one_out_of(train, labels, asked, tuple(PREDICTORS), probed=probed, **options)
        self._embeddings = {name: outcomes[name] for name in REFERENCES}
        self.reference, word = reference_of({name: _may_be_chosen(outcomes[name]) for name in REFERENCES}, labelled.few)
        own = {self.reference: word}  # the predictors that belong to the reference and the choices
        listed_as = {candidate.name: candidate.name for candidate in table}
        for choice, listed in among.items():
            of_choice = {name: _may_be_chosen(outcomes[_of(choice, name)]) for name in listed}
            selection = choose(listed, of_choice, groups=labelled.groups, few=labelled.few)
            listed_as[choice] = _of(choice, selection.name)
            assert selection.predictor is not None
            own[choice] = word_of(selection.predictor)
        if probe:
            chosen = {listed_as[choice]: asked[listed_as[choice]] for choice in among}
            for name, outcome in leave_one_out_of(train, labels, chosen, ("probe",), probed=chosen, **options).items():
                outcomes[name] |= outcome
        self.outcomes: dict[str, dict[str, Outcome]] = {}
        self.entries: list[Entry] = []
        for candidate in (*table, *(Candidate(name, _ROLES[name], asked[listed_as[name]]) for name in among)):
            of_entry = outcomes[listed_as[candidate.name]]
            judged, judge = _judged(of_entry, own.get(candidate.name, ""))
            if candidate.name in among and judge != "probe" and not probe:  # another split may choose other features
                judged.pop("probe", None)
            combiner = candidate.combination.fit(train, self.whiteners)
            self.outcomes[candidate.name] = judged
            words = title_of(candidate.combination, names) if candidate.name in among else candidate.name
            self.entries.append(replace(entry_of(candidate, combiner, costs, {}), judge=judge, features=words))
        free_losses, all_losses = (self.outcomes[name][self.entry(name).judge].losses for name in (FREE, ALL))
        self.recommended = ALL if surely_better(free_losses - all_losses, SURE, labelled.groups) else FREE

    def refer_to(self, name: str, word: str) -> None:
        """Take these features and this predictor as the reference: what all rows name, or most draws.

        What these rows chose stays.
        """
        for at, entry in enumerate(self.entries):
            if entry.name in self._embeddings:
                own = word if entry.name == name else ""
                self.outcomes[entry.name], judge = _judged(self._embeddings[entry.name], own)
                self.entries[at] = replace(entry, judge=judge)
        self.reference = name

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of how it was chosen."""
        if not self.labelled.few:
            return ()
        few = f"few rows of a class (fewer than {FEW} in the median class)"
        return (f"{few}: the reference is LDA on the raw embedding, and features are chosen for LDA",)

    @property
    def pair(self) -> tuple[str, str]:
        """The features and the predictor of the reference."""
        return self.reference, word_of(self.outcomes[self.reference][self.entry(self.reference).judge].predictor)

    def entry(self, name: str) -> Entry:
        """The entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    @quiet_floats
    def guesses(
        self, test: Blocks, progress: Callable[[str], None] = silent, names: Collection[str] | None = None
    ) -> Guesses:
        """The label of each test row, from predictors refitted on all training rows. names: of these entries alone."""
        guesses: Guesses = {}
        known: dict[Any, NDArray[Any]] = {}  # of features that have several names
        listed = self.entries if names is None else [entry for entry in self.entries if entry.name in names]
        for number, entry in enumerate(listed, 1):
            progress(f"test rows: {entry.name} ({number} of {len(listed)})")
            how, sets = entry.combination, None
            guesses[entry.name] = {}
            for judge, outcome in self.outcomes[entry.name].items():
                key = (frozenset(how.members(self.train).items()), how.whiten, how.exponent, repr(outcome.predictor))
                if key not in known:
                    sets = sets or self.features(entry.name, test)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", SporeprintWarning)  # one row a class: not calibrated
                        fitted = clone(outcome.predictor).fit_uncalibrated(sets[0], self.codes, self.groups)
                    known[key] = self.classes[fitted.predict(sets[1])]
                guesses[entry.name][judge] = known[key]
        return guesses

    @property
    def predictor(self) -> Predictor:
        """The recommended predictor, unfitted, with its choices fixed."""
        return self.outcomes[self.recommended][self.entry(self.recommended).judge].predictor

    def measured(self, measure: Callable[[str, str], tuple[Interval, float, Interval]]) -> tuple[Entry, ...]:
        """The entries with what the training rows chose for each, and what the test rows say of it.

        measure: from an entry's name and a judge to its accuracy, the mean of the classes', and the gain.
        """
        return tuple(
            replace(
                entry,
                results={
                    judge: Accuracy(
                        *measure(entry.name, judge), title_of_predictor(outcome.predictor), outcome.value, outcome.loss
                    )
                    for judge, outcome in self.outcomes[entry.name].items()
                },
            )
            for entry in self.entries
        )

    def features(self, name: str, test: Blocks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """An entry's features of the labelled training rows, and of the test rows."""
        combiner = self.entry(name).combination.fit(self.train, self.whiteners)
        return combiner.transform(self.answering), combiner.transform(test)


def _of(choice: str, name: str) -> str:
    """The name of features among those of one choice."""
    return f"{choice}: {name}"


def _may_be_chosen(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {word: outcome for word, outcome in outcomes.items() if word in CHOSEN}


def _judged(outcomes: Mapping[str, Outcome], own: str = "") -> tuple[dict[str, Outcome], str]:
    """The predictor with the least loss of each judge, and the better of kNN and closed form; or an entry's own."""
    judged = {}
    for judge, words in JUDGES.items():
        if asked := [outcomes[word] for word in words if word in outcomes]:
            judged[judge] = min(asked, key=lambda outcome: outcome.loss)
    if own:
        judged[judge_of(own)] = outcomes[own]
        return judged, judge_of(own)
    return judged, min(("knn", "closed"), key=lambda judge: judged[judge].loss)
