"""What the training rows promise, against what test rows show."""

import pytest

from sporeprint.run.promises import accuracy_note, coverage_note, surely_fewer


@pytest.mark.parametrize(("of", "surely"), [(17, False), (18, False), (19, True), (38, True)])
def test_one_wrong_row_breaks_the_promise_of_enough_right_ones(of, surely):
    """Laplace's rule: after `of` right rows and no wrong one, the next is wrong with a chance of 1 in of + 2."""
    assert surely_fewer(0, 1, of, of) is surely
    assert bool(accuracy_note(0, 1, of, of)) is surely


@pytest.mark.parametrize(("error", "surely"), [(0.04, True), (0.06, False)])
def test_one_set_without_its_label_has_the_chance_that_was_stated(error, surely):
    assert bool(coverage_note(0, 1, 99, error)) is surely


def test_as_many_as_promised_are_no_surprise():
    assert not surely_fewer(90, 100, 900, 1000)
    assert surely_fewer(80, 100, 900, 1000)
    assert coverage_note(95, 100, 1000, 0.05) == []
    (note,) = coverage_note(80, 100, 1000, 0.05)
    assert "than an error of 0.05 allows (80.0% of 100)" in note
