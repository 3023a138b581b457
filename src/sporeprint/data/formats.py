"""Read table files row by row as plain Python values: Parquet, and the Arrow streams of `datasets`."""

from __future__ import annotations

import csv
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, repeat
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sporeprint.data.parquet_footer import Chunk, chunks_of
from sporeprint.errors import SampleError, SourceError

BATCH = 32  # rows of a Parquet file that are decoded at a time, at most
BATCH_BYTES = 64 * 2**20  # what they may take, twice, if each value were as large as the dictionary it may come from
BOMB_BYTES = 512 * 2**20  # a column of a row group that is larger, and was compressed to 1 %, is not read
Values = tuple[Any, ...]

_DAMAGE = (
    *(pa.ArrowException, OSError, ValueError, TypeError, OverflowError, LookupError, RecursionError, MemoryError),
    *(EOFError, zlib.error),
)
_DICTIONARY = re.compile(rb"\x15\x04\x15([\x80-\xff]{0,4}[\0-\x7f])")  # how its page begins: kind and size, in Thrift


class Table(Protocol):
    """One table in one or several files. rows: their number."""

    kind: str
    files: list[Path]
    schema: pa.Schema
    rows: int

    def values(self, columns: Sequence[str], start: int = 0) -> Iterator[Values]:
        """Yield each row's values of these columns, from row `start` on; one that cannot be read is a SampleError."""
        ...


class ParquetTable:
    kind = "parquet"

    def __init__(self, files: list[Path]):
        self.files = files
        self._groups: list[tuple[Path, int, int, list[Chunk]]] = []  # file, row group, rows, column chunks
        schemas = []
        for path in files:
            with reading(path, "Parquet"), pq.ParquetFile(path) as file, open(path, "rb") as raw:
                schemas.append(file.schema_arrow)
                metadata = file.metadata
                self._groups += [
                    (path, group, metadata.row_group(group).num_rows, chunks)
                    for group, chunks in enumerate(chunks_of(raw))  # pyarrow's own ends the process where one is broken
                ]
        for path, group, rows, chunks in self._groups:
            if not 0 <= rows <= min((chunk.values for chunk in chunks), default=0):
                raise SourceError(f"'{path}': row group {group} claims {rows} rows; write the table again")
        self.schema = _one_schema(schemas, files)
        self.rows = sum(rows for _, _, rows, _ in self._groups)

    def holds_all(self, leaf: str) -> bool:
        """Return whether every row has this leaf, such as "image.bytes", by the files' own statistics."""
        return all([chunk.nulls for chunk in chunks if chunk.path == leaf] == [0] for *_, chunks in self._groups)

    def values(self, columns: Sequence[str], start: int = 0) -> Iterator[Values]:
        for path, group, rows, chunks in self._groups:
            if start >= rows:
                start -= rows
                continue
            # buffer_size: column chunks are streamed, never a whole row group of images in memory
            with reading(path, "Parquet"), pq.ParquetFile(path, buffer_size=1 << 20) as file, open(path, "rb") as raw:
                yield from _group_rows(file, raw, group, chunks, columns, start)
            start = 0


class ArrowTable:
    """The Arrow streams that `datasets` writes with save_to_disk; mapped, so that skipping costs nothing."""

    kind = "arrow"

    def __init__(self, files: list[Path]):
        self.files = files
        schemas = []
        self.rows = 0
        for path in files:
            with (
                reading(path, "an Arrow stream"),
                pa.memory_map(str(path)) as mapped,
                pa.ipc.open_stream(mapped) as stream,
            ):
                schemas.append(stream.schema)
                self.rows += sum(batch.num_rows for batch in stream)
        self.schema = _one_schema(schemas, files)

    def values(self, columns: Sequence[str], start: int = 0) -> Iterator[Values]:
        for path in self.files:
            with (
                reading(path, "an Arrow stream"),
                pa.memory_map(str(path)) as mapped,
                pa.ipc.open_stream(mapped) as stream,
            ):
                for batch in stream:
                    yield from _rows(batch, columns, start)
                    start = max(0, start - batch.num_rows)


def _group_rows(
    file: pq.ParquetFile, raw: BinaryIO, group: int, chunks: Sequence[Chunk], columns: Sequence[str], start: int
) -> Iterator[Values]:
    """Yield the rows of a row group from `start` on; damage costs those that are not given yet."""
    rows, given = file.metadata.row_group(group).num_rows, 0
    try:
        size = _batch_size(raw, chunks, rows, columns)
        for batch in file.iter_batches(size, row_groups=[group], columns=list(columns), use_threads=False):
            values = [_plain(batch.column(batch.schema.get_field_index(name)), name) for name in columns]
            yield from islice(zip(*values, strict=True), max(0, start - given), None)
            given += batch.num_rows
        problem = f"is damaged (it ends after {given} rows)"
    except SampleError as error:
        problem = str(error)
    except _DAMAGE as error:
        # Arrow quotes the file's bytes after a colon
        problem = f"is damaged ({type(error).__name__}: {str(error).partition(':')[0][:100]})"
    cells = (SampleError(f"row group {group} {problem}; write it again"),) * len(columns)
    yield from repeat(cells, rows - max(start, given))


def _batch_size(raw: BinaryIO, chunks: Sequence[Chunk], rows: int, columns: Sequence[str]) -> int:
    """Return how many rows of a row group may be decoded at a time. Raises SampleError where it is a bomb."""
    total = 0
    for chunk in chunks:
        if not any(f"{chunk.path}.".startswith(f"{name}.") for name in columns):
            continue
        if chunk.size > BOMB_BYTES and chunk.size > 100 * chunk.stored:
            raise SampleError(f"takes {chunk.size:,} bytes, compressed to 1 %, as a decompression bomb is")
        total += max(chunk.size, 8 * chunk.values) + chunk.values * _largest_shared(raw, chunk)
    return max(1, min(BATCH, BATCH_BYTES * rows // max(1, total)))


def _largest_shared(raw: BinaryIO, chunk: Chunk) -> int:
    """Return how large a value may be that rows of a column chunk share: as large as the dictionary of its values."""
    if chunk.dictionary is None:
        return 0
    raw.seek(chunk.dictionary)
    header = _DICTIONARY.match(raw.read(16))
    if header is None:
        return chunk.size
    return sum((byte & 127) << (7 * at) for at, byte in enumerate(header[1])) >> 1


def _plain(array: pa.Array, column: str) -> list[Any]:
    try:
        values: list[Any] = array.to_pylist()
        return values
    except _DAMAGE:
        return [_cell(array, row, True, column) for row in range(len(array))]


def _rows(batch: pa.RecordBatch, columns: Sequence[str], start: int) -> Iterator[Values]:
    """Yield the values of a batch, row by row: a dictionary's value may be in all."""
    arrays = [batch.column(batch.schema.get_field_index(name)) for name in columns]
    sound = [_is_valid(array) for array in arrays]
    for row in range(start, batch.num_rows):
        yield tuple(_cell(array, row, known, name) for array, known, name in zip(arrays, sound, columns, strict=True))


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)  # Arrow trusts a stream's offsets; we do not
    except pa.ArrowException:
        return False
    return True


def _cell(array: pa.Array, row: int, sound: bool, column: str) -> Any:
    try:
        if not sound:
            if isinstance(array, pa.DictionaryArray):
                index = _cell(array.indices, row, sound, column)
                inside = index is None or isinstance(index, SampleError) or 0 <= index < len(array.dictionary)
                if not inside:
                    raise ValueError(f"entry {index} of {len(array.dictionary)}")
                return _cell(array.dictionary, index, sound, column) if isinstance(index, int) else index
            array.slice(row, 1).validate(full=True)
        return array[row].as_py()
    except UnicodeDecodeError as error:
        why = f"not Unicode text (a byte that is not UTF-8 at byte {error.start}); write it in this encoding"
    except (pa.ArrowException, ValueError, TypeError, OverflowError, LookupError, MemoryError) as error:
        why = f"damaged ({' '.join(str(error).split())[:100] or type(error).__name__}); write it again"
    return SampleError(f"column {column!r} is {why}")


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
def reading(path: Path, what: str) -> Iterator[None]:
    """Raise SourceError, with the path and what was expected, for all that goes wrong within."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SourceError(f"'{path}' is not a file (a folder, a pipe or a device); give a file")
        yield
    except SourceError:
        raise
    except (csv.Error, *_DAMAGE) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise SourceError(f"'{path}' cannot be read as {what}: {reason}; is it whole, and of this kind?") from None
