"""The guard: standard errors of a paired difference, on the same rows or groups."""

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.guard import check_guard, mean_and_error, surely_better
from sporeprint.predictors.groups import groups_of


def gains(gained, lost, rows):
    """The change of each row: +1 where gained, -1 where lost."""
    change = np.zeros(rows)
    change[:gained], change[rows - lost :] = 1, -1
    return change


def test_a_paired_error_is_worked_by_hand():
    # Of ten rows three are gained, one is lost: mean 0.2, variance (4 - 10 * 0.04) / 9 = 0.4, error sqrt(0.04) = 0.2.
    assert mean_and_error(gains(3, 1, 10)) == pytest.approx((0.2, 0.2))
    assert surely_better(gains(3, 1, 10), 0.999)
    assert not surely_better(gains(3, 1, 10), 1.001)


def test_no_change_and_a_loss_are_never_better():
    assert not surely_better(np.zeros(5), 0)
    assert not surely_better(gains(1, 3, 10), 0)


def test_rows_of_one_group_count_once():
    change = np.random.default_rng(0).standard_normal(12) + 0.3
    repeated = groups_of(np.tile(np.arange(12), 4), 48)
    assert mean_and_error(np.tile(change, 4), repeated) == pytest.approx(mean_and_error(change))
    assert mean_and_error(np.tile(change, 4))[1] < 0.6 * mean_and_error(change)[1]
    # Two groups of two rows, of sums 2 and 0 around the mean 0.5: errors sqrt(2 / 1 * (1 + 1)) / 4 = 0.5.
    assert mean_and_error([1, 1, 1, -1], groups_of([0, 0, 1, 1], 4)) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("guard", [-1, float("nan"), float("inf")])
def test_a_guard_that_is_no_number_of_errors_is_refused(guard):
    with pytest.raises(SampleError, match="expected a number of standard errors"):
        check_guard(guard)
