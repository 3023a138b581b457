"""Two stores, or one, compared: what helps here, and the samples that the report shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import RecipeError, SampleError
from sporeprint.evaluate.compare import compare
from sporeprint.evaluate.comparison import Comparison
from sporeprint.features.blocks import family
from sporeprint.report.samples import Samples
from sporeprint.run.store_pair import block_list, labelled, numbers_hint, one_label, open_pair, shared_rows, strangers
from sporeprint.run.store_source import Rows, reopen, samples_of, store_modality
from sporeprint.store.reader import Store
from sporeprint.store.shards import manifest_path, plan_path

_MANY = 1000  # training rows, above which it takes minutes


def compare_stores(
    train_rows: Rows,
    test_rows: Rows | None = None,
    blocks: str | None = None,
    label_column: str | None = None,
    splits: int = 10,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """What `compare` finds on a pair of stores, or on repeated splits of one. blocks: only these, or of these
    families, comma-separated, beside the embedding. label_column: of the stores' sources, in the place of their labels.
    say: is told where it will take long, once all is read.

    Raises StoreError for stores that do not go together, have no labels or lists of them, RecipeError for blocks that
    are not there, SourceError where a source is not the one that its store was made of.
    """
    test: Store | None = None
    if test_rows is None:
        train = Store.open(train_rows.store)
    else:
        train, test = open_pair(train_rows.store, test_rows.store)
    names = _names(train, blocks)
    sources = [rows.source for rows in (train_rows, test_rows) if rows is not None]
    if label_column is not None and None in sources:
        raise RecipeError("--label-column needs the sources that the stores were made of: --train, and --test for two")
    if any(rows is not None and rows.split is not None and rows.source is None for rows in (train_rows, test_rows)):
        raise RecipeError("a split goes with the source that it is of; give --train or --test too, or leave it out")
    features, labels, has = labelled(train, train_rows, names, label_column)
    labels = one_label(labels, train_rows.store, "compare")
    notes, left_out = [], int((~has).sum())
    asked, asked_labels, asked_has = None, None, None
    if test is not None and test_rows is not None:
        asked, asked_labels, asked_has = labelled(test, test_rows, names, label_column)
        left_out += int((~asked_has).sum())
        asked_labels = one_label(asked_labels, test_rows.store, "compare")
        strange = strangers(labels, asked_labels, (train_rows.store, test_rows.store))
        if strange:
            notes.append(f"{strange} test rows count as wrong, since no training row has their label")
        if shared := shared_rows(train, test, has, asked_has):
            notes.append(f"{shared} test rows are training rows themselves, each its own nearest neighbour")
    if len(set(labels.tolist())) == 1:
        notes.append("one class only: nothing to tell apart")
    hint = numbers_hint(labels.tolist())
    if hint:
        notes.append(hint)
    if left_out:
        notes.append(f"{left_out} rows without a label are left out")
    resolved = train.plan["resolved"]
    settings: dict[str, Any] = {
        "backbone": resolved["backbone"]["name"],
        **({"precision": resolved["dtype"]} if "dtype" in resolved else {}),
        "recipe seed": train.plan["recipe"]["seed"],
        **({} if label_column is None else {"labels": label_column}),
    }
    cost = train.cost
    if cost.get("threads"):
        threads = "1 thread" if cost["threads"] == 1 else f"{cost['threads']} threads"
        settings["rows/s measured on"] = f"{cost.get('device', 'cpu')}, {threads}"
    if len(labels) > _MANY:
        say("comparing: this takes some minutes for thousands of rows ...")
    try:
        found = compare(
            features,
            labels,
            asked,
            asked_labels,
            train.blocks_info,
            seconds=cost.get("seconds", {}),
            rows_timed=cost.get("rows", 0),
            ids=np.array(train.ids)[has].tolist(),
            test_ids=None if test is None else np.array(test.ids)[asked_has].tolist(),
            splits=splits,
            seed=seed,
            settings=settings,
        )
    except SampleError as error:
        if not hint:
            raise
        raise SampleError(f"{error}; {hint}") from None
    return found.noted(notes)


def shown_samples(comparison: Comparison, train_rows: Rows, test_rows: Rows | None) -> Samples | None:
    """The samples of the rows that the report shows, where the sources are given. Raises SourceError, StoreError."""
    if test_rows is None or train_rows.source is None or test_rows.source is None:
        return None
    wanted = {neighbour.id for one in comparison.changed for neighbour in one.neighbours_before + one.neighbours_after}
    asked = {one.id for one in comparison.changed}
    stores = [Store.open(rows.store) for rows in (train_rows, test_rows)]
    found = []
    for store, rows, ids in zip(stores, (train_rows, test_rows), (wanted, asked), strict=True):
        samples = zip(store.ids, samples_of(store, rows), strict=True)
        found.append({row_id: sample for row_id, sample in samples if row_id in ids})
    return Samples(store_modality(stores[0]), test=found[1], train=found[0])


def check_samples(train_rows: Rows, test_rows: Rows | None) -> None:
    """Whether `shown_samples` will find the sources to be those of the stores. Raises SourceError, StoreError."""
    if test_rows is not None and train_rows.source is not None and test_rows.source is not None:
        for rows in (train_rows, test_rows):
            reopen(Store.open(rows.store), rows)


def is_store(folder: Path) -> bool:
    """Whether a store lies there, be it incomplete."""
    return plan_path(folder).exists() or manifest_path(folder).exists()


def _names(train: Store, blocks: str | None) -> tuple[str, ...]:
    if blocks is None:
        return tuple(train.block_names)
    names = ["embedding"]  # the reference is always there
    for name in block_list(blocks):
        found = [one for one in train.block_names if name in (one, family(one))]
        if not found:
            raise RecipeError(f"no block or family {name!r}; there are: {', '.join(train.block_names)}")
        names += found
    return tuple(dict.fromkeys(names))


__all__ = ["check_samples", "compare_stores", "is_store", "shown_samples"]
