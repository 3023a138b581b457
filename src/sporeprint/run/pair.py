"""Two stores, to fit on and to ask about: whether they go together, and the table of their neighbours' accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.combine import Blocks, Combination
from sporeprint.data.plan import differences
from sporeprint.data.store import Store
from sporeprint.errors import RecipeError, StoreError
from sporeprint.evaluate.table import Candidate, Entry, evaluate, standard_candidates
from sporeprint.run.origin import Rows, labels_of

MOST_PCA = 512  # the paper's, for wide backbones
KINDS = {str: "texts", bool: "booleans", int: "integers", float: "numbers"}


def open_pair(train_path: Path, test_path: Path) -> tuple[Store, Store]:
    """Two stores whose rows can be compared. Raises StoreError where they were made or fitted otherwise."""
    train, test = Store.open(train_path), Store.open(test_path)
    differing = differences(_comparable(train), _comparable(test), ("the first", "the second"))
    if differing:
        raise StoreError(
            f"{test_path} was not made like {train_path}:\n  "
            + "\n  ".join(differing)
            + f"\nMake the test store with: sporeprint extract ... --fit-from {train_path}"
        )
    if not _same_fit(train, test):
        raise StoreError(
            f"{test_path} was not fitted with {train_path}'s heads and negatives, so its gradients are not comparable. "
            f"Make it with: sporeprint extract ... --fit-from {train_path}"
        )
    return train, test


def knn_table(
    train_rows: Rows,
    test_rows: Rows,
    blocks: str | None = None,
    whiten: int | None = None,
    size: int | None = None,
    k: str = "20,auto",
    label_column: str | None = None,
) -> tuple[list[Entry], str]:
    """The standard table of two stores, or one row where blocks are named; and a note on what was compared.

    label_column: of the stores' sources, in the place of the labels that the stores hold.
    """
    sources = (train_rows.source, test_rows.source)
    if label_column is not None and None in sources:
        raise RecipeError("--label-column needs --train and --test: the sources that the stores were made of")
    if label_column is None and sources != (None, None):
        raise RecipeError("--train and --test are for --label-column, other labels than the stores'; leave them out")
    train, test = open_pair(train_rows.store, test_rows.store)
    ks = [_k(one) for one in k.split(",")]
    if blocks is None and whiten is not None:
        raise RecipeError("--whiten goes with --blocks; the table whitens its controls by itself")
    names = tuple(train.block_names) if blocks is None else block_list(blocks)
    features, labels, has = labelled(train, train_rows, names, label_column)
    test_features, test_labels, test_has = labelled(test, test_rows, names, label_column)
    strange = _strangers(labels, test_labels)
    if strange == len(test_labels):
        raise StoreError(
            f"no label of {test_rows.store} is a label of {train_rows.store}: {_some(test_labels)} there, "
            f"{_some(labels)} here; were both made with the same --label-column?"
        )
    if blocks is None:
        if size is None:
            size = min(MOST_PCA, train.blocks_info["embedding"]["dim"], len(labels) - 1) or None
        candidates = standard_candidates(names, len(labels), size)
    else:
        candidates = [Candidate(" + ".join(names), Combination(names, whiten, size))]
    entries = [evaluate(one, features, labels, test_features, test_labels, train.blocks_info, ks) for one in candidates]
    classes = len(np.unique(labels))
    name = train.plan["resolved"]["backbone"]["name"]
    note = f"{name}, {len(labels)} training rows, {len(test_labels)} test rows, {classes} classes"
    if label_column is not None:
        note += f" of {label_column!r}"
    left_out, test_left_out = int((~has).sum()), int((~test_has).sum())
    if left_out or test_left_out:
        note += f"; left out, having no label: {left_out} training rows, {test_left_out} test rows"
    if strange:
        note += f"; counted as wrong, since no training row has their label: {strange} test rows"
    if shared := _shared_rows(train, test, has, test_has):
        note += f"; training rows themselves, so that each is its own nearest neighbour: {shared} test rows"
    return entries, note


def _strangers(labels: np.ndarray, test_labels: np.ndarray) -> int:
    """How many test rows have a label that no training row has; 0 of lists of labels, which kNN refuses."""
    if any(isinstance(label, list) for label in (*labels.tolist(), *test_labels.tolist())):
        return 0
    known = set(labels.tolist())
    return sum(label not in known for label in test_labels.tolist())


def _some(labels: np.ndarray) -> str:
    """What kind they are and the first three: 1 and "1" are not the same label."""
    found = sorted(set(labels.tolist()))
    return f"{KINDS[type(found[0])]} {', '.join(map(repr, found[:3]))}{', ...' if len(found) > 3 else ''}"


def _shared_rows(train: Store, test: Store, has: np.ndarray, test_has: np.ndarray) -> int:
    """How many of the rows asked about are rows that are fitted on: of one source, under one id."""
    ours, theirs = (store.plan.get("source", {}).get("digest") for store in (train, test))
    if ours is None or ours != theirs:
        return 0
    known = set(np.array(train.ids)[has].tolist())
    return sum(row_id in known for row_id in np.array(test.ids)[test_has].tolist())


def _comparable(store: Store) -> dict[str, Any]:
    """What two stores must share for their blocks to be comparable: not the device, and not the rows."""
    resolved = {key: value for key, value in store.plan["resolved"].items() if key != "device"}
    return {"recipe": store.plan["recipe"], "resolved": resolved}


def _same_fit(train: Store, test: Store) -> bool:
    """Whether two stores have the same heads, negatives and projections; a fitted combination does not count."""
    if train.manifest["states"] == test.manifest["states"]:
        return True
    from sporeprint import saved  # torch takes seconds to import

    def fitted(store: Store) -> dict[str, Any]:
        tensors = saved.unpack(store.read_state, str(store.folder))[1]
        return {name: value for name, value in tensors.items() if not name.startswith("combiner/")}

    ours, theirs = fitted(train), fitted(test)
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def labelled(
    store: Store, rows: Rows, names: Sequence[str], column: str | None = None
) -> tuple[Blocks, np.ndarray, np.ndarray]:
    """Blocks and labels of the rows that have a label, and which have one: [rows], booleans.

    column: of the store's source; without it, the labels that the store holds.
    """
    blocks = store.blocks(names)  # before the labels, which it reads along
    labels = store.labels if column is None else labels_of(store, rows, column)
    if labels is None and column is not None:
        raise StoreError(f"column {column!r} of '{rows.source}' has no label for any row of {rows.store}")
    if labels is None:
        raise StoreError(f"{rows.store} has no labels; extract it from a labelled source (--label-column NAME)")
    if labels.dtype != object:
        return blocks, labels, np.ones(len(labels), dtype=bool)
    has = np.array([label is not None for label in labels])
    return {name: block[has] for name, block in blocks.items()}, labels[has], has


def block_list(words: str) -> tuple[str, ...]:
    """Comma-separated names, each once."""
    return tuple(dict.fromkeys(name.strip() for name in words.split(",")))


def _k(word: str) -> Any:
    word = word.strip()
    if word == "auto":
        return "auto"
    if not word.isdigit() or int(word) < 1:
        raise RecipeError(f"--k {word!r}; expected positive integers or auto, comma-separated")
    return int(word)
