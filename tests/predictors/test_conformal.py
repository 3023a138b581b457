"""Prediction sets hold the error that is asked for, and agree with MAPIE on the same scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from sporeprint.errors import RecipeError
from sporeprint.predictors.conformal import least_probability, own_probabilities, rows_needed
from sporeprint.predictors.lda import ShrunkLDA


class Given(ClassifierMixin, BaseEstimator):
    """An estimator whose features are the probabilities, so that MAPIE takes left-out ones."""

    def __init__(self, classes=()):
        self.classes_ = np.asarray(classes)

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return self.classes_[np.asarray(X).argmax(axis=1)]


def drawn(rows, seed=0, classes=4, noise=1.5):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, classes, rows)
    return np.eye(classes, 8)[codes] * 2 + noise * rng.normal(size=(rows, 8)), codes


@pytest.mark.parametrize("error", [0.02, 0.05, 0.1, 0.2, 0.5])
def test_the_sets_are_those_of_mapie_on_the_same_left_out_probabilities(error):
    mapie = pytest.importorskip("mapie.classification")
    (rows, codes), (others, _) = drawn(120), drawn(200, seed=1)
    predictor = ShrunkLDA()
    left_out = predictor.leave_one_out(rows, codes)
    least = least_probability(own_probabilities(left_out.probabilities, codes), error)
    ours = predictor.predict_proba(others) >= least
    oracle = mapie.SplitConformalClassifier(Given(range(4)), confidence_level=1 - error, prefit=True)
    _, sets = oracle.conformalize(left_out.probabilities, codes).predict_set(predictor.predict_proba(others))
    assert np.array_equal(ours, sets[:, :, 0])


def test_new_rows_lack_their_own_class_as_rarely_as_was_asked():
    missed = []
    for seed in range(40):
        (rows, codes), (others, truth) = drawn(150, 2 * seed), drawn(300, 2 * seed + 1)
        predictor = ShrunkLDA()
        own = own_probabilities(predictor.leave_one_out(rows, codes).probabilities, codes)
        sets = predictor.predict_proba(others) >= least_probability(own, 0.1)
        missed.append(1 - sets[np.arange(len(truth)), truth].mean())
    assert np.mean(missed) == pytest.approx(0.1, abs=0.015)


def test_a_probability_that_only_rounding_keeps_below_the_least_one_is_in_the_set():
    own = np.array([0.3, 0.3, 0.3, 0.6, 0.9])
    sets = np.array([0.3, np.nextafter(0.3, 0), 0.2999]) >= least_probability(own, 0.5)
    assert sets.tolist() == [True, True, False]


def test_own_probabilities_are_those_of_the_rows_own_classes_in_rising_order():
    assert own_probabilities(np.array([[0.7, 0.3], [0.4, 0.6], [0.8, 0.2]]), np.array([0, 0, 1])).tolist() == [
        0.2,
        0.4,
        0.7,
    ]


@pytest.mark.parametrize(("error", "rows"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.3, 3), (0.5, 1)])
def test_an_error_needs_as_many_rows_as_one_of_them_is_that_share_of(error, rows):
    assert rows_needed(error) == rows
    assert least_probability(np.linspace(0.1, 0.9, rows), error) == pytest.approx(0.1)
    with pytest.raises(RecipeError, match=f"{error:g} takes at least {rows} labelled training rows, and there are"):
        least_probability(np.linspace(0.1, 0.9, rows - 1), error)


@pytest.mark.parametrize("error", [0, 1, -0.1, 5, float("nan"), "few", None, True])
def test_an_error_that_is_no_fraction_is_refused(error):
    with pytest.raises(RecipeError, match="expected a fraction between 0 and 1"):
        least_probability(np.linspace(0, 1, 100), error)
