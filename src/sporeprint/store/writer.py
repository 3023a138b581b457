"""A store is written here: what is on disk is complete or absent; damage is named, and never read as features."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import DamagedStore, RowFailure, StoreError, warn
from sporeprint.store.atomic import (
    TEMPORARY,
    digest_of_json,
    lock,
    read_file,
    record_of,
    seal,
    sync_folder,
    unseal,
    write_file,
)
from sporeprint.store.plan import EXTRACTED, FORMAT, LOCK, begin, check_plan, make_header
from sporeprint.store.reader import MANIFEST, Store, contradiction
from sporeprint.store.schema import FILE, NUMBER, TEXT, check_shape, mismatch
from sporeprint.store.shards import (
    DTYPES,
    SHARD,
    ShardInfo,
    count_labels,
    encode,
    label_column,
    label_kind,
    manifest_path,
    plan_path,
    read_shard,
    record_path,
    shard_path,
    state_path,
)

__all__ = ["ShardInfo", "Store", "StoreWriter"]

STATE = {**FILE, "name?": TEXT, "plan?": TEXT, "seconds?": NUMBER}
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHARD_FILE = re.compile(r"(\d{5,})\.(json|parquet)")


class StoreWriter:
    """Creates a store in `folder`, or goes on with the one that is there after checking that `plan` is the same.

    A store of another plan that has no shard yet, which a run leaves that failed at once, is replaced; this is logged.
    plan: JSON-able, everything that determines the contents. dtype: of the blocks on disk. shard_rows: the most rows
    (with the failed ones) in a shard. Use it in a `with` block, or call `close`: it holds a lock on the folder.

    complete: the store is there and whole (every checksum was compared); there is nothing to do.
    done: in an incomplete store, the shards that are whole; damaged ones are dropped with a warning and computed again.

    Raises StoreMismatch, naming every difference, where the store was made with another plan; StoreError where the
    folder holds something else, another run writes there, or the disk refuses.
    """

    def __init__(
        self, folder: str | Path, plan: Mapping[str, Any], *, dtype: str = "float32", shard_rows: int = 256
    ) -> None:
        if dtype not in DTYPES or shard_rows < 1:
            raise StoreError(f"dtype {dtype!r}, shard_rows {shard_rows}: expected one of {DTYPES} and at least 1")
        self.folder = Path(folder)
        self.dtype = dtype
        self.shard_rows = shard_rows
        self.complete = False
        self.done: dict[int, ShardInfo] = {}
        self.state_seconds: dict[str, float] = {}  # that the states took to make, where it is known
        self._states: dict[str, dict[str, Any]] = {}
        self._owner: dict[str, int] = {}  # row id -> its shard
        self._labels: dict[int, list[Any]] = {}  # those of each shard, for counting
        header = make_header(plan, dtype, shard_rows)
        if "fit" in header["plan"] and (wrong := mismatch(header["plan"], EXTRACTED)):
            raise StoreError(f"a plan with 'fit' is one of `extract`, but {wrong}; give 'fit' another name")
        try:
            check_plan(self.folder, header, locked=True)  # before anything is touched
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder / LOCK)
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            why = getattr(error, "strerror", None) or error
            raise StoreError(f"'{folder}' cannot be written: {why}; give another folder") from error
        try:
            stored = check_plan(self.folder, header, locked=self._lock is not None)
            if stored is None:
                begin(self.folder, header)
            self._plan_digest = digest_of_json(stored or header)
            self._resume()
        except OSError as error:
            self.close()
            raise StoreError(f"'{folder}' cannot be read or written: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other writers in. What was written stays."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def ids(self) -> Iterable[str]:
        """The ids of the rows in `done`, in no order."""
        return self._owner.keys()

    def read_state(self, name: str) -> bytes | None:
        """Read the state file `name`, checked; None where it was not written yet."""
        path = state_path(self.folder, name)
        return read_file(path, self._states[name]) if name in self._states else None

    def write_state(self, name: str, data: bytes, seconds: float | None = None) -> None:
        """Keep `data` under `name`, and the seconds that it took to make.

        Shards that were computed with another state of that name are dropped.
        """
        path, record = state_path(self.folder, name), record_of(data)
        if self._states.get(name) == record:
            return
        self._open_only()
        write_file(path, data)
        timed: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
        sealed = seal("state", {**record, **timed, "name": name, "plan": self._plan_digest})
        write_file(record_path(self.folder, name), sealed)
        if seconds is not None:
            self.state_seconds[name] = seconds
        self._states[name] = record
        for shard in list(self.done.values()):
            if shard.states.get(name) != record["sha256"]:
                self._drop(shard.index, f"it was computed with another state {name!r}")

    def write_shard(
        self,
        index: int,
        ids: Sequence[str],
        labels: Sequence[Any] | None,
        blocks: Mapping[str, np.ndarray],
        failures: Sequence[RowFailure],
        seconds: Mapping[str, float],
        truncated: int = 0,
    ) -> ShardInfo:
        """Write shard `index`: ids [n], labels [n] (one kind in a store; None where missing), blocks {name: [n, D]}.

        truncated: how many of the rows the backbone saw the beginning of only.
        Raises StoreError for a number that is not finite, a repeated id, blocks that differ from other shards'.
        """
        self._open_only()
        ids, labels = list(ids), [None] * len(ids) if labels is None else list(labels)
        self._check_rows(index, ids, labels, len(failures))
        data, widths, kind = encode(ids, labels, blocks, self.dtype)
        for other in self.done.values():
            if ids and other.rows and other.blocks != widths:
                raise StoreError(f"shard {index} has blocks {widths}, shard {other.index} has {other.blocks}")
            if "null" not in (kind, other.labels) and kind != other.labels:
                raise StoreError(f"shard {index} has labels of kind {kind}, shard {other.index} of kind {other.labels}")
        shard = ShardInfo(
            index=index,
            rows=len(ids),
            **record_of(data),
            failures=tuple(failures),
            blocks=widths,
            labels=kind,
            seconds=dict(seconds),
            states={name: record["sha256"] for name, record in self._states.items()},
            truncated=truncated,
            plan=self._plan_digest,
        )
        sidecar = seal("shard", shard.to_json())
        write_file(shard_path(self.folder, index), data)
        write_file(shard_path(self.folder, index, ".json"), sidecar)
        self.done[index] = shard
        self._owner.update(dict.fromkeys(ids, index))
        self._labels[index] = label_column(labels)[1].to_pylist()
        return shard

    def labels(self) -> Iterator[Any]:
        """Yield the labels of the rows that are written, in the order of the shards."""
        return chain.from_iterable(self._labels[index] for index in sorted(self.done))

    def commit(
        self, *, blocks: Mapping[str, Mapping[str, Any]], label_names: Sequence[str] | None, cost: Mapping[str, Any]
    ) -> Store:
        """Write the manifest, which makes the store complete. blocks: {name: {"dim": D, ...}}, D as in the shards."""
        self._open_only()
        shards = [self.done[index] for index in sorted(self.done)]
        missing = set(range(max(self.done, default=0) + 1)) - set(self.done)
        if missing:
            raise StoreError(f"shards {sorted(missing)[:9]} are not written; write them before the commit")
        states = {name: record["sha256"] for name, record in self._states.items()}
        for shard in shards:
            if shard.states != states:
                raise StoreError(f"shard {shard.index} was computed with states {sorted(shard.states)}, not with these")
            expected = {name: info.get("dim") for name, info in blocks.items()}
            if shard.rows and shard.blocks != expected:
                raise StoreError(f"shard {shard.index} has blocks {shard.blocks}; the commit names {expected}")
        if not self._owner:
            raise StoreError("no row was stored, every one failed; see the failures' reasons")
        manifest = {
            "format": FORMAT,
            "plan": self._plan_digest,
            "states": self._states,
            "shards": [{key: getattr(shard, key) for key in ("index", "rows", "bytes", "sha256")} for shard in shards],
            "failures": [failure.to_json() for shard in shards for failure in shard.failures],
            "blocks": {name: dict(info) for name, info in blocks.items()},
            "block_order": list(blocks),
            "label_names": None if label_names is None else list(label_names),
            "labels": count_labels(self.labels()),
            "rows": len(self._owner),
            "truncated": sum(shard.truncated for shard in shards),
            "cost": dict(cost),
        }
        header = {"dtype": self.dtype, "shard_rows": self.shard_rows}
        if wrong := mismatch(manifest, MANIFEST) or contradiction(header, manifest):
            raise StoreError(f"'{self.folder}' could not be opened again ({wrong}); commit with other values")
        write_file(manifest_path(self.folder), seal("manifest", manifest))
        self.complete = True
        self.close()
        return Store.open(self.folder)

    def _resume(self) -> None:
        for folder in (self.folder, self.folder / "shards", self.folder / "state"):
            for path in folder.glob(f"*{TEMPORARY}"):
                if folder != self.folder or path.stem in (plan_path(folder).name, manifest_path(folder).name):
                    path.unlink()  # a killed run left it
        if manifest_path(self.folder).exists():
            try:
                store = Store.open(self.folder)
                store.verify()
                self.complete, self._states = True, store.manifest["states"]
                return
            except DamagedStore as error:
                warn(str(error))
                manifest_path(self.folder).unlink()
                sync_folder(self.folder)
        for path in sorted((self.folder / "state").glob("*.record")):
            self._resume_state(path)
        names = [_SHARD_FILE.fullmatch(path.name) for path in (self.folder / "shards").glob("*")]
        for index in sorted({int(name[1]) for name in names if name}):
            self._resume_shard(index)

    def _resume_state(self, path: Path) -> None:
        name = path.name.removesuffix(".record")
        try:
            record = unseal("state", path)
            check_shape(path, record, STATE)
            self._check_plan(record)
            if record.get("name") != name:
                raise DamagedStore("its record is of another state")
            read_file(state_path(self.folder, name), record)
            self._states[name] = {key: record[key] for key in FILE}
            if "seconds" in record:
                self.state_seconds[name] = record["seconds"]
        except StoreError as error:
            warn(f"state {name!r} is dropped and will be computed again: {_damage(error)}")
            path.unlink()

    def _resume_shard(self, index: int) -> None:
        try:
            record = unseal("shard", shard_path(self.folder, index, ".json"))
            check_shape(shard_path(self.folder, index, ".json"), record, SHARD)
            self._check_plan(record)
            shard = ShardInfo.from_json(record)
            if shard.index != index:
                raise DamagedStore(f"it holds shard {shard.index}")
            if other := [name for name, digest in shard.states.items() if self._known(name) not in (None, digest)]:
                raise DamagedStore(f"it was computed with another state {other[0]!r}")
            if shard.rows + len(shard.failures) > self.shard_rows or shard.truncated > shard.rows:
                raise DamagedStore(f"it counts {shard.rows} rows, {len(shard.failures)} failures")
            table = read_shard(shard_path(self.folder, index), record, shard.blocks, self.dtype, list(shard.blocks))
            if (kind := label_kind(table.schema.field("label").type)) != shard.labels:
                raise DamagedStore(f"its labels are of kind {kind}, not {shard.labels}")
        except DamagedStore as error:
            self._drop(index, _damage(error))
            return
        ids = table.column("id").to_pylist()
        if not self._owner.keys().isdisjoint(ids):
            self._drop(index, "it repeats rows of an earlier shard")
            return
        self.done[index] = shard
        self._owner.update(dict.fromkeys(ids, index))
        self._labels[index] = table.column("label").to_pylist()

    def _check_plan(self, record: Mapping[str, Any]) -> None:
        if "plan" not in record:
            raise DamagedStore("its record does not say which store it is of (an earlier version wrote it)")
        if record["plan"] != self._plan_digest:
            raise DamagedStore("it belongs to another store, whose plan is another")

    def _known(self, name: str) -> str | None:
        """The checksum of the state `name`, where it is there."""
        return self._states[name]["sha256"] if name in self._states else None

    def _drop(self, index: int, reason: str) -> None:
        warn(f"shard {index} is dropped and will be computed again: {reason}")
        for suffix in (".json", ".parquet"):
            shard_path(self.folder, index, suffix).unlink(missing_ok=True)
        sync_folder(self.folder / "shards")
        self.done.pop(index, None)
        self._owner = {row: owner for row, owner in self._owner.items() if owner != index}

    def _open_only(self) -> None:
        if self.complete:
            raise StoreError(f"'{self.folder}' is complete; nothing is added to it: give another folder")

    def _check_rows(self, index: int, ids: list[str], labels: list[Any], failures: int) -> None:
        if index < 0 or index in self.done:
            raise StoreError(f"shard {index} is written already, or is no index; write what `done` lacks")
        if len(labels) != len(ids):
            raise StoreError(
                f"shard {index} has {len(ids)} ids and {len(labels)} labels; expected one label for each row"
            )
        if len(ids) + failures > self.shard_rows:
            raise StoreError(f"shard {index} has {len(ids) + failures} rows; the plan says {self.shard_rows} at most")
        seen: set[str] = set()
        for row in ids:
            if not isinstance(row, str) or not row or _SURROGATE.search(row):
                raise StoreError(f"{row!r} cannot be a row's id; give a string of Unicode that is not empty")
            if row in seen or row in self._owner:
                raise StoreError(
                    f"id {row!r} stands in shard {self._owner.get(row, index)} and {index}; ids are unique"
                )
            seen.add(row)


def _damage(error: Exception) -> str:
    return str(error).partition("; run ")[0]  # the advice is being followed already
