"""The temperature is the one of least log loss, and stays a positive number where that is 0 or infinite."""

import numpy as np
import pytest
from scipy.special import log_softmax

from sporeprint.predictors.calibration import probabilities, temperature


def smoothed_losses(scores, codes, heats):
    """Mean log loss at each temperature, where half a row in N + 1 is spread over all classes."""
    share = 0.5 / (len(scores) + 1)
    logs = log_softmax(scores / heats[:, None, None], axis=2)
    losses = (1 - share) * logs[:, np.arange(len(scores)), codes] + share * logs.mean(axis=2)
    return -losses.mean(axis=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1e-6, 1, 1e6])
def test_no_other_temperature_has_a_lower_loss(seed, size):
    draw = np.random.default_rng(seed)
    codes = draw.integers(4, size=50)
    scores = size * (draw.normal(size=(50, 4)) + 1.5 * np.eye(4)[codes])
    found = temperature(scores, codes)
    grid = found * np.exp(np.linspace(-8, 8, 2001))
    losses = smoothed_losses(scores, codes, grid)
    assert grid[np.argmin(losses)] == pytest.approx(found, rel=0.01)


def test_two_scores_that_are_right_three_times_of_four_say_three_quarters():
    scores = np.tile([1.0, 0.0], (4000, 1))
    codes = np.arange(4000) % 4 // 3
    heat = temperature(scores, codes)
    assert heat == pytest.approx(1 / np.log(3), rel=0.01)
    assert probabilities(scores[:1], heat)[0] == pytest.approx([0.75, 0.25], abs=0.002)


def test_rows_that_are_all_right_leave_half_a_row_of_doubt():
    scores = np.tile([5.0, 0.0], (9, 1))
    chance = probabilities(scores[:1], temperature(scores, np.zeros(9, int)))[0, 1]
    assert chance == pytest.approx(0.5 / 10 / 2, rel=0.01)


def test_rows_that_are_all_wrong_make_all_classes_nearly_equal():
    scores = np.tile([5.0, 0.0], (9, 1))
    heat = temperature(scores, np.ones(9, int))
    assert np.isfinite(heat)
    assert probabilities(scores[:1], heat)[0] == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.parametrize(
    ("scores", "codes"),
    [
        (np.zeros((5, 3)), [0, 1, 2, 0, 1]),
        (np.full((5, 1), 7.0), [0] * 5),
        (np.array([[-np.inf, 3.0], [2.0, -np.inf]]), [0, 1]),
    ],
)
def test_scores_that_decide_nothing_have_temperature_1(scores, codes):
    assert temperature(scores, np.array(codes)) == 1.0


def test_a_row_whose_class_no_other_row_has_has_no_say():
    draw = np.random.default_rng(0)
    scores, codes = draw.normal(size=(30, 3)), draw.integers(2, size=30)
    lonely = np.append(scores, [[4.0, 1.0, -np.inf]], axis=0)
    assert temperature(lonely, np.append(codes, 2)) == temperature(scores, codes)


@pytest.mark.parametrize("size", [1e-290, 1e-30, 1e30, 1e290])
def test_scores_of_any_size_have_a_positive_temperature(size):
    draw = np.random.default_rng(0)
    scores, codes = size * draw.normal(size=(30, 3)), draw.integers(3, size=30)
    heat = temperature(scores, codes)
    assert 0 < heat < np.inf
    np.testing.assert_allclose(probabilities(scores, heat).sum(axis=1), 1)


def test_a_class_of_score_minus_infinity_has_probability_0():
    chances = probabilities(np.array([[0.0, -np.inf, 0.0], [800.0, 0.0, -800.0]]), 1.0)
    np.testing.assert_allclose(chances, [[0.5, 0, 0.5], [1, 0, 0]], atol=1e-300)
