import math

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.segment import vote as module
from sporeprint.segment.vote import upsample, upsample_with_shares, vote


def test_a_worked_example():
    similarities = np.array([[0.02 * math.log(3), 0.0]])  # weights 3/4 and 1/4
    votes = vote(similarities, np.array([[[1.0, 0.0], [0.2, 0.8]]]), temperature=0.02)
    np.testing.assert_allclose(votes, [[0.8, 0.2]], rtol=1e-5)
    assert votes.dtype == np.float32


def test_equals_a_loop_over_neighbours():
    random = np.random.default_rng(0)
    similarities = random.uniform(-1, 1, (6, 4))
    histograms = random.dirichlet(np.ones(3), (6, 4)).astype(np.float16)
    votes = vote(similarities, histograms, temperature=0.1)
    for query in range(6):
        weights = [math.exp(similarity / 0.1) for similarity in similarities[query]]
        for label in range(3):
            expected = sum(w * float(h[label]) for w, h in zip(weights, histograms[query], strict=True)) / sum(weights)
            assert votes[query, label] == pytest.approx(expected, rel=1e-4)


def test_a_tiny_temperature_takes_the_nearest_without_overflow():
    votes = vote(np.array([[0.9, 0.8]]), np.array([[[0.0, 1.0], [1.0, 0.0]]]), temperature=1e-6)
    assert votes.tolist() == [[0, 1]]


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(SampleError, match="temperature"):
        vote(np.ones((1, 1)), np.ones((1, 1, 2)), temperature)


def between(values, at):
    """Linear interpolation in a list, at a position in units of its cells, the border held."""
    at = min(max(at, 0), len(values) - 1)
    low = min(int(at), len(values) - 2) if len(values) > 1 else 0
    high = min(low + 1, len(values) - 1)
    return values[low] * (1 - (at - low)) + values[high] * (at - low)


def slow(probabilities, size):
    labels = np.zeros(size, int)
    for y, x in np.ndindex(size):
        down = between(list(probabilities), (y + 0.5) / size[0] * len(probabilities) - 0.5)
        across = between(list(down), (x + 0.5) / size[1] * len(down) - 0.5)
        labels[y, x] = across.argmax()
    return labels


def test_a_border_between_two_patches_falls_where_the_lines_cross():
    # the centres are at pixel 1.5 and 5.5; 1 - t crosses 0.8 t at pixel 3.72, and 0.2 t at 4.83
    actual = upsample(np.array([[[1.0, 0.0], [0.0, 0.8]]]), (1, 8))
    assert actual.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert upsample(np.array([[[1.0, 0.0], [0.0, 0.2]]]), (1, 8)).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("size", [(9, 14), (3, 5), (2, 31), (1, 1)])
def test_equals_interpolating_pixel_by_pixel(size):
    probabilities = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    actual = upsample(probabilities, size)
    assert actual.dtype == np.int32
    assert (actual == slow(probabilities.astype(float), size)).all()


def test_classes_in_parts_give_the_same_labels(monkeypatch):
    probabilities = np.random.default_rng(1).integers(0, 3, (4, 4, 7)).astype(np.float32)  # many ties
    whole = upsample(probabilities, (8, 12))
    for classes in (1, 2, 3):
        monkeypatch.setattr(module, "_NUMBERS", classes * 96)
        assert (upsample(probabilities, (8, 12)) == whole).all()
    same = upsample(np.full((2, 2, 5), 0.2, np.float32), (4, 4))
    assert not same.any(), "a tie goes to the lower class"


def test_the_share_of_a_label_is_interpolated_with_it():
    labels, shares = upsample_with_shares(np.array([[[0.9, 0.1], [0.2, 0.8]]]), (1, 4))  # centres at pixels 0.5, 2.5
    assert labels.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(shares, [[0.9, 0.725, 0.625, 0.8]], rtol=1e-6)


def test_what_is_no_grid_of_probabilities_is_refused():
    with pytest.raises(SampleError, match="patch rows"):
        upsample(np.zeros((4, 3), np.float32), (8, 8))
