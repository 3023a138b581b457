"""A folder of files with a table of them: `metadata.csv`, `.jsonl` or `.parquet`, as Hugging Face's imagefolder has."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from sporeprint.data.folders import SPLITS, files_below, listed
from sporeprint.data.formats import Table, Values
from sporeprint.data.tables import TableSource, is_text, names_files, usual_names
from sporeprint.errors import SourceError

FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def find_metadata(folder: Path) -> Path | None:
    """Return the metadata file of a folder; None where it has none. Raises SourceError for several."""
    paths = [folder / name for name in FILES if (folder / name).is_file()]
    if len(paths) > 1:
        raise SourceError(f"'{folder}' has {' and '.join(path.name for path in paths)}; keep one of them")
    return paths[0] if paths else None


def file_column(schema: pa.Schema, modality: str) -> str | None:
    """Return the column that names a file in each row; None where there is none, or several."""
    strings = [field.name for field in schema if is_text(field.type)]
    paths = () if modality == "text" else ("file_path", "path", "file", modality)
    if known := usual_names(("file_name", f"{modality}_file_name", "filename", *paths), strings):
        return known[0]
    others = [name for name in strings if names_files(name)]
    return others[0] if len(others) == 1 else None


class ListedFiles:
    """The rows of a table whose file is there, below `folder`; and those that cannot be read, which cost themselves.

    listed: the paths in the table, as they stand there. missing: those of them where no file is.
    """

    def __init__(self, table: Table, column: str, folder: str = ""):
        self.kind, self.files, self.schema = table.kind, table.files, table.schema
        self.kinds = getattr(table, "kinds", {})
        self.folder = folder
        self._table, self._column = table, column
        root = table.files[0].parent
        names = [cell for (cell,) in table.values([column]) if isinstance(cell, str)]
        self.listed = {name for name in names if posixpath.normpath(name).startswith(f"{folder}/" if folder else "")}
        self.missing = sorted(name for name in self.listed if not _is_there(root, name))
        self._there = self.listed.difference(self.missing)
        self.rows = sum(1 for _ in self.values([]))
        if not self._there:
            raise SourceError(
                f"no row of '{table.files[0]}' names a file that is there ({listed(self.missing, 'row')}); column "
                f"{column!r} has paths relative to it"
            )

    def values(self, columns: Sequence[str], start: int = 0) -> Iterator[Values]:
        rows = self._table.values([*columns, self._column])
        left = (row[:-1] for row in rows if not isinstance(row[-1], str) or row[-1] in self._there)
        return islice(left, start, None)


class MetadataSource(TableSource):
    """Rows of a metadata file: the files that it names, relative to it. Others in the folder are no rows."""

    _table: ListedFiles

    def notes(self) -> list[str]:
        """Return which files have no row in the metadata file, and which rows no file."""
        table, name = self._table, self._path.name
        rows = {posixpath.normpath(cell) for cell in table.listed}
        below = files_below(self._folder / table.folder, self._modality)
        notes = super().notes()
        if without := sorted({posixpath.join(table.folder, path) for path in below} - rows):
            notes.append(f"left out, having no row in {name}: {listed(without, 'file')}")
        if table.missing:
            notes.append(f"left out of {name}, having no file: {listed(table.missing, 'row')}")
        return notes


def _is_there(root: Path, name: str) -> bool:
    try:
        return os.path.exists(root / name)
    except ValueError:  # a zero byte
        return False


def is_unique(table: Table, column: str) -> bool:
    """Return whether no two rows have the same text in a column."""
    names = [cell for (cell,) in table.values([column]) if isinstance(cell, str)]
    return len(set(names)) == len(names)


def check_one_split(table: Table, path: Path, column: str) -> None:
    """Raise SourceError where the files that a table names are in folders of several splits."""
    names = (posixpath.normpath(cell) for (cell,) in table.values([column]) if isinstance(cell, str))
    firsts = {name.partition("/")[0] for name in names if "/" in name}
    if len(firsts) > 1 and firsts <= set(SPLITS):
        raise SourceError(f"the files in '{path}' are of several splits: {sorted(firsts)}; choose one (--split)")
