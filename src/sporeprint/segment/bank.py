"""The memory bank of segmentation by retrieval: patch features, the label histogram of each, and its provenance.

BANK/features.safetensors    [M, D], each row of length 1
BANK/histograms.safetensors  [M, C]
BANK/patches.parquet         image, row and column of each
BANK/manifest.json           committed last: what the files above are, with checksums
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.data.parquet_footer import groups_of
from sporeprint.errors import DamagedStore, SampleError, StoreError
from sporeprint.search.base import Index
from sporeprint.search.best_rows import slices
from sporeprint.search.exact import ExactIndex
from sporeprint.segment.patches import check_patches, unit_rows
from sporeprint.segment.vote import NEIGHBOURS, SAME, TEMPERATURE, vote
from sporeprint.store.atomic import (
    canonical,
    check_digest,
    check_size,
    damaged,
    digest_of,
    lock,
    seal,
    unseal,
    write_file,
)
from sporeprint.store.schema import COUNT, FILE, NOTHING, OBJECT, SIZE, TEXT, check_shape, one_of
from sporeprint.store.tensor_file import DTYPES, TensorWriter, open_tensor, verify_tensor

KIND, FORMAT = "sporeprint memory bank", 1

_QUERIES = 2**24  # numbers at a time, in float32: 64 MiB
_HISTOGRAMS = 2**22  # numbers at a time: 16 MiB
_PRODUCTS = 2**22  # of queries and tied patches at a time: 16 MiB
_PATCHES = pa.schema([("image", pa.string()), ("row", pa.int32()), ("column", pa.int32())])
_ROWS = 2**16  # of provenance at a time
_ABOUT = {
    "files": {"features.safetensors": FILE, "histograms.safetensors": FILE, "patches.parquet": FILE},
    "patches": COUNT,
    "width": SIZE,
    "classes": SIZE,
    "dtype": one_of(tuple(DTYPES)),
    "names": ([TEXT], NOTHING),
    "settings": OBJECT,
}
_IDS = 2**26, 2**12  # bytes of the images' ids, in all and more for each patch


class BankWriter:
    """A writer adds to a bank image by image. Until `close`, `MemoryBank.open` refuses the folder.

    width: D; classes: C; capacity: the most patches M. names: the classes', C of them. settings: anything in JSON that
    says how the features were made. A half-written bank in `folder` is replaced; a whole one raises StoreError.
    As a context manager it closes at the end, and leaves the bank unfinished after an exception. Raises StoreError.
    """

    def __init__(
        self,
        folder: str | Path,
        width: int,
        classes: int,
        capacity: int,
        dtype: str = "float16",
        names: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if min(width, classes, capacity) < 1 or dtype not in DTYPES:
            raise StoreError(
                f"a bank of {capacity} patches, {width} wide, {classes} classes, {dtype}; "
                f"expected at least 1 of each and one of {', '.join(DTYPES)}"
            )
        if names is not None and len(names) != classes:
            raise StoreError(f"{len(names)} class names; the bank has {classes} classes")
        self.folder, self.width, self.classes, self.capacity = Path(folder), width, classes, capacity
        self._about = {"names": None if names is None else list(names), "settings": dict(settings or {})}
        canonical(self._about)  # refused now, not after hours
        with ExitStack() as undo, _as_store_error(self.folder):
            refuse_finished(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.folder / ".lock")
            undo.callback(self._unlock)
            refuse_finished(self.folder)  # by another run, a moment ago
            self._features = TensorWriter(self.folder / "features.safetensors", "features", width, dtype)
            undo.callback(self._features.abandon)
            self._histograms = TensorWriter(self.folder / "histograms.safetensors", "histograms", classes, dtype)
            undo.callback(self._histograms.abandon)
            self._parquet = pq.ParquetWriter(self.folder / "patches.parquet", _PATCHES, compression="zstd")
            undo.pop_all()
        self._pending: list[pa.RecordBatch] = []
        self._failed = self._closed = False

    def __len__(self) -> int:
        return self._features.rows

    @quiet_floats
    def add(
        self, features: NDArray[Any], histograms: NDArray[Any], image_id: str, positions: NDArray[np.integer]
    ) -> None:
        """Patches of one image: features [P, D], which are L2-normalised, histograms [P, C], positions [P, 2].

        A histogram sums to 1; a position is the row and column of the patch in its image's grid.
        Raises SampleError, and then adds nothing.
        """
        unit, fractions = check_patches(features, histograms, self.width, self.classes)
        positions = np.asarray(positions)
        if positions.shape != (len(unit), 2) or positions.dtype.kind not in "iu":
            raise SampleError(
                f"positions are {list(positions.shape)} of {positions.dtype}; expected integers [{len(unit)}, 2]: "
                "row and column of each patch (np.unravel_index gives them)"
            )
        if len(self) + len(unit) > self.capacity:
            raise SampleError(
                f"{len(unit)} patches more would make {len(self) + len(unit)}; "
                f"the bank takes {self.capacity}: add fewer of each image"
            )
        columns = [pa.array([image_id] * len(unit), pa.string()), *(pa.array(at, pa.int32()) for at in positions.T)]
        with self._whole_writes():
            self._features.add(unit)
            self._histograms.add(fractions)
            self._pending.append(pa.record_batch(columns, schema=_PATCHES))
            if sum(map(len, self._pending)) >= _ROWS:
                self._write_patches()

    def close(self) -> None:
        """Finish the bank, unless it is closed. Raises StoreError where it cannot be written, and then abandons it."""
        if self._closed:
            return
        try:
            with self._whole_writes():
                self._finish()
        except BaseException:
            self.abandon()
            raise
        self._closed = True
        self._unlock()

    def abandon(self) -> None:
        """Close the files of an unfinished bank, which `MemoryBank.open` refuses. One that is closed stays whole."""
        if self._closed:
            return
        self._closed = True
        for close in (self._features.abandon, self._histograms.abandon, self._parquet.close):
            with suppress(OSError, pa.ArrowException):  # of a full disk, which was reported when it was met
                close()
        self._unlock()

    def _finish(self) -> None:
        self._write_patches()
        self._parquet.close()
        path = self.folder / "patches.parquet"
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        files = {
            "features.safetensors": self._features.close(),
            "histograms.safetensors": self._histograms.close(),
            "patches.parquet": {"bytes": path.stat().st_size, "sha256": digest_of(path)},
        }
        size = {"patches": len(self), "width": self.width, "classes": self.classes, "dtype": self._features.dtype.name}
        write_file(self.folder / "manifest.json", seal(KIND, {"format": FORMAT, "files": files, **size, **self._about}))

    def _write_patches(self) -> None:
        if self._pending:
            self._parquet.write_table(pa.Table.from_batches(self._pending))
            self._pending = []

    @contextmanager
    def _whole_writes(self) -> Iterator[None]:
        if self._failed:
            raise StoreError(f"the bank in '{self.folder}' could not be written before; begin it again")
        if self._closed:
            raise StoreError(f"the bank in '{self.folder}' is closed; write another into another folder")
        self._failed = True  # until the whole of it is written: half of a patch must not become a row
        with _as_store_error(self.folder):
            yield
        self._failed = False

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Features [M, D], float16 or float32, of length 1, with histograms [M, C], are in RAM or mapped from `folder`."""

    features: NDArray[Any]
    histograms: NDArray[Any]
    names: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.names is not None and len(self.names) != self.histograms.shape[1]:
            raise SampleError(f"{len(self.names)} class names; the bank has {self.histograms.shape[1]} classes")

    @classmethod
    def of(
        cls,
        features: NDArray[Any],
        histograms: NDArray[Any],
        names: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> MemoryBank:
        """Make a bank in RAM, in float32; features [M, D] are L2-normalised, histograms [M, C] sum to 1."""
        widths = (np.asarray(array).shape[-1] for array in (features, histograms))
        unit, fractions = check_patches(features, histograms, *widths)
        return cls(unit, fractions, None if names is None else tuple(names), dict(settings or {}))

    @classmethod
    def open(cls, folder: str | Path, verify: bool = True) -> MemoryBank:
        """Map a finished bank into memory. Raises DamagedStore where it is unfinished or is not what was written.

        verify: read all of it once, for its checksums. False compares sizes and headers alone: a changed bit is then
        read as a feature. For a bank that this process wrote, or a huge one whose `verify` is called now and then.
        """
        folder = Path(folder)
        about = _manifest_of(folder)
        tensors = [
            open_tensor(
                folder / f"{name}.safetensors",
                name,
                (about["patches"], about[wide]),
                about["dtype"],
                about["files"][f"{name}.safetensors"]["bytes"],
            )
            for name, wide in (("features", "width"), ("histograms", "classes"))
        ]
        check_size(folder / "patches.parquet", about["files"]["patches.parquet"]["bytes"])
        names = about["names"]
        bank = cls(tensors[0], tensors[1], None if names is None else tuple(names), about["settings"], folder)
        if verify:
            bank.verify()
        return bank

    def __len__(self) -> int:
        return len(self.features)

    def verify(self) -> None:
        """Read every file of a bank on disk. Raises DamagedStore where a checksum differs."""
        if self.folder is None:
            raise StoreError("this bank is in RAM only; there is nothing on disk to verify")
        MemoryBank.open(self.folder, verify=False)  # sizes and headers
        files = _manifest_of(self.folder)["files"]
        verify_tensor(self.folder / "features.safetensors", files["features.safetensors"])
        verify_tensor(self.folder / "histograms.safetensors", files["histograms.safetensors"])
        self._verified_patches()

    def patches(self) -> pa.Table:
        """The image, row and column of each patch of a bank on disk. Raises DamagedStore where the checksum differs."""
        if self.folder is None:
            raise StoreError("this bank is in RAM only; it does not know where its patches came from")
        path = self._verified_patches()
        try:
            data = path.read_bytes()
            file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=["image"])
            if differing := _differing(file, data, len(self)):
                raise DamagedStore(damaged(path, differing))
            table = file.read(use_threads=False)
            table.validate(full=True)
            ids = table.column("image").combine_chunks()
            if ids.null_count or (pc.sum(pc.binary_length(ids.cast(pa.string()))).as_py() or 0) > _most_ids(len(self)):
                raise DamagedStore(damaged(path, "has ids that are missing or too long"))
            return table.cast(_PATCHES)
        except (pa.ArrowException, ValueError, KeyError, OSError, MemoryError) as error:
            raise DamagedStore(damaged(path, f"cannot be parsed ({error})")) from None

    def _verified_patches(self) -> Path:
        assert self.folder is not None
        path = self.folder / "patches.parquet"
        check_digest(path, _manifest_of(self.folder)["files"][path.name]["sha256"])
        return path

    @quiet_floats
    def predict(
        self,
        features: NDArray[Any],
        k: int = NEIGHBOURS,
        temperature: float = TEMPERATURE,
        index: Index | None = None,
    ) -> NDArray[np.float32]:
        """Class probabilities [Q, C] of patch features [Q, D], by `vote` of the k nearest in the bank.

        The features are L2-normalised. index: over `self.features`; default exact search, which reads the whole bank
        for each call: where it is on disk, ask for several images at once. k is cut to the bank's size.
        Raises SampleError.
        """
        if not len(self):
            raise SampleError("the bank is empty; add patches that have a label")
        index = ExactIndex(self.features) if index is None else index
        classes = self.histograms.shape[1]
        probabilities = np.empty((len(features), classes), np.float32)
        step = max(1, _QUERIES // self.features.shape[1])
        few = max(1, _HISTOGRAMS // (min(k, len(self)) * classes or 1))
        for start in range(0, len(features), step):
            queries = unit_rows(features[start : start + step])
            exact = isinstance(index, ExactIndex)
            similarities, positions = index.search(queries, k + exact)
            tied = np.zeros(0, np.intp)  # queries of which another patch is as near as the k-th
            if exact and similarities.shape[1] > k:
                tied = np.flatnonzero(similarities[:, k - 1] - similarities[:, k] <= SAME)
                similarities, positions = similarities[:, :k], positions[:, :k]
            means = dict(zip(tied.tolist(), self._mean_of_tied(queries[tied], similarities[tied, -1]), strict=True))
            for at in range(0, len(positions), few):
                part = slice(at, at + few)
                histograms = self.histograms[positions[part]].astype(np.float32, copy=False)
                for number, query in enumerate(range(at, at + len(histograms))):
                    if query in means:
                        histograms[number, similarities[query] - similarities[query, -1] <= SAME] = means[query]
                probabilities[start:][part] = vote(similarities[part], histograms, temperature)
        return probabilities

    def _mean_of_tied(self, queries: NDArray[np.float32], last: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean histograms [Q, C] of all patches whose similarity is the last neighbour's [Q]: they share its place."""
        sums, counts = np.zeros((len(queries), self.histograms.shape[1])), np.zeros((len(queries), 1))
        for part in slices(len(self) if len(queries) else 0, _PRODUCTS, max(len(queries), self.features.shape[1])):
            products = queries @ self.features[part].astype(np.float32, copy=False).T
            alike = (np.abs(products - last[:, None]) <= SAME).astype(np.float32)
            sums += alike @ self.histograms[part].astype(np.float32, copy=False)
            counts += alike.sum(axis=1, keepdims=True)
        return (sums / np.maximum(counts, 1)).astype(np.float32)


def _differing(file: pq.ParquetFile, data: bytes, patches: int) -> str:
    """What the file of patches says of itself that is not as it was written; "" where all is."""
    about = file.metadata
    kinds = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in file.schema_arrow]
    if about.num_rows != patches or (file.schema_arrow.names, kinds) != (_PATCHES.names, _PATCHES.types):
        return f"has {about.num_rows} rows of other columns; image, row and column of {patches} patches were written"
    size = sum(max(column.size, 8 * column.values) for _, columns in groups_of(data) for column in columns)
    return "" if size <= _most_ids(patches) + 24 * patches else f"has {size} bytes of {patches} patches"


def _most_ids(patches: int) -> int:
    return _IDS[0] + _IDS[1] * patches


def refuse_finished(folder: Path) -> None:
    """Raises StoreError where a new bank cannot go: the folder is a file, or holds a finished bank."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"'{folder}' is a file; a bank needs a folder: give another name")
    if (folder / "manifest.json").exists():
        raise StoreError(f"'{folder}' holds a finished bank; give another folder, or remove it")


def remove_bank(folder: Path) -> None:
    """Remove a bank's files, and nothing else. Maps of them stay readable, except on Windows. Raises StoreError."""
    with _as_store_error(folder), lock(folder / ".lock") or nullcontext():
        (folder / "manifest.json").unlink(missing_ok=True)  # first: from here on it is unfinished
        for name in ("features.safetensors", "histograms.safetensors", "patches.parquet"):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _as_store_error(folder: Path) -> Iterator[None]:
    """Raise StoreError for what the system refuses inside."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        raise StoreError(
            f"the bank in '{folder}' was not written: {getattr(error, 'strerror', None) or error}; "
            "free some space, fix the permissions or give another folder, then make it again"
        ) from error


def _manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a finished bank. Raises DamagedStore where there is none, StoreError for another format."""
    path = folder / "manifest.json"
    if not path.exists() and (folder / "features.safetensors").exists():
        raise DamagedStore(f"the bank in '{folder}' was not finished; run the command that made it again")
    about = unseal(KIND, path)
    if about.get("format") != FORMAT:
        raise StoreError(
            f"'{folder}' is a bank of format {about.get('format')}; this version reads {FORMAT}: make the bank again"
        )
    check_shape(path, about, _ABOUT)
    if about["names"] is not None and len(about["names"]) != about["classes"]:
        raise DamagedStore(damaged(path, f"names {len(about['names'])} of {about['classes']} classes"))
    return about
