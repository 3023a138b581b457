"""What the data of stores is called: in the title of a report, where no path of this machine may stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sporeprint.data.rows import shown_name
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store

_SPLIT = re.compile(r"(train|training|test|val|valid|validation|dev|eval|data)([-_.].*)?", re.IGNORECASE)


def data_names(several: Iterable[Rows]) -> str:
    """The names of the stores' data, each once.

    The name is the source's, or where that is only the name of a split, "train.parquet", the store's, or that of the
    folder in which one of the two was given by a relative path.
    """
    return ", ".join(dict.fromkeys(_name(rows) for rows in several))


def _name(rows: Rows) -> str:
    store = Store.open(rows.store)
    own = shown_name(store.folder)
    names = (store.plan["source"].get("name"), _given_in(rows.source), own, _given_in(rows.store))
    return next((name for name in names if name and not _SPLIT.fullmatch(name)), own)


def _given_in(path: Path | None) -> str:
    """The folder of a relative path, as it was given; "" for none."""
    return "" if path is None or path.is_absolute() or path.parent.name == ".." else path.parent.name
