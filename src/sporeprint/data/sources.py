"""Open what a user names as rows: `open_source` recognises folders, tables and `datasets` folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sporeprint.data.folders import SPLITS, SUFFIXES, FolderSource
from sporeprint.data.formats import ArrowTable, ParquetTable, Table
from sporeprint.data.rows import ListSource, Row, Source, brief
from sporeprint.data.tables import TableSource
from sporeprint.data.text_tables import CsvTable, JsonlTable
from sporeprint.errors import SourceError
from sporeprint.values import parse_json

__all__ = ["FolderSource", "ListSource", "Row", "Source", "TableSource", "open_source"]

_TABLES: dict[str, Callable[[Path], Table]] = {
    ".parquet": lambda path: ParquetTable([path]),
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".jsonl": JsonlTable,
    ".ndjson": JsonlTable,
    ".json": JsonlTable,
    ".arrow": lambda path: ArrowTable([path]),
}
_SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?=$|[-_.])")


def open_source(
    path: str | Path,
    *,
    sample_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    modality: str = "image",
    like: Mapping[str, str | None] | None = None,
) -> Source:
    """Open a folder of class folders, a table, a folder of Parquet shards or a `datasets` folder.

    modality: that of the samples, "image", "text" or "audio": which files and columns to look for. sample_column,
    label_column ("" for none), id_column: columns of a table; found where not given. split: in a folder with several.
    limit: the first rows only. like: the "columns" of another source's `describe()`, taken where this one has them.
    Raises SourceError.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from sporeprint import open_source
    >>> photos = Path(tempfile.mkdtemp())
    >>> for label in ("cat", "dog"):
    ...     (photos / label).mkdir()
    ...     Image.new("RGB", (8, 8)).save(photos / label / "1.png")
    >>> [(row.id, row.label) for row in open_source(photos).rows()]
    [('cat/1.png', 'cat'), ('dog/1.png', 'dog')]
    """
    if modality not in SUFFIXES:
        raise SourceError(f"modality={modality!r}; expected one of: {', '.join(SUFFIXES)}")
    if not isinstance(path, (str, os.PathLike)):
        raise SourceError(f"the source is a {type(path).__name__}; expected a path to a folder or a table")
    path = Path(path)
    columns = {"sample_column": sample_column, "label_column": label_column, "id_column": id_column}
    if not os.path.exists(path):
        raise SourceError(f"there is no '{path}'; give a folder of files, a table, or a folder that `datasets` saved")
    if path.is_dir():
        table, path = _open_folder(path, split)
        if table is None:
            given = [name for name, value in columns.items() if value is not None]
            if given:
                raise SourceError(f"'{path}' is a folder of files, which has no columns; leave out {', '.join(given)}")
            return FolderSource(path, limit=limit, modality=modality)
    elif split is not None:
        raise SourceError(f"'{path}' is one file; split={split!r} chooses among the files of a folder: leave it out")
    elif path.suffix.lower() in _TABLES:
        table = _TABLES[path.suffix.lower()](path)
    else:
        advice = (
            "give the folder it is in"
            if path.suffix.lower() in SUFFIXES[modality]
            else f"known are {', '.join(_TABLES)}"
        )
        raise SourceError(f"'{path}' is not a table that sporeprint reads; {advice}")
    return TableSource(
        table,
        path,
        sample_column=sample_column,
        label_column=label_column,
        id_column=id_column,
        limit=limit,
        modality=modality,
        like=like,
    )


def _open_folder(folder: Path, split: str | None) -> tuple[Table | None, Path]:
    """Return the table in a folder and the folder that names it; no table for a folder of files."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json_list(folder / "dataset_dict.json", lambda value: value["splits"])
        if split is None and len(splits) == 1:
            split = splits[0]
        if split not in splits:
            raise SourceError(f"'{folder}' has the splits {splits}, not {split!r}; choose one of them (split)")
        if Path(split).name != split or split == "..":
            raise SourceError(
                f"'{folder}' has the split {brief(split)}, which is no folder in it: save the dataset again"
            )
        return _open_saved(folder / split), folder / split
    if (folder / "state.json").is_file():
        if split is not None:
            raise SourceError(f"'{folder}' is a single split; leave out split={split!r}")
        return _open_saved(folder), folder
    if split is not None and (folder / split).is_dir() and Path(split).name == split:
        return _open_folder(folder / split, None)
    shards = sorted(folder.glob("[!.]*.parquet")) or sorted(folder.glob("data/[!.]*.parquet"))
    if split is not None:
        chosen = [shard for shard in shards if re.match(rf"{re.escape(split)}(?=$|[-_.])", shard.stem)]
        if not chosen:
            raise SourceError(f"'{folder}' has no split {split!r}; expected a folder or Parquet files of that name")
        shards = chosen
    splits = sorted({match[1] for shard in shards if (match := _SPLIT.match(shard.stem))})
    if len(splits) > 1:
        raise SourceError(f"the Parquet files in '{folder}' are of several splits, {splits}; choose one (split)")
    return (ParquetTable(shards) if shards else None), shards[0] if len(shards) == 1 else folder


def _open_saved(folder: Path) -> Table:
    names = _json_list(folder / "state.json", lambda value: [file["filename"] for file in value["_data_files"]])
    if not names or any(Path(name).name != name for name in names):
        path = folder / "state.json"
        raise SourceError(
            f"'{path}' names the files {brief(names)}; expected files in its folder: save the dataset again"
        )
    return ArrowTable([folder / name for name in names])


def _json_list(path: Path, pick: Callable[[dict], list[str]]) -> list[str]:
    try:
        names = pick(parse_json(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"'{path}' cannot be read ({brief(error)}); save the dataset again") from None
    if not isinstance(names, list) or not all(isinstance(entry, str) for entry in names):
        raise SourceError(f"'{path}' holds {brief(names)}; expected names: save the dataset again")
    return names
