"""What a predictor makes of too little data, and what it refuses, in a sentence."""

import numpy as np
import pytest
from sklearn.base import clone

from small_rows import clusters
from sporeprint import ClassMeans, Probe, Ridge, RidgeRegressor, ShrunkLDA
from sporeprint.errors import SampleError, SporeprintWarning

PREDICTORS = [ShrunkLDA(), Ridge(), ClassMeans()]
ROWS, LABELS = clusters(30, 4, 3, seed=0)

every_predictor = pytest.mark.parametrize("predictor", PREDICTORS)


@every_predictor
@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_single_class_is_certain(predictor, count):
    model = clone(predictor).fit(ROWS[:count], ["a"] * count)
    assert model.predict(ROWS).tolist() == ["a"] * 30
    np.testing.assert_array_equal(model.predict_proba(ROWS), 1.0)
    assert model.temperature_ == 1.0


@every_predictor
def test_one_row_a_class_classifies_by_the_nearest_and_says_that_nothing_can_be_left_out(predictor):
    rows, labels = np.eye(5, 40) + 0.1, list("vwxyz")
    with pytest.warns(SporeprintWarning, match="every class has one row, or rows of one group, alone"):
        model = clone(predictor).fit(rows, labels)
    assert model.predict(rows + 0.01 * np.eye(5, 40)[::-1]).tolist() == labels
    chances = model.predict_proba(rows)
    assert np.isfinite(chances).all()
    assert model.temperature_ == 1.0
    with pytest.warns(SporeprintWarning):
        left = model.leave_one_out(rows, labels)
    assert not left.right.any()
    np.testing.assert_allclose(left.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(left.losses, 1.25)  # 1 for the class that is absent, 4 times 1 / 16 for the others


@every_predictor
def test_groups_that_each_hold_a_whole_class_are_left_out_all_wrong(predictor):
    with pytest.warns(SporeprintWarning, match="of one group, alone"):
        left = clone(predictor).leave_one_out(ROWS, LABELS, groups=LABELS)
    assert not left.right.any()
    assert np.isfinite(left.losses).all()


@every_predictor
@pytest.mark.parametrize("width", [2, 50])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 + 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_constant_features_the_most_frequent_class_is_predicted_about_as_often_as_it_occurs(
    predictor, width, value, dtype
):
    rows = np.full((40, width), value, dtype)
    model = clone(predictor)
    left = model.leave_one_out(rows, ["b"] * 26 + ["a"] * 14)
    assert (left.predictions == "b").all()
    chances = model.fit(rows, ["b"] * 26 + ["a"] * 14).predict_proba(rows + np.arange(40)[:, None])
    np.testing.assert_allclose(chances[:, 1], 0.65, atol=0.06)  # fitted on 39 rows, with half a row of doubt


@every_predictor
def test_rows_that_are_all_the_same_but_one_are_finite(predictor):
    rows = np.zeros((12, 3))
    rows[4] = 1
    model = clone(predictor)
    left = model.leave_one_out(rows, list("aab" * 4))
    assert np.isfinite(left.probabilities).all()
    assert np.isfinite(left.losses).all()
    assert 0 < model.temperature_ < np.inf


@every_predictor
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted(predictor, value):
    rows = ROWS.copy()
    rows[[1, 4], 2] = value
    with pytest.raises(SampleError, match="2 of 30 train rows are NaN or infinite"):
        clone(predictor).fit(rows, LABELS)
    with pytest.raises(SampleError, match="2 of 30 test rows are NaN or infinite"):
        clone(predictor).fit(ROWS, LABELS).predict(rows)


OBJECTS = np.array(["a", None, *["b"] * 28], dtype=object)
WRONG_LABELS = {
    "missing": ([None, *LABELS[1:].tolist()], "1 of 30 train labels are missing; drop those rows"),
    "missing in an array": (OBJECTS, "1 of 30 train labels are missing"),
    "NaN": ([np.nan, *[1.0] * 29], "contains NaN"),
    "of two kinds": ([1, *LABELS[1:].tolist()], "train labels are of different kinds"),
    "lists": ([["a", "b"]] * 30, "expected one string or number a row"),
    "too few": (LABELS[:29], "inconsistent numbers of samples"),
    "bytes": ([b"a", b"b"] * 15, "train labels are bytes; expected texts or numbers"),
    "bytes in an array": (np.array([b"a", b"b"] * 15), "train labels are bytes"),
    "measurements": (np.linspace(0, 1, 30), "Unknown label type: these labels are numbers"),
    "none": (None, "requires y to be passed"),
}


@pytest.mark.parametrize("predictor", [Ridge(), ClassMeans(), Probe(), RidgeRegressor()])
def test_rows_whose_squares_overflow_are_refused(predictor):
    codes = np.arange(30) % 3
    with pytest.raises(SampleError, match=r"features of up to .e\+160 are too large .*; scale them"):
        clone(predictor).fit(ROWS * 1e160, codes)
    assert np.isfinite(clone(predictor).fit(ROWS * 1e140, codes).predict(ROWS)).all()


def test_rows_of_any_length_are_classified_by_their_direction():
    np.testing.assert_array_equal(
        ShrunkLDA().fit(ROWS * 1e200, LABELS).predict(ROWS * 1e200), ShrunkLDA().fit(ROWS, LABELS).predict(ROWS)
    )


@every_predictor
@pytest.mark.parametrize("kind", WRONG_LABELS)
def test_labels_that_are_no_classes_are_refused(predictor, kind):
    labels, message = WRONG_LABELS[kind]
    with pytest.raises(SampleError, match=message):
        clone(predictor).fit(ROWS, labels)


@every_predictor
def test_rows_of_another_shape_are_refused(predictor):
    model = clone(predictor)
    for rows in (np.zeros((0, 4)), np.zeros((30, 0)), np.zeros(30), np.zeros((30, 2, 2)), [["x"]] * 30):
        with pytest.raises(SampleError):
            model.fit(rows, LABELS[: len(rows)])
    model.fit(ROWS, LABELS)
    for rows in (ROWS[:, :3], ROWS[:0], ROWS[0]):
        with pytest.raises(SampleError):
            model.predict(rows)


@pytest.mark.parametrize("predictor", [*PREDICTORS, RidgeRegressor()])
def test_groups_that_cannot_be_left_out_are_refused(predictor):
    codes = np.unique(LABELS, return_inverse=True)[1]
    for groups, message in (
        (np.zeros(29), r"groups have shape \(29,\) for 30 rows; expected one group a row"),
        (["g"] * 30, "all 30 rows are of one group, 'g'; expected at least two groups"),
    ):
        with pytest.raises(SampleError, match=message):
            clone(predictor).fit(ROWS, codes, groups=groups)
    with pytest.raises(SampleError, match="1 row; leaving one out takes at least 2"):
        clone(predictor).leave_one_out(ROWS[:1], codes[:1])


@pytest.mark.parametrize("penalties", [(), (0,), (-1,), (np.nan,), 1.0, "auto"])
def test_penalties_that_are_not_positive_numbers_are_refused(penalties):
    for predictor in (Ridge(penalties), RidgeRegressor(penalties)):
        with pytest.raises(SampleError, match="penalties="):
            predictor.fit(ROWS, np.arange(30) % 3)


@pytest.mark.parametrize("targets", [["a"] * 30, [np.nan] * 30, [np.inf] * 30, np.zeros((30, 2, 2)), np.zeros(29)])
def test_targets_that_are_no_numbers_are_refused(targets):
    with pytest.raises(SampleError):
        RidgeRegressor().fit(ROWS, targets)


def test_a_regressor_of_one_row_or_of_constant_features_gives_the_mean_target():
    np.testing.assert_allclose(RidgeRegressor().fit(ROWS[:1], [3.0]).predict(ROWS), 3.0)
    constant = RidgeRegressor().fit(np.full((4, 3), 0.1), [[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]])
    np.testing.assert_allclose(constant.predict(ROWS[:, :3]), np.tile([3.0, 5.0], (30, 1)), atol=1e-12)
    assert constant.penalty_.tolist() == [10.0, 10.0]


@pytest.mark.parametrize("predictor", [*PREDICTORS, RidgeRegressor()])
def test_neither_the_order_of_rows_nor_the_batch_that_asks_decides(predictor):
    rows, labels = clusters(200, 6, 4, seed=1, spread=1.0)
    codes = np.unique(labels, return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(200)
    asked = "predict" if isinstance(predictor, RidgeRegressor) else "predict_proba"
    first = getattr(clone(predictor).fit(rows, codes), asked)
    second = getattr(clone(predictor).fit(rows[order], codes[order]), asked)
    np.testing.assert_allclose(second(rows), first(rows), atol=1e-4)  # the temperature is found to 3 digits
    np.testing.assert_allclose(np.concatenate([first(rows[:7]), first(rows[7:])]), first(rows), atol=1e-12)


@every_predictor
def test_the_rows_that_set_the_temperature_do_not_depend_on_their_order(predictor, monkeypatch):
    monkeypatch.setattr("sporeprint.predictors.predictor.MOST_ASKING", 40)
    rows, labels = clusters(200, 6, 4, seed=1, spread=1.0)
    order = np.random.default_rng(0).permutation(200)
    heats = [clone(predictor).fit(rows[o], labels[o]).temperature_ for o in (np.arange(200), order)]
    assert heats[0] == pytest.approx(heats[1], rel=1e-3)
    monkeypatch.undo()
    assert clone(predictor).fit(rows, labels).temperature_ != pytest.approx(heats[0], rel=1e-3)


@every_predictor
def test_integers_and_booleans_are_features_too(predictor):
    rows = (ROWS * 3).astype(int)
    expected = clone(predictor).fit(rows.astype(float), LABELS).predict_proba(rows.astype(float))
    np.testing.assert_array_equal(clone(predictor).fit(rows, LABELS).predict_proba(rows), expected)
    clone(predictor).fit(rows > 0, LABELS)
