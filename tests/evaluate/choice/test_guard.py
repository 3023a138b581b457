"""The guard: two standard errors of the paired difference, on the same rows."""

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.candidates import ALL, FREE
from sporeprint.evaluate.choice.guard import GUARD, check_guard, paired, surely_better
from sporeprint.evaluate.choice.select import recommended


def answers(gained, lost, rows):
    """Right and wrong of N rows: all but the lost are wrong before, all but the gained after."""
    before, after = np.zeros(rows, bool), np.zeros(rows, bool)
    before[rows - lost :] = True
    after[:gained] = True
    return before, after


def test_a_paired_error_is_worked_by_hand():
    # Of ten rows three are gained, one is lost: mean 0.2, variance (4 - 10 * 0.04) / 9 = 0.4, error sqrt(0.04) = 0.2.
    assert paired(*answers(3, 1, 10)) == pytest.approx((0.2, 0.2))
    assert surely_better(*answers(3, 1, 10), guard=0.999)
    assert not surely_better(*answers(3, 1, 10), guard=1.001)


def test_no_change_and_a_loss_are_never_better():
    assert not surely_better(*answers(0, 0, 5), guard=0)
    assert not surely_better(*answers(1, 3, 10), guard=0)


@pytest.mark.parametrize(("gained", "name"), [(1, FREE), (3, FREE), (4, ALL), (20, ALL)])
def test_more_passes_are_recommended_only_above_two_standard_errors(gained, name):
    # Of 100 rows g are gained and none is lost: mean g / 100, variance g (100 - g) / (100 * 99). The mean is above two
    # errors where 99 g > 4 (100 - g), that is g > 400 / 103 = 3.9.
    assert recommended(*answers(gained, 0, 100)) == name
    assert GUARD == 2


@pytest.mark.parametrize("guard", [-1, float("nan"), float("inf")])
def test_a_guard_that_is_no_number_of_errors_is_refused(guard):
    with pytest.raises(SampleError, match="expected a number of standard errors"):
        check_guard(guard)
