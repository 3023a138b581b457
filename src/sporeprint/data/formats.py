"""Read table files as batches of plain Python values: Parquet, Arrow streams of `datasets`, CSV and JSON lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sporeprint.errors import SourceError
from sporeprint.values import parse_json

BATCH = 32  # rows in memory at a time; encoded images are some megabytes at most
_REWRITE = "write it with commas (.csv) or with tabs (.tsv)"
_OTHER_MARKS = {";": _REWRITE, "\t": "give it a name that ends in .tsv", "|": _REWRITE}  # not separators -> advice
Batch = dict[str, list[Any]]


class Table(Protocol):
    """One table in one or several files. rows: their number."""

    kind: str
    files: list[Path]
    schema: pa.Schema
    rows: int

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """Yield {column: values} of at most `BATCH` rows each, from row `start` on."""
        ...


class ParquetTable:
    kind = "parquet"

    def __init__(self, files: list[Path]):
        self.files = files
        self._groups: list[tuple[Path, int, int]] = []  # file, row group, rows
        schemas = []
        for path in files:
            with _reading(path, "Parquet"), pq.ParquetFile(path) as file:
                schemas.append(file.schema_arrow)
                metadata = file.metadata
                self._groups += [
                    (path, group, metadata.row_group(group).num_rows) for group in range(file.num_row_groups)
                ]
        self.schema = _one_schema(schemas, files)
        self.rows = sum(rows for _, _, rows in self._groups)

    def holds_all(self, leaf: str) -> bool:
        """Return whether every row has this leaf, such as "image.bytes", by the files' own statistics."""
        for path in self.files:
            metadata = pq.read_metadata(path)
            for group in map(metadata.row_group, range(metadata.num_row_groups)):
                columns = [group.column(at) for at in range(group.num_columns)]
                known = [column.statistics for column in columns if column.path_in_schema == leaf]
                if not known or known[0] is None or not known[0].has_null_count or known[0].null_count:
                    return False
        return True

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        for path, group, rows in self._groups:
            if start >= rows:
                start -= rows
                continue
            # buffer_size: column chunks are streamed, never a whole row group of images in memory
            with _reading(path, "Parquet"), pq.ParquetFile(path, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=list(columns), use_threads=False):
                    if start < batch.num_rows:
                        yield _plain(batch.slice(start), columns)
                    start = max(0, start - batch.num_rows)


class ArrowTable:
    """The Arrow streams that `datasets` writes with save_to_disk; mapped, so that skipping costs nothing."""

    kind = "arrow"

    def __init__(self, files: list[Path]):
        self.files = files
        schemas = []
        self.rows = 0
        for path in files:
            with (
                _reading(path, "an Arrow stream"),
                pa.memory_map(str(path)) as mapped,
                pa.ipc.open_stream(mapped) as stream,
            ):
                schemas.append(stream.schema)
                self.rows += sum(batch.num_rows for batch in stream)
        self.schema = _one_schema(schemas, files)

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        for path in self.files:
            with (
                _reading(path, "an Arrow stream"),
                pa.memory_map(str(path)) as mapped,
                pa.ipc.open_stream(mapped) as stream,
            ):
                for batch in stream:
                    if start < batch.num_rows:
                        batch.validate(full=True)  # Arrow trusts a stream's offsets; we do not
                    for offset in range(start, batch.num_rows, BATCH):
                        yield _plain(batch.slice(offset, BATCH), columns)
                    start = max(0, start - batch.num_rows)


class _Lines:
    """A text file of rows, read once at the start: to count them, and to find a broken one before the work begins."""

    kind = ""
    what = ""

    def __init__(self, path: Path):
        self.files = [path]
        self.rows = 0
        first: dict[str, Any] = {}  # column -> its first value
        for row in self._records():
            self.rows += 1
            for name, value in row.items():
                if first.get(name) is None:
                    first[name] = value
        with _reading(path, self.what):
            self.schema = pa.schema([(name, pa.array([value]).type) for name, value in first.items()])

    def _records(self) -> Iterator[dict[str, Any]]:
        raise NotImplementedError

    def batches(self, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        records = islice(self._records(), start, None)
        while batch := list(islice(records, BATCH)):
            yield {name: [row.get(name) for row in batch] for name in columns}


class CsvTable(_Lines):
    """A CSV file: every value is text, an empty one is missing. Tabs separate where the file ends in .tsv."""

    kind, what = "csv", "CSV"

    def _records(self) -> Iterator[dict[str, Any]]:
        (path,) = self.files
        with _reading(path, self.what), open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise SourceError(f"'{path}' has a column name twice: {header}; the first line names the columns")
            if len(header) == 1 and (marks := [mark for mark in _OTHER_MARKS if mark in header[0]]):
                raise SourceError(
                    f"'{path}' has one column, {header[0]!r}, by its first line; its values seem to be separated by "
                    f"{marks[0]!r}: {_OTHER_MARKS[marks[0]]}"
                )
            for row in reader:
                if row and len(row) != len(header):
                    raise SourceError(
                        f"'{path}', line {reader.line_num}: {len(row)} values; the first line has {len(header)}"
                    )
                if row:
                    yield {name: value or None for name, value in zip(header, row, strict=True)}


class JsonlTable(_Lines):
    kind, what = "jsonl", "JSON lines"

    def _records(self) -> Iterator[dict[str, Any]]:
        (path,) = self.files
        with _reading(path, self.what), open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = parse_json(line)
                except ValueError as error:
                    row = error
                if not isinstance(row, dict):
                    problem = f"a {type(row).__name__}" if not isinstance(row, Exception) else str(row)
                    raise SourceError(f"'{path}', line {number}: {problem}; expected one JSON object on each line")
                yield row


def _plain(batch: pa.RecordBatch, columns: Sequence[str]) -> Batch:
    return {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in columns}


def _one_schema(schemas: list[pa.Schema], files: list[Path]) -> pa.Schema:
    def features(schema: pa.Schema) -> bytes | None:
        return (schema.metadata or {}).get(b"huggingface")  # the class names are in it

    for schema, path in zip(schemas, files, strict=True):
        if not schema.equals(schemas[0]) or features(schema) != features(schemas[0]):
            raise SourceError(
                f"'{path}' has columns {schema.names}, '{files[0].name}' has {schemas[0].names}, "
                "or other types or classes; the files of one table have the same columns: give one of them, or a split"
            )
        if len(set(schema.names)) < len(schema.names):
            raise SourceError(f"'{path}' has a column name twice: {schema.names}; rename one")
    return schemas[0]


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, csv.Error) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise SourceError(f"'{path}' cannot be read as {what}: {reason}; is it whole, and of this kind?") from None
