"""Open again the source that a store was made of: it holds the samples, and columns that the store does not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.data.rows import digest_like
from sporeprint.data.sampling import Sampled
from sporeprint.data.sources import Source, open_source
from sporeprint.errors import SourceError, StoreError
from sporeprint.store.plan import differences
from sporeprint.store.reader import Store, label_array


@dataclass(frozen=True)
class Rows:
    """A store and, where it is asked for, the source it was made of. split: its split, where it holds several."""

    store: Path
    source: Path | None = None
    split: str | None = None


def samples_of(store: Store, rows: Rows) -> list[Any]:
    """Return the samples of a store's rows, in its order, not decoded. Raises what `reopen` raises."""
    samples = {row.id: row.sample for row in reopen(store, rows).rows()}
    return [samples[row_id] for row_id in store.ids]


def labels_of(store: Store, rows: Rows, column: str, flag: str = "--label-column") -> np.ndarray | None:
    """Read labels of a store's rows from another column of its source, in its order, as `Store.labels` has them.

    flag: of the command line, which names the column.

    Raises StoreError, SourceError as `reopen` does, and SourceError where the source has no such column.
    """
    if not column:
        raise SourceError(f"an empty {flag} names no {flag[2:-7]}s; give a column of the source")
    reopen(store, rows)  # checks that it is the source before its other columns
    source = _open(store.plan["source"], rows, store_modality(store), column, flag)
    names = source.label_names
    labels = {row.id: named_label(row.label, names) for row in source.rows()}
    return label_array([labels[row_id] for row_id in store.ids])


def reopen(store: Store, rows: Rows) -> Source:
    """Open the source of a store as its plan says, wherever it is now.

    Raises StoreError for a store of a list in memory, SourceError where this is not what the store was made of.
    """
    recorded = store.plan["source"]
    if recorded["kind"] == "list":
        raise StoreError(f"{rows.store} was made of a list in memory; use the Python functions with that list")
    original = f"{recorded['name']!r} ({recorded['kind']})"
    if rows.source is None:
        raise SourceError(f"{rows.store} was made from {original}, which is needed here; give that source")
    try:
        source = _open(recorded, rows, store_modality(store))
    except SourceError as error:
        raise SourceError(
            f"{rows.store} was made from {original}; '{rows.source}' cannot be opened so: {error}"
        ) from None
    seen = {**source.describe(), "digest": digest_like(source, recorded.get("digest"))}
    changes = differences(_content(recorded), _content(seen), ("the store", "it"), "source")
    if changes:
        raise SourceError(
            f"'{rows.source}' is not what {rows.store} was made of: give the source {original} as it was, or extract "
            "the changed one into a new store\n  " + "\n  ".join(changes)
        )
    return source


def _open(
    recorded: dict[str, Any], rows: Rows, modality: str, label_column: str | None = None, flag: str = "--label-column"
) -> Source:
    columns: dict[str, Any] = {}
    if recorded["kind"] != "folder":
        given = recorded["columns"]
        label = (given.get("label") or "") if label_column is None else label_column
        columns = {"sample_column": given.get("sample"), "label_column": label, "id_column": given.get("id") or ""}
    elif label_column is not None:
        raise SourceError(f"'{rows.source}' is a folder of files, which has no columns; leave out {flag}")
    else:
        columns = {"metadata": False}
    assert rows.source is not None
    source: Source = open_source(rows.source, split=rows.split, limit=recorded["limit"], modality=modality, **columns)
    return Sampled(source, recorded["sample"], recorded["sample_seed"]) if "sample" in recorded else source


def store_modality(store: Store) -> str:
    """ "image", "text" or "audio": what the backbone of a store takes."""
    return store.plan["resolved"]["backbone"].get("modality", "image")


def _content(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "name"}  # it may be elsewhere now


def named_label(label: Any, names: list[str] | None) -> Any:
    """Return the name of an integer label, or of each in a list; a label as it is where there are no names."""
    if names is None or label is None:
        return label
    return [named_label(part, names) for part in label] if isinstance(label, list) else names[label]
