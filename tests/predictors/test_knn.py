"""KNN votes as `knn_predict` does, leaves rows and groups out as a fit on the others does, and chooses k by it."""

import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from small_rows import clusters
from sporeprint import KNN
from sporeprint.errors import SampleError
from sporeprint.predictors import knn, other_rows
from sporeprint.predictors.groups import groups_of
from sporeprint.predictors.knn import knn_predict
from sporeprint.predictors.principal import Principal

VOTES = ["uniform", "distance", "softmax"]
ROWS, LABELS = clusters(40, 4, 4, seed=0, spread=1.5)
GRID = np.round(ROWS * 1.5) + 9  # with duplicates and ties
CODES = np.unique(LABELS, return_inverse=True)[1]
GROUPINGS = {
    "rows": np.arange(40),
    "fours": np.arange(40) // 4,
    "halves": np.arange(40) % 2,
    "a class that one group holds": np.where(LABELS == "a", -1, np.arange(40)),
}


def softmax(scores, temperature):
    chances = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return chances / chances.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("rows", [ROWS, GRID], ids=["apart", "tied"])
def test_predictions_are_those_of_the_plain_vote_ties_and_all(rows, metric, vote):
    queries = np.concatenate([rows[:10], np.round(rows[10:] + 0.5)])
    for k in (1, 4, 7, 60):
        actual = KNN(k, metric, vote, 0.3).fit(rows, LABELS).predict(queries)
        assert actual.tolist() == knn_predict(rows, LABELS, queries, k, metric, vote, 0.3).tolist()


@pytest.mark.parametrize("k", [1, 3, 9])
def test_scores_are_logarithms_of_smoothed_shares(k):
    model = KNN(k, vote="uniform").fit(ROWS, LABELS)
    model.temperature_ = 1.0
    queries = ROWS + 0.1
    shares = KNeighborsClassifier(k, algorithm="brute").fit(ROWS, LABELS).predict_proba(queries)
    np.testing.assert_allclose(model.predict_proba(queries), (k * shares + 1 / 4) / (k + 1), atol=1e-8)


@pytest.mark.parametrize("small", [0, 3, 100])
@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize(("metric", "vote", "k"), [("euclidean", "uniform", 4), ("cosine", "softmax", 30)])
def test_a_row_left_out_with_its_group_is_scored_by_a_fit_on_the_others(monkeypatch, metric, vote, k, grouping, small):
    monkeypatch.setattr(other_rows, "_SMALL", small)
    groups = GROUPINGS[grouping]
    left = KNN(k, metric, vote).leave_one_out(GRID, LABELS, groups)
    for row in range(0, 40, 3):
        others = groups != groups[row]
        model = KNN(k, metric, vote)
        model.classes_, model.k_, model.vote_ = left.classes, k, vote
        model.rows_, model.codes_ = GRID[others], CODES[others]
        expected = model._scores(GRID[[row]])[0]
        expected[~np.isin(np.arange(4), CODES[others])] = -np.inf
        np.testing.assert_allclose(left.scores[row], expected, atol=1e-12)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("vote", VOTES)
def test_coordinates_give_what_rows_give(vote, grouping):
    for unit, metric in ((False, "euclidean"), (True, "cosine")):
        left = KNN(5, metric, vote).leave_one_out(GRID, LABELS, GROUPINGS[grouping])
        groups = groups_of(GROUPINGS[grouping], 40)
        shared = KNN(5, metric, vote).leave_one_out_of(Principal.fit(GRID, unit), CODES, groups)
        np.testing.assert_allclose(shared.scores, left.scores, atol=1e-6)
        assert shared.temperature == pytest.approx(left.temperature, rel=1e-3)


def test_coordinates_of_rows_of_any_length_have_no_cosine():
    with pytest.raises(SampleError, match="metric='cosine': coordinates of rows of any length have no angle"):
        KNN(5, "cosine").leave_one_out_of(Principal.fit(ROWS), CODES, groups_of(None, 40))


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_k_and_the_vote_are_those_of_the_least_squared_error_of_left_out_rows(grouping):
    model = KNN().fit(ROWS, LABELS, GROUPINGS[grouping])
    pairs = [(vote, k) for k in (1, 3, 5, 10, 20) for vote in ("uniform", "softmax")]
    assert list(model.leave_one_out_) == pairs
    for vote, k in pairs[::3]:
        left = KNN(k, vote=vote).leave_one_out(ROWS, LABELS, GROUPINGS[grouping])
        wrong = softmax(left.scores, left.temperature) - np.eye(4)[CODES]
        assert model.leave_one_out_[vote, k] == pytest.approx((wrong**2).sum(axis=1).mean())
    assert model.leave_one_out_[model.vote_, model.k_] == min(model.leave_one_out_.values())


def test_of_equal_errors_the_smaller_k_and_the_uniform_vote_are_taken():
    rows = np.repeat([[0.0], [1e9]], 12, axis=0)  # so far away that their weight is 0
    model = KNN().fit(rows, ["a"] * 12 + ["b"] * 12)
    assert (model.k_, model.vote_) == (1, "uniform")


def test_all_rows_answer_where_some_ask(monkeypatch):
    monkeypatch.setattr(knn, "MOST_ASKING", 11)
    left = KNN(5).leave_one_out(ROWS, LABELS)
    monkeypatch.undo()
    np.testing.assert_array_equal(left.scores, KNN(5).leave_one_out(ROWS, LABELS).scores)


def test_the_rows_that_ask_are_of_every_class_and_do_not_depend_on_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(knn, "MOST_ASKING", 10)
    model, order = KNN().fit(ROWS, LABELS), np.random.default_rng(0).permutation(40)
    asking = model._asking(ROWS, CODES)
    assert len(asking) == 10
    assert set(CODES[asking]) == {0, 1, 2, 3}
    moved = KNN().fit(ROWS[order], LABELS[order])
    assert moved.leave_one_out_ == pytest.approx(model.leave_one_out_)


def test_the_nearest_training_rows_are_scikit_learns():
    theirs = KNeighborsClassifier(3, algorithm="brute").fit(ROWS, LABELS).kneighbors(ROWS + 0.1)
    model = KNN(3).fit(ROWS, LABELS)
    for actual, expected in zip(model.kneighbors(ROWS + 0.1), theirs, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-9)
    assert model.kneighbors(ROWS[:2], 100)[1].shape == (2, 40)


def test_rows_that_are_all_alike_have_the_shares_of_their_classes():
    model = KNN().fit(np.ones((12, 3)), ["a"] * 3 + ["b"] * 9)
    assert set(model.predict(np.ones((2, 3)) + 1)) == {"b"}


def test_many_rows_are_left_out_in_bounded_memory():
    rows = np.random.default_rng(0).standard_normal((30_000, 2)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(int)
    tracemalloc.start()
    model = KNN(k=20, vote="softmax").fit(rows, labels, np.arange(30_000) // 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.leave_one_out_["softmax", 20] < 0.1
    assert peak < 400e6  # all squared distances at once: 7.2 GB


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0; expected a positive integer or 'auto'"),
        ({"k": "best"}, "k='best'"),
        ({"vote": "majority"}, "vote='majority'"),
        ({"metric": "l1"}, "metric='l1'; expected one of: euclidean, cosine"),
        ({"temperature": 0}, "temperature=0; expected a number above 0"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SampleError, match=message):
        KNN(**settings).fit(ROWS, LABELS)


def test_a_single_row_is_its_label_and_cannot_be_left_out():
    assert KNN().fit([[1.0, 2.0]], ["a"]).predict([[0.0, 0.0]]) == ["a"]
    with pytest.raises(SampleError, match="leaving one out takes at least 2"):
        KNN().leave_one_out([[1.0, 2.0]], ["a"])
