"""Exact search for rows of greatest inner product: every query against every row, in parts of bounded size.

Its candidates are found as those of `neighbours`. The order is another: products, not distances, of rows of any length,
and the nearest are not certified, since a bank may hold millions of equal patches (a black background), all of which a
second search would have to compare.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.search.base import Found, nearest_of, queries_of, rows_of
from sporeprint.search.best_rows import SPARE, Scores, best_candidates, check_row_count, slices

_NUMBERS = 2**22  # of rows or queries at a time: 16 MiB
_SCORES = 2**22  # at a time: 16 MiB


class ExactIndex:
    """The true nearest rows; rows [M, D] stay where they are, in RAM or memory-mapped, and are read in order.

    Next to rows and answers 128 MiB suffice, for a k up to 1,000. Rows whose products are equal go by position.
    Products are compared in float64 among the k + 16 rows whose products in float32 are greatest.
    """

    name = "exact"
    recall = 1.0

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows_of(rows)
        check_row_count(len(rows))

    @quiet_floats
    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """As `Index.search`."""
        width = self.rows.shape[1]
        queries = queries_of(queries, width, k)
        keep, k = min(k + SPARE, len(self.rows)), min(k, len(self.rows))
        similarities, positions = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for part in slices(len(queries), _NUMBERS, max(width, keep)):
            chunk = queries[part]
            candidates = best_candidates(self._products(chunk), len(chunk), keep)[1]
            if (candidates < 0).any():
                raise SampleError("products with rows or queries are NaN or infinite; expected finite, moderate rows")
            similarities[part], positions[part] = nearest_of(self.rows, chunk, candidates, k)
        return similarities, positions

    def _products(self, queries: NDArray[np.float32]) -> Iterator[tuple[int, Scores]]:
        """The first row's number and the products [Q, R] of one chunk of rows after another."""
        count, width = self.rows.shape
        step = max(1, min(_NUMBERS // width, _SCORES // max(1, len(queries))))
        for part in slices(count, step):
            yield part.start, queries @ self.rows[part].astype(np.float32, copy=False).T
