"""What the training rows promise, against what test rows show."""

import pytest

from sporeprint.run.promises import accuracy_note, clearly_fewer, coverage_note


@pytest.mark.parametrize(("of", "clearly"), [(18, False), (97, False), (99, True), (200, True)])
def test_one_wrong_row_breaks_the_promise_of_enough_right_ones(of, clearly):
    """Laplace's rule: after `of` right rows and no wrong one, the next is wrong with a chance of 1 in of + 2."""
    assert clearly_fewer(0, 1, of, of) is clearly
    assert bool(accuracy_note(0, 1, of, of)) is clearly


@pytest.mark.parametrize(("training", "error", "clearly"), [(199, 0.005, True), (99, 0.04, False)])
def test_one_set_without_its_label_has_the_chance_that_was_stated(training, error, clearly):
    assert bool(coverage_note(0, 1, training, error)) is clearly


def test_rows_that_were_chosen_by_get_one_standard_error():
    assert clearly_fewer(80, 100, 900, 1000)
    assert not clearly_fewer(80, 100, 45, 50)  # 0.9 as well, of few rows
    assert not clearly_fewer(28, 50, 42, 60)  # 0.7 promised: one standard error below is 0.64


def test_as_many_as_promised_are_no_surprise():
    assert not clearly_fewer(90, 100, 900, 1000)
    assert clearly_fewer(80, 100, 900, 1000)
    assert coverage_note(95, 100, 1000, 0.05) == []
    (note,) = coverage_note(80, 100, 1000, 0.05)
    assert "than an error of 0.05 allows (80.0% of 100)" in note
