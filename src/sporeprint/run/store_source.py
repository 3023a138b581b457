"""The source that a store was made of, opened again: it holds the samples, and columns that the store does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.data.sampling import Sampled
from sporeprint.data.sources import Source, open_source
from sporeprint.errors import SourceError, StoreError
from sporeprint.store.plan import differences
from sporeprint.store.reader import Store, label_array


@dataclass(frozen=True)
class Rows:
    """A store and, where it is asked for, the source it was made of. split: of a source that holds several."""

    store: Path
    source: Path | None = None
    split: str | None = None


def samples_of(store: Store, rows: Rows) -> list[Any]:
    """The samples of a store's rows, in its order, not decoded. Raises StoreError, SourceError as `reopen` does."""
    samples = {row.id: row.sample for row in reopen(store, rows).rows()}
    return [samples[row_id] for row_id in store.ids]


def labels_of(store: Store, rows: Rows, column: str) -> np.ndarray | None:
    """Labels of a store's rows from another column of its source, in the store's order, as `Store.labels` gives them.

    Raises StoreError, SourceError as `reopen` does, and SourceError where the source has no such column.
    """
    if not column:
        raise SourceError("an empty --label-column names no labels; give a column of the source")
    reopen(store, rows)  # that it is the source is checked before what it has beside
    source = _open(store.plan["source"], rows, store_modality(store), column)
    names = source.label_names
    found = {row.id: row.label if names is None else _named(row.label, names) for row in source.rows()}
    return label_array([found[row_id] for row_id in store.ids])


def reopen(store: Store, rows: Rows) -> Source:
    """The source of a store, opened as its plan says, wherever it lies now.

    Raises StoreError for a store of a list in memory, SourceError where this is not what the store was made of.
    """
    told = store.plan["source"]
    if told["kind"] == "list":
        raise StoreError(f"{rows.store} was made of a list in memory; use the Python functions with that list")
    try:
        source = _open(told, rows, store_modality(store))
    except SourceError as error:
        was = f"{told['name']!r} ({told['kind']})"
        raise SourceError(f"{rows.store} was made of {was}, as which this cannot be opened: {error}") from None
    seen = {**source.describe(), "digest": source.digest()}
    apart = differences(_content(told), _content(seen), ("the store", "it"), "source")
    if apart:
        raise SourceError(f"'{rows.source}' is not what {rows.store} was made of:\n  " + "\n  ".join(apart))
    return source


def _open(told: dict[str, Any], rows: Rows, modality: str, label_column: str | None = None) -> Source:
    columns = {}
    if told["kind"] != "folder":
        given = told["columns"]
        label = (given["label"] or "") if label_column is None else label_column
        columns = {"sample_column": given["sample"], "label_column": label, "id_column": given["id"]}
    elif label_column is not None:
        raise SourceError(f"'{rows.source}' is a folder of files, which has no columns; leave out --label-column")
    if rows.source is None:
        raise SourceError(f"the source that {rows.store} was made of is needed; it was {told['name']!r}")
    source: Source = open_source(rows.source, split=rows.split, limit=told["limit"], modality=modality, **columns)
    return Sampled(source, told["sample"], told["sample_seed"]) if "sample" in told else source


def store_modality(store: Store) -> str:
    """ "image", "text" or "audio": what the backbone of a store takes."""
    return store.plan["resolved"]["backbone"].get("modality", "image")


def _content(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "name"}  # it may lie elsewhere now


def _named(label: Any, names: list[str]) -> Any:
    if isinstance(label, list):
        return [_named(part, names) for part in label]
    return label if label is None else names[label]
