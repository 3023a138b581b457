"""Read a table as a source: find the columns of samples, labels and ids, and give its rows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from sporeprint.data.files import CellPath
from sporeprint.data.formats import ParquetTable, Table, Values
from sporeprint.data.rows import (
    EXACT,
    Label,
    Look,
    Row,
    add_file,
    brief,
    check_labels,
    check_limit,
    file_digest,
    file_stamp,
    shown_name,
    storable,
)
from sporeprint.data.text_tables import CsvTable
from sporeprint.data.texts import not_unicode
from sporeprint.errors import SampleError, SourceError
from sporeprint.values import parse_json

# What a sample column looks like, in order of trust: its type in the `huggingface` metadata, its name.
SAMPLE_FEATURES = {"image": "Image", "audio": "Audio"}
_LISTS = re.compile(r"^\s*\[.*\]\s*$|[;|]")  # labels that may be several, written as one
_PATHS = ("file", "path", "file_name", "filename", "filepath", "file_path")
SAMPLE_NAMES = {
    "image": ("image", "img", *_PATHS, "image_file_name", "image_path", "img_path", "image_file", "picture", "photo"),
    "text": (
        *("text", "sentence", "content", "question", "query", "document", "review", "title"),
        *("body", "comment", "message", "tweet", "utterance", "abstract", "headline", "description"),
    ),
    "audio": ("audio", "speech", "sound", *_PATHS, "audio_file_name", "audio_path", "audio_file", "clip", "wav"),
}
LABEL_NAMES = ("label", "labels", "class", "target", "category", "y")


class TableSource:
    """Rows of a Parquet, Arrow, CSV or JSON lines table.

    Columns are found by the `huggingface` metadata, then by type and name, unless an argument names them;
    label_column="" means no labels. modality: that of the samples, "image", "text" or "audio". Strings in the sample
    column are the texts themselves, or else paths, relative to the table's folder; in a column called file_name or
    *_file_name always paths. A column of texts is a string column with a usual name, in upper or lower case, or the
    only one that is neither label nor id. like: {"sample", "label", "id"}: another table's
    columns, taken where this one has them and no argument decides. A row's id is its number where no id_column is
    given; its label is None for null, NaN and a ClassLabel's -1. A row with a value that cannot be used, such as an id
    that an earlier row has, has a SampleError as its sample, and its id is "row NUMBER" where its own is none.
    Raises SourceError where a column cannot be found, with the columns, and where labels are of several kinds.
    """

    def __init__(
        self,
        table: Table,
        path: Path,
        *,
        sample_column: str | None = None,
        label_column: str | None = None,
        id_column: str | None = None,
        limit: int | None = None,
        modality: str = "image",
        like: Mapping[str, str | None] | None = None,
    ):
        check_limit(limit)
        self._modality = modality
        if not table.rows:
            raise SourceError(f"'{path}' has no rows; give a table with at least one")
        self._table = table
        self._path = path
        self._folder = table.files[0].parent
        self.limit = limit
        features = _features(table.schema, path)
        there = {what: name for what, name in (like or {}).items() if name in table.schema.names}
        sample_column, id_column = sample_column or there.get("sample"), id_column or there.get("id")
        label_column = there.get("label") if label_column is None else label_column
        taken = {name: what for what, name in (("label_column", label_column), ("id_column", id_column)) if name}
        self._sample = sample_column or (
            self._find_text(features, taken) if modality == "text" else self._find_sample(features)
        )
        self._finds_labels = label_column is None
        self._texts = modality == "text" and not names_files(self._sample)
        self._label = self._find_label(features) if label_column is None else label_column
        self._id = id_column or ""
        for name in (self._sample, self._label, self._id):
            if name and name not in table.schema.names:
                raise SourceError(f"'{path}' has no column {name!r}; its columns: {self._columns()}")
        self.label_names = _class_names(features.get(self._label)) if self._label else None
        if self._label:
            self._check_label_type()
        self._wide: tuple[int, ...] = ()
        kinds = getattr(table, "kinds", {}).get(self._label, set())
        if len(kinds) > 1 or list in kinds:  # in the other kinds of table a column is of one type
            labels = (self._label_or_none(label) for label in self._values(self._label))
            if check_labels(labels, f"'{path}', column {self._label!r}"):
                self._wide = (EXACT,)
        self._no_ids = self._find_bad_ids() if self._id else {}

    def __len__(self) -> int:
        return self._table.rows if self.limit is None else min(self.limit, self._table.rows)

    def rows(self, start: int = 0) -> Iterator[Row]:
        left = islice(self._table.values(self._used, start), max(0, len(self) - start))
        for row, values in enumerate(left, start):
            yield self._row(row, values)
            start = row + 1
        if start < len(self):
            raise SourceError(f"'{self._path}' has {start} rows; it said {len(self)}: it is damaged, or was changed")

    def digest(self) -> str:
        """Return a digest of the files' bytes, the columns, the limit, and the bytes of files named by path."""
        return self._digest

    def earlier_digest(self) -> str:
        """Return the digest as earlier versions took it: by the sizes and times of files named by path."""
        return self._digest_by(file_stamp)

    @cached_property
    def _digest(self) -> str:
        return self._digest_by(file_digest)

    def _digest_by(self, look: Look) -> str:
        chosen = [self._table.kind, self._sample, self._label, self._id, self.limit]
        digest = blake2b(json.dumps(chosen).encode(), digest_size=16)
        for path in self._table.files:
            digest.update(f"\n{path.stat().st_size}\n".encode())
            add_file(digest, path)
        kind = _inner(self._table.schema.field(self._sample).type)
        strings = is_text(kind) and not self._texts
        named = strings or pa.types.is_struct(kind)
        if isinstance(self._table, ParquetTable) and self._table.holds_all(f"{self._sample}.bytes"):
            named = False  # known without decoding every sample
        for sample in self._values(self._sample) if named else ():
            file = self._locate(sample)
            if strings or isinstance(file, CellPath):  # a struct with bytes is in the table's own bytes
                digest.update(f"{look(file) if isinstance(file, CellPath) else 'absent'}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self._table.kind,
            "name": shown_name(self._path),
            "rows": len(self),
            "columns": {"sample": self._sample, "label": self._label or None, "id": self._id or None},
            "limit": self.limit,
        }

    def notes(self) -> list[str]:
        """Return where labels may be, where none were found, and whether they may be lists, in sentences."""
        others = [name for name in self._table.schema.names if name not in (self._sample, self._id)]
        if self._finds_labels and not self._label and others:
            return [
                f"no labels: no column is named {', '.join(LABEL_NAMES)}; others (--label-column): {', '.join(others)}"
            ]
        first = [label for label in islice(self._values(self._label), 100) if label] if self._label else []
        if first and isinstance(self._table, CsvTable) and all(_LISTS.search(str(label)) for label in first):
            return [
                f"labels such as {brief(first[0])} are taken as one label each; for several labels a row write lists, "
                "in JSON lines or Parquet"
            ]
        return []

    @cached_property
    def _used(self) -> list[str]:
        return list(dict.fromkeys(name for name in (self._sample, self._label, self._id) if name))

    def _row(self, number: int, cells: Values) -> Row:
        values = dict(zip(self._used, cells, strict=True))
        name = str(number)
        if self._id:
            name = str(_id(values[self._id])) if number not in self._no_ids else f"row {number}"
        try:
            label = self._checked(values.get(self._label))
        except SampleError as error:
            return Row(name, error)
        return Row(name, self._no_ids.get(number, self._locate(values[self._sample])), label)

    def _values(self, column: str) -> Iterator[Any]:
        return (value for (value,) in islice(self._table.values([column]), len(self)))

    def _label_or_none(self, label: Any) -> Label:
        try:
            return self._checked(label)
        except SampleError:
            return None

    def _find_bad_ids(self) -> dict[int, SampleError]:
        """Return why the rows that have no id of their own have none. Raises SourceError where no row has one."""
        first_rows: dict[object, int] = {}
        bad = {}
        for row, value in enumerate(self._values(self._id)):
            given = _id(value)
            if isinstance(given, SampleError):
                bad[row] = given
            elif not isinstance(given, str) or not given or not_unicode(given):
                bad[row] = SampleError(f"its id is {brief(given)}; an id is a text (or an integer) that is not empty")
            elif first_rows.setdefault(given, row) != row:
                bad[row] = SampleError(f"its id {brief(given)} is in row {first_rows[given]} too; ids are unique")
        if not first_rows:
            raise SourceError(f"'{self._path}', column {self._id!r} holds no ids; row 0: {bad[0]}")
        return bad

    def _columns(self, without: Container[str] = ()) -> str:
        return ", ".join(f"{field.name} ({field.type})" for field in self._table.schema if field.name not in without)

    def _find_text(self, features: dict[str, Any], taken: dict[str, str]) -> str:
        plain = self._plain_fields(features)
        strings = [field.name for field in plain if is_text(field.type)]
        free = [name for name in strings if name not in taken]
        if named := usual_names(SAMPLE_NAMES["text"], free):
            return named[0]
        candidates = [name for name in free if not usual_names(LABEL_NAMES, [name])]
        used = {name: what for name, what in taken.items() if name in strings}
        return candidates[0] if len(candidates) == 1 else self._refuse_columns(candidates, "texts", used)

    def _find_sample(self, features: dict[str, Any]) -> str:
        schema = self._table.schema
        by_name = usual_names(SAMPLE_NAMES[self._modality], schema.names)
        by_feature = [name for name in schema.names if _type(features.get(name)) == SAMPLE_FEATURES[self._modality]]
        by_type = [field.name for field in self._plain_fields(features) if _is_encoded(field.type)]
        for candidates in (by_feature, by_type):
            named = [name for name in by_name if name in candidates]
            if len(candidates) == 1 or named:
                return (named or candidates)[0]
            if candidates:
                return self._refuse_columns(candidates, "")
        return by_name[0] if by_name else self._refuse_columns([], "images" if self._modality == "image" else "sound")

    def _plain_fields(self, features: dict[str, Any]) -> list[pa.Field]:
        """Return the columns that have a name, but no meaning in the `huggingface` metadata."""
        fields = [field for field in self._table.schema if field.name]
        return [field for field in fields if _type(features.get(field.name)) in (None, "Value")]

    def _refuse_columns(self, candidates: list[str], kind: str, taken: Mapping[str, str] = {}) -> NoReturn:
        if candidates:
            raise SourceError(
                f"'{self._path}' has several sample columns, {candidates}; choose one (sample_column, --sample-column)"
            )
        left, used = self._columns(taken), " and ".join(f"{name!r}, its {what}" for name, what in taken.items())
        but = f" but {used}" if used else ""
        advice = f"choose one (sample_column, --sample-column) of: {left}"
        advice += "; if they hold something else, use a backbone for it"
        raise SourceError(f"'{self._path}' has no column of {kind}{but}; {advice if left else 'leave that out'}")

    def _find_label(self, features: dict[str, Any]) -> str:
        names = [name for name in self._table.schema.names if name != self._sample]
        classes = [name for name in names if _class_names(features.get(name)) is not None]
        by_name = usual_names(LABEL_NAMES, names)
        named = [name for name in by_name if name in classes] or (by_name if not classes else [])
        if len(classes) > 1 and not named:
            raise SourceError(
                f"'{self._path}' has several label columns, {classes}; choose one (label_column, --label-column)"
            )
        return (named or classes or [""])[0]

    def _check_label_type(self) -> None:
        kind = self._table.schema.field(self._label).type
        inner = kind.value_type if pa.types.is_list(kind) else _inner(kind)
        tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null, is_text)
        if not any(test(inner) for test in tests):
            raise SourceError(
                f"'{self._path}', column {self._label!r} is {kind}; a label is a text, a number or a list of them: "
                'choose another (label_column, --label-column), or none with ""'
            )

    def _checked(self, label: Any) -> Label:
        if isinstance(label, list):
            return [self._checked(part) for part in label]
        if label is None or (isinstance(label, float) and math.isnan(label)):
            return None
        if self.label_names is not None and not isinstance(label, SampleError):
            if label == -1:
                return None  # `datasets` marks an unknown class like this
            if not isinstance(label, int) or not 0 <= label < len(self.label_names):
                raise SampleError(f"label {brief(label)} is not the number of one of {len(self.label_names)} classes")
        return storable(label, *self._wide)

    def _locate(self, sample: Any) -> object:
        """Resolve paths in the table's folder. A struct's is its maker's choice, so it may not lead out of it."""
        if isinstance(sample, str):
            return sample if self._texts else CellPath(self._folder, sample)
        empty = isinstance(sample, dict) and all(sample.get(name) is None for name in ("bytes", "array"))
        if empty and isinstance(sample.get("path"), str):
            path = CellPath(self._folder, sample["path"])
            if not _is_inside(path):
                return SampleError(
                    f"the path {brief(sample['path'])} leads out of the table's folder; "
                    "put the files next to the table, or name them in a text column"
                )
            return path
        return sample


def _is_inside(path: CellPath) -> bool:
    try:
        return Path(path).resolve().is_relative_to(path.folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a circle of links, a NUL
        return False


def usual_names(usual: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns with one of the usual names, in their order; blanks around a name and case do not count."""
    by_name = {name.strip().casefold(): name for name in reversed(columns)}
    by_name.update({name: name for name in columns})
    return [by_name[name] for name in usual if name in by_name]


def names_files(column: str) -> bool:
    """Return whether a column is called as Hugging Face calls one of paths."""
    return column.strip().casefold() in ("file_name", "filename") or column.casefold().endswith("_file_name")


def _features(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """Return the column types that `datasets` wrote into the schema: {column: {"_type", ...}}."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        features = dict(parse_json(text)["info"]["features"])
        json.dumps(features, ensure_ascii=False).encode()  # class names are stored
        return features
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"'{path}': its 'huggingface' metadata cannot be read ({error!r}); write the table again"
        ) from None


def _type(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _class_names(feature: Any) -> list[str] | None:
    """Return the class names of a ClassLabel column, or of a list of them."""
    if _type(feature) in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    names = feature.get("names") if _type(feature) == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind  # pandas' categories


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_encoded(kind: pa.DataType) -> bool:
    """Return whether a column holds bytes, or structs of bytes and path."""
    if pa.types.is_struct(kind):
        names = {kind.field(number).name for number in range(kind.num_fields)}
        return bool(names & {"bytes", "path"}) and names <= {"bytes", "path"}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _id(value: Any) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
