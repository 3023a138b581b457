"""Retrieval on a labelled set: the rows of a query's label are relevant. Exact search, the whole database ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.checks import check_directions, check_same_kind, features_of, labels_of
from sporeprint.evaluate.result import Result
from sporeprint.features.unit import unit_float64
from sporeprint.search.neighbours import METRICS
from sporeprint.search.points import largest_of
from sporeprint.values import check_choice, is_count

MATRIX_MIB = 64  # distances held at a time in float64; with their copies and the ranking four times as much

# Squared distances below this share of the squared norms are 0: the product's own error is up to 1e-14 of them.
_SAME = 2.0**-44


@dataclass(frozen=True)
class RetrievalResult(Result):
    """value: mAP, the mean over queries of average precision. All figures are fractions, the dictionaries by k.

    precision_at: mP@k, the mean share of relevant rows among the first k. recall_at: Recall@k as metric learning has
    it (CUB, SOP), the share of queries with a relevant row among the first k. share_found_at: recall@k as information
    retrieval has it, the mean share of a query's relevant rows that are among the first k.
    queries: evaluated. left_out: queries without any relevant row, in no figure. database_rows: that a query is
    compared with.
    """

    precision_at: dict[int, float] = field(default_factory=dict)
    recall_at: dict[int, float] = field(default_factory=dict)
    share_found_at: dict[int, float] = field(default_factory=dict)
    queries: int = 0
    left_out: int = 0
    database_rows: int = 0

    def __str__(self) -> str:
        figures = [f"mAP {self.value:.1%}"]
        figures += [f"mP@{k} {value:.1%}" for k, value in self.precision_at.items()]
        figures += [f"recall@{k} {value:.1%}" for k, value in self.recall_at.items()]
        left_out = f", {self.left_out} left out: nothing relevant to find" if self.left_out else ""
        return f"{', '.join(figures)} ({self.queries} queries{left_out})"


def retrieve(
    queries: ArrayLike,
    query_labels: ArrayLike,
    database: ArrayLike | None = None,
    database_labels: ArrayLike | None = None,
    ks: Sequence[int] = (1, 5, 10),
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> RetrievalResult:
    """Rank the database [N, D] for each query [M, D], nearest first; a database row with the query's label is relevant.

    Without a database every row queries all the others; only the row itself is excluded, its duplicates are not.
    Average precision is the mean, over a query's relevant rows, of the precision at each one's rank, without
    interpolation. Equal distances, as float32 tells them, go by the order of the database. With fewer than k rows in
    the database the absent ones count as irrelevant, so mP@k is a share of k all the same. A query whose label no
    database row has is left out and counted.
    Takes 8 (M + N) D bytes, and MATRIX_MIB a few times over, however many queries there are.
    Raises SampleError for rows with NaN, rows that are all 0 with metric="cosine", labels that do not match, and where
    no query has a relevant row (a single row without a database, for one).
    """
    wanted = check_ks(ks)
    rows = features_of(queries, "query")
    labels = labels_of(query_labels, len(rows), "query")
    if (database is None) != (database_labels is None):
        raise SampleError("database and database_labels belong together; give both, or neither to query among the rows")
    if database is None or database_labels is None:
        others, other_labels = None, labels
    else:
        others = features_of(database, "database")
        other_labels = labels_of(database_labels, len(others), "database")
        check_same_kind(other_labels, labels)
    codes = np.unique(np.concatenate([labels, other_labels]), return_inverse=True)[1]
    asked, held = codes[: len(labels)], codes[len(labels) :]
    precisions: list[float] = []
    hits: list[list[int]] = []
    relevant: list[int] = []
    for query, order in rankings(rows, others, metric):
        ranks = np.flatnonzero(held[order] == asked[query])
        if len(ranks):
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))))
            hits.append([int(np.searchsorted(ranks, k)) for k in wanted])
            relevant.append(len(ranks))
    if not precisions:
        raise SampleError(
            f"none of the {len(rows)} queries has its label on a row of the database; expected labels that are shared"
        )
    within = np.asarray(hits, dtype=np.float64).reshape(len(hits), len(wanted))
    return RetrievalResult(
        value=float(np.mean(precisions)),
        settings={"metric": metric, "ks": list(wanted), "leave_one_out": others is None},
        precision_at=_means(wanted, within / np.asarray(wanted)),
        recall_at=_means(wanted, within > 0),
        share_found_at=_means(wanted, within / np.asarray(relevant)[:, None]),
        queries=len(precisions),
        left_out=len(rows) - len(precisions),
        database_rows=len(rows) - 1 if others is None else len(others),
    )


def rankings(
    queries: NDArray[Any], database: NDArray[Any] | None, metric: str = "euclidean"
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each query's number with the database rows [N], nearest first, ties in order; without a database, all others.

    Distances are products in float64, since in float32 those of near neighbours are mostly rounding; they are compared
    as float32, so that equal rows tie. Not `search.neighbours`: for k = N it would take the difference of every two
    rows, many times the work of a product. Raises SampleError.
    """
    check_choice("metric", metric, METRICS, SampleError)
    alone = database is None
    if database is not None and queries.shape[1] != database.shape[1]:
        raise SampleError(
            f"query features are {queries.shape[1]} wide, database features {database.shape[1]}; expected the same"
        )
    if metric == "cosine":  # of unit rows the Euclidean distance has the same order
        check_directions(queries, "query")
        asked = unit_float64(queries)
        if database is not None:
            check_directions(database, "database")
        held = asked if database is None else unit_float64(database)
    else:
        exponent = scale_exponent(queries, queries if database is None else database)
        asked = np.ldexp(queries.astype(np.float64), -exponent)
        held = asked if database is None else np.ldexp(database.astype(np.float64), -exponent)
    asked_norms, norms = (np.einsum("nd,nd->n", each, each) for each in (asked, held))
    step = max(1, MATRIX_MIB * 2**20 // (8 * len(held)))
    for start in range(0, len(asked), step):
        part = slice(start, start + step)
        both = asked_norms[part, None] + norms
        squared = asked[part] @ held.T
        squared *= -2
        squared += both
        both *= _SAME
        squared[squared < both] = 0
        distances = np.sqrt(squared, out=squared).astype(np.float32)
        if alone:
            np.fill_diagonal(distances[:, start:], np.inf)  # the farthest, so the last
        for offset, order in enumerate(np.argsort(distances, axis=1, kind="stable")):
            yield start + offset, order[:-1] if alone else order


def scale_exponent(*features: NDArray[Any]) -> int:
    """Exponent of the power of two whose division brings all features into [-1, 1]: exact, and no square overflows."""
    return int(np.frexp(largest_of(*features))[1])


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Raises SampleError for a k that is no positive integer."""
    for k in ks:
        if not is_count(k):
            raise SampleError(f"ks has {k!r}; expected positive integers")
    return tuple(int(k) for k in ks)


def _means(ks: tuple[int, ...], values: NDArray[Any]) -> dict[int, float]:
    """values: [queries, len(ks)]."""
    return {k: float(column.mean()) for k, column in zip(ks, values.T, strict=True)}
