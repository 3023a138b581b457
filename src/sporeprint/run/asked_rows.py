"""Two stores to answer from: labelled rows, and rows to ask about, which need no label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sporeprint.data.look_alikes import strangers_note
from sporeprint.errors import RowFailure
from sporeprint.features.blocks import Blocks
from sporeprint.run.duplicate_notes import near_duplicate_notes
from sporeprint.run.row_groups import group_notes, read_groups
from sporeprint.run.store_pair import (
    SAME,
    Reads,
    check_sources,
    count,
    examples_of,
    labelled,
    open_pair,
    shared_rows,
)
from sporeprint.run.store_source import Rows, labels_of
from sporeprint.store.reader import Store

ROLES = ("training row", "test row")
_NOT_COMPARED = "the predictions are not compared with them"


@dataclass(frozen=True)
class Trained:
    """The labelled rows [N] of a store, with features in every block.

    labels: as the store has them. groups: [N], None where no column of them was named. notes: what a reader must know,
    a sentence each.
    """

    store: Store
    blocks: Blocks
    labels: np.ndarray
    ids: list[str]
    groups: np.ndarray | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """The rows [M] of a store with features in every block. labels: [M], None for a row without one.

    groups: [M], None where no column of them, or no source, was named. failures: rows without features, which are left
    out.
    """

    blocks: Blocks
    labels: np.ndarray
    ids: list[str]
    groups: np.ndarray | None
    failures: list[RowFailure]


def read_trained(
    rows: Rows, store: Store, names: Sequence[str], label_column: str | None, group_column: str | None = None
) -> Trained:
    """Read the labelled rows of an open store. Raises StoreError where no row has a label, SourceError."""
    blocks, labels, has = labelled(store, rows, names, label_column)
    finite = _finite(blocks)
    notes = []
    if missing := int((~has).sum()):
        notes.append(f"left out, having no label: {count(missing, ROLES[0])}")
    if lost := len(store.failures) + int((~finite).sum()):
        notes.append(f"left out, having no features: {count(lost, ROLES[0])}")
    ids = np.array(store.ids, dtype=object)[has][finite].tolist()
    groups = None if group_column is None else read_groups(store, rows, group_column, has)[finite]
    kept = {name: block[finite] for name, block in blocks.items()}
    return Trained(store, kept, labels[finite], ids, groups, tuple(notes))


def read_asked(
    rows: Rows, store: Store, names: Sequence[str], label_column: str | None, group_column: str | None = None
) -> Asked:
    """Read the rows of an open store, with or without labels. Raises SourceError.

    label_column: of its source; where that is not given, the rows have no label, since the store's own are others.
    group_column: of its source too, read where that is given.
    """
    blocks = store.blocks(names)
    labels = store.labels if label_column is None else None
    if label_column is not None and rows.source is not None:
        labels = labels_of(store, rows, label_column)
    finite = _finite(blocks)
    known = np.full(len(store), None, dtype=object)
    if labels is not None:
        known[:] = labels.tolist()
    ids = np.array(store.ids, dtype=object)
    failures = [*store.failures, *(RowFailure(row_id, "its features are not finite") for row_id in ids[~finite])]
    kept = {name: block[finite] for name, block in blocks.items()}
    groups = None
    if group_column is not None and rows.source is not None:
        groups = read_groups(store, rows, group_column, np.ones(len(store), bool), several=False)[finite]
    return Asked(kept, known[finite], ids[finite].tolist(), groups, failures)


def read_both(
    train_rows: Rows,
    test_rows: Rows | None,
    reads: Reads,
    label_column: str | None,
    group_column: str | None = None,
) -> tuple[Trained, Asked | None]:
    """Read the rows of two stores that go together, or of one. reads: the blocks to read, of the first store.

    group_column: of the first store's source, and of the second one's where that is given.
    Raises StoreError, RecipeError, and SourceError where a source is not the one that its store was made of.
    """
    if test_rows is None:
        check_sources((train_rows,), label_column, ("--train",), group_column=group_column)
        store = Store.open(train_rows.store)
        return read_trained(train_rows, store, reads(store), label_column, group_column), None
    sources = (train_rows,) if (test_rows.source, test_rows.split) == (None, None) else (train_rows, test_rows)
    check_sources(sources, label_column, ("--train", "--test")[: len(sources)], group_column=group_column)
    store, other = open_pair(train_rows.store, test_rows.store)
    names = reads(store)
    trained = read_trained(train_rows, store, names, label_column, group_column)
    return trained, read_asked(test_rows, other, names, label_column, group_column)


def notes_of_both(
    trained: Trained,
    asked: Asked | None,
    test_rows: Rows | None,
    group_column: str | None = None,
    classes: np.ndarray | None = None,
) -> list[str]:
    """Say which rows stand in both stores, which groups do, or else how many rows are nearly the same.

    classes: of the training rows [N], None where they have numbers.
    """
    shared = [] if asked is None else _shared(trained, asked, Store.open(test_rows.store))  # type: ignore[union-attr]
    if group_column is not None and trained.groups is not None:
        test_groups = None if asked is None else asked.groups
        return shared + group_notes(group_column, trained.groups, classes, test_groups, ROLES)
    if SAME in shared or "embedding" not in trained.blocks:
        return shared
    labelled_test = asked is not None and any(label is not None for label in asked.labels)
    test = asked.blocks["embedding"] if asked is not None and labelled_test else None
    return shared + near_duplicate_notes(trained.blocks["embedding"], test)


def _shared(trained: Trained, asked: Asked, test_store: Store) -> list[str]:
    store = trained.store
    if store.folder.resolve() == test_store.folder.resolve():
        return [SAME]
    has, test_has = np.isin(store.ids, trained.ids), np.isin(test_store.ids, asked.ids)
    if shared := shared_rows(store, test_store, has, test_has):
        also = f"is also a {ROLES[0]}" if shared == 1 else f"are also {ROLES[0]}s"
        return [f"{count(shared, ROLES[1])} {also}"]
    return []


def truth_of(labels: np.ndarray, asked: Asked) -> tuple[np.ndarray, list[str]]:
    """Return which test rows [M] have a label of the training rows' kind, and what is to be said of the others."""
    has = np.array([label is not None for label in asked.labels], dtype=bool)
    if not has.any():
        return has, []
    known, given = set(labels.tolist()), asked.labels[has].tolist()
    if any(isinstance(label, list) for label in given):
        return np.zeros(len(has), bool), [f"the labels of the test rows are lists: {_NOT_COMPARED}"]
    strange = sum(label not in known for label in given)
    if strange == len(given):
        there, here = examples_of(asked.labels[has]), examples_of(labels)
        seen = f"no label of the test rows ({there}) is one of the training rows ({here})"
        return np.zeros(len(has), bool), [f"{seen}: {_NOT_COMPARED}"]
    notes = []
    if strange:
        notes.append(f"counted as wrong, since no training row has their label: {count(strange, ROLES[1])}")
    if alike := strangers_note(given, labels.tolist()):
        notes.append(f"labels of test rows and training rows are {alike}")
    return has, notes


def _finite(blocks: Blocks) -> Any:
    return np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
