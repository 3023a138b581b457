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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sporeprint.errors import DamagedStore, RowFailure, StoreError
from sporeprint.store.atomic import damaged, read_file

DTYPES = ("float32", "float16")
_STATE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?<!\.tmp)(?<!\.record)")
_KINDS = {pa.null(): "null", pa.int64(): "number", pa.float64(): "number", pa.string(): "string", pa.bool_(): "bool"}


@dataclass(frozen=True)
class ShardInfo:
    """One complete shard. blocks: {block: width}. seconds: what each part of the work took. states: {name: sha256}.

    truncated: rows that were too long for the backbone, which saw their beginning only.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardInfo:
        return cls(**{**value, "failures": tuple(RowFailure(**failure) for failure in value["failures"])})


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
    sink = pa.BufferOutputStream()
    compression = {"id": "zstd", "label": "zstd"}
    pq.write_table(table, sink, compression=compression, use_dictionary=False, write_statistics=False)
    return sink.getvalue().to_pybytes(), {name: column.type.list_size for name, column in columns.items()}, kind


def read_shard(path: Path, record: dict[str, Any], names: Sequence[str]) -> pa.Table:
    """Read id, label and the blocks `names` of one shard, after its checksum was compared. Raises DamagedStore."""
    data = read_file(path, record)
    try:
        columns = ["id", "label", *names]
        table = pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False).select(columns)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise DamagedStore(damaged(path, f"cannot be parsed ({error})")) from None
    if table.num_rows != record["rows"]:
        raise DamagedStore(damaged(path, f"has {table.num_rows} rows; {record['rows']} were written"))
    return table


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
    kind = "list" if pa.types.is_list(column.type) else _KINDS.get(column.type)
    if kind is None:
        raise StoreError(f"labels of type {column.type} cannot be stored; expected str, int, float or list")
    return kind, column
