import json
import math

import numpy as np
import pytest
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    repeated_splits,
    split_interval,
)

TWO_SIDED = 1.959964  # of the normal distribution, 95 %


def outcomes(neither, first, second, both):
    """Two arrays of right and wrong, shuffled, with N rows of each outcome."""
    a = np.repeat([False, True, False, True], [neither, first, second, both])
    b = np.repeat([False, False, True, True], [neither, first, second, both])
    order = np.random.default_rng(0).permutation(len(a))
    return a[order], b[order]


def plain_bootstrap(a, b, draws, seed=1):
    """Rows drawn with replacement, one draw after the other."""
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(draws):
        rows = rng.integers(len(a), size=len(a))
        differences.append(b[rows].mean() - a[rows].mean())
    return np.quantile(differences, [0.025, 0.975])


def test_a_difference_is_second_less_first():
    interval = bootstrap_difference(*outcomes(20, 10, 25, 45))
    assert interval.value == pytest.approx(0.15)
    assert interval.low < interval.value < interval.high


def test_drawing_counts_equals_drawing_rows():
    a, b = outcomes(50, 20, 40, 90)
    interval = bootstrap_difference(a, b, draws=20_000)
    np.testing.assert_allclose([interval.low, interval.high], plain_bootstrap(a, b, 20_000), atol=0.006)


def test_real_scores_equal_drawing_rows():
    rng = np.random.default_rng(0)
    a = rng.random(300)
    b = a + 0.1 * rng.standard_normal(300)
    interval = bootstrap_difference(a, b, draws=10_000)
    np.testing.assert_allclose([interval.low, interval.high], plain_bootstrap(a, b, 10_000), atol=0.0006)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bounds_are_those_of_the_normal_approximation(level):
    a, b = outcomes(10_000, 4_000, 6_000, 20_000)
    quantile = {0.8: 1.281552, 0.95: TWO_SIDED}[level]
    error = math.sqrt((0.25 - 0.05**2) / 40_000)  # of a difference that is +-1 in a quarter of the rows
    interval = bootstrap_difference(a, b, draws=20_000, level=level)
    assert interval.value == pytest.approx(0.05)
    assert interval.low == pytest.approx(0.05 - quantile * error, abs=0.05 * error)
    assert interval.high == pytest.approx(0.05 + quantile * error, abs=0.05 * error)


def test_pairing_narrows_the_interval():
    a, b = outcomes(400, 5, 15, 580)
    assert width(bootstrap_difference(a, b)) < 0.5 * width(bootstrap_difference(np.sort(a), np.sort(b)[::-1]))


def test_a_mean_has_the_binomial_spread():
    right = np.arange(1000) < 700
    interval = bootstrap_mean(right, draws=20_000)
    assert interval.value == pytest.approx(0.7)
    assert width(interval) == pytest.approx(2 * TWO_SIDED * math.sqrt(0.7 * 0.3 / 1000), rel=0.05)
    assert not interval.difference


def width(interval):
    return interval.high - interval.low


def test_rows_of_many_scores_are_drawn_in_chunks(monkeypatch):
    scores = np.random.default_rng(0).random(2000)
    expected = 2 * TWO_SIDED * scores.std() / math.sqrt(2000)
    monkeypatch.setattr("sporeprint.evaluate.choice.intervals._CHUNK", 300)
    assert width(bootstrap_mean(scores)) == pytest.approx(expected, rel=0.1)
    assert width(bootstrap_mean(scores > 0.5, draws=1001)) == pytest.approx(TWO_SIDED / math.sqrt(2000), rel=0.1)


def test_classes_weigh_alike_and_are_drawn_by_themselves():
    # 1,000 rows of class a, always right; 5 of b, 2 right: the mean is 0.7, and only b varies, by s^2 / 5.
    labels = np.repeat(["a", "b"], [1000, 5])
    right = np.concatenate([np.ones(1000), [1, 1, 0, 0, 0]])
    interval = bootstrap_mean(right, draws=20_000, level=0.6, labels=labels)
    assert interval.value == pytest.approx(0.7)
    assert (interval.low, interval.high) == (0.625, 0.75)  # of 4 drawn, 1 to 2 are right in the middle 60 %


def test_the_spread_of_small_classes_is_not_too_small():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 4)
    a, b = rng.random((2, 1200)) < 0.5
    change = (b.astype(float) - a).reshape(300, 4)
    error = math.sqrt(change.var(axis=1, ddof=1).sum() / 4) / 300
    order = rng.permutation(1200)
    interval = bootstrap_difference(a[order], b[order], draws=10_000, labels=labels[order])
    assert interval.value == pytest.approx(change.mean())
    assert width(interval) == pytest.approx(2 * TWO_SIDED * error, rel=0.04)  # drawing 4 of 4 gives 0.87 of it


def clusters(count, seed=0):
    """Scores of groups of 1 to 9 rows, alike within a group, in no order."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(count), rng.integers(1, 10, count)))
    return rng.random(count)[groups] + 0.1 * rng.standard_normal(len(groups)), groups


def plain_cluster_bootstrap(scores, groups, draws):
    """Whole groups drawn with replacement, one draw after the other."""
    rng = np.random.default_rng(1)
    rows = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    means = [
        scores[np.concatenate([rows[at] for at in rng.integers(len(rows), size=len(rows))])].mean()
        for _ in range(draws)
    ]
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("count", [40, 300])
def test_whole_groups_are_drawn(count):
    scores, groups = clusters(count)
    interval = bootstrap_mean(scores, draws=10_000, groups=groups)
    assert interval.value == pytest.approx(scores.mean())
    np.testing.assert_allclose(
        [interval.low, interval.high], plain_cluster_bootstrap(scores, groups, 10_000), atol=0.04 * width(interval)
    )
    assert width(interval) > 1.8 * width(bootstrap_mean(scores))


def test_a_difference_draws_the_same_groups_of_both():
    a, groups = clusters(60)
    b = a + clusters(60, seed=1)[0][0] + 0.01 * np.arange(len(a))
    interval = bootstrap_difference(a, b, draws=10_000, groups=groups.astype(str))
    expected = plain_cluster_bootstrap(b - a, groups, 10_000)
    np.testing.assert_allclose([interval.low, interval.high], expected, atol=0.04 * width(interval))


@pytest.mark.parametrize("labels", [None, [0, 0, 1, 1, 1, 0] * 20])
def test_groups_of_one_row_change_nothing(labels):
    a, b = np.random.default_rng(0).random((2, 120))
    plain = bootstrap_difference(a, b, labels=labels)
    assert bootstrap_difference(a, b, labels=labels, groups=np.arange(120)[::-1]) == plain
    assert bootstrap_difference(a, b, labels=labels, groups=[None] * 120) == plain


def test_groups_are_drawn_within_their_class():
    # Class a: always right. Class b: four groups of two rows, three wholly wrong. Of three drawn, 0 to 3 are right.
    labels = ["a"] * 4 + ["b"] * 8
    groups = [0, 0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    right = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    interval = bootstrap_mean(right, draws=20_000, level=0.6, labels=labels, groups=groups)
    assert interval.value == pytest.approx(0.625)
    assert (interval.low, interval.high) == pytest.approx((0.5, 2 / 3))


def test_one_group_says_nothing_of_its_spread():
    interval = bootstrap_mean([1, 0, 1], groups=["a", "a", "a"])
    assert interval.value == pytest.approx(2 / 3)
    assert math.isnan(interval.low)


def test_a_seed_decides_the_draws():
    a, b = outcomes(20, 10, 25, 45)
    assert bootstrap_difference(a, b, seed=3) == bootstrap_difference(a, b, seed=3)
    lows = {bootstrap_difference(np.linspace(0, 1, 300), np.zeros(300), draws=50, seed=seed).low for seed in range(3)}
    assert len(lows) == 3


def test_one_row_says_nothing_of_its_spread():
    interval = bootstrap_difference([False], [True])
    assert interval.value == 1.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert math.isnan(bootstrap_mean([1, 0], labels=["a", "b"]).low)
    assert str(interval) == "+100.0 points (no interval)"
    assert json.loads(json.dumps(interval.to_json(), allow_nan=False))["low"] is None


def test_a_class_of_one_row_counts_without_spread():
    interval = bootstrap_mean([1, 1, 1, 0], labels=["a", "a", "a", "b"])
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_equal_rows_have_an_interval_of_no_width():
    assert (width(bootstrap_difference([1, 1, 0], [1, 1, 0])), width(bootstrap_mean([1, 1, 1]))) == (0.0, 0.0)
    assert width(split_interval([0.1, 0.1, 0.1], 0.3)) == 0.0


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.021, 0.004, 0.039), "+2.1 points (+0.4 to +3.9)"),
        (Interval(-0.0001, -0.02, 0.0), "+0.0 points (-2.0 to +0.0)"),
        (Interval(0.7124, 0.6831, 0.74, difference=False), "71.2% (68.3% to 74.0%)"),
        (Interval(0.01, math.nan, math.nan, difference=False), "1.0% (no interval)"),
    ],
)
def test_intervals_are_printed_for_people(interval, text):
    assert str(interval) == text


def test_an_interval_is_json():
    body = json.loads(json.dumps(bootstrap_mean([True, False, True]).to_json(), allow_nan=False))
    assert body["level"] == 0.95
    assert body["value"] == pytest.approx(2 / 3)
    assert body["difference"] is False


def test_splits_are_stratified_and_disjoint():
    labels = np.array(["a"] * 10 + ["b"] * 20 + ["c"] + ["d"] * 2)
    splits = list(repeated_splits(labels, 0.3, 4))
    assert len(splits) == 4
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(33))
        assert (np.diff(train) > 0).all()
        assert (np.diff(test) > 0).all()
        assert [int((labels[test] == name).sum()) for name in "abcd"] == [3, 6, 0, 1]
    assert len({tuple(test) for _, test in splits}) == 4


def test_every_class_of_two_is_tested_and_trained_on_whatever_the_fraction():
    labels = [0, 0, 1, 1, 1]
    for fraction, tested in ((0.01, [1, 1]), (0.99, [1, 2])):
        (_, test), *_ = repeated_splits(labels, fraction, 1)
        assert np.bincount(np.array(labels)[test]).tolist() == tested


def test_more_splits_leave_the_first_as_they_are():
    labels = np.arange(60) % 3
    few, many = list(repeated_splits(labels, count=2, seed=5)), list(repeated_splits(labels, count=6, seed=5))
    np.testing.assert_array_equal([test for _, test in few], [test for _, test in many[:2]])
    others = next(repeated_splits(labels, seed=6))
    assert others[1].tolist() != few[0][1].tolist()


def grouped_rows(seed=0):
    """Labels of four classes and groups of 1 to 12 rows: those of even number are of one class, the others of any."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), rng.integers(1, 13, 60))
    labels = np.where(groups % 2, rng.integers(0, 4, len(groups)), groups % 4)
    return labels, groups


def test_a_group_is_never_on_both_sides():
    labels, groups = grouped_rows()
    splits = list(repeated_splits(labels, 0.3, 5, groups=groups))
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(len(labels)))
        assert not set(groups[train]) & set(groups[test])
    assert len({tuple(test) for _, test in splits}) == 5


def test_classes_are_met_nearly_as_well_as_by_stratified_folds_and_better_than_by_chance():
    def apart(tested, labels):
        return np.abs(np.bincount(tested, minlength=4) / np.bincount(labels) - 0.25).mean()

    ours, folded, shuffled = [], [], []
    for seed in range(5):
        labels, groups = grouped_rows(seed)
        ours += [apart(labels[test], labels) for _, test in repeated_splits(labels, 0.25, 4, groups=groups)]
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(labels, labels, groups)
        folded += [apart(labels[test], labels) for _, test in folds]
        drawn = GroupShuffleSplit(4, test_size=0.25, random_state=seed).split(labels, labels, groups)
        shuffled += [apart(labels[test], labels) for _, test in drawn]
    assert np.mean(ours) < 1.5 * np.mean(folded)
    assert np.mean(ours) < 0.5 * np.mean(shuffled)


def test_groups_of_one_row_are_split_as_rows():
    labels = np.array(["a"] * 10 + ["b"] * 20 + ["c"] + ["d"] * 2)
    for _, test in repeated_splits(labels, 0.3, 4, groups=np.arange(33)):
        assert [int((labels[test] == name).sum()) for name in "abcd"] == [3, 6, 0, 1]


def test_a_class_of_one_group_is_trained_on():
    labels, groups = ["a"] * 6 + ["b"] * 4 + ["c"] * 2, [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 5]
    for train, test in repeated_splits(labels, 0.3, 10, groups=groups):
        assert {labels[row] for row in test} == {"a", "c"}
        assert {labels[row] for row in train} == {"a", "b", "c"}


def test_a_class_of_two_unequal_groups_is_tested_and_trained_on():
    labels, groups = [0] * 10 + [1] * 2, [0] * 5 + [1] * 5 + [2, 3]
    for _, test in repeated_splits(labels, 0.1, 5, groups=groups):
        assert sorted(labels[row] for row in test) == [0] * 5 + [1]


def test_split_interval_by_hand():
    # Mean 0.02, s = 0.01, J = 3; tested / trained = 3/7; t of two degrees of freedom at 97.5 %: 4.30265.
    interval = split_interval([0.01, 0.02, 0.03], 0.3)
    margin = 4.30265 * math.sqrt(1 / 3 + 3 / 7) * 0.01
    assert interval.value == pytest.approx(0.02)
    assert interval.low == pytest.approx(0.02 - margin, abs=1e-7)
    assert interval.high == pytest.approx(0.02 + margin, abs=1e-7)


def test_more_splits_of_the_same_rows_narrow_the_interval_only_so_far():
    many = width(split_interval([0.01, 0.03] * 5000, 0.3))
    assert many == pytest.approx(2 * TWO_SIDED * math.sqrt(3 / 7) * 0.01, rel=0.001)


def test_one_split_says_nothing_of_its_spread():
    interval = split_interval([0.02], 0.3)
    assert (interval.value, math.isnan(interval.low), math.isnan(interval.high)) == (0.02, True, True)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: bootstrap_difference([1, 0], [1]), "2 scores against 1"),
        (lambda: bootstrap_mean([]), r"test scores have shape \(0,\)"),
        (lambda: bootstrap_mean(["right", "wrong"]), "expected one number or truth value a row"),
        (lambda: bootstrap_mean([[1.0]]), r"shape \(1, 1\)"),
        (lambda: bootstrap_difference([1.0, np.nan], [1, 1]), "1 of 2 first scores are NaN"),
        (lambda: bootstrap_mean([1, 0], draws=0), "draws=0"),
        (lambda: bootstrap_mean([1, 0], level=95), "level=95"),
        (lambda: bootstrap_mean([1, 0], labels=["a"]), "test labels have shape"),
        (lambda: bootstrap_mean([1, 0], labels=[1.0, np.nan]), "1 of 2 test labels are NaN"),
        (lambda: bootstrap_mean([1, 0], groups=["a"]), r"groups have shape \(1,\) for 2 rows"),
        (lambda: bootstrap_mean([1, 0, 1], labels=["a", "b", "b"], groups=[0, 0, 1]), "rows of several classes"),
        (lambda: next(repeated_splits(["a", "a"], groups=[1, 1])), "each of 1 groups holds all rows of a class"),
        (lambda: next(repeated_splits(["a", "a"], groups=[1])), "groups have shape"),
        (lambda: next(repeated_splits(["a", "b"])), "none of 2 classes has two rows"),
        (lambda: next(repeated_splits([])), r"labels have shape \(0,\)"),
        (lambda: next(repeated_splits("a")), "labels is a str; expected a list of labels"),
        (lambda: next(repeated_splits([1, 1], test_fraction=1.0)), "test_fraction=1.0"),
        (lambda: next(repeated_splits([1, 1], count=0)), "count=0"),
        (lambda: split_interval([], 0.3), "split scores have shape"),
        (lambda: split_interval([0.1, 0.2], 0.0), "test_fraction=0.0"),
    ],
)
def test_what_cannot_be_is_said(call, complaint):
    with pytest.raises(SampleError, match=complaint):
        call()
