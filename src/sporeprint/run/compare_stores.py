"""Two stores, or one, compared: what helps here, and the samples that the report shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sporeprint.data.limits import Limits
from sporeprint.evaluate.compare import compare
from sporeprint.evaluate.comparison import Comparison
from sporeprint.features.blocks import family
from sporeprint.report.samples import Samples
from sporeprint.run.advised_command import classify_note
from sporeprint.run.data_names import data_names
from sporeprint.run.duplicate_notes import duplicate_notes
from sporeprint.run.paper_assembly import mark_paper
from sporeprint.run.store_info import measured
from sporeprint.run.store_pair import (
    SAME,
    Pair,
    block_list,
    check_block_names,
    fewer_than_shots,
    read_pair,
    read_store,
)
from sporeprint.run.store_source import Rows, reopen, samples_of, store_modality
from sporeprint.store.reader import Store


def compare_stores(
    train_rows: Rows,
    test_rows: Rows | None = None,
    blocks: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    splits: int = 10,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    shots: int | None = None,
    draws: int = 5,
) -> Comparison:
    """What `compare` returns for a pair of stores, or for repeated splits of one.

    blocks: only these, or of these families, comma-separated, and the embedding. label_column: of the stores' sources,
    instead of their labels. group_column: of those sources, which rows belong together. shots, draws: labelled rows of
    each class that choose, and how often they are drawn. progress: called with each step as it begins.
    Raises StoreError for stores that do not go together, have no labels or lists of them, RecipeError for blocks that
    are not there, SourceError where a source is not the one that its store was made of.
    """

    def reads(store: Store) -> tuple[str, ...]:
        return block_names(store, blocks)

    if test_rows is None:
        rows = read_store(train_rows, reads, label_column, "compare", "--train", True, group_column)
    else:
        rows = read_pair(
            train_rows, test_rows, reads, label_column, who="compare", samples=True, group_column=group_column
        )
    test = rows if isinstance(rows, Pair) else None
    train = rows.store
    resolved = train.plan["resolved"]
    settings: dict[str, Any] = {
        "backbone": resolved["backbone"]["name"],
        "data": data_names(rows for rows in (train_rows, test_rows) if rows is not None),
        **({"precision": resolved["dtype"]} if "dtype" in resolved else {}),
        "recipe seed": train.plan["recipe"]["seed"],
        **({} if label_column is None else {"labels": label_column}),
        **({} if group_column is None else {"groups": group_column}),
    }
    cost = train.cost
    if cost.get("threads"):
        settings["rows/s"] = measured(cost)
    comparison = compare(
        rows.blocks,
        rows.labels,
        None if test is None else test.test_blocks,
        None if test is None else test.test_labels,
        train.blocks_info,
        seconds=cost.get("seconds", {}),
        rows_timed=cost.get("rows", 0),
        ids=rows.ids,
        test_ids=None if test is None else test.test_ids,
        groups=rows.groups,
        test_groups=None if test is None else test.test_groups,
        splits=splits,
        shots=shots,
        draws=draws,
        seed=seed,
        settings=settings,
        progress=progress,
    )
    marked = replace(comparison, entries=tuple(mark_paper(comparison.entries, train.plan)))
    if SAME in rows.notes:
        marked = replace(marked, verdict=f"{SAME.capitalize()}.")
    columns = (label_column, group_column)
    command = [] if shots is not None else classify_note(marked, marked.advised, train_rows, test_rows, *columns)
    fewer = fewer_than_shots(rows.labels, shots)
    first = (*rows.notes, *fewer, *duplicate_notes(rows))
    return replace(marked, notes=(*first, *marked.notes, *command))


def shown_samples(
    comparison: Comparison, train_rows: Rows, test_rows: Rows | None, limits: Limits = Limits()
) -> Samples | None:
    """The samples of the rows that the report shows, where the sources are given. Raises SourceError, StoreError."""
    if test_rows is None or train_rows.source is None or test_rows.source is None:
        return None
    changed = comparison.changed
    neighbours = {neighbour.id for row in changed for neighbour in row.neighbours_before + row.neighbours_after}
    stores = [Store.open(rows.store) for rows in (train_rows, test_rows)]
    train, test = (
        {row_id: sample for row_id, sample in zip(store.ids, samples_of(store, rows), strict=True) if row_id in ids}
        for store, rows, ids in zip(
            stores, (train_rows, test_rows), (neighbours, {row.id for row in changed}), strict=True
        )
    )
    return Samples(store_modality(stores[0]), test, train, limits)


def check_samples(train_rows: Rows, test_rows: Rows | None) -> None:
    """Raises SourceError or StoreError for a source that is not there, or not the one its store was made of."""
    for rows in (train_rows, test_rows):
        if rows is not None and rows.source is not None:
            reopen(Store.open(rows.store), rows)


def block_names(train: Store, blocks: str | None) -> tuple[str, ...]:
    if blocks is None:
        return tuple(train.block_names)
    listed = block_list(blocks)
    check_block_names(listed, train.block_names, str(train.folder))
    members = [block for name in listed for block in train.block_names if name in (block, family(block))]
    return tuple(dict.fromkeys(["embedding", *members]))  # the reference is always there


__all__ = ["check_samples", "compare_stores", "shown_samples"]
