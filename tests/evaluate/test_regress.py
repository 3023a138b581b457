import json
import math
import warnings

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from sporeprint.errors import SampleError
from sporeprint.evaluate.regress import PENALTIES, regress

LINE, TENS = [[0.0], [1.0], [2.0]], [0.0, 10.0, 20.0]


@pytest.fixture(autouse=True)
def _no_warning_of_a_library_is_seen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def waves(rows, seed, width=5, targets=2):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, width))
    weights = np.random.default_rng(99).standard_normal((width, targets))
    return features, np.sin(features @ weights) * [1, 100][:targets] + 0.1 * rng.standard_normal((rows, targets))


def slow_r2(truth, predicted):
    return 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()


def test_the_figures_of_a_hand_worked_case():
    # Predicted 0, 10, 20 for 0, 10, 50: about their mean, 20, squares are 400 + 100 + 900; the error's is 900.
    result = regress(LINE, TENS, LINE, [0.0, 10.0, 50.0], k=1)
    assert result.value == pytest.approx(1 - 900 / 1400)
    assert result.r2 == (result.value,)
    assert (result.mae, result.rmse) == ((10,), (pytest.approx(math.sqrt(300)),))
    assert result.spearman == (pytest.approx(1),)
    assert str(result) == "R^2 0.357, MAE 10, RMSE 17.32, Spearman 1.000, k = 1"


def test_r2_is_negative_where_the_mean_would_have_been_better():
    result = regress(LINE, TENS, LINE, [20.0, 10.0, 0.0], k=1)
    assert result.value == pytest.approx(1 - 800 / 200)
    assert result.spearman == (pytest.approx(-1),)


@pytest.mark.parametrize("vote", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_neighbours_predict_as_scikit_learns_do(k, metric, vote):
    (train, targets), (test, truth) = waves(60, 0), waves(40, 1)
    model = KNeighborsRegressor(k, weights=vote, metric=metric, algorithm="brute").fit(train, targets)
    predicted = model.predict(test)
    result = regress(train, targets, test, truth, k=k, metric=metric, vote=vote)
    assert result.r2 == pytest.approx([slow_r2(truth[:, at], predicted[:, at]) for at in (0, 1)])
    assert result.value == pytest.approx(sum(result.r2) / 2)
    assert (result.k, result.penalty, result.leave_one_out) == (k, None, {})


def test_the_softmax_vote_weighs_by_nearness():
    # Squared distances 0 and 1 at temperature 0.5: weights 1 and e^-1.
    result = regress([[0.0], [1.0]], [0.0, 1.0], [[0.0], [1.0]], [0.0, 1.0], k=2, vote="softmax", temperature=0.5)
    off = math.exp(-1) / (1 + math.exp(-1))
    assert result.mae == (pytest.approx(off),)


def test_k_is_chosen_by_leaving_one_row_out():
    (train, targets), (test, truth) = waves(40, 0), waves(30, 1)
    result = regress(train, targets, test, truth)
    for k, score in result.leave_one_out.items():
        predicted = np.empty_like(targets)
        for row in range(40):
            order = np.argsort(
                [np.linalg.norm(train[row] - other) if at != row else np.inf for at, other in enumerate(train)]
            )
            predicted[row] = targets[order[:k]].mean(axis=0)
        assert score == pytest.approx(np.mean([slow_r2(targets[:, at], predicted[:, at]) for at in (0, 1)]))
    assert list(result.leave_one_out) == [1, 3, 5, 10, 20]
    assert result.k == max(result.leave_one_out, key=result.leave_one_out.get)
    assert result.value == regress(train, targets, test, truth, k=result.k).value
    assert "(leave-one-out)" in str(result)


def test_only_ks_below_the_number_of_rows_are_tried():
    rows, targets = np.arange(5.0)[:, None] ** 2, np.arange(5.0)
    assert list(regress(rows, targets, rows, targets).leave_one_out) == [1, 3]


def test_many_chunks_of_queries_are_put_together(monkeypatch):
    (train, targets), (test, truth) = waves(40, 0), waves(30, 1)
    whole = regress(train, targets, test, truth)
    monkeypatch.setattr("sporeprint.search.neighbours._QUERIES", 7)
    monkeypatch.setattr("sporeprint.predictors.knn_regressor._VALUES", 9)
    assert regress(train, targets, test, truth) == whole


def slow_ridge(train, targets, test, penalty, standardise):
    """Each row left out in turn, by the normal equations; and the predictions of all. targets: [N]."""
    rows, queries = train - train.mean(axis=0), test - train.mean(axis=0)
    if standardise:
        rows, queries = rows / train.std(axis=0), queries / train.std(axis=0)
    length = np.sqrt((rows**2).sum(axis=1).mean())
    rows, queries, count = rows / length, queries / length, len(train)

    def predict(keep, rows_of):
        centre, mean = rows[keep].mean(axis=0), targets[keep].mean()
        near = rows[keep] - centre
        square = near.T @ near + penalty * count * np.eye(rows.shape[1])
        return (rows_of - centre) @ np.linalg.solve(square, near.T @ (targets[keep] - mean)) + mean

    left = [predict(np.arange(count) != row, rows[row : row + 1])[0] for row in range(count)]
    return np.array(left), predict(np.arange(count) >= 0, queries)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("width", [5, 90])  # 90: more than twice the rows
def test_ridge_equals_the_normal_equations_with_each_row_left_out(width, standardise):
    (train, targets), (test, truth) = waves(40, 0, width), waves(30, 1, width)
    spread = np.linspace(0.2, 2, width)
    train, test = train * spread + 3, test * spread + 3
    grid = [1.0, 1e-1, 1e-2, 1e-4]
    result = regress(train, targets, test, truth, "ridge", penalties=grid, standardise=standardise)
    table = [[slow_ridge(train, targets[:, at], test, penalty, standardise) for penalty in grid] for at in (0, 1)]
    for at in (0, 1):
        errors = [((left - targets[:, at]) ** 2).mean() for left, _ in table[at]]
        assert result.penalty[at] == grid[int(np.argmin(errors))]
        assert result.r2[at] == pytest.approx(slow_r2(truth[:, at], table[at][int(np.argmin(errors))][1]), rel=1e-6)
    for number, candidate in enumerate(grid):
        scores = [slow_r2(targets[:, at], table[at][number][0]) for at in (0, 1)]
        assert result.leave_one_out[candidate] == pytest.approx(np.mean(scores), rel=1e-6)


def test_ridge_does_not_depend_on_scales_and_origins():
    (train, targets), (test, truth) = waves(40, 0), waves(30, 1)
    first = regress(train, targets, test, truth, "ridge")
    moved = regress(train * 1e3 + 5, targets * 10 - 3, test * 1e3 + 5, truth * 10 - 3, "ridge")
    assert moved.penalty == first.penalty
    assert moved.r2 == pytest.approx(first.r2)
    assert moved.mae == pytest.approx([error * 10 for error in first.mae])


def test_ridge_takes_the_strongest_of_equal_penalties_and_a_single_one_as_it_is():
    assert regress(LINE, [5.0] * 3, LINE, TENS, "ridge").penalty == (PENALTIES[0],)
    alone = regress(LINE, TENS, LINE, TENS, "ridge", penalties=[0.25])
    assert (alone.penalty, alone.leave_one_out) == ((0.25,), {})


@pytest.mark.parametrize("curve", [np.sin, np.array])
def test_the_method_is_the_one_whose_left_out_answers_are_nearer(curve):
    train, test = np.linspace(0, 9, 40)[:, None], np.linspace(0.1, 8.9, 30)[:, None]
    targets, truth = curve(train[:, 0]), curve(test[:, 0])
    knn, ridge = (regress(train, targets, test, truth, method) for method in ("knn", "ridge"))
    left, _ = slow_ridge(train, targets, test, ridge.penalty[0], standardise=False)
    assert ridge.leave_one_out_value == pytest.approx(slow_r2(targets, left), rel=1e-6)
    assert knn.leave_one_out_value == pytest.approx(knn.leave_one_out[knn.k])
    assert (ridge.leave_one_out_value > knn.leave_one_out_value) == (curve is np.array)
    taken, better = regress(train, targets, test, truth, "auto"), ridge if curve is np.array else knn
    assert (taken.method, taken.value, taken.leave_one_out) == (better.method, better.value, better.leave_one_out)


def test_a_given_k_and_a_given_penalty_are_left_out_too():
    # Without itself, each row of 0, 10, 20 gets the nearest other's: 10, 0 (the first of equals half), 10.
    result = regress(LINE, TENS, LINE, TENS, k=1)
    assert result.leave_one_out_value == pytest.approx(1 - (100 + 0 + 100) / 200)
    given = regress(*waves(40, 0, targets=1), *waves(30, 1, targets=1), "ridge", penalties=[0.1])
    rows, targets = waves(40, 0, targets=1)
    assert given.leave_one_out_value == pytest.approx(
        slow_r2(targets[:, 0], slow_ridge(rows, targets[:, 0], rows, 0.1, standardise=False)[0])
    )


def test_one_target_reads_the_same_as_a_column_of_one():
    for method in ("knn", "ridge"):
        assert regress(LINE, TENS, LINE, TENS, method) == regress(
            LINE, np.array(TENS)[:, None], LINE, np.array(TENS)[:, None], method
        )


@pytest.mark.parametrize("method", ["knn", "ridge"])
def test_a_target_that_is_constant_in_test_has_no_r2_and_is_left_out(method):
    both = np.array([[0.0, 0.1], [10.0, 0.2], [20.0, 0.3]])
    result = regress(LINE, both, LINE, [[0.0, 0.1], [10.0, 0.1], [20.0, 0.1]], method)
    assert math.isnan(result.r2[1])
    assert math.isnan(result.spearman[1])
    assert result.value == result.r2[0]
    assert "means of 2 targets (1 constant: no R^2)" in str(result)
    assert json.loads(json.dumps(result.to_json()))["r2"][1] is None


@pytest.mark.parametrize("method", ["knn", "ridge"])
@pytest.mark.parametrize("vote", ["uniform", "distance"])
def test_a_target_that_is_constant_in_train_is_predicted_as_it_is(method, vote):
    train = np.random.default_rng(0).standard_normal((11, 3))
    result = regress(train, [0.1] * 11, train[:3] + 0.1, [0.1, 0.4, 0.1], method, vote=vote)
    assert result.mae == (pytest.approx(0.1),)
    assert math.isnan(result.spearman[0])
    if method == "knn":
        assert result.k == 1


@pytest.mark.parametrize("method", ["knn", "ridge"])
def test_one_training_row_gives_its_own_target(method):
    result = regress([[1.0, 2.0]], [3.0], [[0.0, 0.0], [9.0, 9.0]], [3.0, 5.0], method)
    assert result.mae == (1.0,)
    assert (result.k, result.penalty) == ((1, None) if method == "knn" else (None, None))
    assert math.isnan(regress([[1.0]], [3.0], [[1.0]], [4.0], method).value)  # one test row: constant
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("width", [2, 20])
def test_of_constant_features_ridge_predicts_the_mean(width, standardise):
    features = np.full((4, width), 0.1)
    result = regress(features, [1.0, 2.0, 3.0, 6.0], features[:2] + 1, [3.0, 4.0], "ridge", standardise=standardise)
    assert result.mae == (pytest.approx(0.5),)


def test_two_rows_are_enough_for_ridge():
    result = regress([[0.0], [1.0]], [0.0, 1.0], [[0.0], [1.0]], [0.0, 1.0], "ridge")
    assert 0 <= result.value <= 1
    assert result.penalty[0] in PENALTIES


def test_with_fewer_rows_than_k_all_are_averaged():
    assert regress(LINE, TENS, [[0.0], [5.0]], [10.0, 30.0], k=50).mae == (10.0,)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"method": "forest"}, "method='forest'"),
        ({"metric": "manhattan"}, "metric='manhattan'"),
        ({"vote": "loud"}, "vote='loud'"),
        ({"vote": "softmax", "temperature": 0}, "temperature=0"),
        ({"k": 0}, "k=0"),
        ({"k": True}, "k=True"),
        ({"method": "ridge", "penalties": [-1]}, "positive numbers"),
        ({"targets": ["a", "b", "c"]}, "expected real numbers"),
        ({"targets": [1.0, 2.0]}, "for 3 rows"),
        ({"targets": [1.0, float("nan"), 2.0]}, "1 of 3 train targets"),
        ({"targets": [[1.0, 2.0]] * 3}, "2 targets in train, 1 in test"),
        ({"targets": np.zeros((3, 0))}, "shape"),
        ({"test": [[1.0, 2.0]] * 3}, "test features 2"),
        ({"train": [[float("inf")]] * 3}, "infinite"),
    ],
)
def test_what_cannot_be_done_is_refused(options, seen):
    given = {"train": LINE, "targets": TENS, "test": LINE, "test_targets": TENS} | options
    with pytest.raises(SampleError, match=seen):
        regress(**given)
