"""The predictors are scikit-learn's: its own checks pass, and they work wherever its estimators do."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from small_rows import clusters
from sporeprint import ClassMeans, Ridge, RidgeRegressor, ShrunkLDA

LINES = [ShrunkLDA(), Ridge(), ClassMeans(), Probe()]
PREDICTORS = [*LINES, KNN()]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([*PREDICTORS, KNN(3, "cosine", "distance"), KNNRegressor(), KNNRegressor(3), RidgeRegressor()])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_predictor_works_in_a_pipeline_a_search_and_a_cross_validation(predictor):
    rows, labels = clusters(60, 5, 3, seed=0)
    pipeline = make_pipeline(StandardScaler(), predictor)
    search = GridSearchCV(pipeline, {"standardscaler__with_std": [True, False]}, cv=3).fit(rows, labels)
    assert search.best_score_ > 0.8
    chances = cross_val_predict(clone(predictor), rows, labels, method="predict_proba", cv=3)
    assert (np.array(sorted(set(labels)))[chances.argmax(axis=1)] == labels).mean() > 0.8
    assert search.best_estimator_.classes_.tolist() == sorted(set(labels))


@pytest.mark.parametrize("predictor", LINES)
def test_a_pickled_predictor_answers_alike_and_holds_no_training_rows(predictor):
    rows, labels = clusters(300, 20, 3, seed=0)
    fitted = clone(predictor).fit(rows, labels)
    packed = pickle.dumps(fitted)
    np.testing.assert_array_equal(pickle.loads(packed).predict_proba(rows), fitted.predict_proba(rows))
    assert len(packed) < rows.nbytes / 4


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_groups_reach_a_predictor_in_a_pipeline_by_metadata_routing(predictor):
    rows, labels = clusters(40, 4, 2, seed=0)
    groups = np.arange(40) // 4
    direct = clone(predictor).fit(rows, labels, groups=groups)
    assert direct.temperature_ != clone(predictor).fit(rows, labels).temperature_
    with sklearn.config_context(enable_metadata_routing=True):
        routed = make_pipeline(clone(predictor).set_fit_request(groups=True)).fit(rows, labels, groups=groups)
        assert routed[-1].temperature_ == direct.temperature_
        cross_val_predict(routed, rows, labels, cv=GroupKFold(3), params={"groups": groups})
