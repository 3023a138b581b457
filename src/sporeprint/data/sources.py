"""Open what a user names as rows: `open_source` recognises folders, tables and `datasets` folders."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sporeprint.data.folders import SPLITS, SUFFIXES, FolderSource
from sporeprint.data.formats import ArrowTable, ParquetTable, Table
from sporeprint.data.metadata_files import (
    FILES,
    ListedFiles,
    MetadataSource,
    check_one_split,
    file_column,
    find_metadata,
    is_unique,
)
from sporeprint.data.rows import ListSource, Row, Source, brief
from sporeprint.data.tables import LABEL_NAMES, TableSource
from sporeprint.data.text_tables import CsvTable, JsonlTable, table_suffix
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
_OTHERS = {  # suffixes -> what to do with such a file
    (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"): "save the sheet as CSV in UTF-8",
    (
        ".zip",
        ".tar",
        ".tgz",
        ".gz",
        ".bz2",
        ".xz",
        ".zst",
        ".7z",
        ".rar",
    ): "unpack it, and give the folder or the table",
    (
        ".pkl",
        ".pickle",
        ".pt",
        ".pth",
        ".joblib",
    ): "such a file can run code: write a Parquet file (DataFrame.to_parquet)",
    (".feather", ".h5", ".hdf5", ".orc", ".dta", ".sav", ".mat", ".npy", ".npz", ".db", ".sqlite"): (
        "write a Parquet file (DataFrame.to_parquet)"
    ),
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
    metadata: bool = True,
) -> Source:
    """Open a folder of class folders, a table, a folder of Parquet shards or a `datasets` folder.

    A folder of files may have a metadata.csv, .jsonl or .parquet, whose column file_name (image_file_name, ...)
    names a file in each row: where it has labels, or a column is named, its rows are the source's.

    modality: that of the samples, "image", "text" or "audio": which files and columns to look for. sample_column,
    label_column ("" for none), id_column: columns of a table; found where not given. split: in a folder with several.
    limit: the first rows only. like: the "columns" of another source's `describe()`, taken where this one has them.
    metadata: False reads no metadata file.
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
        root = path
        table, path = _open_folder(path, split)
        notes: list[str] = []
        if table is None and metadata:
            source, notes = _open_metadata(root, path, modality, limit, like, columns)
            if source is not None:
                return source
        if table is None:
            given = [name for name, value in columns.items() if value is not None]
            if given:
                why = "".join(f" ({note})" for note in notes)
                raise SourceError(
                    f"'{path}' is a folder of files, which has no columns{why}; leave out {', '.join(given)}"
                )
            return FolderSource(path, limit=limit, modality=modality, notes=notes)
    elif split is not None:
        raise SourceError(f"'{path}' is one file; split={split!r} chooses among the files of a folder: leave it out")
    elif open_table := _opener(path):
        table = open_table(path)
    else:
        raise SourceError(f"'{path}' is not a table that sporeprint reads; {_advice(path, modality)}")
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


def _opener(path: Path) -> Callable[[Path], Table] | None:
    """Return what opens a table by its suffix: of those that are text also where it is compressed."""
    opener = _TABLES.get(table_suffix(path))
    packed = path.suffix.lower() == ".gz"
    return None if packed and table_suffix(path) in (".parquet", ".arrow") else opener


def _advice(path: Path, modality: str) -> str:
    """Return what to do about a file that is no table."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES["text"] and modality == "text":
        return "give the folder it is in; or, where each line is a text, a CSV or JSON lines file with a column 'text'"
    if suffix in SUFFIXES[modality]:
        return "give the folder it is in"
    known = f"known are {', '.join(_TABLES)}, and .csv.gz and the like"
    return next((advice for suffixes, advice in _OTHERS.items() if suffix in suffixes), known)


def _open_folder(folder: Path, split: str | None) -> tuple[Table | None, Path]:
    """Return the table in a folder and the folder that names it; no table for a folder of files."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json_list(folder / "dataset_dict.json", lambda value: value["splits"])
        if split is None and len(splits) == 1:
            split = splits[0]
        if split not in splits:
            raise SourceError(f"'{folder}' has the splits {splits}, not {split!r}; choose one of them (split, --split)")
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
    shards = [path for path in sorted(folder.glob("[!.]*.parquet")) if path.name not in FILES]
    shards = shards or sorted(folder.glob("data/[!.]*.parquet"))
    if split is not None:
        chosen = [shard for shard in shards if re.match(rf"{re.escape(split)}(?=$|[-_.])", shard.stem)]
        tables = [
            path for path in sorted((*folder.glob(f"{split}.*"), *folder.glob(f"data/{split}.*"))) if _opener(path)
        ]
        if not chosen and len(tables) == 1:
            return _TABLES[table_suffix(tables[0])](tables[0]), tables[0]
        if not chosen:
            raise SourceError(f"'{folder}' has no split {split!r}; expected a folder or tables of that name")
        shards = chosen
    splits = sorted({match[1] for shard in shards if (match := _SPLIT.match(shard.stem))})
    if len(splits) > 1:
        raise SourceError(
            f"the Parquet files in '{folder}' are of several splits, {splits}; choose one (split, --split)"
        )
    return (ParquetTable(shards) if shards else None), shards[0] if len(shards) == 1 else folder


def _open_metadata(
    root: Path,
    folder: Path,
    modality: str,
    limit: int | None,
    like: Mapping[str, str | None] | None,
    columns: dict[str, str | None],
) -> tuple[TableSource | None, list[str]]:
    """Return the rows of the metadata file in `folder`, or those of the one in `root` that are below it; or why not.

    Without a name, the column of files gives the ids, where they differ.
    """
    path = find_metadata(folder) or find_metadata(root)
    if path is None:
        return None, []
    table = _TABLES[path.suffix](path)
    column = columns["sample_column"] or file_column(table.schema, modality)
    names = ", ".join(table.schema.names)
    options: dict[str, Any] = {**columns, "limit": limit, "modality": modality, "like": like}
    if column is None and path.suffix == ".parquet":
        return TableSource(table, path, **options), []
    if column is None:
        return None, [f"{path.name} is not used: it has no column file_name; its columns: {names}"]
    if column not in table.schema.names:
        raise SourceError(f"'{path}' has no column {column!r}; its columns: {names}")
    if path.parent == folder:
        check_one_split(table, path, column)
    rows = ListedFiles(table, column, "" if path.parent == folder else folder.name)
    if columns["id_column"] is None and is_unique(rows, column):
        options["id_column"] = column
    source = MetadataSource(rows, path, **{**options, "sample_column": column})
    if not source.describe()["columns"]["label"] and set(columns.values()) == {None}:
        return None, [
            f"{path.name} is not used: it has no column named {', '.join(LABEL_NAMES)}; choose one (--label-column) of "
            f"its columns: {names}"
        ]
    return source, []


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
