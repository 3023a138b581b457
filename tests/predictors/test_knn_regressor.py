"""KNNRegressor is scikit-learn's, with exact leave-one-out of rows and groups, which chooses k."""

import numpy as np
import pytest
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsRegressor

from small_rows import clusters
from sporeprint import KNNRegressor
from sporeprint.errors import SampleError
from sporeprint.predictors import knn_regressor

ROWS = clusters(40, 3, 4, seed=0, spread=1.5)[0]
TARGETS = np.stack([np.sin(ROWS[:, 0]), 100 + ROWS[:, 1] * ROWS[:, 2]], axis=1)
GROUPINGS = {"rows": None, "fours": np.arange(40) // 4, "halves": np.arange(40) % 2}


@pytest.mark.parametrize("vote", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 40])
def test_predictions_are_scikit_learns(k, metric, vote):
    queries = ROWS + 0.1
    theirs = KNeighborsRegressor(k, weights=vote, metric=metric, algorithm="brute").fit(ROWS, TARGETS)
    ours = KNNRegressor(k, metric, vote).fit(ROWS, TARGETS)
    np.testing.assert_allclose(ours.predict(queries), theirs.predict(queries), rtol=1e-6)
    one = KNNRegressor(k, metric, vote).fit(ROWS, TARGETS[:, 0]).predict(queries)
    np.testing.assert_allclose(one, ours.predict(queries)[:, 0], atol=1e-12)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("vote", ["uniform", "distance", "softmax"])
def test_a_row_left_out_with_its_group_is_answered_by_a_fit_on_the_others(vote, grouping):
    groups = np.arange(40) if GROUPINGS[grouping] is None else GROUPINGS[grouping]
    left = KNNRegressor(30, vote=vote).leave_one_out(ROWS, TARGETS, GROUPINGS[grouping])
    for row in range(40):
        others = groups != groups[row]
        alone = KNNRegressor(30, vote=vote).fit(ROWS[others], TARGETS[others]).predict(ROWS[[row]])
        np.testing.assert_allclose(left[[row]], alone, atol=1e-10)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_k_has_the_best_r2_of_left_out_rows(grouping):
    model = KNNRegressor().fit(ROWS, TARGETS, GROUPINGS[grouping])
    assert list(model.leave_one_out_) == [1, 3, 5, 10, 20]
    for k, score in model.leave_one_out_.items():
        left = KNNRegressor(k).leave_one_out(ROWS, TARGETS, GROUPINGS[grouping])
        assert score == pytest.approx(r2_score(TARGETS, left))
    assert model.leave_one_out_[model.k_] == max(model.leave_one_out_.values())
    assert list(KNNRegressor((7, 2)).fit(ROWS, TARGETS).leave_one_out_) == [2, 7]


def test_of_many_rows_some_ask_whatever_their_order(monkeypatch):
    monkeypatch.setattr(knn_regressor, "MOST_ASKING", 10)
    order = np.random.default_rng(0).permutation(40)
    model, moved = (KNNRegressor().fit(ROWS[at], TARGETS[at]) for at in (slice(None), order))
    assert moved.leave_one_out_ == pytest.approx(model.leave_one_out_)
    monkeypatch.undo()
    assert KNNRegressor().fit(ROWS, TARGETS).leave_one_out_[3] != model.leave_one_out_[3]


def test_targets_without_an_r2_take_the_nearest():
    model = KNNRegressor().fit(ROWS, np.full(40, 3.0))
    assert (model.k_, model.predict(ROWS).tolist()) == (1, [3.0] * 40)
    one = KNNRegressor().fit(ROWS[:1], [2.0])
    assert (one.k_, one.predict(ROWS[:2]).tolist()) == (1, [2.0, 2.0])
    few = KNNRegressor(k=[10, 5]).fit(ROWS[:3], [1.0, 2.0, 6.0])
    assert (few.k_, few.predict(ROWS[:2]).tolist()) == (5, [3.0, 3.0])
    with pytest.raises(SampleError, match="leaving one out takes at least 2"):
        KNNRegressor().leave_one_out(ROWS[:1], [2.0])


@pytest.mark.parametrize(
    ("settings", "targets", "message"),
    [
        ({"k": 0}, TARGETS, "k=0; expected a positive integer, several of them, or 'auto'"),
        ({"k": ()}, TARGETS, "there is no k to choose from"),
        ({"vote": "most"}, TARGETS, "vote='most'"),
        ({"metric": "l1"}, TARGETS, "metric='l1'"),
        ({"temperature": -1}, TARGETS, "temperature=-1"),
        ({}, ["a"] * 40, "could not convert string to float|are of type"),
        ({}, np.full(40, np.nan), "NaN"),
        ({}, TARGETS[:3], "inconsistent numbers of samples"),
    ],
)
def test_what_cannot_be_fitted_is_refused(settings, targets, message):
    with pytest.raises(SampleError, match=message):
        KNNRegressor(**settings).fit(ROWS, targets)
