"""Clusters are compared with labels: k-means from several starts, scored by NMI, ARI and matched accuracy."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.retrieve import scale_exponent
from sporeprint.predictors.checks import features_of, labels_of
from sporeprint.predictors.row_order import content_order
from sporeprint.values import check_count


@dataclass(frozen=True)
class ClusterResult(Result):
    """The value is matched accuracy, mean over the starts; spread is its standard deviation (n - 1), None of one start.

    nmi (arithmetic mean of the entropies) and ari (adjusted Rand index, negative below chance): means over the starts.
    rows, classes: their numbers. clusters: see `cluster`.
    by_start: {"accuracy", "nmi", "ari", "inertia", "clusters"} of each start; clusters that are not empty count.
    least_inertia: the entry of by_start that k-means, and a user without labels, would choose; the first of equals.
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


@quiet_floats
def cluster(
    features: ArrayLike, labels: ArrayLike, clusters: int | None = None, starts: int = 5, seed: int = 0
) -> ClusterResult:
    """Cluster rows [N, D] by k-means (k-means++, Euclidean) without their labels, then score the clusters by these.

    clusters: the number of classes by default. Where fewer rows are distinct, each distinct row is a cluster, which
    `clusters` of the result shows; distinct rows too close for k-means leave clusters of a start empty.
    Matched accuracy is the share of rows whose cluster is matched to their class, by the best one-to-one matching
    (Hungarian method): with more clusters than classes the rows of unmatched clusters are wrong, with fewer clusters
    those of unmatched classes.
    With one class, accuracy is the share of the largest cluster; NMI and ARI are 1 with one cluster, 0 with more. With
    one cluster of several classes, accuracy is the share of the largest class; NMI and ARI are 0. Where every row is a
    class of its own, every distinct row is a cluster by default, so all figures are 1 if all rows are distinct.
    Start i is seeded with (seed, i), so more starts do not change the first ones; rows are taken in the order of their
    content, so that the order given has no say.
    Raises SampleError for rows with NaN, labels that do not match, counts below 1, negative seeds.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import cluster
    >>> features, labels = load_iris(return_X_y=True)
    >>> result = cluster(features, labels)
    >>> result.clusters, len(result.by_start), round(result.value, 1)
    (3, 5, 0.9)
    """
    rows = features_of(features, "clustering")
    codes = np.unique(labels_of(labels, len(rows), "clustering"), return_inverse=True)[1]
    order = content_order(rows, codes)
    rows, codes = rows[order], codes[order]
    classes = int(codes.max()) + 1
    requested = classes if clusters is None else clusters
    for name, value, least in (("clusters", requested, 1), ("starts", starts, 1), ("seed", seed, 0)):
        check_count(name, value, least, SampleError)
    exponent = scale_exponent(rows)
    scaled = np.ldexp(rows if rows.dtype == np.float32 else rows.astype(np.float64), -exponent)
    count = _count_distinct(scaled, int(requested))
    by_start = tuple(_run_start(scaled, codes, count, exponent, [seed, number]) for number in range(starts))
    accuracies = [start["accuracy"] for start in by_start]
    return ClusterResult(
        value=float(np.mean(accuracies)),
        spread=float(np.std(accuracies, ddof=1)) if starts > 1 else None,
        settings={"clusters": int(requested), "starts": int(starts), "seed": int(seed), "method": "k-means"},
        nmi=float(np.mean([start["nmi"] for start in by_start])),
        ari=float(np.mean([start["ari"] for start in by_start])),
        clusters=count,
        classes=classes,
        rows=len(rows),
        least_inertia=min(by_start, key=lambda start: start["inertia"]),
        by_start=by_start,
    )


def matched_accuracy(codes: NDArray[Any], assigned: NDArray[Any]) -> float:
    """Return the share of rows whose cluster is matched to their class. codes, assigned: integers [N]."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    shared = contingency_matrix(codes, assigned)  # [classes, clusters]
    return float(shared[linear_sum_assignment(shared, maximize=True)].sum() / len(codes))


def _run_start(
    rows: NDArray[Any], codes: NDArray[Any], clusters: int, exponent: int, seed: list[int]
) -> dict[str, float]:
    """Run k-means once and return its figures; inertia in the units of the features before their scaling."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty clusters: the result counts them
        fitted = KMeans(clusters, n_init=1, random_state=state).fit(rows)
    assigned = fitted.labels_
    return {
        "accuracy": matched_accuracy(codes, assigned),
        "nmi": float(normalized_mutual_info_score(codes, assigned)),
        "ari": float(adjusted_rand_score(codes, assigned)),
        "inertia": float(np.ldexp(np.float64(fitted.inertia_), 2 * exponent)),
        "clusters": len(np.unique(assigned)),
    }


def _count_distinct(rows: NDArray[Any], enough: int) -> int:
    """Count distinct rows (-0 is 0), at most `enough`."""
    distinct: set[bytes] = set()
    for row in rows:
        distinct.add((row + 0.0).tobytes())
        if len(distinct) == enough:
            break
    return len(distinct)
