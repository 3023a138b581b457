"""Read tables that are text, CSV and JSON lines, row by row: a row that cannot be read costs itself only."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from sporeprint.data.formats import Values, reading
from sporeprint.data.locks import process_lock
from sporeprint.data.texts import not_unicode, unicode_advice
from sporeprint.errors import SampleError, SourceError
from sporeprint.values import parse_json

LONGEST = 128 * 2**20  # characters of a line, or of a CSV row over several lines; a text has half of that
_REWRITE = "write it with commas (.csv) or with tabs (.tsv)"
_OTHER_MARKS = {";": _REWRITE, "\t": "give it a name that ends in .tsv", "|": _REWRITE}  # not separators -> advice
_DIGITS = 640  # that Python converts to an integer under every setting of its own limit
_FIELD_LIMIT = process_lock()  # `csv` has one limit for the whole process


class _Lines:
    """A text file of rows, read once at the start: to count them, and to find the type that most of a column has."""

    kind = ""
    what = ""

    def __init__(self, path: Path):
        self.files = [path]
        self.rows = 0
        self._problem: SampleError | None = None  # of the first row that cannot be read
        counts: defaultdict[str, Counter[type]] = defaultdict(Counter)
        types: dict[tuple[str, type], pa.DataType] = {}
        for record in self._records():
            self.rows += 1
            if isinstance(record, SampleError):
                self._problem = self._problem or record
                continue
            for name, value in record.items():
                kinds, kind = counts[name], type(value)
                if value is not None and kind is not SampleError:
                    kinds[kind] += 1
                    if kinds[kind] == 1:
                        types[name, kind] = _arrow_type(value)
        if self._problem is not None and not counts:
            raise SourceError(f"'{path}', {self._problem}")
        self.kinds = {name: set(kinds) for name, kinds in counts.items()}  # the types of each column's values
        named = {name: kinds.most_common(1) for name, kinds in counts.items() if not_unicode(name) is None}
        if counts and not named:
            raise SourceError(f"'{path}' cannot be read as {self.what}: no name of a column is UTF-8; convert the file")
        self.schema = pa.schema(
            [(name, types[name, most[0][0]] if most else pa.null()) for name, most in named.items()]
        )

    def _records(self) -> Iterator[dict[str, Any] | SampleError]:
        """Yield the rows as {column: value}, or why a row cannot be read."""
        raise NotImplementedError

    def values(self, columns: Sequence[str], start: int = 0) -> Iterator[Values]:
        for record in islice(self._records(), start, None):
            if isinstance(record, SampleError):
                yield (record,) * len(columns)
            else:
                yield tuple([_unicode(record.get(name), name) for name in columns])


class CsvTable(_Lines):
    """A CSV file: every value is text, an empty one is missing. Tabs separate where the file ends in .tsv."""

    kind, what = "csv", "CSV"

    def _records(self) -> Iterator[dict[str, Any] | SampleError]:
        (path,) = self.files
        with reading(path, self.what), _text_file(path, newline="") as file:
            rows = _csv_rows(_lines(file), "\t" if path.suffix.lower() == ".tsv" else ",")
            _, header = next(rows, (1, []))
            if isinstance(header, SampleError):
                raise SourceError(f"'{path}', {header}")
            if any("\0" in name for name in header):
                raise ValueError("its first line has zero bytes, as UTF-16 has: save it as UTF-8")
            if len(set(header)) < len(header):
                raise SourceError(f"'{path}' has a column name twice: {header}; the first line names the columns")
            if len(header) == 1 and (marks := [mark for mark in _OTHER_MARKS if mark in header[0]]):
                raise SourceError(
                    f"'{path}' has one column, {header[0]!r}, by its first line; its values seem to be separated by "
                    f"{marks[0]!r}: {_OTHER_MARKS[marks[0]]}"
                )
            for line, row in rows:
                if isinstance(row, SampleError):
                    yield row
                elif row and len(row) != len(header):
                    yield SampleError(f"line {line}: {len(row)} values; the first line has {len(header)}")
                elif row:
                    yield {name: value or None for name, value in zip(header, row, strict=True)}


class JsonlTable(_Lines):
    kind, what = "jsonl", "JSON lines"

    def _records(self) -> Iterator[dict[str, Any] | SampleError]:
        (path,) = self.files
        with reading(path, self.what), _text_file(path) as file:
            for number, line in enumerate(_lines(file), 1):
                if line is None:
                    yield _too_long(number)
                elif line.strip():
                    yield _json_row(line, number)


def _text_file(path: Path, newline: str | None = None) -> TextIO:
    """Open a file whose bytes that are not UTF-8 become lone surrogates, which cost their cells."""
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _lines(file: TextIO) -> Iterator[str | None]:
    """Yield lines; None in place of one of more than `LONGEST` characters, which is never held whole."""
    ends = ("\n", "\r")
    while line := file.readline(LONGEST):
        if len(line) < LONGEST or line.endswith(ends):
            yield line
            continue
        del line
        while (rest := file.readline(1 << 16)) and not rest.endswith(ends):
            pass
        yield None


def _csv_rows(lines: Iterator[str | None], separator: str) -> Iterator[tuple[int, list[str] | SampleError]]:
    """Yield the number of each row's first line, and its values.

    Where the quotes of a row over several lines do not match, its first line alone is no row, and the next ones are
    read again: a quote that is never closed would take every row after it.
    """
    again: list[str | None] = []  # the last first
    number, read_again = 1, 0
    strict = csv.reader((), delimiter=separator, strict=True).dialect
    while True:
        line = again.pop() if again else next(lines, "")
        if line:
            try:
                row = next(csv.reader((line,), strict))
            except csv.Error:
                pass  # more lines, quotes that do not match, or a value beyond the limit that the process has set
            else:
                yield number, row
                number += 1
                continue
        again.append(line)
        taken: list[str | None] = []
        problem = "a quote is not closed"
        try:
            row = _parse_csv(_take(again, lines, taken), separator)
            if len(taken) > 1 and taken[-1]:
                problem = "a quote is followed by something else than a separator"
                _parse_csv((line for line in taken if line), separator, strict=True)
            whole = bool(taken[-1])
        except csv.Error as error:
            whole, problem = False, problem if len(taken) > 1 else str(error)
        if taken == [""]:
            return
        if whole:
            yield number, row
            number += len(taken)
            continue
        yield number, SampleError(f"line {number}: {problem}") if taken[0] else _too_long(number)
        number += 1
        rest = [line for line in taken[1:] if line != ""]
        again += rest[::-1]
        read_again += sum(_held(line) for line in rest)
        if read_again > 16 * LONGEST:
            raise csv.Error(f"quotes are not closed, in line {number - 1} and before")


def _take(again: list[str | None], lines: Iterator[str | None], taken: list[str | None]) -> Iterator[str]:
    """Yield lines, and put them into `taken`: with None for one that is too long, "" at the end of all."""
    size = 0
    while size <= LONGEST:
        line = again.pop() if again else next(lines, "")
        taken.append(line)
        if not line:
            return
        size += _held(line)
        yield line
    taken.append("")


def _held(line: str | None) -> int:
    """Return about how many bytes a line takes: Python adds some to its characters."""
    return len(line or "") + 64


def _parse_csv(lines: Iterator[str], separator: str, strict: bool = False) -> list[str]:
    with _FIELD_LIMIT:
        before = csv.field_size_limit(LONGEST)
        try:
            return next(csv.reader(lines, delimiter=separator, strict=strict), [])
        finally:
            csv.field_size_limit(before)


def _json_row(line: str, number: int) -> dict[str, Any] | SampleError:
    try:
        # a short line cannot hold a long integer, and a parser with a hook is made again for each line
        row = parse_json(line, parse_int=_integer) if len(line) > _DIGITS else parse_json(line)
    except (ValueError, MemoryError) as error:
        problem = str(error) or "needs more memory than there is"
        if isinstance(error, json.JSONDecodeError):  # which counts lines too, from this one
            problem = f"{error.msg} at column {error.colno}"
    else:
        if isinstance(row, dict):
            return row
        problem = f"a {type(row).__name__}"
    return SampleError(f"line {number}: {problem}; expected one JSON object on each line")


def _integer(digits: str) -> int | SampleError:
    if len(digits) <= _DIGITS:
        return int(digits)
    return SampleError(f"an integer of {len(digits):,} digits; no value has that many")


def _too_long(number: int) -> SampleError:
    return SampleError(f"line {number} has more than {LONGEST:,} characters; a row is shorter")


def _arrow_type(value: Any) -> pa.DataType:
    """Return the type of a column from one of its values, by its Python types alone: nothing is converted."""
    if isinstance(value, dict):
        return pa.struct([(name, _arrow_type(part)) for name, part in value.items() if not_unicode(name) is None])
    if isinstance(value, list):
        return pa.list_(pa.null())  # what is in the first decides nothing for the others
    return {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}.get(type(value), pa.null())


def _unicode(value: Any, column: str) -> Any:
    wrong = unicode_advice(value) if isinstance(value, str) and not value.isascii() else None
    return value if wrong is None else SampleError(f"column {column!r} is {wrong}")
