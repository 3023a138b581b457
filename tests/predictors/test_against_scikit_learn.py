"""Predictors equal scikit-learn's own where it has them, and each formula where it has not."""

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

from small_rows import clusters
from sporeprint import ClassMeans, Ridge, RidgeRegressor, ShrunkLDA
from sporeprint.predictors.principal import Principal

SHAPES = {"tall": (90, 7, 4), "wide": (30, 50, 3), "two classes": (20, 5, 2)}


def data(shape):
    count, width, classes = SHAPES[shape]
    rows, labels = clusters(count, width, classes, seed=count, spread=1.5)
    keep = np.append(np.arange(count - 5), [0])  # classes of unequal size, and a row twice
    return rows[keep] + 1, labels[keep], clusters(40, width, classes, seed=1)[0]


def softmax(scores):
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_shrunk_lda_is_the_ledoit_wolf_covariance_of_class_centred_rows_inverted(shape):
    rows, labels, test = data(shape)
    points, model = unit(rows), ShrunkLDA().fit(rows, labels)
    classes = np.unique(labels)
    means = np.stack([points[labels == name].mean(axis=0) for name in classes])
    apart = points - means[np.searchsorted(classes, labels)]
    inverse = np.linalg.inv(ledoit_wolf(apart, assume_centered=True)[0])
    priors = np.array([(labels == name).mean() for name in classes])
    scores = unit(test) @ inverse @ means.T - np.einsum("cd,de,ce->c", means, inverse, means) / 2 + np.log(priors)
    np.testing.assert_allclose(model.predict_proba(test), softmax(scores / model.temperature_), atol=1e-9)


class Pooled:
    """The estimator that LinearDiscriminantAnalysis calls for each class, which gives the covariance of all."""

    def __init__(self, covariance):
        self.covariance = covariance

    def fit(self, _):
        self.covariance_ = self.covariance
        return self

    def get_params(self, deep=True):
        return {"covariance": self.covariance}


@pytest.mark.parametrize("shape", SHAPES)
def test_shrunk_lda_gives_the_labels_of_scikit_learns_lda_with_that_covariance(shape):
    rows, labels, test = data(shape)
    points = unit(rows)
    classes = np.unique(labels)
    means = np.stack([points[labels == name].mean(axis=0) for name in classes])
    covariance = ledoit_wolf(points - means[np.searchsorted(classes, labels)], assume_centered=True)[0]
    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Pooled(covariance)).fit(points, labels)
    ours = ShrunkLDA().fit(rows, labels)
    ours.temperature_ = 1.0
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(unit(test)))
    np.testing.assert_allclose(ours.predict_proba(test), theirs.predict_proba(unit(test)), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_and_its_leave_one_out_errors_are_those_of_scikit_learns_ridge_cv(shape):
    rows, labels, test = data(shape)
    grid = (3.0, 0.1, 1e-3)
    model = Ridge(penalties=grid)
    left = model.leave_one_out(rows, labels)
    codes = np.unique(labels, return_inverse=True)[1]
    spread = ((rows - rows.mean(axis=0)) ** 2).sum()
    hot = np.eye(codes.max() + 1)[codes]
    theirs = linear_model.RidgeCV([penalty * spread for penalty in grid], store_cv_results=True).fit(rows, hot)
    errors = theirs.cv_results_.mean(axis=0).sum(axis=0)
    assert list(model.leave_one_out_) == list(grid)
    np.testing.assert_allclose(list(model.leave_one_out_.values()), errors, rtol=1e-8)
    alone = clone(model).set_params(penalties=(0.03,)).fit(rows, labels)
    assert (alone.penalty_, alone.leave_one_out_) == (0.03, {})
    assert model.penalty_ == grid[errors.argmin()]
    chosen = linear_model.Ridge(model.penalty_ * spread).fit(rows, hot)
    np.testing.assert_allclose(model.coef_, chosen.coef_, atol=1e-8)
    chances = softmax(chosen.predict(test) / model.temperature_)
    np.testing.assert_allclose(model.predict_proba(test), chances, atol=1e-8)
    residuals = theirs.cv_results_[:, :, errors.argmin()]
    np.testing.assert_allclose((hot - left.scores) ** 2, residuals, rtol=1e-6, atol=1e-12)
    classifier = linear_model.RidgeClassifierCV([model.penalty_ * spread]).fit(rows, labels)
    np.testing.assert_array_equal(model.predict(test), classifier.predict(test))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("targets", [1, 3])
def test_the_ridge_regressor_is_ridge_cv_with_a_penalty_a_target(shape, targets):
    rows, _, test = data(shape)
    draw = np.random.default_rng(0)
    values = rows[:, :targets] + np.array([0.01, 1, 5])[:targets] * draw.normal(size=(len(rows), targets)) + 100
    grid = (3.0, 0.1, 1e-3, 1e-5)
    spread = ((rows - rows.mean(axis=0)) ** 2).sum()
    theirs = linear_model.RidgeCV(
        [penalty * spread for penalty in grid], alpha_per_target=True, store_cv_results=True
    ).fit(rows, values)
    values = values if targets > 1 else values[:, 0]
    ours = RidgeRegressor(grid)
    left = ours.leave_one_out(rows, values)
    np.testing.assert_allclose(ours.penalty_, np.ravel(theirs.alpha_) / spread)
    np.testing.assert_allclose(ours.predict(test), theirs.predict(test).reshape(-1, *values.shape[1:]), atol=1e-6)
    errors = theirs.cv_results_.reshape(len(rows), -1, len(grid)).mean(axis=0)
    np.testing.assert_allclose(np.stack(list(ours.leave_one_out_.values()), axis=1), errors, rtol=1e-6)
    np.testing.assert_allclose(((left - values) ** 2).mean(axis=0), errors.min(axis=1).reshape(values.shape[1:]))


@pytest.mark.parametrize("shape", SHAPES)
def test_class_means_are_the_nearest_centroids_in_order_of_distance(shape):
    rows, labels, test = data(shape)
    ours, theirs = ClassMeans().fit(rows, labels), NearestCentroid().fit(rows, labels)
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(test))
    squares = ((test[:, None] - theirs.centroids_) ** 2).sum(axis=2)
    np.testing.assert_allclose(ours.predict_proba(test), softmax(-squares / 2 / ours.temperature_), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("as_unit", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_principal_coordinates_are_those_of_the_singular_value_decomposition(shape, as_unit, dtype):
    rows = data(shape)[0].astype(dtype)
    points = unit(rows.astype(np.float64)) if as_unit else rows.astype(np.float64)
    points -= points.mean(axis=0)
    _, sizes, axes = np.linalg.svd(points, full_matrices=False)
    keep = sizes > 1e-6 * sizes[0]
    principal = Principal.fit(rows, unit=as_unit)
    np.testing.assert_allclose(principal.squares, sizes[keep] ** 2, rtol=1e-8)
    held = principal.points(rows, np.arange(len(rows)))
    np.testing.assert_allclose(np.abs(held), np.abs(points @ axes[keep].T), atol=1e-7)
    np.testing.assert_allclose(held @ held.T, points @ points.T, atol=1e-10 * sizes[0] ** 2)
    weights = np.random.default_rng(0).normal(size=(2, keep.sum()))
    np.testing.assert_allclose(points @ principal.line(rows, weights).T, held @ weights.T, atol=1e-8)
    if not as_unit:
        gram = rows.astype(np.float64) @ rows.T.astype(np.float64)
        np.testing.assert_allclose(Principal.of_gram(gram, rows.shape[1]).squares, principal.squares, rtol=1e-6)


@pytest.mark.parametrize("predictor", [ShrunkLDA(), Ridge(), ClassMeans()])
def test_coordinates_that_predictors_share_give_what_the_rows_give(predictor):
    for shape in SHAPES:
        rows, labels, _ = data(shape)
        codes = np.unique(labels, return_inverse=True)[1]
        own = predictor.leave_one_out(rows, labels)
        shared = Principal.fit(rows, unit=isinstance(predictor, ShrunkLDA))
        groups = [np.array([row]) for row in range(len(rows))]
        again = predictor.leave_one_out_of(shared, codes, groups)
        np.testing.assert_allclose(again.probabilities, own.probabilities, atol=1e-7)
        np.testing.assert_allclose(again.losses, own.losses, atol=1e-7)
