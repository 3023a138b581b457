"""Exact search: every query against every row, in parts of bounded size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError
from sporeprint.search.base import Found, nearest_of, queries_of, rows_of

SPARE = 16  # candidates beyond k: float32 products find them, float64 products order them

_NUMBERS = 2**22  # of rows or queries at a time: 16 MiB
_SCORES = 2**22  # at a time: 16 MiB
_KEYS = 2**20  # scores with their positions at a time: 8 MiB

Keys = NDArray[np.uint64]


class ExactIndex:
    """The true nearest rows; rows [M, D] stay where they are, in RAM or memory-mapped, and are read in order.

    Beside rows and answers 128 MiB suffice, for a k up to 1,000. Rows whose products are equal go by position.
    """

    name = "exact"
    recall = 1.0

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows_of(rows)
        if len(rows) >= 2**32:
            raise SampleError(f"{len(rows)} rows; exact search takes fewer than 2^32")

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """As `Index.search`."""
        width = self.rows.shape[1]
        queries = queries_of(queries, width, k)
        keep, k = min(k + SPARE, len(self.rows)), min(k, len(self.rows))
        similarities, positions = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        step = max(1, min(_NUMBERS // width, _NUMBERS // keep))
        for at in range(0, len(queries), step):
            part = slice(at, at + step)
            candidates = self._candidates(queries[part], keep)
            similarities[part], positions[part] = nearest_of(self.rows, queries[part], candidates, k)
        return similarities, positions

    def _candidates(self, queries: NDArray[np.float32], keep: int) -> NDArray[np.int64]:
        best = np.zeros((len(queries), keep), np.uint64)
        step = max(1, min(_NUMBERS // self.rows.shape[1], _SCORES // max(1, len(queries))))
        for first in range(0, len(self.rows), step):
            scores = queries @ self.rows[first : first + step].astype(np.float32, copy=False).T
            some = max(1, _KEYS // (scores.shape[1] + keep))
            for at in range(0, len(scores), some):
                _keep_best(best[at : at + some], scores[at : at + some], first)
        if not best.all():
            raise SampleError("products with rows or queries are NaN or infinite; expected finite, moderate rows")
        return np.int64(2**32 - 1) - (best & np.uint64(2**32 - 1)).astype(np.int64)


def _keep_best(best: Keys, scores: NDArray[np.float32], first: int) -> None:
    """Put those of the scores [q, R], of rows from `first` on, that are among the largest into `best` [q, keep]."""
    keep = best.shape[1]
    found = np.flatnonzero(scores > _score(best.min(axis=1))[:, None])  # not >=: earlier rows win ties
    if not len(found):
        return
    query, column = np.divmod(found, scores.shape[1])
    counts = np.bincount(query, minlength=len(best))
    new = np.zeros((len(best), counts.max()), np.uint64)
    new[np.arange(new.shape[1]) < counts[:, None]] = _keys(scores.ravel()[found], first + column)
    joined = np.concatenate([best, new], axis=1)
    best[:] = np.partition(joined, joined.shape[1] - keep, axis=1)[:, -keep:]


def _keys(scores: NDArray[np.float32], positions: NDArray[np.intp]) -> Keys:
    """One number for each, in the order of the scores and, where these are equal, against that of the positions."""
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # + 0: there is one zero
    ordered = np.where(bits < 0, ~bits & 0x7FFFFFFF, bits + 2**31)  # negative floats fall as their bits rise
    return (ordered.astype(np.uint64) << np.uint64(32)) | (2**32 - 1 - positions).astype(np.uint64)


def _score(keys: Keys) -> NDArray[np.float32]:
    """The scores of keys; minus infinity for 0, which is no row's."""
    ordered = (keys >> np.uint64(32)).astype(np.int64)
    bits = np.where(ordered < 2**31, ~ordered & 0xFFFFFFFF, ordered - 2**31)
    scores = bits.astype(np.uint32).view(np.float32)
    return np.where(keys == 0, -np.float32(np.inf), scores)
