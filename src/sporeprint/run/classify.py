"""Predict a label for every row of a store, or keep what predicts it as a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from sporeprint.errors import RowFailure, StoreError
from sporeprint.evaluate.choice.judges import fixed, pair_of, title_of_predictor
from sporeprint.features.combine import Combiner
from sporeprint.predictors.checks import labels_of
from sporeprint.predictors.conformal import least_probability, own_probabilities
from sporeprint.predictors.logistic import Probe
from sporeprint.predictors.predictor import Predictor
from sporeprint.predictors.semi_supervised import SemiSupervised, folds_of
from sporeprint.predictors.unlabelled import GUARD, with_unlabelled
from sporeprint.run.answer_choice import Choice, choose
from sporeprint.run.answer_columns import Columns, classified_columns
from sporeprint.run.asked_rows import Asked, Trained, notes_of_both, read_both, truth_of
from sporeprint.run.combination_flags import Wanted
from sporeprint.run.promises import accuracy_note, coverage_note
from sporeprint.run.store_pair import check_amounts, count, examples_of, one_label
from sporeprint.run.store_source import Rows
from sporeprint.run.training_rows import TrainingRows
from sporeprint.store.reader import Store

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Classifier:
    """Fitted features, a fitted predictor, and the rows that they were fitted on.

    title: of features and predictor, for people. leave_one_out: accuracy on the training rows, each left out; with
    unlabelled rows, a fifth of each class at a time. judged: which of both, in words.
    """

    combiner: Combiner
    predictor: Predictor | SemiSupervised
    training: TrainingRows
    title: str
    leave_one_out: float
    judged: str = "by leave-one-out"


@dataclass(frozen=True)
class Classified:
    """What `classify_stores` found. classifier: what answered. columns: of the file, None without rows to ask about.

    accuracy: on the rows whose label is known, None where there are none. failures: rows without features.
    sets: in words, how the prediction sets came out. notes: what a reader must know, a sentence each. unlabelled:
    whether the rows to label took part, in a sentence; empty where that was not asked.
    """

    classifier: Classifier
    store: Store
    columns: Columns | None
    accuracy: float | None
    compared: int
    failures: list[RowFailure]
    sets: str
    notes: tuple[str, ...]
    unlabelled: str = ""

    def verdict(self, out: Path | None) -> str:
        """Return the answer in a sentence."""
        rows = len(self.classifier.training.ids)
        seen = f"{self.classifier.leave_one_out:.1%} right {self.classifier.judged}"
        if self.columns is None:
            return f"{self.classifier.title}: {seen} of {count(rows, 'row')}."
        if self.accuracy is not None:
            seen += f", {self.accuracy:.1%} on {count(self.compared, 'labelled test row')}"
        return f"{out}: {count(len(self.columns['id']), 'row')} labelled by {self.classifier.title}; {seen}."

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.classifier.title,
            "training_rows": len(self.classifier.training.ids),
            "rows": None if self.columns is None else len(self.columns["id"]),
            "leave_one_out": self.classifier.leave_one_out,
            "accuracy": self.accuracy,
            "compared": self.compared,
            "sets": self.sets or None,
            "unlabelled": self.unlabelled or None,
            "failures": [failure.to_json() for failure in self.failures],
            "notes": list(self.notes),
        }


def classify_stores(
    train: Rows,
    test: Rows | None,
    what: Wanted,
    predictor: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    error: float | None = None,
    everything: bool = False,
    unlabelled: bool = False,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Classified:
    """Fit on the labelled rows of a store, and label the rows of another, which need no label.

    what, predictor: what the flags ask for; the rest is chosen by leave-one-out on the training rows. group_column: of
    the training rows' source, and of the test rows' where that is given; rows of one group are left out together.
    error: of prediction sets. everything: a probability for each class. unlabelled: the rows to label take part,
    unless that harms, by features that are no wider than all rows are many. Raises StoreError, RecipeError,
    SourceError.
    """
    trained, asked = read_both(train, test, what.reads, label_column, group_column)
    labels, groups = _classes(trained, train.store), trained.groups
    choice = choose(trained.blocks, labels, what, predictor, groups, seed, progress)
    progress(f"fitting {choice.name}")
    fitted, features = _fitted(choice, trained, labels)
    if error is not None:
        least_probability(fitted.training.own, error)  # raises before anything is written
    notes = [*trained.notes, *notes_of_both(trained, asked, test, group_column, labels)]
    if alone := int((np.unique(labels, return_counts=True)[1] == 1).sum()):
        notes.append(f"{count(alone, 'class')} with one row only, which leave-one-out counts as wrong")
    if asked is None:
        return Classified(fitted, trained.store, None, None, 0, [], "", tuple(notes))
    has, more = truth_of(labels, asked)
    notes += more
    progress(f"labelling {count(len(asked.ids), 'row')}")
    truth = asked.labels.tolist() if any(label is not None for label in asked.labels) else None
    why = ""
    if unlabelled:
        narrow, rows = choice, len(labels) + len(asked.ids)
        if what.combination is None and features.shape[1] > rows:
            narrow = choose(trained.blocks, labels, what, predictor, None, seed, progress, most_width=rows)
        fitted, why = _with_unlabelled(fitted, features, narrow, trained, labels, asked)
        if what.combination is not None and trained.store.blocks_info["embedding"]["dim"] <= rows < features.shape[1]:
            why += " --features embedding is narrow enough."
    columns = classified_columns(
        fitted.predictor, fitted.training, asked.ids, fitted.combiner.transform(asked.blocks), truth, error, everything
    )
    right = np.array([label == own for label, own in zip(columns["label"], asked.labels, strict=True)])
    accuracy = float(np.mean(right[has])) if has.any() else None
    sets = "" if error is None else sets_in_words(columns, error, asked, has)
    if groups is None:  # rows of one group are not independent
        notes += _broken_promises(fitted, columns, asked, has, error)
    return Classified(fitted, trained.store, columns, accuracy, int(has.sum()), asked.failures, sets, tuple(notes), why)


def _broken_promises(
    fitted: Classifier, columns: Columns, asked: Asked, has: np.ndarray, error: float | None
) -> list[str]:
    """Say where test rows clearly fare worse than training rows: those of `has` whose label a training row has too."""
    there, training = set(fitted.training.labels.tolist()), len(fitted.training.ids)
    known = [row for row in np.flatnonzero(has) if asked.labels[row] in there]
    if not known:
        return []
    right = sum(columns["label"][row] == asked.labels[row] for row in known)
    notes = accuracy_note(right, len(known), round(fitted.leave_one_out * training), training)
    if error is not None:
        held = sum(asked.labels[row] in columns["set"][row] for row in known)
        notes += coverage_note(held, len(known), training, error)
    return notes


def _fitted(choice: Choice, trained: Trained, labels: np.ndarray) -> tuple[Classifier, np.ndarray]:
    """Fit what was chosen on all training rows, and return their features [N, D] too."""
    combiner = choice.combination.fit(trained.blocks)
    features = combiner.transform(trained.blocks)
    left_out = choice.predictor.leave_one_out(features, labels, trained.groups)
    training = TrainingRows.of(trained.ids, labels, features, own_probabilities(left_out.probabilities, left_out.codes))
    judged = "by leave-one-out" if trained.groups is None else "by leave-one-group-out"
    if isinstance(choice.predictor, Probe):
        judged = "in five folds"
    title = pair_of(choice.name, title_of_predictor(fixed(choice.predictor)))
    return Classifier(combiner, choice.predictor, training, title, float(left_out.right.mean()), judged), features


def _with_unlabelled(
    fitted: Classifier, features: np.ndarray, narrow: Choice, trained: Trained, labels: np.ndarray, asked: Asked
) -> tuple[Classifier, str]:
    """Let the rows to label take part unless that harms; say what was decided.

    fitted, features: what answers otherwise. narrow: the same choice, or that of features that are narrow enough, which
    is taken only where it finds hidden labels no worse.
    """
    combiner, instead = narrow.combination.fit(trained.blocks), None
    rows = combiner.transform(trained.blocks)
    if rows.shape != features.shape:
        folds = folds_of(np.unique(labels, return_inverse=True)[1])
        instead = clone(fixed(fitted.predictor)).leave_one_out(features, labels, folds)
    decided = with_unlabelled(
        rows, labels, combiner.transform(asked.blocks), fixed(narrow.predictor),
        guard=GUARD if instead is None else 0, instead=instead,
    )  # fmt: skip
    if not decided.used or decided.left_out is None:
        compared = decided.left_out is not None and instead is not None
        return fitted, decided.why + (f" They were tried by {narrow.name}, which is narrow enough." if compared else "")
    training = TrainingRows.of(
        trained.ids, labels, rows, own_probabilities(decided.left_out.probabilities, decided.left_out.codes)
    )
    title = f"{pair_of(narrow.name, 'LDA')} and unlabelled rows (EM)"
    return Classifier(combiner, decided.predictor, training, title, decided.after, "with labels hidden"), decided.why


def sets_in_words(columns: Columns, error: float, asked: Asked | None = None, has: Any = None) -> str:
    """Say how many labels the rows' sets hold, and how many hold the true one. has: rows whose label is known."""
    sizes = np.array([len(row) for row in columns["set"]])
    counts = f"{(sizes == 1).sum()} rows have one label, {(sizes > 1).sum()} several, {(sizes == 0).sum()} none"
    words = f"at an error of {error:g}, {counts}"
    if asked is not None and has is not None and has.any():
        held = [asked.labels[row] in columns["set"][row] for row in np.flatnonzero(has)]
        words += f"; {np.mean(held):.1%} of {len(held)} sets hold the true label"
    return words


def _classes(trained: Trained, store: Path) -> np.ndarray:
    """Return the labels as texts or as numbers. Raises StoreError for amounts, and for those of one class."""
    labels = labels_of(one_label(trained.labels, store, "classify"), len(trained.labels), "train")
    check_amounts(labels, store)
    if len(np.unique(labels)) == 1:
        raise StoreError(
            f"all {count(len(labels), 'labelled row')} of {store} are of one class, {examples_of(labels)}: there is "
            "nothing to tell apart; label rows of another class too"
        )
    return labels
