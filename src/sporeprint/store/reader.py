"""A complete store is read here. Every file's checksum is compared before the file is parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import DamagedStore, StoreError
from sporeprint.store.atomic import check_size, damaged, digest_of_json, read_file, unseal
from sporeprint.store.plan import EXTRACTED, FITTED, check_format, read_plan
from sporeprint.store.schema import COUNT, DIGEST, FILE, NOTHING, NUMBER, OBJECT, SIZE, TEXT, check_shape, refuse
from sporeprint.store.shards import (
    FAILURE,
    data_bytes,
    failure_of,
    label_kind,
    manifest_path,
    plan_path,
    read_shard,
    shard_path,
    state_path,
    to_numpy,
)

MANIFEST = {
    "plan": DIGEST,
    "states": {...: FILE},
    "shards": [{"index": COUNT, "rows": COUNT, **FILE}],
    "failures": [FAILURE],
    "blocks": {...: {"dim": SIZE}},
    "block_order": [TEXT],
    "label_names": ([TEXT], NOTHING),
    "rows": SIZE,
    "cost": OBJECT,
    "labels?": ({"different": COUNT, "missing": COUNT}, NOTHING),
    "truncated?": COUNT,
}


MEASURED = {  # what `extract` adds
    "blocks": {...: {"family": TEXT, "passes": NUMBER, "views": TEXT}},
    "cost": {"seconds": {...: NUMBER}, "rows": COUNT, "threads": COUNT, "device?": TEXT},
}


class Store:
    """A complete store, for reading. `Store.open(folder)` gives it.

    plan: what the writer was given. label_names: of integer labels, or None. failures: the rows that could not be read.
    blocks_info: {block: {"dim", ...}}. cost: what the run cost; two equal runs may differ in it, and in nothing else.
    truncated: rows that were too long for the backbone, which saw their beginning only.
    label_counts: {"different", "missing"}; None in a store that is older than these counts.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sporeprint import KL, Recipe, Store
    >>> from sporeprint.data.rows import ListSource
    >>> from sporeprint.run.extract import extract
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    >>> source, folder = ListSource(images, labels=[0, 1, 0, 1]), tempfile.mkdtemp() + "/features"
    >>> _ = extract(source, folder, Recipe(backbone="tiny", objectives=[KL()], layers=0))
    >>> store = Store.open(folder)
    >>> {name: block.shape for name, block in store.blocks().items()}
    {'embedding': (4, 128), 'kl': (4, 128)}
    >>> store.labels.tolist(), len(store.failures)
    ([0, 1, 0, 1], 0)
    """

    def __init__(self, folder: Path, header: dict[str, Any], manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self.plan: dict[str, Any] = header["plan"]
        self.dtype: str = header["dtype"]
        self.shard_rows: int = header["shard_rows"]
        self.label_names: list[str] | None = manifest["label_names"]
        self.failures = [failure_of(failure) for failure in manifest["failures"]]
        self.blocks_info: dict[str, dict[str, Any]] = {
            name: manifest["blocks"][name] for name in manifest["block_order"]
        }
        self.cost: dict[str, Any] = manifest["cost"]
        self.truncated: int = manifest.get("truncated", 0)
        self.label_counts: dict[str, int] | None = manifest.get("labels")
        self._rows: int = manifest["rows"]
        self._shards: list[dict[str, Any]] = manifest["shards"]
        self._states: dict[str, dict[str, Any]] = manifest["states"]

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """Open a complete store after checking its manifest and the size of every file.

        Raises StoreError where there is no store or an incomplete one, DamagedStore where a file is not what was
        written, StoreMismatch for another version's format.
        """
        folder = Path(folder)
        try:
            return cls._open(folder)
        except OSError as error:
            raise StoreError(f"'{folder}' cannot be read: {error.strerror or error}") from None

    @classmethod
    def _open(cls, folder: Path) -> Store:
        if not plan_path(folder).exists() and not manifest_path(folder).exists():
            lack = "it has no plan.json" if os.path.lexists(folder) else "there is no such folder"
            raise StoreError(f"'{folder}' is not a store: {lack}; make one with `sporeprint extract`")
        if not manifest_path(folder).exists():
            done = sum(1 for _ in (folder / "shards").glob("[0-9]*.json"))
            raise StoreError(
                f"'{folder}' is incomplete: {done} shards are done and the manifest is not there; run the same command "
                f"again{', it goes on from there' if done else ''}"
            )
        header, manifest = read_plan(folder), unseal("manifest", manifest_path(folder))
        check_format(manifest_path(folder), manifest)
        check_shape(manifest_path(folder), manifest, MANIFEST)
        if manifest["plan"] != digest_of_json(header):
            raise DamagedStore(damaged(plan_path(folder), "belongs to another run than the manifest"))
        refuse(manifest_path(folder), contradiction(header, manifest))
        if FITTED in manifest["states"] or "fit" in header["plan"]:
            check_shape(plan_path(folder), header["plan"], EXTRACTED)
            check_shape(manifest_path(folder), manifest, MEASURED)
        store = cls(folder, header, manifest)
        for path, record in store._files():
            if not path.is_file():
                raise DamagedStore(damaged(path, "is missing"))
            check_size(path, record["bytes"])
        return store

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"Store({str(self.folder)!r}, {self._rows} rows, blocks: {', '.join(self.block_names)})"

    @property
    def block_names(self) -> list[str]:
        """The blocks' names, in the order in which the recipe has them."""
        return list(self.blocks_info)

    @property
    def digest(self) -> str:
        """Hex digest of the contents; equal runs have equal digests, whatever they cost."""
        return digest_of_json({key: self.manifest[key] for key in self.manifest if key != "cost"})

    @property
    def ids(self) -> list[str]:
        """The rows' ids, in the source's order, without the rows that failed."""
        return self._ids_and_labels[0]

    @property
    def labels(self) -> np.ndarray | None:
        """[N] labels, integers mapped to `label_names` where there are any; None when no row has a label.

        A string, integer or float array; an object array where a label is missing (None) or is a list.
        """
        return label_array(self._ids_and_labels[1])

    def blocks(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Blocks as float32 [N, D], rows in the order of `ids`. Raises DamagedStore, StoreError for unknown names."""
        names = self._check_names(names)
        out = {name: np.empty((self._rows, self._widths[name]), np.float32) for name in names}
        self.__dict__["_ids_and_labels"] = self._read_rows(out)
        return out

    def iter_blocks(
        self, names: Sequence[str] | None = None
    ) -> Iterator[tuple[list[str], list[Any], dict[str, np.ndarray]]]:
        """(ids, labels, {block: float32 [rows, D]}) of one shard after the other, with one shard in memory at a time.

        Labels are named as in `labels`, None where missing. Raises DamagedStore.
        """
        names, seen = self._check_names(names), "null"
        for shard in self._shards:
            if not shard["rows"]:
                continue  # every row of it failed
            path = shard_path(self.folder, shard["index"])
            table = read_shard(path, shard, self._widths, self.dtype, names)
            kind = label_kind(table.schema.field("label").type)
            if "null" not in (kind, seen) and kind != seen:
                raise DamagedStore(damaged(path, f"has labels of kind {kind}; earlier shards have {seen}"))
            seen = seen if kind == "null" else kind
            ids = table.column("id").to_pylist()
            labels = [self._named(label) for label in table.column("label").to_pylist()]
            yield ids, labels, {name: to_numpy(table.column(name)) for name in names}

    def read_state(self, name: str) -> bytes:
        """The state file `name`, checked. Raises StoreError when there is none, DamagedStore."""
        if name not in self._states:
            raise StoreError(f"'{self.folder}' has no state {name!r}; there are: {sorted(self._states)}")
        return read_file(state_path(self.folder, name), self._states[name])

    def verify(self) -> None:
        """Read everything once; raises DamagedStore for the first file that is not what was written."""
        for path, record in self._files():
            if not record.get("rows"):  # `iter_blocks` reads the others
                read_file(path, record)
        self._check_ids([row for ids, _, _ in self.iter_blocks() for row in ids])

    def _files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        yield from ((state_path(self.folder, name), record) for name, record in self._states.items())
        yield from ((shard_path(self.folder, shard["index"]), shard) for shard in self._shards)

    @cached_property
    def _ids_and_labels(self) -> tuple[list[str], list[Any]]:
        return self._read_rows({})

    @property
    def _widths(self) -> dict[str, int]:
        return {name: info["dim"] for name, info in self.blocks_info.items()}

    def _read_rows(self, out: Mapping[str, np.ndarray]) -> tuple[list[str], list[Any]]:
        """All ids and labels, and the blocks of `out`, [N, D], filled in. Raises DamagedStore for a repeated id."""
        ids: list[str] = []
        labels: list[Any] = []
        for shard_ids, shard_labels, blocks in self.iter_blocks(list(out)):
            for name, block in blocks.items():
                out[name][len(ids) : len(ids) + len(shard_ids)] = block
            ids += shard_ids
            labels += shard_labels
        self._check_ids(ids)
        return ids, labels

    def _check_ids(self, ids: list[str]) -> None:
        if len(set(ids)) != self._rows:
            raise DamagedStore(damaged(manifest_path(self.folder), "counts other rows than the shards hold"))

    def _check_names(self, names: Sequence[str] | None) -> list[str]:
        names = self.block_names if names is None else list(names)
        unknown = [name for name in names if name not in self.blocks_info]
        if unknown:
            raise StoreError(f"'{self.folder}' has no block {unknown[0]!r}; there are: {', '.join(self.block_names)}")
        return names

    def _named(self, label: Any) -> Any:
        if isinstance(label, list):
            return [self._named(part) for part in label]
        if self.label_names is None or not isinstance(label, int) or isinstance(label, bool):
            return label
        if not 0 <= label < len(self.label_names):
            raise StoreError(
                f"'{self.folder}': label {label} has no name; there are {len(self.label_names)} label names"
            )
        return self.label_names[label]


def contradiction(header: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What a manifest says against itself or its plan, which both have the right shape; "" where nothing does.

    So its counts are those of files, whose sizes are compared: memory is asked for only for rows that are there.
    """
    shards, blocks = manifest["shards"], manifest["blocks"]
    widths = {name: info["dim"] for name, info in blocks.items()}
    if [shard["index"] for shard in shards] != list(range(len(shards))):
        return "its shards are not numbered 0, 1, 2 ..."
    if sum(shard["rows"] for shard in shards) != manifest["rows"]:
        return f"it counts {manifest['rows']} rows, its shards have {sum(shard['rows'] for shard in shards)}"
    if any(shard["rows"] > header["shard_rows"] for shard in shards):
        return f"a shard has more than the {header['shard_rows']} rows of the plan"
    if sorted(manifest["block_order"]) != sorted(blocks) or not blocks:
        return "its order of blocks names others than its blocks"
    if any(data_bytes(shard["rows"], widths, header["dtype"]) > shard["bytes"] for shard in shards):
        return "its blocks are wider than its shards' files"
    return ""


def label_array(labels: Sequence[Any]) -> np.ndarray | None:
    """This makes [N] labels as `Store.labels` gives them; None when every label is None."""
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return None
    if not missing and not isinstance(labels[0], list):
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    for row, label in enumerate(labels):  # lists of one length would otherwise become a second axis
        array[row] = label
    return array
