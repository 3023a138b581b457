"""Probe is scikit-learn's logistic regression; groups are held out as a whole, and so are folds."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from small_rows import clusters
from sporeprint import Probe
from sporeprint.errors import SampleError, SporeprintWarning
from sporeprint.predictors.groups import groups_of
from sporeprint.predictors.logistic import FALLBACK, Scaling, group_folds
from sporeprint.predictors.principal import Principal

ROWS, LABELS = clusters(60, 5, 3, seed=0, spread=1.5)
CODES = np.unique(LABELS, return_inverse=True)[1]


def log_loss(probabilities, codes):
    return -np.log(probabilities[np.arange(len(codes)), codes]).mean()


def theirs(rows, labels, penalty):
    """scikit-learn's scores of rows of mean squared length 1."""
    centre = rows.mean(axis=0)
    length = np.sqrt(((rows - centre) ** 2).sum(axis=1).mean())
    model = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-8, max_iter=10_000)
    model.fit((rows - centre) / length, labels)
    return lambda queries: model.decision_function((queries - centre) / length)


@pytest.mark.parametrize("width", [5, 200])
def test_scores_are_those_of_scikit_learns_logistic_regression(width):
    rows, labels = clusters(60, width, 3, seed=1, spread=2.0)
    model = Probe([1e-2]).fit(rows, labels)
    np.testing.assert_allclose(rows @ model.coef_.T + model.intercept_, theirs(rows, labels, 1e-2)(rows), atol=0.02)
    two = labels != "c"
    model, expected = Probe([1e-2]).fit(rows[two], labels[two]), theirs(rows[two], labels[two], 1e-2)(rows[two])
    scores = rows[two] @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], expected, atol=0.02)


@pytest.mark.parametrize("rows", [ROWS, np.tile(ROWS, 30), np.ones((4, 9))], ids=["narrow", "wide", "constant"])
def test_training_rows_are_scaled_as_any_other_row_is_and_keep_their_products(rows):
    scaling, scaled = Scaling.fit_transform(rows)
    apart = rows - rows.mean(axis=0)
    apart /= np.sqrt((apart**2).mean()) or 1.0
    np.testing.assert_allclose(scaled @ scaled.T, apart @ apart.T, atol=1e-8)
    np.testing.assert_allclose(scaling(rows[::-1]), scaled[::-1], atol=1e-6)


def test_probabilities_are_calibrated_on_rows_that_were_held_out():
    rows, labels = clusters(200, 10, 3, seed=0)
    codes = np.unique(labels, return_inverse=True)[1]
    model = Probe([1.0]).fit(rows[:100], labels[:100])  # so strong that it is sure of nothing
    raw = softmax(rows[100:] @ model.coef_.T + model.intercept_, axis=1)
    assert model.temperature_ < 0.5
    assert log_loss(model.predict_proba(rows[100:]), codes[100:]) < log_loss(raw, codes[100:]) - 0.2


def test_groups_are_dealt_as_a_whole_and_their_classes_evenly():
    groups = np.arange(60) // 2
    labels = groups % 3
    folds = group_folds(labels, groups_of(groups, 60), np.arange(60), 5, seed=0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(30))
    for code in range(3):
        assert np.bincount(folds[labels == code], minlength=5).tolist() == [4] * 5


def test_a_held_out_group_shows_what_its_own_rows_would_hide():
    # Ten sources, each of one class at random: a source's rows tell its label, and no other source's do.
    draw = np.random.default_rng(0)
    sources = np.repeat(np.arange(10), 8)
    labels = np.array(["a", "b"])[np.arange(10) % 2][sources]
    rows = draw.standard_normal((10, 30))[sources] + 0.01 * draw.standard_normal((80, 30))
    alone, together = Probe().fit(rows, labels), Probe().fit(rows, labels, sources)
    assert max(alone.validation_.values()) == 1.0
    assert max(together.validation_.values()) < 0.9
    assert Probe().leave_one_out(rows, labels).right.mean() == 1.0
    assert Probe().leave_one_out(rows, labels, sources).right.mean() < 0.9


def test_out_of_fold_scores_are_of_fits_that_did_not_see_the_fold():
    left = Probe([1e-2]).leave_one_out(ROWS, LABELS)
    changed = LABELS.copy()
    changed[0] = "b" if LABELS[0] != "b" else "c"
    flipped = Probe([1e-2]).leave_one_out(ROWS, changed)
    assert left.scores.shape == (60, 3)
    assert 0.4 < left.right.mean() < 1
    assert abs(left.scores[0] - flipped.scores[0]).max() < 1  # its own label has hardly a say: only in the folds


def test_a_class_of_one_group_has_no_score_in_its_own_fold():
    groups = np.where(LABELS == "a", -1, np.arange(60))
    left = Probe().leave_one_out(ROWS, LABELS, groups)
    assert np.isneginf(left.scores[LABELS == "a", 0]).all()
    assert np.isfinite(left.scores[LABELS != "a"][:, 1:]).all()
    assert not left.right[LABELS == "a"].any()


def test_a_fold_whose_others_are_of_one_class_is_told_that_class():
    groups = np.where(LABELS == "a", -1, np.arange(60))
    left = Probe().leave_one_out(ROWS, np.where(LABELS == "a", "a", "b"), groups)
    assert set(left.predictions[LABELS == "a"]) == {"b"}
    assert np.isneginf(left.scores[LABELS == "a", 0]).all()


def test_coordinates_give_what_rows_give():
    rows, labels = clusters(60, 5, 3, seed=0)
    left = Probe([1e-2]).leave_one_out(rows, labels)
    shared = Probe([1e-2]).leave_one_out_of(Principal.fit(rows), CODES, groups_of(None, 60))
    assert shared.losses.mean() == pytest.approx(left.losses.mean(), abs=0.05)
    with pytest.raises(SampleError, match="coordinates hold no dimension's own variance"):
        Probe(standardise=True).leave_one_out_of(Principal.fit(rows), CODES, groups_of(None, 60))


def test_a_single_class_and_one_row_a_class_are_answered():
    one = Probe().fit(ROWS, ["x"] * 60)
    assert (set(one.predict(ROWS)), one.penalty_, one.predict_proba(ROWS).min()) == ({"x"}, None, 1.0)
    assert Probe().leave_one_out(ROWS, ["x"] * 60).right.all()
    few = Probe().fit(ROWS[:3], ["a", "b", "c"])
    assert (few.penalty_, few.validation_, few.temperature_) == (FALLBACK, {}, 1.0)
    with pytest.warns(SporeprintWarning, match="probabilities are not calibrated"):
        assert not Probe().leave_one_out(ROWS[:3], ["a", "b", "c"]).right.any()
    with pytest.raises(SampleError, match="leaving one out takes at least 2"):
        Probe().leave_one_out(ROWS[:1], ["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalties": ()}, "penalties=.*; expected one or more positive numbers"),
        ({"penalties": [-1]}, "expected one or more positive numbers"),
        ({"validation": 1}, "validation=1; expected a fraction"),
        ({"iterations": 0}, "iterations=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_are_none_are_refused(settings, message):
    with pytest.raises(SampleError, match=message):
        Probe(**settings).fit(ROWS, LABELS)
