import json
import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor

from sporeprint.errors import SampleError
from sporeprint.evaluate.multilabel import indicators, multilabel
from sporeprint.predictors.logistic import FALLBACK, PENALTIES, Probe, Scaling, held_out

LINE = [[0.0], [1.0], [2.0], [3.0]]
TAGS = [["cat"], ["cat", "dog"], [], ["dog"]]


@pytest.fixture(autouse=True)
def _no_warning_of_a_library_is_seen():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def scenes(rows, seed, width=6, labels=4):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((rows, width))
    weights = np.random.default_rng(99).standard_normal((width, labels))
    return features, features @ weights + rng.standard_normal((rows, labels)) > [0, 1, 2, 2][:labels]


def slow_precision(truth, scores):
    """Sum over the distinct scores, from the highest, of precision times the recall gained there."""
    total, before = 0.0, 0
    for limit in sorted(set(scores), reverse=True):
        taken = [bool(hit) for hit, score in zip(truth, scores, strict=True) if score >= limit]
        total += sum(taken) / len(taken) * (sum(taken) - before)
        before = sum(taken)
    return total / sum(truth)


def test_the_figures_of_a_hand_worked_case():
    # The nearest training row's labels score 1. cat: rows 0, 1 score 1, of which row 0 has it, and so has row 2, ranked
    # with row 3 behind: 1/2 * 1/2 + 1/2 * 2/4. dog: rows 1, 3 score 1, row 3 has it: 1/2. bird: nobody in train; 1/4.
    result = multilabel(LINE, TAGS, LINE, [["cat"], [], ["cat", "bird"], ["dog"]], k=1)
    assert result.per_class == {"cat": pytest.approx(0.5), "dog": pytest.approx(0.5), "bird": pytest.approx(0.25)}
    assert result.value == pytest.approx(1.25 / 3)
    # Together: 4 of 12 pairs score 1, 2 of them right; all 12 pairs hold 4 positives: 1/2 * 2/4 + 1/2 * 4/12.
    assert result.micro == pytest.approx(1 / 4 + 1 / 6)
    assert str(result) == "mAP 41.7% of 3 labels, micro AP 41.7%, k = 1"


def test_labels_without_a_positive_test_row_are_left_out_and_counted():
    result = multilabel(LINE, [["a", "b"], ["a"], ["c"], []], LINE, [["a"], ["a"], [], []], k=1)
    assert (result.per_class, result.left_out, result.value) == ({"a": 1.0}, 2, 1.0)
    assert "mAP 100.0% of 1 labels (2 without a positive left out)" in str(result)


@pytest.mark.parametrize("vote", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_a_score_is_the_weighted_share_of_the_neighbours_that_have_the_label(k, metric, vote):
    (train, labels), (test, truth) = scenes(80, 0), scenes(50, 1)
    model = KNeighborsRegressor(k, weights=vote, metric=metric, algorithm="brute").fit(train, labels.astype(float))
    scores = model.predict(test).round(9)
    result = multilabel(train, labels, test, truth, k=k, metric=metric, vote=vote)
    each = [slow_precision(truth[:, at], scores[:, at]) for at in range(4)]
    assert list(result.per_class.values()) == pytest.approx(each)
    assert result.value == pytest.approx(sum(each) / 4)
    assert result.micro == pytest.approx(slow_precision(truth.ravel(), scores.ravel()))


def test_k_is_chosen_by_leaving_one_row_out():
    (train, labels), (test, truth) = scenes(60, 0), scenes(50, 1)
    result = multilabel(train, labels, test, truth)
    for k, value in result.leave_one_out.items():
        scores = np.empty((60, 4))
        for row in range(60):
            far = [np.linalg.norm(train[row] - other) if at != row else np.inf for at, other in enumerate(train)]
            scores[row] = labels[np.argsort(far)[:k]].sum(axis=0)
        assert value == pytest.approx(np.mean([slow_precision(labels[:, at], scores[:, at]) for at in range(4)]))
    assert list(result.leave_one_out) == [1, 3, 5, 10, 20]
    assert result.k == max(result.leave_one_out, key=result.leave_one_out.get)
    assert result.value == multilabel(train, labels, test, truth, k=result.k).value
    assert "(leave-one-out)" in str(result)


def test_lists_and_an_indicator_matrix_mean_the_same():
    (train, labels), (test, truth) = scenes(60, 0), scenes(50, 1)
    lists, test_lists = ([np.flatnonzero(row).tolist() for row in side] for side in (labels, truth))
    for method in ("knn", "probe"):
        given = multilabel(train, labels.astype(np.float32), test, truth, method)
        assert multilabel(train, lists, test, test_lists, method) == given
        assert list(given.per_class) == [0, 1, 2, 3]


def test_rows_of_labels_may_be_any_collection():
    rows = [("b", "a"), {"a"}, np.array(["b"]), []]
    names, known, truth = indicators(np.array([*rows, None], object)[:4], [["c"], []], 4, 2)
    assert names == ["a", "b", "c"]
    assert known.astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert truth.astype(int).tolist() == [[0, 0, 1], [0, 0, 0]]
    assert indicators(np.array([["b"], ["a"]]), [["b"]], 2, 1)[0] == ["a", "b"]


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("width", [6, 200])
def test_a_probe_is_one_logistic_regression_a_label(width, standardise):
    (train, labels), (test, truth) = scenes(90, 0, width), scenes(60, 1, width)
    train, test = train * 3 + 1, test * 3 + 1
    result = multilabel(train, labels, test, truth, "probe", penalties=[1e-3], standardise=standardise)
    rows, queries = (train - train.mean(axis=0)), (test - train.mean(axis=0))
    if standardise:
        rows, queries = rows / train.std(axis=0), queries / train.std(axis=0)
    length = np.sqrt((rows**2).sum(axis=1).mean())
    for at in range(4):
        model = LogisticRegression(C=1 / (1e-3 * 90), tol=1e-9, max_iter=10_000).fit(rows / length, labels[:, at])
        slow = slow_precision(truth[:, at], model.decision_function(queries / length))
        assert result.per_class[at] == pytest.approx(slow, abs=5e-3)
    assert (result.penalty, result.validation, result.converged, result.k) == (1e-3, {}, True, None)


def test_one_penalty_for_all_labels_is_chosen_on_rows_held_out_for_each():
    (train, labels), (test, truth) = scenes(90, 0), scenes(60, 1)
    result = multilabel(train, labels, test, truth, "probe", seed=3)
    first = np.argsort(train[:, 0])
    train, labels = train[first], labels[first]
    scaling, grid = Scaling.fit_transform(train)[0], (PENALTIES[0], PENALTIES[6])
    for penalty in grid:
        each = []
        for at in range(4):
            held = held_out(labels[:, at].astype(int), 0.2, 3)
            scale = penalty * 6 * (~held).sum()  # rows of squared length 6
            model = LogisticRegression(C=1 / scale, tol=1e-9, max_iter=10_000)
            model.fit(scaling(train[~held]), labels[~held, at])
            each.append(slow_precision(labels[held, at], model.decision_function(scaling(train[held]))))
        assert result.validation[penalty] == pytest.approx(np.mean(each), abs=0.01)
    best = max(result.validation.values())
    assert result.penalty == max(penalty for penalty, value in result.validation.items() if value == best)
    alone = multilabel(train, labels, test, truth, "probe", penalties=[result.penalty])
    assert result.value == pytest.approx(alone.value, abs=0.01)
    assert "(validation)" in str(result)


def test_labels_that_all_or_no_training_rows_have_score_first_and_last():
    labels = [["all", "some"], ["all"], ["all", "some"], ["all"]]
    truth = [["all", "never"], ["some"], [], ["never"]]
    result = multilabel(LINE, labels, LINE, truth, "probe")
    assert result.per_class["all"] == pytest.approx(1 / 4)
    assert result.per_class["never"] == pytest.approx(2 / 4)
    # Of 12 pairs, with 4 positives: "all" comes first, 1 of 4; then the two that have "some", its other rows, "never".
    labels, truth = [["all", "some"], ["all", "some"], ["all"], ["all"]], [["all", "some"], ["some"], [], ["never"]]
    mixed = multilabel(LINE, labels, LINE, truth, "probe", penalties=[1e-6])
    assert mixed.micro == pytest.approx((1 / 4 + 2 / 5 + 3 / 6 + 4 / 12) / 4)
    alone = multilabel(LINE, [["all"]] * 4, LINE, [["all"], ["all"], [], ["never"]], "probe")
    assert (alone.penalty, alone.validation, alone.converged) == (None, {}, True)
    assert alone.micro == pytest.approx(2 / 3 * 2 / 4 + 1 / 3 * 3 / 8)


def test_a_label_with_one_positive_or_one_negative_has_no_say_in_the_penalty():
    (train, labels), (test, truth) = scenes(60, 0), scenes(50, 1)
    first = multilabel(train, labels, test, truth, "probe")
    single = np.arange(60) == 7
    more = multilabel(train, np.c_[labels, single, ~single], test, np.c_[truth, truth[:, :2]], "probe")
    assert (more.validation, more.penalty) == (first.validation, first.penalty)


def test_labels_too_rare_to_hold_out_are_fitted_with_the_fixed_penalty():
    result = multilabel(LINE, [["a"], [], [], []], LINE, [["a"], [], [], []], "probe")
    assert (result.penalty, result.validation, result.value) == (FALLBACK, {}, 1.0)


@pytest.mark.parametrize("method", ["knn", "probe"])
def test_without_any_training_label_all_rows_score_alike(method):
    result = multilabel(LINE, [[], [], [], []], LINE, [["a"], [], [], []], method)
    assert (result.value, result.micro) == (0.25, 0.25)
    assert result.k == (1 if method == "knn" else None)


@pytest.mark.parametrize("method", ["knn", "probe"])
def test_one_training_row_is_enough(method):
    result = multilabel([[1.0]], [["a"]], [[1.0], [2.0]], [["a"], ["b"]], method)
    assert result.per_class == {"a": 0.5, "b": 0.5}
    if method == "knn":
        assert (result.k, list(result.leave_one_out)) == (1, [1])
        assert math.isnan(result.leave_one_out[1])
    json.dumps(result.to_json(), allow_nan=False)


def test_of_constant_features_every_row_scores_alike():
    features = np.full((6, 3), 0.1)
    for method in ("knn", "probe"):
        result = multilabel(
            features, [["a"], ["a"], ["a"], [], [], []], features, [["a"], [], [], [], [], []], method, k=6
        )
        assert result.value == pytest.approx(1 / 6)


def test_a_fit_that_did_not_converge_says_so():
    (train, labels), (test, truth) = scenes(60, 0), scenes(40, 1)
    short = multilabel(train, labels, test, truth, "probe", iterations=1)
    assert not short.converged
    assert "NOT CONVERGED in 1 iterations" in str(short)
    # "b" starts at its optimum, after "a" which does not.
    features, tags = [[-1.0], [-1.0], [1.0], [1.0]], [["b"], [], ["a", "b"], ["a"]]
    assert not multilabel(features, tags, features, tags, "probe", penalties=[1e-3], iterations=1).converged
    tags = [["b"], [], ["b"], []]
    assert multilabel(features, tags, features, tags, "probe", penalties=[1e-3], iterations=1).converged


def test_of_two_labels_that_exclude_each_other_the_ranking_is_the_probes():
    features, labels = scenes(60, 0, labels=1)
    both = np.c_[labels, ~labels]
    result = multilabel(features, both, features, both, "probe", penalties=[1e-3])
    fitted = Probe([1e-3]).fit(features, labels[:, 0])
    scores = features @ fitted.coef_[1] + fitted.intercept_[1]
    assert result.per_class[0] == pytest.approx(slow_precision(labels[:, 0], scores), abs=1e-3)
    assert result.per_class[1] == pytest.approx(slow_precision(~labels[:, 0], -scores), abs=1e-3)


def test_a_result_is_json():
    read = json.loads(json.dumps(multilabel(LINE, TAGS, LINE, TAGS, "probe").to_json()))
    assert read["per_class"].keys() == {"cat", "dog"}
    assert (read["settings"]["method"], read["settings"]["labels"]) == ("probe", 2)
    assert len(read["validation"]) == len(PENALTIES)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"method": "tree"}, "method='tree'"),
        ({"k": 0}, "k=0"),
        ({"vote": "loud"}, "vote='loud'"),
        ({"method": "probe", "validation": 1}, "between 0 and 1"),
        ({"method": "probe", "penalties": [0]}, "positive numbers"),
        ({"labels": TAGS[:3]}, "3 lists for 4 rows"),
        ({"labels": "abcd"}, "expected a list of labels for each"),
        ({"labels": None}, "a NoneType for 4 rows"),
        ({"labels": ["a", "b", "c", "d"]}, "train row 0 has the labels 'a'; expected a list, perhaps empty"),
        ({"labels": [["a"], None, [], []]}, "train row 1 has the labels None"),
        ({"labels": [["a"], [0.5], [], []]}, "the label 0.5"),
        ({"labels": [["a"], [None], [], []]}, "the label None"),
        ({"labels": [[0, 1, 0]] * 4}, "the label 0 twice; give an indicator matrix as an array"),
        ({"labels": [[1], [2], [], []]}, "some labels are texts and some are numbers"),
        ({"labels": np.eye(4)}, "an indicator matrix, the other's are lists"),
        ({"labels": np.eye(4), "test_labels": np.eye(4)[:, :3]}, "4 labels in train, 3 in test"),
        ({"labels": np.eye(3), "test_labels": np.eye(4)}, r"shape \(3, 3\) for 4 rows"),
        ({"labels": np.eye(4) * 2, "test_labels": np.eye(4)}, "numbers beyond 0 and 1"),
        ({"test_labels": [[], [], [], []]}, "no test row has a label"),
        ({"test": [[1.0, 2.0]] * 4}, "test features 2"),
        ({"train": [[float("nan")]] * 4}, "NaN"),
    ],
)
def test_what_cannot_be_done_is_refused(options, seen):
    given = {"train": LINE, "labels": TAGS, "test": LINE, "test_labels": TAGS} | options
    with pytest.raises(SampleError, match=seen):
        multilabel(**given)


def test_lists_and_indicators_of_other_libraries_are_labels():
    rows = np.eye(4, dtype=np.float32)
    lists = [["a"], ["b"], ["a"], ["b"]]
    expected = multilabel(rows, lists, rows, lists, k=1)
    assert multilabel(rows, pa.array(lists), rows, pa.array(lists), k=1) == expected
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = {"a": [1, 0, 1, 0], "b": [0, 1, 0, 1]}
    indicators = multilabel(rows, pd.DataFrame(table), rows, pl.DataFrame(table), k=1)
    assert indicators.value == expected.value
