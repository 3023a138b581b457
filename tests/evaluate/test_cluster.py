import json
import math
import statistics
import warnings
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.evaluate.cluster import cluster, matched_accuracy


def blobs(centres, sizes, seed=0):
    rng = np.random.default_rng(seed)
    points = [rng.normal(centre, 0.01, (size, 2)) for centre, size in zip(centres, sizes, strict=True)]
    return np.concatenate(points).astype(np.float32)


def overlapping(rows=120, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return rng.standard_normal((rows, 5)) + 1.5 * np.eye(classes, 5)[labels], labels


def best_of_all_matchings(codes, assigned):
    """Every one-to-one matching in turn; the longer side is permuted."""
    shared = [[sum((codes == a) & (assigned == b)) for b in np.unique(assigned)] for a in np.unique(codes)]
    if len(shared) > len(shared[0]):
        shared = list(map(list, zip(*shared, strict=True)))
    columns = range(len(shared[0]))
    return max(
        sum(row[column] for row, column in zip(shared, chosen, strict=True))
        for chosen in permutations(columns, len(shared))
    ) / len(codes)


def test_the_match_is_the_best_as_a_whole_not_cluster_by_cluster():
    # Cluster 0: 4 of a, 3 of b. Cluster 1: 3 of a. Taking the largest, a with 0, leaves nothing for b: 4 of 10.
    assert matched_accuracy(np.array([0] * 7 + [1] * 3), np.array([0] * 4 + [1] * 3 + [0] * 3)) == 0.6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=25))
def test_matched_accuracy_equals_the_best_of_all_matchings(pairs):
    codes, assigned = np.array(pairs).T
    assert matched_accuracy(codes, assigned) == pytest.approx(best_of_all_matchings(codes, assigned))


def test_clusters_that_are_the_classes_score_1():
    result = cluster(blobs([0, 10, 20], [5, 3, 4]), list("aaaaabbbcccc"))
    assert (result.value, result.nmi, result.ari, result.spread) == (1, pytest.approx(1), 1, 0)
    assert (result.clusters, result.classes, result.rows) == (3, 3, 12)


def test_with_fewer_clusters_than_classes_the_unmatched_class_is_wrong():
    result = cluster(blobs([0, 1, 100], [4, 2, 3]), list("aaaabbccc"), clusters=2)
    assert result.value == pytest.approx(7 / 9)  # a and b share a cluster, which is a's


def test_with_more_clusters_than_classes_the_unmatched_clusters_are_wrong():
    labels = ["a"] * 5 + ["b"] * 5
    result = cluster(blobs([0, 10, 100, 110], [3, 2, 4, 1]), labels, clusters=4)
    assert result.value == pytest.approx((3 + 4) / 10)
    # A cluster tells its class, so the mutual information is the entropy of the classes, ln 2.
    of_clusters = -sum(share * math.log(share) for share in (0.3, 0.2, 0.4, 0.1))
    assert result.nmi == pytest.approx(math.log(2) / ((math.log(2) + of_clusters) / 2))
    # Pairs of 45: 20 of one class; 3 + 1 + 6 + 0 = 10 of one cluster, all of one class; by chance 20 * 10 / 45.
    assert result.ari == pytest.approx((10 - 200 / 45) / ((20 + 10) / 2 - 200 / 45))


def test_the_value_is_the_mean_over_starts_and_the_start_of_least_inertia_is_told():
    features, labels = overlapping()
    result = cluster(features, labels, starts=6)
    accuracies = [start["accuracy"] for start in result.by_start]
    assert len(set(accuracies)) > 1
    assert result.value == pytest.approx(statistics.mean(accuracies))
    assert result.spread == pytest.approx(statistics.stdev(accuracies))
    assert result.nmi == pytest.approx(statistics.mean(start["nmi"] for start in result.by_start))
    assert result.ari == pytest.approx(statistics.mean(start["ari"] for start in result.by_start))
    assert result.least_inertia == sorted(result.by_start, key=lambda start: start["inertia"])[0]


def test_inertia_is_the_sum_of_squares_within_clusters_in_the_features_units():
    # Two tight pairs: 2 * 0.5**2 around 0, 2 * 1.5**2 around 100.
    features = np.array([[-0.5], [0.5], [98.5], [101.5]])
    assert cluster(features, [0, 0, 1, 1]).least_inertia["inertia"] == pytest.approx(5)
    assert cluster(features * 1e6, [0, 0, 1, 1]).least_inertia["inertia"] == pytest.approx(5e12)


def test_seeds_repeat_and_more_starts_leave_the_first_as_they_are():
    features, labels = overlapping()
    few, many = cluster(features, labels, starts=2), cluster(features, labels, starts=4)
    assert many.by_start[:2] == few.by_start
    assert cluster(features, labels, starts=2).to_json() == few.to_json()
    assert cluster(features, labels, starts=2, seed=1).by_start != few.by_start


@pytest.mark.parametrize(
    ("features", "labels", "clusters", "value", "score", "used"),
    [
        ([[1.0, 2.0]], ["a"], None, 1, 1, 1),  # one row
        ([[1.0, 2.0]], ["a"], 3, 1, 1, 1),
        (np.ones((9, 2)), list("aaaabbccc"), None, 4 / 9, 0, 1),  # constant features
        (
            np.repeat([[0.0], [7.0]], 3, axis=0),
            list("aaabbc"),
            None,
            5 / 6,
            None,
            2,
        ),  # two distinct rows, three classes
        (blobs([0, 10], [3, 2]), list("aaaaa"), None, 1, 1, 1),  # one class
        (blobs([0, 10], [3, 2]), list("aaaaa"), 2, 3 / 5, 0, 2),
        (blobs([0, 10], [3, 2]), list("aaabb"), 1, 3 / 5, 0, 1),  # one cluster
        (np.arange(4)[:, None], list("aabb"), 9, 2 / 4, None, 4),  # more clusters than rows
        (np.array([[0.0], [-0.0], [5]]), list("aab"), 3, 1, 1, 2),
        (np.arange(4)[:, None], list("abcd"), None, 1, 1, 4),  # every row a class of its own
    ],
)
def test_edges_are_defined_and_silent(features, labels, clusters, value, score, used):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cluster(features, labels, clusters=clusters, starts=2)
    assert result.value == pytest.approx(value)
    assert result.clusters == used
    assert {start["clusters"] for start in result.by_start} == {used}
    if score is not None:
        assert (result.nmi, result.ari) == (pytest.approx(score), pytest.approx(score))


def test_rows_too_close_for_k_means_leave_clusters_empty_and_the_start_says_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = cluster([[1e-170], [0.0], [1.0]], ["a", "b", "c"], starts=1)
    assert (result.clusters, result.by_start[0]["clusters"], result.value) == (3, 2, pytest.approx(2 / 3))


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_scale_of_float32_features_does_not_matter(factor):
    features, labels = overlapping()
    features = features.astype(np.float32)
    assert cluster(features * np.float32(factor), labels).value == cluster(features, labels).value


def test_a_result_is_one_line_for_people_and_plain_json_for_machines():
    result = cluster(blobs([0, 10], [3, 2]), list("aaabb"), starts=3, seed=4)
    assert str(result) == (
        "matched accuracy 100.0% (± 0.0% over 3 starts); at the least inertia 100.0%, NMI 1.000, ARI 1.000, "
        "2 clusters for 2 classes"
    )
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["settings"] == {"clusters": 2, "starts": 3, "seed": 4, "method": "k-means"}
    assert len(document["by_start"]) == 3
    single = cluster(blobs([0, 10], [3, 2]), list("aaabb"), starts=1)
    assert single.spread is None
    assert "starts" not in str(single)


@pytest.mark.parametrize(
    ("features", "labels", "options", "message"),
    [
        ([[1.0], [math.nan]], [0, 1], {}, "1 of 2 clustering rows are NaN"),
        ([[1.0], [2.0]], [0], {}, "clustering labels have shape"),
        ([[1.0], [2.0]], [0, 1], {"clusters": 0}, "clusters=0; expected an integer of at least 1"),
        ([[1.0], [2.0]], [0, 1], {"clusters": 1.5}, "clusters=1.5"),
        ([[1.0], [2.0]], [0, 1], {"starts": True}, "starts=True"),
        ([[1.0], [2.0]], [0, 1], {"seed": -1}, "seed=-1; expected an integer of at least 0"),
    ],
)
def test_what_cannot_be_clustered_is_refused(features, labels, options, message):
    with pytest.raises(SampleError, match=message):
        cluster(features, labels, **options)


def test_ari_agrees_with_counting_every_pair():
    features, labels = overlapping(rows=40)
    result = cluster(features, labels, clusters=3, starts=1)
    first = np.argsort(features[:, 0])
    features, labels = features[first], np.asarray(labels)[first]
    from sklearn.cluster import KMeans

    # The documented seeding, on the unscaled features.
    state = int(np.random.SeedSequence([0, 0]).generate_state(1)[0])
    assigned = KMeans(3, n_init=1, random_state=state).fit(features).labels_
    pairs = list(combinations(range(40), 2))
    same_class = np.array([labels[a] == labels[b] for a, b in pairs])
    same_cluster = np.array([assigned[a] == assigned[b] for a, b in pairs])
    by_chance = same_class.sum() * same_cluster.sum() / len(pairs)
    both = (same_class & same_cluster).sum()
    assert result.ari == pytest.approx((both - by_chance) / ((same_class.sum() + same_cluster.sum()) / 2 - by_chance))
