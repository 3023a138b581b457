"""Pairs of stores of the same rows, one pair a backbone: which backbone to use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sporeprint.errors import RecipeError, SampleError, StoreError
from sporeprint.evaluate.compare_backbones import BackboneComparison, BackboneRows, compare_backbones
from sporeprint.run.advised_command import classify_note
from sporeprint.run.compare_stores import block_names
from sporeprint.run.data_names import data_names
from sporeprint.run.duplicate_notes import duplicate_notes
from sporeprint.run.store_pair import Pair, read_pair
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store

OTHERS = "--with"


def pairs_of(stores: Sequence[Path], train: Rows, test: Rows) -> list[tuple[Rows, Rows]]:
    """The first pair of stores, and those of --with, two by two, of the same sources. Raises RecipeError."""
    if len(stores) % 2:
        raise RecipeError(f"{OTHERS} takes two stores, TRAIN and TEST of another backbone; got {len(stores)} in all")
    others = zip(stores[::2], stores[1::2], strict=True)
    return [(train, test), *((replace(train, store=one), replace(test, store=other)) for one, other in others)]


def compare_backbone_stores(
    pairs: Sequence[tuple[Rows, Rows]],
    blocks: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> BackboneComparison:
    """What `compare_backbones` returns for pairs of stores. blocks, label_column, group_column: as of `compare_stores`.

    Raises StoreError for stores that do not go together or hold other rows, RecipeError, SourceError.
    """

    def reads(store: Store) -> tuple[str, ...]:
        return block_names(store, blocks)

    read = []
    for train, test in pairs:
        progress(f"reading {train.store} and {test.store}")
        read.append(read_pair(train, test, reads, label_column, who="compare", samples=True, group_column=group_column))
    names = _names(read)
    backbones = [
        BackboneRows(
            name, pair.blocks, pair.labels, pair.ids, pair.test_blocks, pair.test_labels, pair.test_ids,
            pair.store.blocks_info, pair.store.cost.get("seconds", {}), pair.store.cost.get("rows", 0),
        )
        for name, pair in zip(names, read, strict=True)
    ]  # fmt: skip
    groups = test_groups = None
    if read[0].groups is not None and read[0].test_groups is not None:
        groups = dict(zip(read[0].ids, read[0].groups.tolist(), strict=True))
        test_groups = dict(zip(read[0].test_ids, read[0].test_groups.tolist(), strict=True))
    settings = {"data": data_names(pairs[0])}
    settings |= {} if label_column is None else {"labels": label_column}
    settings |= {} if group_column is None else {"groups": group_column}
    try:
        comparison = compare_backbones(backbones, groups, test_groups, seed=seed, settings=settings, progress=progress)
    except SampleError as error:
        raise StoreError(str(error)) from None
    train, test = pairs[names.index(comparison.chosen)]
    notes = [*read[0].notes, *duplicate_notes(read[0])]
    notes += classify_note(comparison.comparison, comparison.advised, train, test, label_column, group_column)
    for name, pair in zip(names[1:], read[1:], strict=True):
        notes += [f"{name}: {note}" for note in pair.notes if note not in notes]
    return comparison.noted(notes)


def _names(pairs: Sequence[Pair]) -> list[str]:
    """The backbones' names, without the folder they lie in; with their store's where two are alike."""
    names = [Path(pair.store.plan["resolved"]["backbone"]["name"]).name for pair in pairs]
    return [
        name if names.count(name) == 1 else f"{name} ({pair.store.folder.name})"
        for name, pair in zip(names, pairs, strict=True)
    ]
