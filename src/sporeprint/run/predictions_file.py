"""A file of predictions, written part by part: Parquet, CSV or JSON lines, complete or absent."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from sporeprint.errors import RecipeError, StoreError
from sporeprint.run.answer_columns import CLASSIFIED, REGRESSED
from sporeprint.store.atomic import TEMPORARY, sync_folder
from sporeprint.values import json_text

SUFFIXES = (".parquet", ".csv", ".jsonl")


def check_suffix(file: Path) -> None:
    """Raises RecipeError for a name that does not end as the formats do."""
    if file.suffix.lower() not in SUFFIXES:
        raise RecipeError(f"--out '{file}': expected a name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def is_predictions(file: Path) -> bool:
    """Whether a file begins as ours do."""
    try:
        columns = _columns(file)
    except (OSError, ValueError, AttributeError):
        return False
    return columns is None or any(tuple(columns[: len(first)]) == first for first in (CLASSIFIED, REGRESSED))


def _columns(file: Path) -> list[str] | None:
    """The columns of a file of predictions; None for an empty one."""
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(file).names)
    with open(file, encoding="utf-8", newline="") as lines:
        first = lines.readline()
    if not first:
        return None
    return next(csv.reader([first])) if file.suffix.lower() == ".csv" else list(json.loads(first))


class PredictionsFile:
    """Writes columns of rows to `path`, part after part; the file is there once the `with` block ends without error.

    A set of labels is a list in Parquet and JSON, and the JSON of a list in CSV. Raises StoreError.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        check_suffix(self.path)
        self.kind = self.path.suffix.lower()
        self._temporary = self.path.with_name(self.path.name + TEMPORARY)
        self._file: IO[Any] | None = None
        self._parquet: Any = None

    def __enter__(self) -> PredictionsFile:
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            binary = self.kind == ".parquet"
            self._file = open(self._temporary, "wb" if binary else "w", **({} if binary else _TEXT))
        return self

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows, given as columns of one length; later parts have the columns of the first."""
        with self._said():
            if self.kind == ".parquet":
                self._write_parquet(columns)
                return
            assert self._file is not None
            rows = zip(*columns.values(), strict=True)
            if self.kind == ".csv":
                if not self._file.tell():
                    csv.writer(self._file, lineterminator="\n").writerow(columns)
                csv.writer(self._file, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
                return
            for row in rows:
                self._file.write(json_text(dict(zip(columns, row, strict=True)), indent=None) + "\n")

    def _write_parquet(self, columns: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        known = (
            {}
            if self._parquet is None
            else dict(zip(self._parquet.schema.names, self._parquet.schema.types, strict=True))
        )
        arrays = {}
        for name, values in columns.items():
            try:
                arrays[name] = pa.array(values, known.get(name))
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise StoreError(
                    f"'{self.path}' was not written: the values of {name!r} are of different kinds ({error}); "
                    "give a name that ends in .csv or .jsonl"
                ) from None
        if self._parquet is None:
            schema = _typed(pa.table(arrays).schema)
            arrays = {name: pa.array(columns[name], schema.field(name).type) for name in columns}
            self._parquet = pq.ParquetWriter(self._file, schema)
        self._parquet.write_table(pa.table(arrays))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        assert self._file is not None
        try:
            with self._said():
                if self._parquet is not None:
                    self._parquet.close()
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
                self._file.close()
                if kind is None:
                    os.replace(self._temporary, self.path)
                    sync_folder(self.path.parent)
        finally:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _said(self) -> Any:
        try:
            yield
        except OSError as error:
            why = error.strerror or error
            raise StoreError(f"'{self.path}' was not written: {why}; free some space or give another name") from None


_TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json_text(value, indent=None)
    return value


def _typed(schema: Any) -> Any:
    """The schema with a type for columns that are empty so far, which later parts may fill: labels as the answers'."""
    import pyarrow as pa

    answers = schema.field(1).type
    for at, column in enumerate(schema):
        kind = pa.float64() if column.name.endswith("_similarity") else answers
        if column.name.startswith("neighbour_") and column.name.count("_") == 1:
            kind = pa.string()
        if pa.types.is_null(column.type):
            schema = schema.set(at, pa.field(column.name, kind))
        elif pa.types.is_list(column.type) and pa.types.is_null(column.type.value_type):
            schema = schema.set(at, pa.field(column.name, pa.list_(answers)))
    return schema
