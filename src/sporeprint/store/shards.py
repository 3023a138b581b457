"""This says where a store's files lie, and encodes a shard as Parquet: id, label and a fixed-size list for each block.

STORE/plan.json            what determines the contents; written first
STORE/state/NAME           fitted state, next to NAME.record with its checksum
STORE/shards/00000.parquet the rows
STORE/shards/00000.json    what is in it, its checksum and the rows that failed; renamed into place after it
STORE/manifest.json        committed last: every file above with its checksum
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sporeprint.data.parquet_footer import groups_of
from sporeprint.errors import DamagedStore, RowFailure, StoreError
from sporeprint.store.atomic import damaged, read_file
from sporeprint.store.schema import COUNT, DIGEST, FILE, NUMBER, SIZE, TEXT

DTYPES = ("float32", "float16")
FAILURE = {"id": TEXT, "reason": TEXT}
SHARD = {  # of a shard's record
    "index": COUNT,
    "rows": COUNT,
    **FILE,
    "failures": [FAILURE],
    "blocks": {...: SIZE},
    "labels": TEXT,
    "seconds": {...: NUMBER},
    "states": {...: DIGEST},
    "truncated?": COUNT,
    "plan?": TEXT,
}
_TEXTS = 2**26, 2**16  # bytes of ids and labels in a shard, in all and more for each row
_STATE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?<!\.tmp)(?<!\.record)")
_ARROW = {"float32": "float", "float16": "halffloat"}
_KINDS = {pa.null(): "null", pa.int64(): "number", pa.float64(): "number", pa.string(): "string", pa.bool_(): "bool"}


@dataclass(frozen=True)
class ShardInfo:
    """One complete shard. blocks: {block: width}. seconds: what each part of the work took. states: {name: sha256}.

    truncated: rows that were too long for the backbone, which saw their beginning only. plan: the digest of the plan of
    its store; "" in a store of an earlier version.
    """

    index: int
    rows: int
    bytes: int
    sha256: str
    failures: tuple[RowFailure, ...]
    blocks: dict[str, int]
    labels: str
    seconds: dict[str, float]
    states: dict[str, str]
    truncated: int = 0
    plan: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardInfo:
        """The inverse of `to_json`, of a value that has the shape SHARD."""
        known = {field.name: value[field.name] for field in fields(cls) if field.name in value}
        return cls(**{**known, "failures": tuple(failure_of(failure) for failure in value["failures"])})


def failure_of(value: Mapping[str, Any]) -> RowFailure:
    """A failure of its JSON, which has the shape FAILURE."""
    return RowFailure(value["id"], value["reason"])


def plan_path(folder: Path) -> Path:
    return folder / "plan.json"


def manifest_path(folder: Path) -> Path:
    return folder / "manifest.json"


def shard_path(folder: Path, index: int, suffix: str = ".parquet") -> Path:
    return folder / "shards" / f"{index:05d}{suffix}"


def record_path(folder: Path, name: str) -> Path:
    return folder / "state" / f"{name}.record"


def state_path(folder: Path, name: str) -> Path:
    """The path of the state `name`. Raises StoreError for a name that could lie anywhere else."""
    if not _STATE_NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot name a state file; use letters, digits, '_', '-' and '.'")
    return folder / "state" / name


def encode(
    ids: list[str], labels: list[Any], blocks: Mapping[str, np.ndarray], dtype: str
) -> tuple[bytes, dict[str, int], str]:
    """Give a shard's Parquet bytes, {block: width} and the kind of its labels.

    The bytes are the same at every run: they hold no time and no name. Ids and labels are compressed by zstd; floats do
    not compress. Raises StoreError.
    """
    columns = {name: _column(name, block, ids, dtype) for name, block in blocks.items()}
    kind, labelled = label_column(labels)
    table = pa.table({"id": pa.array(ids, pa.string()), "label": labelled, **columns})
    texts, most = table.column("id").nbytes + labelled.nbytes, _TEXTS[0] + _TEXTS[1] * len(ids)
    if texts > most:
        raise StoreError(f"ids and labels of {len(ids)} rows take {texts} bytes; a shard holds {most}: shorten them")
    sink = pa.BufferOutputStream()
    compression = {"id": "zstd", "label": "zstd"}
    pq.write_table(table, sink, compression=compression, use_dictionary=False, write_statistics=False)
    return sink.getvalue().to_pybytes(), {name: column.type.list_size for name, column in columns.items()}, kind


def read_shard(
    path: Path, record: Mapping[str, Any], widths: Mapping[str, int], dtype: str, names: Sequence[str]
) -> pa.Table:
    """Read id, label and the blocks `names` of one shard, after its checksum was compared.

    widths: {block: width} of all blocks in it. What the file says of its columns is compared before one is decoded: a
    small file can hold columns of gigabytes. Raises DamagedStore.
    """
    data = read_file(path, record)
    columns = ["id", "label", *names]
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        if differing := _layout(file, data, record["rows"], widths if record["rows"] else {}, dtype):
            raise DamagedStore(damaged(path, differing))
        table = file.read(columns=columns, use_threads=False).select(columns)
        table.validate(full=True)
        _check_values(table, names)
    except (pa.ArrowException, KeyError, ValueError, OSError, TypeError, OverflowError, MemoryError) as error:
        raise DamagedStore(damaged(path, f"cannot be parsed ({error})")) from None
    if table.num_rows != record["rows"]:
        raise DamagedStore(damaged(path, f"has {table.num_rows} rows; {record['rows']} were written"))
    return table


def _layout(file: pq.ParquetFile, data: bytes, rows: int, widths: Mapping[str, int], dtype: str) -> str:
    """What a file says of its rows and columns that is not as `encode` writes them; "" where all is.

    Raises ValueError for labels of a type that they do not have.
    """
    about, schema = file.metadata, file.schema_arrow
    if about.num_rows != rows:
        return f"has {about.num_rows} rows; {rows} were written"
    if sorted(schema.names) != sorted(["id", "label", *widths]) or about.num_columns != len(schema.names):
        return f"has other columns than id, label and the blocks {', '.join(widths)}"
    if schema.field("id").type != pa.string():
        return f"has ids of {schema.field('id').type}; texts were written"
    for name, width in widths.items():
        kind = schema.field(name).type
        if not pa.types.is_fixed_size_list(kind) or (kind.list_size, str(kind.value_type)) != (width, _ARROW[dtype]):
            return f"has a block {name!r} of {kind}; {width} numbers of {dtype} were written"
    if data_bytes(rows, widths, dtype) > len(data):
        return "is too short for its rows"
    label_kind(schema.field("label").type)
    groups, texts = groups_of(data), 0
    if sum(group_rows for group_rows, _ in groups) != rows:
        return "has groups of other rows"
    for group_rows, columns in groups:
        for name, column in zip(schema.names, columns, strict=True):
            if name not in widths:
                texts += max(column.size, 8 * column.values)
            values = group_rows * widths.get(name, 1)
            if (
                not column.plain
                or (name in widths and column.compressed)
                or (name != "label" and column.values != values)
            ):
                return f"holds column {name!r} in another way than it was written"
    most = _TEXTS[0] + _TEXTS[1] * rows
    return f"has ids and labels of {texts} bytes; expected at most {most}" if texts > most else ""


def _check_values(table: pa.Table, names: Sequence[str]) -> None:
    """Raises ValueError for what is never written: an id missing or twice, a number missing or not finite."""
    ids = set(table.column("id").to_pylist())
    if len(ids) != table.num_rows or not ids.isdisjoint((None, "")):
        raise ValueError("a row has no id of its own")
    for name in names:
        column = table.column(name)
        if column.null_count or any(chunk.flatten().null_count for chunk in column.chunks):
            raise ValueError(f"block {name!r} lacks a number")
        if not np.isfinite(to_numpy(column)).all():
            raise ValueError(f"block {name!r} has a number that is not finite")


def data_bytes(rows: int, widths: Mapping[str, int], dtype: str) -> int:
    """The bytes that the numbers of a shard take, which are not compressed: its file has no fewer."""
    return rows * sum(widths.values()) * np.dtype(dtype).itemsize


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Convert a column of fixed-size lists to float32 [rows, D]."""
    parts = [np.asarray(chunk.flatten()).reshape(-1, chunk.type.list_size) for chunk in column.chunks]
    return np.concatenate(parts, dtype=np.float32) if parts else np.empty((0, column.type.list_size), np.float32)


def count_labels(labels: Iterable[Any]) -> dict[str, int]:
    """Count the different labels and the rows without a label. labels: as a shard gives them back."""
    seen, missing = set(), 0
    for label in labels:
        missing += label is None
        seen.add(json.dumps(label) if isinstance(label, list) else label)
    return {"different": len(seen - {None}), "missing": missing}


def _column(name: str, block: np.ndarray, ids: list[str], dtype: str) -> pa.Array:
    if name in ("id", "label") or not name or not name.isprintable():
        raise StoreError(f"{name!r} cannot name a block; use a printable name other than 'id' and 'label'")
    if block.ndim != 2 or len(block) != len(ids) or block.shape[1] < 1 or block.dtype.kind != "f":
        raise StoreError(
            f"block {name!r} is {list(block.shape)} of {block.dtype}; expected floats [{len(ids)}, D], one row an id"
        )
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(block, dtype=dtype)
    bad = np.flatnonzero(~np.isfinite(cast).all(axis=1))
    if len(bad):
        why = f"is too large for {dtype}" if np.isfinite(block[bad[0]]).all() else "is not finite (NaN or infinity)"
        raise StoreError(
            f"block {name!r}, row {ids[bad[0]]!r}: a number {why}; it is not stored: "
            "leave the row out, or compute it in a wider dtype"
        )
    item = pa.field("element", pa.from_numpy_dtype(cast.dtype), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(cast.reshape(-1)), type=pa.list_(item, cast.shape[1]))


def label_column(labels: list[Any]) -> tuple[str, pa.Array]:
    """Give the kind of the labels ("null", "number", "string", "bool", "list") and their column."""
    try:
        column = pa.array([label.item() if isinstance(label, np.generic) else label for label in labels])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"labels cannot be stored together ({error}); expected labels of one kind: str, int, float or list"
        ) from None
    try:
        return label_kind(column.type), column
    except ValueError as error:
        raise StoreError(f"{error}; expected str, int, float or list") from None


def label_kind(kind: pa.DataType) -> str:
    """The kind of the labels of an Arrow type. Raises ValueError for a type that labels do not have."""
    inner = kind
    while pa.types.is_list(inner):
        inner = inner.value_type
    if inner not in _KINDS:
        raise ValueError(f"labels of type {kind} cannot be stored")
    return _KINDS[inner] if inner == kind else "list"
