"""Sums of rows by class, which the closed forms share."""

import numpy as np

from sporeprint.predictors.principal import sums_by_class


def test_rows_are_added_up_by_class_and_a_class_without_rows_has_zeros():
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [3.0, 4.0], [5.0, 6.0]])
    sums = sums_by_class(rows, np.array([2, 0, 2, 3]), np.array([5.0, 1.0, 2.0, 1.0, 7.0]))
    assert sums.tolist() == [[10.0, 20.0], [0.0, 0.0], [4.0, 6.0], [5.0, 6.0], [0.0, 0.0]]
