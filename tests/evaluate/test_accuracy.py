"""The mean of the classes' accuracies."""

import numpy as np

from sporeprint.evaluate.accuracy import mean_per_class


def test_a_mean_over_classes_takes_those_that_test_rows_have():
    guess, labels = np.array([*"aaab"]), np.array([*"aabb"])
    assert mean_per_class(guess == labels, labels) == 0.75
    assert mean_per_class(np.array([True, True, True, False]), np.array([*"aaac"])) == 0.5
