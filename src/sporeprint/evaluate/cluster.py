"""Clusters against labels: k-means from several starts, scored by NMI, ARI and matched accuracy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.checks import features_of, labels_of
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.retrieve import scale_exponent
from sporeprint.values import check_count


@dataclass(frozen=True)
class ClusterResult(Result):
    """value: matched accuracy, mean over the starts; spread: its standard deviation over them (n - 1), None of one.

    nmi (arithmetic mean of the entropies) and ari (adjusted Rand index, negative below chance): means over the starts.
    by_start: {"accuracy", "nmi", "ari", "inertia", "clusters"} of each start; clusters: not empty. least_inertia: the
    entry of by_start that k-means itself prefers, and a user without labels would take; the first of equals.
    """

    nmi: float = float("nan")
    ari: float = float("nan")
    clusters: int = 0
    classes: int = 0
    rows: int = 0
    least_inertia: dict[str, float] = field(default_factory=dict)
    by_start: tuple[dict[str, float], ...] = ()

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" (± {self.spread:.1%} over {len(self.by_start)} starts)"
        best = f"; at the least inertia {self.least_inertia['accuracy']:.1%}" if self.spread is not None else ""
        figures = f"NMI {self.nmi:.3f}, ARI {self.ari:.3f}, {self.clusters} clusters for {self.classes} classes"
        return f"matched accuracy {self.value:.1%}{spread}{best}, {figures}"


def cluster(
    features: ArrayLike, labels: ArrayLike, clusters: int | None = None, starts: int = 5, seed: int = 0
) -> ClusterResult:
    """k-means (k-means++, Euclidean) on one set [N, D], without its labels; then scored by them.

    clusters: as many as classes by default. Where fewer rows are distinct there are that many clusters, each of equal
    rows, and `clusters` of the result says so; distinct rows too close for k-means leave clusters of a start empty.
    Matched accuracy is the share of rows whose cluster is matched to their class, one to one, as suits best (Hungarian
    method): with more clusters than classes the rows of unmatched clusters are wrong, with fewer clusters the rows of
    unmatched classes are.
    One class: accuracy is the share of the largest cluster; NMI and ARI are 1 with one cluster, 0 with more. One
    cluster of several classes: accuracy is the share of the largest class, NMI and ARI are 0. Every row a class of its
    own: by default every distinct row is a cluster of its own, so all figures are 1 where all are distinct.
    Start i is seeded with (seed, i), so more starts leave the first as they are.
    Raises SampleError for rows with NaN, labels that do not match, counts below 1, negative seeds.
    """
    rows = features_of(features, "clustering")
    codes = np.unique(labels_of(labels, len(rows), "clustering"), return_inverse=True)[1]
    classes = int(codes.max()) + 1
    asked = classes if clusters is None else clusters
    for name, value, least in (("clusters", asked, 1), ("starts", starts, 1), ("seed", seed, 0)):
        check_count(name, value, least, SampleError)
    exponent = scale_exponent(rows)
    scaled = np.ldexp(rows if rows.dtype == np.float32 else rows.astype(np.float64), -exponent)
    count = _distinct(scaled, int(asked))
    by_start = tuple(_start(scaled, codes, count, exponent, [seed, number]) for number in range(starts))
    accuracies = [one["accuracy"] for one in by_start]
    return ClusterResult(
        value=float(np.mean(accuracies)),
        spread=float(np.std(accuracies, ddof=1)) if starts > 1 else None,
        settings={"clusters": int(asked), "starts": int(starts), "seed": int(seed), "method": "k-means"},
        nmi=float(np.mean([one["nmi"] for one in by_start])),
        ari=float(np.mean([one["ari"] for one in by_start])),
        clusters=count,
        classes=classes,
        rows=len(rows),
        least_inertia=min(by_start, key=lambda one: one["inertia"]),
        by_start=by_start,
    )


def matched_accuracy(codes: NDArray[Any], assigned: NDArray[Any]) -> float:
    """Share of rows whose cluster is the one matched to their class. codes, assigned: integers [N]."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    shared = contingency_matrix(codes, assigned)  # [classes, clusters]
    return float(shared[linear_sum_assignment(shared, maximize=True)].sum() / len(codes))


def _start(rows: NDArray[Any], codes: NDArray[Any], clusters: int, exponent: int, seed: list[int]) -> dict[str, float]:
    """One k-means and its figures; inertia in the units of the features before their division by 2 ** exponent."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of empty clusters: they are counted in the result
        fitted = KMeans(clusters, n_init=1, random_state=state).fit(rows)
    assigned = fitted.labels_
    return {
        "accuracy": matched_accuracy(codes, assigned),
        "nmi": float(normalized_mutual_info_score(codes, assigned)),
        "ari": float(adjusted_rand_score(codes, assigned)),
        "inertia": float(np.ldexp(np.float64(fitted.inertia_), 2 * exponent)),
        "clusters": len(np.unique(assigned)),
    }


def _distinct(rows: NDArray[Any], enough: int) -> int:
    """How many rows differ from all before them (-0 is 0); counted no further than `enough`."""
    seen: set[bytes] = set()
    for row in rows:
        seen.add((row + 0.0).tobytes())
        if len(seen) == enough:
            break
    return len(seen)
