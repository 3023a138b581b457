"""An index by its name, from a factory of your own, or as you made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError
from sporeprint.search import faiss as faiss_index
from sporeprint.search.base import Index, rows_of
from sporeprint.search.best_rows import slices
from sporeprint.search.exact import ExactIndex

_SAMPLED = 16  # rows that an index object is asked about

_NUMBERS = 2**22  # numbers of rows that are compared at a time
_OTHER_ROWS = (
    "the index given ({}) is not over these {} rows; give a callable that makes an index of rows [M, D], such as its "
    "class"
)
INDEXES = ("exact", "ivf", "ivf-sq8", "ivf-sq4", "hnsw")

Choice = str | Index | Callable[[NDArray[Any]], Index]  # what stands for an index wherever one is chosen


def make_index(index: Choice, rows: NDArray[Any], seed: int = 0, **settings: Any) -> Index:
    """An index over rows [M, D], float16 or float32, which may be a memory map larger than RAM: it is read in parts.

    index: "exact"; "ivf": cells, each row stored once more; "ivf-sq8", "ivf-sq4": cells, rows stored in 8 or 4 bits a
    number and the nearest compared again with `rows`; "hnsw": a graph, the fastest and largest. For the settings of all
    but the first see `search.faiss.build`. Or your own: a callable that makes an `Index` of rows, such as a
    class; or an `Index` over these very rows. `check_index` says whether it keeps the contract.
    Raises RecipeError, SampleError, MissingExtra.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint.search.indexes import make_index
    >>> rows = np.eye(4, dtype=np.float32)
    >>> similarities, positions = make_index("exact", rows).search(rows[2:3], k=1)
    >>> positions.tolist(), similarities.tolist()
    ([[2]], [[1.0]])
    """
    rows = rows_of(rows)
    check_choice_of_index(index)
    if not isinstance(index, str):
        return index(rows) if _is_factory(index) else _over(cast(Index, index), rows)
    if index != "exact":
        return faiss_index.build(index, rows, seed, **settings)
    if settings:
        raise RecipeError(f"exact search has no settings; {', '.join(sorted(settings))} given")
    return ExactIndex(rows)


def check_choice_of_index(index: Any) -> None:
    """Check an index before work is done for it. Raises RecipeError for what is none, MissingExtra without faiss."""
    if isinstance(index, str):
        if index not in INDEXES:
            raise RecipeError(f"no index is called {index!r}; there are {', '.join(INDEXES)}")
        if index != "exact":
            faiss_index.load_faiss()
    elif not _is_factory(index) and not callable(getattr(index, "search", None)):
        raise RecipeError(
            f"index is a {type(index).__name__}; expected a name ({', '.join(INDEXES)}), an object with `search`, or a "
            "callable that makes one of rows [M, D]"
        )


def _over(index: Index, rows: NDArray[Any]) -> Index:
    """The index, where it is over these rows: for a few of them, it finds the similarities of the rows that it names.

    An index that has `rows`, as ours do, is compared with all of them. Raises RecipeError.
    """
    own = getattr(index, "rows", None)
    if isinstance(own, np.ndarray) and own is not rows and not _equal(own, rows):
        raise RecipeError(_OTHER_ROWS.format(type(index).__name__, len(rows)))
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED)).astype(int)].astype(np.float32)
    similarities, positions = index.search(sample, 1)
    places = positions[:, 0].astype(int)
    inside = bool(((places >= 0) & (places < len(rows))).all())
    again = np.einsum("nd,nd->n", rows[places].astype(np.float32), sample) if inside else np.full(len(sample), np.nan)
    if not np.allclose(again, similarities[:, 0], rtol=1e-3, atol=1e-5):
        raise RecipeError(_OTHER_ROWS.format(type(index).__name__, len(rows)))
    return index


def _equal(own: NDArray[Any], rows: NDArray[Any]) -> bool:
    """Whether two tables are equal, compared part by part."""
    if own.shape != rows.shape:
        return False
    return all(np.array_equal(own[part], rows[part]) for part in slices(len(rows), _NUMBERS, rows.shape[1]))


def _is_factory(index: Any) -> TypeGuard[Callable[[NDArray[Any]], Index]]:
    return isinstance(index, type) or (callable(index) and not hasattr(index, "search"))


def open_index(folder: str | Path, rows: NDArray[Any], verify: bool = True) -> Index:
    """An index that was saved into `folder`, memory-mapped, for the same rows.

    verify: read the whole file and all rows first, for their checksums; False compares sizes and 64 rows alone.
    Raises DamagedStore, MissingExtra, StoreMismatch (other rows).
    """
    return faiss_index.FaissIndex.open(folder, rows_of(rows), verify)
