"""Retrieval on a labelled set: the rows of a query's label are relevant. Exact search, the whole database ranked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.result import Result
from sporeprint.features.unit import unit_float64
from sporeprint.predictors.checks import check_directions, check_same_kind, features_of, labels_of
from sporeprint.search.neighbours import METRICS
from sporeprint.search.points import largest_of
from sporeprint.values import check_choice, check_list, is_count

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


@quiet_floats
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
    interpolation. Where distances are equal, as float32 tells them, figures are means over all orders of the tied rows
    (McSherry & Najork 2008), so that the order of the database has no say, and constant features give chance. With
    fewer than k rows in the database the absent ones count as irrelevant, so mP@k is a share of k all the same. A query
    whose label no database row has is left out and counted. Takes 8 (M + N) D bytes, and MATRIX_MIB a few times over,
    however many queries there are.
    Raises SampleError for rows with NaN, rows that are all 0 with metric="cosine", labels that do not match, and where
    no query has a relevant row (a single row without a database, for one).

    Examples
    --------
    >>> from sporeprint import retrieve
    >>> result = retrieve([[0.0], [1.0]], ["cat", "dog"], [[0.1], [0.3], [0.9]], ["cat", "dog", "dog"], ks=(1, 2))
    >>> print(result)
    mAP 100.0%, mP@1 100.0%, mP@2 75.0%, recall@1 100.0%, recall@2 100.0% (2 queries)
    >>> retrieve([[0.0], [0.1], [0.9]], ["cat", "cat", "dog"]).left_out  # each row queries the others
    1
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
    hits: list[list[float]] = []
    any_hit: list[list[float]] = []
    relevant: list[int] = []
    for query, order, distances in _ranked(rows, others, metric):
        ranking = _Ranking(held[order] == asked[query], distances)
        if ranking.relevant:
            precisions.append(ranking.average_precision())
            hits.append([ranking.hits(k) for k in wanted])
            any_hit.append([ranking.chance_of_a_hit(k) for k in wanted])
            relevant.append(ranking.relevant)
    if not precisions:
        raise SampleError(
            f"none of the {len(rows)} queries has its label on a row of the database; expected labels that are shared"
        )
    within = np.asarray(hits, dtype=np.float64).reshape(len(hits), len(wanted))
    return RetrievalResult(
        value=float(np.mean(precisions)),
        settings={"metric": metric, "ks": list(wanted), "leave_one_out": others is None},
        precision_at=_means(wanted, within / np.asarray(wanted)),
        recall_at=_means(wanted, np.asarray(any_hit, dtype=np.float64).reshape(within.shape)),
        share_found_at=_means(wanted, within / np.asarray(relevant)[:, None]),
        queries=len(precisions),
        left_out=len(rows) - len(precisions),
        database_rows=len(rows) - 1 if others is None else len(others),
    )


class _Ranking:
    """One query's ranking: how many rows are relevant, and the ranks from 0 at which each row's tie begins and ends."""

    def __init__(self, relevant: NDArray[np.bool_], distances: NDArray[np.float32]) -> None:
        self.found = np.concatenate([[0], np.cumsum(relevant)])  # [N + 1], above each rank
        self.relevant = int(self.found[-1])
        bounds = np.concatenate([[0], np.flatnonzero(np.diff(distances)) + 1, [len(distances)]])
        self.starts, self.ends = (np.repeat(each, np.diff(bounds)) for each in (bounds[:-1], bounds[1:]))

    def average_precision(self) -> float:
        """The mean over all orders of tied rows."""
        ranks, size = np.arange(len(self.starts)), self.ends - self.starts
        above = self.found[self.starts]
        among = self.found[self.ends] - above
        tied_above = (ranks - self.starts) * (among - 1) / np.maximum(1, size - 1)  # relevant, where this one is
        precisions = (above + 1 + tied_above) / (ranks + 1)
        return float((among / size * precisions).sum() / self.relevant)

    def hits(self, k: int) -> float:
        """How many of the first k rows are relevant, on average."""
        above, among, taken, size = self._at(k)
        return above + among * taken / size

    def chance_of_a_hit(self, k: int) -> float:
        """The chance that one of the first k rows is relevant."""
        above, among, taken, size = self._at(k)
        if above or taken > size - among:
            return 1.0
        return 1.0 - math.prod((size - among - place) / (size - place) for place in range(taken))

    def _at(self, k: int) -> tuple[int, int, int, int]:
        """Relevant rows above the tie at rank k and in it, rows taken of the tie, and its size."""
        last = min(k, len(self.starts)) - 1
        start, end = int(self.starts[last]), int(self.ends[last])
        return int(self.found[start]), int(self.found[end] - self.found[start]), last + 1 - start, end - start


def rankings(
    queries: NDArray[Any], database: NDArray[Any] | None, metric: str = "euclidean"
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Each query's number with the database rows [N], nearest first, ties in order; without a database, all others.

    Raises SampleError.
    """
    return ((query, order) for query, order, _ in _ranked(queries, database, metric))


def _ranked(
    queries: NDArray[Any], database: NDArray[Any] | None, metric: str
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
    """As `rankings`, with the distances [N] in that order.

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
            order = order[:-1] if alone else order
            yield start + offset, order, distances[offset, order]


def scale_exponent(*features: NDArray[Any]) -> int:
    """Exponent of the power of two whose division brings all features into [-1, 1]: exact, and no square overflows."""
    return int(np.frexp(largest_of(*features))[1])


def check_ks(ks: Sequence[int]) -> tuple[int, ...]:
    """Raises SampleError for a k that is no positive integer."""
    depths = check_list("ks", ks, "(1, 5, 10)", SampleError)
    for k in depths:
        if not is_count(k):
            raise SampleError(f"ks has {k!r}; expected positive integers")
    return tuple(int(k) for k in depths)


def _means(ks: tuple[int, ...], values: NDArray[Any]) -> dict[int, float]:
    """values: [queries, len(ks)]."""
    return {k: float(column.mean()) for k, column in zip(ks, values.T, strict=True)}
