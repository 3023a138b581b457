"""Labels that spread over a graph of nearest neighbours, to rows that have none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg

from sporeprint.errors import SampleError
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.semi_supervised import Floats, Numbers, SemiSupervised
from sporeprint.search.neighbours import neighbours
from sporeprint.values import check_count, is_number

_LEAST = 1e-9  # share of a class: below it there is rounding


class Propagation(SemiSupervised):
    """Label spreading (Zhou et al. 2003) over a graph of nearest neighbours by cosine, in bounded memory.

    Solves (I - alpha S) F = Y by conjugate gradients, S the normalised graph; scikit-learn's LabelSpreading iterates
    towards the same F. An edge weighs exp(-4 d^2 / r^2), d the distance of two rows of length 1 and r that of the
    k-th neighbour; it is there where either row is a neighbour of the other.
    neighbours: k. alpha: in [0, 1), how much of the neighbours' labels a row takes.
    normalise: whether F is scaled so that every class has the share of the unlabelled rows that it has of the labelled
    ones (class mass normalisation: Zhu et al. 2003). It helps where the shares are the same and harms where not.

    Rows that no path joins to a labelled row are answered by `ShrunkLDA`; `unreached_` says how many they are.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import Propagation
    >>> angles = np.linspace(0, 3, 40)
    >>> rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    >>> few = np.array(["left"] * 2 + [None] * 36 + ["right"] * 2, dtype=object)  # None: no label
    >>> model = Propagation(neighbours=3).fit(rows, few)
    >>> model.transduction_[[0, 10, 30]].tolist(), model.unreached_
    (['left', 'left', 'right'], 0)
    """

    def __init__(self, neighbours: int = 10, alpha: float = 0.8, normalise: bool = True) -> None:
        self.neighbours = neighbours
        self.alpha = alpha
        self.normalise = normalise

    def _prepare(self, rows: NDArray[Any]) -> None:
        check_count("neighbours", self.neighbours, error=SampleError)
        if not is_number(self.alpha) or not 0 <= self.alpha < 1:
            raise SampleError(f"alpha={self.alpha!r}; expected a number of at least 0 and below 1")
        self._rows = rows
        self._graph = graph_of(rows, self.neighbours)
        self._components = connected_components(self._graph, directed=False)[1]
        degrees = np.asarray(self._graph.sum(axis=1)).ravel()
        scale = sparse.diags_array(1 / np.sqrt(np.where(degrees == 0, 1, degrees)))
        self._graph = (scale @ self._graph @ scale).tocsr()

    def _solve(self, labelled: Numbers, codes: Numbers, unlabelled: Numbers) -> Floats:
        counts = np.bincount(codes, minlength=len(self.classes_))
        spread = np.zeros((len(self._rows), len(counts)))
        system = (sparse.eye_array(len(spread)) - self.alpha * self._graph).tocsr()
        for code in np.flatnonzero(counts):
            known = np.zeros(len(spread))
            known[labelled[codes == code]] = 1 - self.alpha
            spread[:, code] = cg(system, known, rtol=1e-13, maxiter=1000)[0].clip(min=0)
        if self.normalise and len(unlabelled):
            spread *= counts / len(codes) / np.maximum(spread[unlabelled].mean(axis=0), _LEAST)
        unreached = np.flatnonzero(~np.isin(self._components, self._components[labelled]))
        self.unreached_ = len(unreached)
        totals = spread.sum(axis=1, keepdims=True)
        scores: Floats = np.log(np.maximum(spread / np.where(totals == 0, 1, totals), _LEAST))
        scores[:, counts == 0] = -np.inf
        if len(unreached):
            scores[unreached] = self._by_lda(labelled, codes, unreached)
        return scores

    def _by_lda(self, labelled: Numbers, codes: Numbers, which: Numbers) -> Floats:
        lda = ShrunkLDA().fit(self._rows[labelled], codes)
        scores = np.full((len(which), len(self.classes_)), -np.inf)
        scores[:, lda.classes_] = np.log(np.maximum(lda.predict_proba(self._rows[which]), _LEAST))
        return scores

    def _finish(self) -> None:
        del self._graph, self._components

    def _scores(self, rows: NDArray[Any]) -> Floats:
        scores, at = np.empty((len(rows), len(self.classes_))), 0
        for nearest, distances in neighbours(self._rows, rows, self.neighbours, "cosine"):
            shares = (self.label_distributions_[nearest] * edge_weights(distances)[:, :, None]).sum(axis=1)
            scores[at : at + len(shares)] = self.temperature_ * np.log(np.maximum(shares, _LEAST))
            at += len(shares)
        return scores


def graph_of(rows: NDArray[Any], count: int) -> sparse.csr_array:
    """Return the weights [N, N] of the edges between rows [N, D] and their `count` nearest neighbours by cosine."""
    edges = []
    for nearest, distances in neighbours(rows, None, count, "cosine"):
        edges.append((nearest.ravel(), edge_weights(distances).ravel()))
    columns, weights = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    each = len(columns) // len(rows)
    starts = np.arange(0, len(columns) + 1, each) if each else np.zeros(len(rows) + 1, int)
    graph = sparse.csr_array((weights, columns, starts), shape=(len(rows), len(rows)))
    return graph.maximum(graph.T).tocsr()


def edge_weights(distances: Floats) -> Floats:
    """Return exp(-4 d^2 / r^2) [n, k] for cosine distances [n, k], r that of the last; 1 where all are equal rows."""
    furthest = distances[:, -1:] if distances.shape[1] else np.zeros((len(distances), 1))
    return np.exp(-4 * distances / np.where(furthest == 0, 1, furthest))
