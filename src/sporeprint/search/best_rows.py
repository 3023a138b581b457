"""The rows of greatest score for each query, kept while float32 scores come in, one chunk of rows after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError

SPARE = 16  # candidates beyond k: float32 scores find them, float64 orders them

_KEYS = 2**20  # scores and candidates that are merged at a time: up to 64 MiB with their keys
_MOST_ROWS = 2**32

Scores = NDArray[np.float32]
Keys = NDArray[np.uint64]


def best_candidates(chunks: Iterable[tuple[int, Scores]], queries: int, keep: int) -> tuple[Scores, NDArray[np.int64]]:
    """The `keep` greatest scores of each query [Q, keep], falling, and their rows; equal scores go by row.

    chunks: the number of a chunk's first row, and the scores [Q, R] of its rows, which may be overwritten by the next.
    A score of minus infinity or NaN is no candidate; where candidates are fewer than `keep`, the row is -1.
    """
    best = np.zeros((queries, keep), np.uint64)
    for first, scores in chunks:
        for part in slices(queries, _KEYS, scores.shape[1] + keep):
            _keep_best(best[part], scores[part], first)
    best = np.sort(best, axis=1)[:, ::-1]
    rows = np.int64(2**32 - 1) - (best & np.uint64(2**32 - 1)).astype(np.int64)
    return _score(best), np.where(best == 0, -1, rows)


def check_row_count(count: int) -> None:
    """Raises SampleError for rows whose numbers do not fit into a key."""
    if count >= _MOST_ROWS:
        raise SampleError(f"{count} rows; exact search takes fewer than 2^32")


def slices(length: int, numbers: int, width: int = 1) -> Iterator[slice]:
    """Slices of a table of this width and length that hold at most `numbers` numbers each, and at least one row."""
    step = max(1, numbers // max(1, width))
    return (slice(at, min(at + step, length)) for at in range(0, length, step))


def _keep_best(best: Keys, scores: Scores, first: int) -> None:
    """Put the greatest of the scores [q, R], of rows from `first` on, into `best` [q, keep]."""
    keep = best.shape[1]
    least = _score(best.min(axis=1))  # a score has to be greater: earlier rows win ties
    if scores.shape[1] > 4 * keep and np.isneginf(least).any():  # most of a first chunk need not be sorted
        last = -np.partition(-scores, keep - 1, axis=1)[:, keep - 1]  # NaN sorts behind all numbers
        least = np.fmax(least, np.nextafter(last, np.float32(-np.inf)))  # rows that tie for the last place stay
    better = np.flatnonzero(scores > least[:, None])
    if not len(better):
        return
    query, column = np.divmod(better, scores.shape[1])
    counts = np.bincount(query, minlength=len(best))
    new = np.zeros((len(best), counts.max()), np.uint64)
    new[np.arange(new.shape[1]) < counts[:, None]] = _keys(scores.ravel()[better], first + column)
    joined = np.concatenate([best, new], axis=1)
    best[:] = np.partition(joined, joined.shape[1] - keep, axis=1)[:, -keep:]


def _keys(scores: Scores, rows: NDArray[np.intp]) -> Keys:
    """One number for each score and its row: greater for a greater score and, of equal scores, for an earlier row."""
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # + 0: there is one zero
    ordered = np.where(bits < 0, ~bits & 0x7FFFFFFF, bits + 2**31)  # negative floats fall as their bits rise
    return (ordered.astype(np.uint64) << np.uint64(32)) | (2**32 - 1 - rows).astype(np.uint64)


def _score(keys: Keys) -> Scores:
    """The scores of keys; minus infinity for 0, which is no row's."""
    ordered = (keys >> np.uint64(32)).astype(np.int64)
    bits = np.where(ordered < 2**31, ~ordered & 0xFFFFFFFF, ordered - 2**31)
    scores = bits.astype(np.uint32).view(np.float32)
    return np.where(keys == 0, -np.float32(np.inf), scores)
