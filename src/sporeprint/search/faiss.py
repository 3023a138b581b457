"""Search approximately by faiss, tuned until it reaches a promised recall; rows are added part by part."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.data.locks import process_lock
from sporeprint.errors import DamagedStore, MissingExtra, RecipeError, StoreError, StoreMismatch
from sporeprint.search.base import RECALL, Found, nearest_of, queries_of, recall_of
from sporeprint.search.exact import SPARE, ExactIndex
from sporeprint.store.atomic import (
    TEMPORARY,
    check_digest,
    check_size,
    damaged,
    digest_of,
    seal,
    sync_folder,
    unseal,
    write_file,
)
from sporeprint.store.schema import DIGEST, FILE, NUMBER, SIZE, check_shape, one_of

KIND, FORMAT = "sporeprint index", 2
SAMPLE = 256  # queries that the recall is measured on
CANDIDATES = {"ivf": 1, "ivf-sq8": 2, "ivf-sq4": 4, "hnsw": 1}  # times k, and SPARE more, are compared exactly

_ABOUT = {
    "name": one_of(tuple(CANDIDATES)),
    "effort": SIZE,
    "recall": NUMBER,
    **FILE,
    "rows": DIGEST,
    "sampled": DIGEST,
}
_FILES = re.compile(r"index(-[0-9a-f]{16})?\.faiss")
_NUMBERS = 2**22  # numbers of rows at a time: 16 MiB
_TRAINING = 2**26  # numbers of rows that cells are trained on: 256 MiB
_ROWS_A_CELL = 64  # the most rows that a cell is trained on
_CHUNK = 2**20  # candidates at a time
_MOST_EFFORT = 2**14  # the widest search in a graph
_BOUNDS = process_lock()  # faiss has one set of limits for the whole process


@dataclass(eq=False)
class FaissIndex:
    """A faiss index finds candidates among `rows`, whose similarities are then computed exactly.

    effort: cells probed, or the width of the search in a graph. recall: measured; see `build`. Where faiss finds fewer
    than k, the query is searched exactly. Cells that are equally near but for rounding are taken in
    either order, so that in rare cases a query's answer changes with the number of queries.
    """

    name: str
    rows: NDArray[Any]
    index: Any
    effort: int
    recall: float = float("nan")

    @quiet_floats
    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Search as `Index.search` does."""
        queries = queries_of(queries, self.rows.shape[1], k)
        similarities, positions = self.found(queries, min(k, len(self.rows)))
        short = np.flatnonzero(positions[:, -1] < 0)
        if len(short):
            similarities[short], positions[short] = ExactIndex(self.rows).search(queries[short], k)
        return similarities, positions

    def found(self, queries: NDArray[np.float32], k: int) -> Found:
        """Search by faiss alone; where it finds too few, the last have position -1 and similarity minus infinity."""
        faiss = load_faiss()
        count = min(CANDIDATES[self.name] * k + SPARE, len(self.rows))
        similarities, positions = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if self.name == "hnsw":
            settings = faiss.SearchParametersHNSW(efSearch=self.effort)
        else:
            settings = faiss.SearchParametersIVF(nprobe=self.effort)
        step = max(1, _CHUNK // count)
        for at in range(0, len(queries), step):
            part = slice(at, at + step)
            with _threads(_thread_count()):
                candidates = self.index.search(queries[part], count, params=settings)[1]
            if candidates.max(initial=-1) >= len(self.rows):
                raise DamagedStore(f"the index {self.name!r} names rows beyond its {len(self.rows)}; make it again")
            similarities[part], positions[part] = nearest_of(self.rows, queries[part], candidates, k)
        return similarities, positions

    def save(self, folder: str | Path) -> None:
        """Write index-DIGEST.faiss and, last, index.json, which names it; the rows stay where they are.

        An older index in `folder` stays whole until this one is. Raises StoreError.
        """
        folder = Path(folder)
        temporary = folder / f"index.faiss{TEMPORARY}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            load_faiss().write_index(self.index, str(temporary))
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            digest = digest_of(temporary)
            path = folder / _file_name(digest)
            os.replace(temporary, path)
            sync_folder(folder)
        except (OSError, RuntimeError, ValueError) as error:  # ValueError: a name that no folder can have
            with suppress(OSError, ValueError):
                temporary.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or error
            raise StoreError(
                f"the index in '{folder}' was not written: {why}; free some space, fix the permissions or give another "
                "folder"
            ) from error
        rows = {"rows": _digest(self.rows), "sampled": _digest(_few(self.rows))}
        record = {"bytes": path.stat().st_size, "sha256": digest, **rows}
        value = {"format": FORMAT, "name": self.name, "effort": self.effort, "recall": self.recall, **record}
        write_file(folder / "index.json", seal(KIND, value))
        for other in folder.iterdir():
            if _FILES.fullmatch(other.name) and other != path:
                with suppress(OSError):  # it is in nobody's way
                    other.unlink()

    @classmethod
    def open(cls, folder: str | Path, rows: NDArray[Any], verify: bool = True) -> FaissIndex:
        """Open an index as `open_index` does."""
        faiss = load_faiss()
        described = Path(folder) / "index.json"
        about = unseal(KIND, described)
        if about.get("format") != FORMAT:
            raise StoreError(
                f"'{folder}' is an index of format {about.get('format')}; this version reads {FORMAT}: make it again"
            )
        check_shape(described, about, _ABOUT)
        path = Path(folder) / _file_name(about["sha256"])
        check_size(path, about["bytes"])
        if verify:
            check_digest(path, about["sha256"])
        if (_digest(rows) if verify else _digest(_few(rows))) != about["rows" if verify else "sampled"]:
            raise StoreMismatch(f"the index in '{folder}' is of other rows; make it again for these")
        # The first maps cells, the second (since faiss 1.11) graphs.
        flag = faiss.IO_FLAG_MMAP if about["name"] != "hnsw" else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
        try:
            with _bounded(faiss, about["bytes"]):
                index = faiss.read_index(str(path), flag)
        except (RuntimeError, MemoryError) as error:
            raise StoreError(f"this faiss cannot read '{path}' ({error}); make the index again") from error
        if not _is_over(faiss, about["name"], index, rows):
            raise DamagedStore(damaged(path, f"is no index {about['name']!r} of {len(rows)} rows"))
        return cls(about["name"], rows, index, about["effort"], about["recall"])


def _file_name(digest: str) -> str:
    return f"index-{digest[:16]}.faiss"


def _is_over(faiss: Any, name: str, index: Any, rows: NDArray[Any]) -> bool:
    """Whether an index that was read is of its kind, and as large as the rows, in all its parts."""
    graph = name == "hnsw"
    if not isinstance(index, faiss.IndexHNSW if graph else faiss.IndexIVF):
        return False
    part, size = (index.storage, len(rows)) if graph else (index.quantizer, index.nlist)
    sizes = [(index.ntotal, index.d), (part.ntotal, part.d)]
    return sizes == [rows.shape, (size, rows.shape[1])] and index.metric_type == faiss.METRIC_INNER_PRODUCT


@quiet_floats
def build(
    name: str,
    rows: NDArray[Any],
    seed: int = 0,
    recall: float = RECALL,
    k: int = 30,
    queries: NDArray[np.float32] | None = None,
    cells: int | None = None,
    links: int = 32,
) -> FaissIndex:
    """Build an index over rows [M, D] that finds `recall` of the true k nearest rows, with the least effort that does.

    The recall is measured on SAMPLE rows, each against the others, or on `queries` [Q, D] where these are given:
    queries unlike the rows, such as another data set's, may find less. cells: default sqrt(M). links: of a graph's row.
    The same rows and seed give the same index; a graph is therefore built in one thread.
    Raises RecipeError where no effort reaches the recall.
    """
    faiss = load_faiss()
    if not 0 < recall <= 1 or k < 1 or links < 2 or not 1 <= (1 if cells is None else cells) <= len(rows):
        raise RecipeError(
            f"recall {recall}, {k} neighbours, {cells} cells, {links} links; expected a recall in (0, 1], "
            f"at least 1 neighbour and 2 links, and 1 to {len(rows)} cells"
        )
    draw = np.random.default_rng(seed)
    if name == "hnsw":
        index, most = _build_graph(faiss, rows, links, seed), min(len(rows), _MOST_EFFORT)
    else:
        most = cells or max(1, round(len(rows) ** 0.5))
        index = _train_cells(faiss, name, rows, most, seed, draw)
    tuned = FaissIndex(name, rows, index, effort=1)
    measure = _recall_measure(tuned, queries, k, draw)

    def reached(effort: int) -> float:
        tuned.effort = effort
        return measure()

    effort = 1
    while (value := reached(effort)) < recall and effort < most:
        effort = min(2 * effort, most)
    if value < recall:
        raise RecipeError(
            f"index {name!r} finds {value:.3f} of the {k} nearest rows at most; {recall} was promised: "
            "ask for less, or take 'exact'"
        )
    low = effort // 2
    while effort - low > max(1, effort // 8):
        middle = (low + effort) // 2
        if (better := reached(middle)) >= recall:
            effort, value = middle, better
        else:
            low = middle
    tuned.effort, tuned.recall = effort, value
    return tuned


def _train_cells(faiss: Any, name: str, rows: NDArray[Any], count: int, seed: int, draw: np.random.Generator) -> Any:
    width, product = rows.shape[1], faiss.METRIC_INNER_PRODUCT
    kind = {"ivf-sq8": "QT_8bit", "ivf-sq4": "QT_4bit"}.get(name, "QT_fp16" if rows.dtype == np.float16 else "")
    coarse = faiss.IndexFlatIP(width)
    if kind:
        stored = getattr(faiss.ScalarQuantizer, kind)
        index = faiss.IndexIVFScalarQuantizer(coarse, width, count, stored, product)
    else:
        index = faiss.IndexIVFFlat(coarse, width, count, product)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1  # else it warns
    sample = _sample(rows, max(count, min(_ROWS_A_CELL * count, _TRAINING // width)), draw)
    with _threads(_thread_count()):
        index.train(rows[sample].astype(np.float32))
        _add(index, rows)
    return index


def _build_graph(faiss: Any, rows: NDArray[Any], links: int, seed: int) -> Any:
    width, product = rows.shape[1], faiss.METRIC_INNER_PRODUCT
    if rows.dtype == np.float16:
        index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_fp16, links, product)
        index.train(rows[:1].astype(np.float32))
    else:
        index = faiss.IndexHNSWFlat(width, links, product)
    index.hnsw.rng = faiss.RandomGenerator(seed)
    with _threads(1):
        _add(index, rows)
    return index


def _add(index: Any, rows: NDArray[Any]) -> None:
    step = max(1, _NUMBERS // rows.shape[1])
    for at in range(0, len(rows), step):
        index.add(rows[at : at + step].astype(np.float32))


def _recall_measure(
    index: FaissIndex, queries: NDArray[np.float32] | None, k: int, draw: np.random.Generator
) -> Callable[[], float]:
    """Return a function that measures the recall of `index` at its present effort."""
    rows = index.rows
    if queries is not None:
        checked, count = queries_of(queries, rows.shape[1], k), min(k, len(rows))
        truth = ExactIndex(rows).search(checked, k)[0]
        return lambda: recall_of(index.found(checked, count)[0], truth)
    k = min(k, len(rows) - 1)
    if not k:
        return lambda: 1.0
    positions = _sample(rows, SAMPLE, draw)
    sample = rows[positions].astype(np.float32)
    truth = _without_self(ExactIndex(rows).search(sample, k + 1), positions)
    return lambda: recall_of(_without_self(index.found(sample, k + 1), positions), truth)


def _without_self(neighbours: Found, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the similarities [Q, k] of the k + 1 neighbours without the query at its position, or of the first k."""
    others = neighbours[1] != positions[:, None]
    others[others.all(axis=1), -1] = False
    return neighbours[0][others].reshape(len(positions), -1)


def _sample(rows: NDArray[Any], count: int, draw: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(draw.choice(len(rows), min(count, len(rows)), replace=False, shuffle=False))


def _digest(rows: NDArray[Any]) -> str:
    """Digest every row, part by part; a second takes about 1 GB."""
    digest = sha256(f"{rows.shape} {rows.dtype}".encode())
    step = max(1, _NUMBERS // rows.shape[1])
    for at in range(0, len(rows), step):
        digest.update(np.ascontiguousarray(rows[at : at + step]).data)
    return digest.hexdigest()


def _few(rows: NDArray[Any]) -> NDArray[Any]:
    """64 rows spread over all, which tell one table from another unless somebody wants them not to."""
    return rows[np.linspace(0, len(rows) - 1, 64).astype(int)]


def load_faiss() -> Any:
    """Import faiss. Raises MissingExtra."""
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingExtra("approximate search needs faiss; pip install 'sporeprint[faiss]'") from error


def _thread_count() -> int:
    """Return as many threads as torch takes, where it is loaded: one bound holds for both."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else load_faiss().omp_get_max_threads()


@contextmanager
def _bounded(faiss: Any, size: int) -> Iterator[None]:
    """While faiss reads a file of this size, let it make room for no more, where it can be told so (since 1.14)."""
    limits = [name for name in ("vector_byte", "loop") if hasattr(faiss, f"set_deserialization_{name}_limit")]
    with _BOUNDS:
        before = [getattr(faiss, f"get_deserialization_{name}_limit")() for name in limits]
        try:
            for name in limits:
                getattr(faiss, f"set_deserialization_{name}_limit")(size)
            yield
        finally:
            for name, limit in zip(limits, before, strict=True):
                getattr(faiss, f"set_deserialization_{name}_limit")(limit)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
