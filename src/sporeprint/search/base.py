"""Define what an index of nearest neighbours is, and what all of them share.

Similarity is the inner product; for rows and queries of length 1 that is the cosine.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import SampleError

RECALL = 0.95

_GATHERED = 2**21  # numbers at a time, in float64: 16 MiB, and as much for a copy

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


class Index(Protocol):
    """An index finds the nearest rows of a fixed table, by inner product."""

    name: str
    recall: float  # the share of true neighbours found among sampled rows' own; 1 for exact search

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Find similarities float32 [Q, k], falling, and positions int64 [Q, k] of the k rows nearest queries [Q, D].

        k is at most the number of rows. A query's answer does not depend on the other queries.
        """


def rows_of(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of an index as they are. Raises SampleError for arrays that it does not take."""
    if rows.ndim != 2 or not rows.size or rows.dtype not in (np.float16, np.float32):
        raise SampleError(
            f"rows are {list(rows.shape)} of {rows.dtype}; expected float16 or float32 [rows, dimensions], at least one"
        )
    return rows


def queries_of(queries: NDArray[Any], width: int, k: int) -> NDArray[np.float32]:
    """Return the queries as float32. Raises SampleError where they or k cannot be searched for."""
    if queries.ndim != 2 or queries.shape[1] != width or queries.dtype.kind != "f":
        raise SampleError(f"queries are {list(queries.shape)} of {queries.dtype}; expected floats [queries, {width}]")
    if k < 1:
        raise SampleError(f"{k} neighbours; expected at least 1")
    bad = int((~np.isfinite(queries).all(axis=1)).sum())
    if bad:
        raise SampleError(f"{bad} of {len(queries)} queries are NaN or infinite (unreadable samples?); drop them")
    return np.ascontiguousarray(queries, np.float32)


def nearest_of(rows: NDArray[Any], queries: NDArray[np.float32], positions: NDArray[np.int64], k: int) -> Found:
    """Find the k nearest of each query's candidates [Q, n], n >= k, by products in float64; ties go by position.

    A position of -1 is not a candidate; it comes last, at minus infinity.
    """
    similarities = np.empty((len(queries), k), np.float32)
    nearest = np.empty((len(queries), k), np.int64)
    step = max(1, _GATHERED // (positions.shape[1] * rows.shape[1]))
    for at in range(0, len(queries), step):
        part = slice(at, at + step)
        candidates = rows[positions[part]].astype(np.float64)  # [q, n, D]
        products = np.einsum("qnd,qd->qn", candidates, queries[part].astype(np.float64)).astype(np.float32)
        products[positions[part] < 0] = -np.inf
        order = np.lexsort((positions[part], -products), axis=1)[:, :k]
        similarities[part] = np.take_along_axis(products, order, 1)
        nearest[part] = np.take_along_axis(positions[part], order, 1)
    return similarities, nearest


def recall_of(similarities: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the share of similarities [Q, k] that are no less than the least of the true ones [Q, k].

    So a row that is as near as a true neighbour, such as its copy, counts as one.
    """
    return float((similarities >= true[:, -1:] - 1e-6 * np.abs(true[:, -1:])).mean())
