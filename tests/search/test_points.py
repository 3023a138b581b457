"""Squared distances of pairs, one part of the pairs after another."""

import numpy as np
import pytest

from sporeprint.search.points import points_of, squared_distances


@pytest.mark.parametrize("at_a_time", [1, 3, 100], ids=["one", "three: parts of one query and of two", "all"])
def test_pairs_of_one_query_and_of_several_have_the_same_distances(at_a_time, monkeypatch):
    monkeypatch.setattr("sporeprint.search.points.SMALL", 5 * at_a_time)
    rng = np.random.default_rng(0)
    train, queries = rng.normal(size=(7, 5)), rng.normal(size=(4, 5))
    rows, who = np.array([0, 3, 3, 6, 1, 2, 5, 4, 0]), np.array([0, 0, 1, 1, 1, 1, 1, 3, 3])
    squares = squared_distances(
        *(points_of(each, 1.0, "euclidean") for each in (train, queries)), rows, who, "euclidean"
    )
    np.testing.assert_allclose(
        squares, [((train[r] - queries[q]) ** 2).sum() for r, q in zip(rows, who, strict=True)], rtol=1e-14
    )
