import math

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.segment.vote import vote


def test_a_worked_example():
    similarities = np.array([[0.02 * math.log(3), 0.0]])  # weights 3/4 and 1/4
    found = vote(similarities, np.array([[[1.0, 0.0], [0.2, 0.8]]]), temperature=0.02)
    np.testing.assert_allclose(found, [[0.8, 0.2]], rtol=1e-5)
    assert found.dtype == np.float32


def test_equals_a_loop_over_neighbours():
    random = np.random.default_rng(0)
    similarities = random.uniform(-1, 1, (6, 4))
    histograms = random.dirichlet(np.ones(3), (6, 4)).astype(np.float16)
    found = vote(similarities, histograms, temperature=0.1)
    for query in range(6):
        weights = [math.exp(one / 0.1) for one in similarities[query]]
        for label in range(3):
            expected = sum(w * float(h[label]) for w, h in zip(weights, histograms[query], strict=True)) / sum(weights)
            assert found[query, label] == pytest.approx(expected, rel=1e-4)


def test_a_tiny_temperature_takes_the_nearest_without_overflow():
    found = vote(np.array([[0.9, 0.8]]), np.array([[[0.0, 1.0], [1.0, 0.0]]]), temperature=1e-6)
    assert found.tolist() == [[0, 1]]


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(SampleError, match="temperature"):
        vote(np.ones((1, 1)), np.ones((1, 1, 2)), temperature)
