import tracemalloc

import numpy as np
import pytest

from sporeprint.predictors import votes
from sporeprint.predictors.votes import weights_of, winners


def alike(rows):
    return np.ones(np.shape(rows))


def rising(rows):
    return np.broadcast_to(np.arange(np.shape(rows)[1], dtype=float), np.shape(rows))


def test_many_rows_of_many_classes_are_voted_on_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(votes, "MOST_COUNTS", 2**18)
    cast = np.random.default_rng(0).integers(0, 2000, (20_000, 3))
    cast[::2, 2] = cast[::2, 1]  # half of the rows have a majority that is not the nearest
    expected = np.where(cast[:, 1] == cast[:, 2], cast[:, 1], cast[:, 0])
    weights = alike(cast)
    tracemalloc.start()
    actual = winners(cast, weights, rising(cast), 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(actual, expected)
    assert peak < 5e6  # all sums at once: 20,000 rows x 2,000 classes x 8 bytes = 320 MB


def test_classes_beyond_the_chunk_are_voted_on_row_by_row():
    cast = np.array([[3, 1, 1], [5_000_000, 0, 2]])
    assert winners(cast, alike(cast), rising(cast), 5_000_001).tolist() == [1, 5_000_000]


@pytest.mark.parametrize(
    ("cast", "weights", "wins"),
    [
        ([2, 1, 1], [1, 1, 1], 1),
        ([2, 1, 1, 2], [1, 1, 1, 1], 2),
        ([2, 1, 1], [1.0, 0.5, 0.5], 2),
        ([2, 1, 1], [1.0, 0.5, 0.51], 1),
        ([0, 2, 1, 2, 1], [0.1, 0.3, 0.2, 0.1, 0.2], 2),
    ],
)
def test_the_greatest_sum_wins_and_of_equal_ones_the_nearest(cast, weights, wins):
    assert winners(np.array([cast]), np.array([weights]), rising([cast]), 3).tolist() == [wins]


def test_of_equal_sums_and_equally_near_members_the_first_class_wins():
    thirds, near = np.full((1, 6), 1 / 3), np.zeros((1, 6))
    for cast in ([2, 1, 2, 1, 2, 1], [1, 1, 1, 2, 2, 2], [2, 2, 2, 1, 1, 1]):
        assert winners(np.array([cast]), thirds, near, 3).tolist() == [1]


def test_sums_that_only_rounding_keeps_apart_are_equal():
    cast, weights = np.array([[1, *[0] * 10]]), np.array([[1.0, *[0.1] * 10]])  # ten tenths are 0.9999999999999999
    assert winners(cast, weights, rising(cast), 2).tolist() == [1]
    assert winners(cast, weights, rising(cast)[:, ::-1], 2).tolist() == [0]


def test_weights_by_distance_are_relative_to_the_nearest():
    weights = weights_of(np.array([[0.5, 1.0, 2.0]]), "distance")
    np.testing.assert_array_equal(weights, [[1.0, 0.5, 0.25]])


def test_exact_matches_take_all():
    weights = weights_of(np.array([[0.0, 0.0, 1e-300]]), "distance")
    np.testing.assert_array_equal(weights, [[1.0, 1.0, 0.0]])


def test_distances_too_small_to_be_divided_by_still_weigh():
    weights = weights_of(np.array([[5e-324, 1e-323]]), "distance")
    np.testing.assert_array_equal(weights, [[1.0, 0.5]])


def test_softmax_weights_are_of_the_cosine_or_of_half_the_squared_distance():
    distances = np.array([[0.1, 0.3]])
    np.testing.assert_allclose(weights_of(distances, "softmax", "cosine", 0.07), [[1, np.exp(-0.2 / 0.07)]])
    np.testing.assert_allclose(weights_of(distances, "softmax", "euclidean", 0.07), [[1, np.exp(-0.08 / 0.14)]])


def test_a_softmax_of_far_neighbours_does_not_vanish():
    np.testing.assert_array_equal(weights_of(np.array([[1e6, 1e6]]), "softmax"), [[1.0, 1.0]])


@pytest.mark.parametrize("vote", ["uniform", "distance", "softmax"])
def test_no_neighbours_have_no_weights(vote):
    assert weights_of(np.empty((3, 0)), vote).shape == (3, 0)
