"""Leave-one-out in closed form equals fitting again without each row, or each group, for rows of every kind."""

import tracemalloc

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.base import clone

from small_rows import clusters
from sporeprint import KNN, ClassMeans, Probe, Ridge, RidgeRegressor, ShrunkLDA
from sporeprint.predictors import class_means, groups, lda, principal, ridge
from sporeprint.predictors import predictor as predictor_base

CLASSIFIERS = [ShrunkLDA(), Ridge(penalties=(0.03,)), ClassMeans()]


def with_duplicates(rows, labels):
    rows = rows.copy()
    rows[5:9], rows[11] = rows[4], rows[10]
    return rows, labels


def with_constant_columns(rows, labels):
    rows = rows.copy()
    rows[:, [0, 2]] = 3.0, 0.0
    return rows, labels


def with_classes_of_one_row(rows, labels):
    labels = labels.copy()
    labels[3], labels[8] = "y", "z"
    return rows, labels


def far_from_the_origin(rows, labels):
    return rows + 100, labels


KINDS = {
    "more rows than dimensions": clusters(40, 4, 3, seed=0),
    "more dimensions than rows": clusters(24, 60, 3, seed=1),
    "as many": clusters(20, 20, 2, seed=2),
    "one dimension": (np.arange(1, 13.0)[:, None], np.array(list("aaabbbabbaab"))),
    "two rows a class": clusters(12, 30, 6, seed=3),
    "classes of one row": with_classes_of_one_row(*clusters(20, 5, 3, seed=4)),
    "wide, classes of one row": with_classes_of_one_row(*clusters(20, 50, 3, seed=4)),
    "one class": (clusters(10, 3, 2, seed=5)[0], np.array(["a"] * 10)),
    "duplicates": with_duplicates(*clusters(30, 5, 3, seed=6)),
    "wide, duplicates": with_duplicates(*clusters(30, 50, 3, seed=6)),
    "constant columns": with_constant_columns(*clusters(30, 5, 3, seed=7)),
    "far from the origin": far_from_the_origin(*clusters(30, 5, 3, seed=8)),
    "wide, far from the origin": far_from_the_origin(*clusters(30, 40, 3, seed=8)),
    "tiny": (clusters(30, 5, 3, seed=9)[0] * 1e-20, clusters(30, 5, 3, seed=9)[1]),
}


def refitted(predictor, rows, labels, groups, classes):
    """Scores [N, C] of each group by a fit on the others; minus infinity for classes that are absent there."""
    scores = np.full((len(rows), len(classes)), -np.inf)
    for group in np.unique(groups):
        out = groups == group
        model = clone(predictor)
        model.classes_, codes = np.unique(labels[~out], return_inverse=True)
        model._fit(rows[~out], codes, [np.array([row]) for row in range(len(codes))])
        scores[np.ix_(out, np.isin(classes, model.classes_))] = model._scores(rows[out])
    return scores


def centred(scores):
    """Scores as the softmax sees them: a row's own constant has no say."""
    return np.where(np.isfinite(scores), scores - scores.max(axis=1, keepdims=True), -np.inf)


def scaled_penalty(predictor, rows, left):
    """A ridge's penalty is relative to the spread of the rows it is fitted on, which a left-out row changes."""
    if not isinstance(predictor, Ridge):
        return predictor
    spread = [((part - part.mean(axis=0)) ** 2).sum() for part in (rows.astype(float), left.astype(float))]
    return Ridge(penalties=(predictor.penalties[0] * spread[0] / spread[1],))


def check_equal(predictor, rows, labels, groups):
    left = predictor.leave_one_out(rows, labels, groups)
    classes, numbers = np.unique(labels), np.arange(len(rows)) if groups is None else groups
    expected = np.empty(left.scores.shape)
    for number in np.unique(numbers):
        out = numbers == number
        model = scaled_penalty(predictor, rows, rows[~out])
        expected[out] = refitted(model, rows, labels, np.where(out, 1, 0), classes)[out]
    size = np.abs(np.where(np.isfinite(expected), expected, 0)).max()
    np.testing.assert_array_equal(np.isfinite(left.scores), np.isfinite(expected))
    np.testing.assert_allclose(centred(left.scores), centred(expected), rtol=1e-6, atol=1e-8 * size)
    own = np.isfinite(expected[np.arange(len(rows)), left.codes])
    chances = np.exp(centred(expected) / left.temperature)
    np.testing.assert_allclose(left.probabilities, chances / chances.sum(axis=1, keepdims=True), atol=1e-6)
    assert not left.right[~own].any()


@pytest.mark.parametrize("predictor", CLASSIFIERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_left_out_one_by_one_are_scored_as_by_a_fit_without_each(predictor, kind, dtype):
    rows, labels = KINDS[kind]
    check_equal(clone(predictor), rows.astype(dtype), labels, None)


def groups_of_threes(labels):
    return np.arange(len(labels)) // 3


def groups_of_whole_classes(labels):
    return np.where(labels == labels[0], 0, np.arange(len(labels)))


def one_great_group(labels):
    return np.where(np.arange(len(labels)) < len(labels) * 0.7, -1, np.arange(len(labels)))


@pytest.mark.parametrize("predictor", CLASSIFIERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one class"])
@pytest.mark.parametrize("grouping", [groups_of_threes, groups_of_whole_classes, one_great_group])
def test_groups_left_out_are_scored_as_by_a_fit_without_each(predictor, kind, grouping):
    rows, labels = KINDS[kind]
    check_equal(clone(predictor), rows, labels, grouping(labels))


@pytest.mark.parametrize("predictor", [*CLASSIFIERS, Ridge()])
@pytest.mark.parametrize("kind", ["more rows than dimensions", "classes of one row", "duplicates"])
def test_rows_taken_in_small_parts_and_not_held_give_the_same(predictor, kind, monkeypatch):
    rows, labels = KINDS[kind]
    whole = [clone(predictor).leave_one_out(rows, labels, of) for of in (None, groups_of_threes(labels))]
    model = clone(predictor).fit(rows, labels)
    monkeypatch.setattr(principal, "_MOST_HELD", 0)
    for module in (principal, lda, ridge, class_means, groups, predictor_base):
        monkeypatch.setattr(module, "_NUMBERS", 2 * rows.shape[1])
    parts = [clone(predictor).leave_one_out(rows, labels, of) for of in (None, groups_of_threes(labels))]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(other.probabilities, one.probabilities, atol=1e-8)
    np.testing.assert_allclose(
        clone(predictor).fit(rows, labels).predict_proba(rows), model.predict_proba(rows), atol=1e-8
    )


@pytest.mark.parametrize("predictor", [*CLASSIFIERS, KNN(), Probe()])
def test_coordinates_of_very_many_rows_are_shared_too(predictor, monkeypatch):
    rows, labels = KINDS["more rows than dimensions"]
    codes, apart = np.unique(labels, return_inverse=True)[1], groups.groups_of(groups_of_threes(labels), len(rows))
    shared = clone(predictor).leave_one_out_of(principal.Principal.fit(rows), codes, apart)
    monkeypatch.setattr(principal, "_MOST_HELD", 0)
    monkeypatch.setattr(principal, "_NUMBERS", 2 * rows.shape[1])
    many = principal.Principal.fit(rows)
    assert many.held is None
    np.testing.assert_allclose(clone(predictor).leave_one_out_of(many, codes, apart).scores, shared.scores, atol=1e-8)


@pytest.mark.parametrize("predictor", CLASSIFIERS)
@pytest.mark.parametrize("grouping", [np.arange, lambda count: np.arange(count) // 3])
def test_the_rows_that_set_the_temperature_get_the_scores_of_all_rows_leave_one_out(predictor, grouping):
    rows, labels = KINDS["classes of one row"]
    apart = groups.groups_of(grouping(len(rows)), len(rows))
    model = clone(predictor)
    whole = model.leave_one_out(rows, labels, grouping(len(rows))).scores
    codes = np.unique(labels, return_inverse=True)[1]
    with np.errstate(divide="ignore"):
        model._fit(rows, codes, apart)
        some = model._left_out(rows, codes, apart[::-2])
    np.testing.assert_allclose(some, whole[groups.rows_in(apart[::-2])], atol=1e-12)


@pytest.mark.parametrize("predictor", [ShrunkLDA(), ClassMeans()])
def test_of_many_rows_and_classes_only_those_are_scored_that_set_the_temperature(predictor, monkeypatch):
    monkeypatch.setattr(predictor_base, "MOST_ASKING", 100)
    codes = np.arange(10_000) % 500
    rows = np.random.default_rng(0).normal(size=(500, 4))[codes] + np.random.default_rng(1).normal(size=(10_000, 4))
    tracemalloc.start()
    predictor.fit(rows, codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # a score of each row and class: 10,000 x 500 x 8 bytes = 40 MB


@pytest.mark.parametrize("predictor", [ShrunkLDA(), Ridge()])
def test_great_groups_of_narrow_rows_take_little_memory(predictor):
    rows, labels = clusters(4000, 3, 3, seed=0)
    tracemalloc.start()
    predictor.leave_one_out(rows, labels, np.arange(4000) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # a group by itself: 2,000 x 2,000 x 8 bytes = 32 MB


def test_the_regressor_leaves_groups_out_as_a_fit_without_each():
    rows, _ = KINDS["more rows than dimensions"]
    targets = np.random.default_rng(0).normal(size=(len(rows), 2)) + rows[:, :2]
    groups = np.arange(len(rows)) // 4
    left = RidgeRegressor(penalties=(0.05,)).leave_one_out(rows, targets, groups)
    spread = ((rows - rows.mean(axis=0)) ** 2).sum()
    for group in np.unique(groups):
        out = groups == group
        model = linear_model.Ridge(0.05 * spread).fit(rows[~out], targets[~out])
        np.testing.assert_allclose(left[out], model.predict(rows[out]), atol=1e-8)
