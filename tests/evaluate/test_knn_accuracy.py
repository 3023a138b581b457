import json
from collections import Counter

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from sporeprint import knn
from sporeprint.errors import SampleError
from sporeprint.evaluate.shots import draws
from sporeprint.predictors.knn import CANDIDATES, choose_k, knn_predict, leave_one_out


def clouds(rows, seed, classes=5, width=6):
    """Overlapping clouds; real numbers, so that no two distances are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    centres = np.random.default_rng(99).standard_normal((classes, width))
    return (centres[labels] + rng.standard_normal((rows, width))).astype(np.float32), labels


def slow_vote(distances, labels, k):
    """Most votes among the k nearest; a tie goes to the tied class whose member is met first."""
    nearest = [labels[at] for at in sorted(range(len(labels)), key=lambda at: distances[at])[:k]]
    most = max(nearest.count(name) for name in nearest)
    return next(name for name in nearest if nearest.count(name) == most)


def euclidean(a, b):
    return float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).sum())


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))


def slow_right(train, labels, test, test_labels, k, distance=euclidean):
    return [
        slow_vote([distance(query, row) for row in train], list(labels), k) == wanted
        for query, wanted in zip(test, test_labels, strict=True)
    ]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 2, 4, 7, 20])
def test_accuracies_equal_a_slow_vote(k, metric):
    (train, labels), (test, test_labels) = clouds(60, 0), clouds(40, 1)
    right = slow_right(train, labels, test, test_labels, k, {"euclidean": euclidean, "cosine": cosine}[metric])
    result = knn(train, labels, test, test_labels, k=k, metric=metric)
    assert result.value == pytest.approx(np.mean(right))
    by_class = [
        np.mean([hit for hit, label in zip(right, test_labels, strict=True) if label == name]) for name in range(5)
    ]
    assert result.mean_per_class == pytest.approx(np.mean(by_class))
    assert (result.k, result.train_rows, result.test_rows, result.metric) == (k, 60, 40, metric)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_two_classes_and_an_odd_k_equal_scikit_learn(k):
    (train, labels), (test, test_labels) = clouds(80, 0, classes=2), clouds(50, 1, classes=2)
    theirs = KNeighborsClassifier(k, algorithm="brute").fit(train, labels).score(test, test_labels)
    assert knn(train, labels, test, test_labels, k=k).value == pytest.approx(theirs)


def test_a_tie_goes_to_the_class_whose_member_is_nearest():
    # From 0: b at 1, a at 2, a at 3, b at 4, c at 5.
    train, labels = np.array([[2.0], [1.0], [4.0], [3.0], [5.0]]), ["a", "b", "b", "a", "c"]

    def wins(k):
        return [name for name in "abc" if knn(train, labels, [[0.0]], [name], k=k).value == 1.0]

    assert wins(1) == ["b"]
    assert wins(2) == ["b"]  # one each
    assert wins(3) == ["a"]
    assert wins(4) == ["b"]  # two each, b's is nearer
    assert wins(5) == ["b"]


@pytest.mark.parametrize("seed", range(4))
def test_auto_takes_the_k_that_a_slow_leave_one_out_finds_best(seed):
    (train, labels), (test, test_labels) = clouds(45, seed), clouds(10, 10)
    expected = {}
    for k in CANDIDATES:
        hits = [
            slow_right(np.delete(train, row, 0), np.delete(labels, row), train[[row]], labels[[row]], k)[0]
            for row in range(len(train))
        ]
        expected[k] = pytest.approx(np.mean(hits))
    result = knn(train, labels, test, test_labels, k="auto")
    assert result.leave_one_out == expected
    best = max(result.leave_one_out.values())
    assert result.k == min(k for k, value in result.leave_one_out.items() if value == best)
    assert result.value == knn(train, labels, test, test_labels, k=result.k).value


def test_auto_takes_the_smaller_k_in_a_tie():
    train = np.array([[0.0], [0.1], [0.2], [0.3], [10.0], [10.1], [10.2], [10.3]])
    result = knn(train, [0] * 4 + [1] * 4, [[0.0]], [0], k="auto")
    assert result.leave_one_out == {1: 1.0, 3: 1.0, 5: 1.0}
    assert result.k == 1


def test_auto_leaves_a_row_out_also_where_it_has_a_duplicate():
    # Each row's twin has another label: seen without itself, every row is wrong.
    train = np.array([[0.0], [0.0], [5.0], [5.0]])
    assert knn(train, ["a", "b", "a", "b"], [[0.0]], ["a"], k="auto").leave_one_out[1] == 0.0


def test_the_test_rows_have_no_say_in_k():
    train, labels = clouds(45, 0)
    chosen = {knn(train, labels, *clouds(10, seed), k="auto").k for seed in range(5)}
    assert len(chosen) == 1


def test_with_fewer_than_k_rows_all_vote():
    train, labels = np.array([[0.0], [1.0], [2.0]]), ["a", "b", "b"]
    assert knn(train, labels, [[0.0]], ["b"], k=20).value == 1.0


def test_auto_with_one_row_is_its_label():
    result = knn([[1.0, 2.0]], ["a"], [[0.0, 0.0], [3.0, 3.0]], ["a", "b"], k="auto")
    assert (result.value, result.k) == (0.5, 1)


def test_json_has_no_nan_where_one_row_leaves_none_over():
    result = knn([[1.0, 2.0]], ["a"], [[0.0, 0.0]], ["a"], k="auto")
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["leave_one_out"] == {"1": None}


def test_a_class_that_is_not_trained_on_counts_as_wrong():
    result = knn([[0.0], [1.0]], ["a", "a"], [[0.0], [1.0], [2.0], [3.0]], ["a", "a", "a", "z"], k=1)
    assert result.value == 0.75
    assert result.mean_per_class == 0.5


def test_a_longer_name_is_another_name():
    assert knn([[0.0]], ["ab"], [[0.0]], ["abc"], k=1).value == 0.0


def test_one_class_is_always_right():
    train, _ = clouds(10, 0)
    result = knn(train, ["x"] * 10, train, ["x"] * 10, k="auto")
    assert (result.value, result.mean_per_class, result.k) == (1.0, 1.0, 1)


def test_cosine_looks_at_directions_only():
    train = np.array([[1.0, 0.0], [0.0, 100.0]])
    assert knn(train, ["right", "up"], [[0.1, 3.0]], ["right"], k=1).value == 1.0
    assert knn(train, ["right", "up"], [[0.1, 3.0]], ["up"], k=1, metric="cosine").value == 1.0


def test_string_and_number_labels_count_alike():
    (train, labels), (test, test_labels) = clouds(30, 0), clouds(20, 1)
    names = np.array(["e", "a", "d", "b", "c"])
    assert (
        knn(train, names[labels], test, names[test_labels], k=3).value
        == knn(train, labels, test, test_labels, k=3).value
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused(bad):
    (train, labels), (test, test_labels) = clouds(6, 0), clouds(4, 1)
    train[2, 1] = bad
    with pytest.raises(SampleError, match="1 of 6 train rows are NaN"):
        knn(train, labels, test, test_labels)
    with pytest.raises(SampleError, match="1 of 6 test rows are NaN"):
        knn(test, test_labels, train, labels)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": [1, 2]}, r"train labels have shape \(2,\) for 3 rows"),
        ({"test_labels": [[1], [2]]}, "test labels are of different kinds, or lists"),
        ({"train": [1.0, 2.0, 3.0]}, "train features have shape"),
        ({"test": np.zeros((0, 2)), "test_labels": []}, "test features have shape"),
        ({"test": [[1.0], [2.0]]}, "train features are 2 wide, test features 1"),
        ({"k": 0}, "k=0"),
        ({"k": 2.0}, "k=2.0"),
        ({"k": "best"}, "k='best'"),
        ({"k": True}, "k=True"),
        ({"metric": "manhattan"}, "metric='manhattan'; expected one of: euclidean, cosine"),
        ({"vote": "majority"}, "vote='majority'; expected one of: uniform, distance, softmax"),
        ({"temperature": 0}, "temperature=0; expected a number above 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"shots": 0}, "shots=0"),
        ({"shots": 1, "draws": 0}, "draws=0"),
        ({"candidates": ()}, "no k to choose from"),
        ({"candidates": (1, 2.5)}, "k=2.5"),
        ({"labels": np.array([1, None, 2], dtype=object)}, "1 of 3 train labels are missing"),
        ({"labels": np.array([1, "a", 2], dtype=object)}, "train labels are of different kinds"),
        ({"test_labels": ["a", "b"]}, "train labels are numbers, test labels are not"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, complaint):
    given = {
        "train": [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
        "labels": [0, 1, 1],
        "test": [[0.0, 1.0], [1.0, 0.0]],
        "test_labels": [0, 1],
        "k": 1,
    }
    with pytest.raises(SampleError, match=complaint):
        knn(**{**given, **change})


def test_the_result_says_what_it_is_and_can_be_json():
    (train, labels), (test, test_labels) = clouds(30, 0), clouds(20, 1)
    result = knn(train, labels, test, test_labels, k=3)
    assert str(result) == f"top-1 {result.value:.1%}, mean per class {result.mean_per_class:.1%}, k = 3"
    auto = knn(train, labels, test, test_labels, k="auto")
    assert "(leave-one-out)" in str(auto)
    back = json.loads(json.dumps(auto.to_json()))
    assert back["value"] == auto.value
    assert set(back["leave_one_out"]) == {"1", "3", "5", "10", "20"}


@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_a_vote_by_distance_equals_scikit_learns(k):
    (train, labels), (test, test_labels) = clouds(80, 0), clouds(60, 1)
    test[:10] = train[:10]  # exact matches take all
    train[20] = train[5]
    theirs = KNeighborsClassifier(k, algorithm="brute", weights="distance").fit(train, labels).predict(test)
    ours = knn_predict(train, labels, test, k, vote="distance")
    rest = np.arange(60) != (5 if k == 1 else -1)  # there two matches tie for one place
    np.testing.assert_array_equal(ours[rest], theirs[rest])
    assert knn(train, labels, test, test_labels, k, vote="distance").value == (ours == test_labels).mean()


@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_a_softmax_vote_equals_a_slow_one_and_is_the_same_for_both_metrics_on_unit_rows(temperature):
    (train, labels), (test, _) = clouds(80, 0), clouds(40, 1)
    expected = []
    for query in test:
        similarity = np.array([1 - cosine(query, row) for row in train])
        sums = Counter()
        for at in np.argsort(-similarity)[:15]:
            sums[labels[at]] += np.exp(similarity[at] / temperature)
        expected.append(max(sums, key=sums.get))
    assert knn_predict(train, labels, test, 15, "cosine", "softmax", temperature).tolist() == expected
    train, test = (rows / np.linalg.norm(rows.astype(np.float64), axis=1)[:, None] for rows in (train, test))
    assert knn_predict(train, labels, test, 15, "euclidean", "softmax", temperature).tolist() == expected


def test_the_temperature_decides_between_one_near_and_two_far():
    # From 0: a at 0.1, b twice at 0.5. exp(-(0.01 - 0.25) / 2T) > 2 below T = 0.173.
    given = [[0.1], [0.5], [-0.5]], ["a", "b", "b"], [[0.0]], 3, "euclidean", "softmax"
    assert knn_predict(*given, temperature=0.17) == ["a"]
    assert knn_predict(*given, temperature=0.18) == ["b"]


@pytest.mark.parametrize("vote", ["uniform", "distance", "softmax"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_leaving_one_out_predicts_each_row_from_the_others_by_the_same_vote_and_metric(metric, vote):
    train, labels = clouds(35, 0)
    train[7] = train[3]
    actual = leave_one_out(train, labels, (1, 4, 34, 35), metric, vote, 0.3)
    assert sorted(actual) == [1, 4, 34]
    for k, right in actual.items():
        for row in range(35):
            others = np.arange(35) != row
            (name,) = knn_predict(train[others], labels[others], train[[row]], k, metric, vote, 0.3)
            assert right[row] == (name == labels[row])
    means = {k: right.mean() for k, right in actual.items()}
    assert choose_k(train, labels, metric, (1, 4, 34, 35), vote, 0.3) == means
    result = knn(train, labels, train, labels, "auto", metric, vote, 0.3, candidates=(34, 4, 1))
    assert result.leave_one_out == means


def test_candidates_of_more_than_the_other_rows_are_passed_over():
    train, labels = clouds(6, 0)
    assert sorted(choose_k(train, labels)) == [1, 3, 5]
    assert leave_one_out(train[:1], labels[:1]) == {}
    result = knn(train[:3], labels[:3], train, labels, "auto", candidates=(10, 20))
    assert result.k == 10
    assert np.isnan(result.leave_one_out[10])


@pytest.mark.parametrize("vote", ["uniform", "distance", "softmax"])
def test_the_edges_are_the_same_for_every_vote(vote):
    train, _ = clouds(10, 0)
    assert knn_predict(train, ["x"] * 10, train[:3] + 1, 20, vote=vote).tolist() == ["x"] * 3  # one class, and few rows
    assert knn_predict([[1.0]], ["a"], [[1.0], [9.0]], vote=vote).tolist() == ["a", "a"]  # one row
    assert knn_predict([[2.0]] * 3, ["b", "b", "a"], [[2.0]], 1, vote=vote) == ["b"]  # all the same: the majority
    assert knn_predict([[2.0]] * 3, ["b", "a", "a"], [[2.0]], 3, vote=vote) == ["a"]
    assert knn([[0.0], [1.0]], ["a", "a"], [[0.0], [1.0]], ["a", "z"], k=1, vote=vote).mean_per_class == 0.5


def test_few_shots_are_the_mean_over_draws_that_see_only_their_own_rows():
    (train, labels), (test, test_labels) = clouds(200, 0), clouds(60, 1)
    first = np.argsort(train[:, 0])  # the order in which rows are drawn
    train, labels = train[first], labels[first]
    each = [
        knn(train[drawn], labels[drawn], test, test_labels, "auto", vote="distance", candidates=(1, 2, 4))
        for drawn in draws(labels, 3, 4, seed=7)
    ]
    result = knn(
        train[::-1], labels[::-1], test, test_labels, "auto",
        vote="distance", shots=3, draws=4, seed=7, candidates=(1, 2, 4),
    )  # fmt: skip
    values, means = [draw.value for draw in each], [draw.mean_per_class for draw in each]
    assert len(set(values)) > 1
    assert result.values == tuple(values)
    assert result.ks == tuple(draw.k for draw in each)
    assert result.k in result.ks
    assert (result.value, result.spread) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (result.mean_per_class, result.mean_per_class_spread) == pytest.approx(
        (np.mean(means), np.std(means, ddof=1))
    )
    assert result.leave_one_out[2] == pytest.approx(np.mean([draw.leave_one_out[2] for draw in each]))
    assert (result.train_rows, result.test_rows) == (15, 60)
    assert result.settings == {
        "k": "auto", "metric": "euclidean", "vote": "distance", "candidates": [1, 2, 4],
        "shots": 3, "draws": 4, "seed": 7,
    }  # fmt: skip
    assert f"± {result.spread:.1%}" in str(result)
    assert str(result).endswith("(leave-one-out), distance vote, 4 draws of 3 per class")
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["values"] == values


def test_one_draw_has_no_spread():
    (train, labels), (test, test_labels) = clouds(50, 0), clouds(20, 1)
    result = knn(train, labels, test, test_labels, k=1, shots=2, draws=1)
    assert (result.spread, result.mean_per_class_spread, len(result.values)) == (None, None, 1)
    assert knn(train, labels, test, test_labels, k=1).values == ()
