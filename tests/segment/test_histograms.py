import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.segment.histograms import patch_histograms


def slow(labels, grid, classes, ignore):
    """Pixel by pixel: the patch whose half-open rectangle holds the pixel's centre."""
    counts = np.zeros((*grid, classes))
    for (y, x), label in np.ndenumerate(labels):
        if label not in ignore:
            counts[int((y + 0.5) / labels.shape[0] * grid[0]), int((x + 0.5) / labels.shape[1] * grid[1]), label] += 1
    for at in np.ndindex(grid):
        if counts[at].sum():
            counts[at] /= counts[at].sum()
    return counts


def test_a_worked_example_with_void_pixels():
    labels = np.array([[0, 0, 1, 9], [0, 1, 9, 9], [9, 9, 2, 2], [9, 9, 2, 2]])
    found = patch_histograms(labels, (2, 2), classes=3, ignore=(9,))
    assert found.dtype == np.float32
    assert found.tolist() == [[[0.75, 0.25, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]]


def test_three_pixels_over_two_patches_go_by_their_centres():
    found = patch_histograms(np.array([[0, 1, 2]], np.uint8), (1, 2), classes=3)  # the middle centre is on the border
    assert found.tolist() == [[[1, 0, 0], [0, 0.5, 0.5]]]


def test_a_patch_smaller_than_a_pixel_may_be_empty():
    assert patch_histograms(np.array([[1]]), (1, 3), classes=2).tolist() == [[[0, 0], [0, 1], [0, 0]]]


@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 99),
)
def test_equals_counting_pixel_by_pixel(size, grid, seed):
    labels = np.random.default_rng(seed).integers(-1, 6, size).astype(np.int32)
    found = patch_histograms(labels, grid, classes=5, ignore=(5, -1))
    np.testing.assert_allclose(found, slow(labels, grid, 5, (5, -1)), rtol=1e-6)


@pytest.mark.parametrize("stray", [3, 255, -1])
def test_a_value_that_is_neither_class_nor_void_is_named(stray):
    with pytest.raises(SampleError, match=str([stray]).replace("[", r"\[")):
        patch_histograms(np.array([[0, 1], [2, stray]]), (1, 1), classes=3, ignore=(7,))


def test_a_class_may_be_void():
    assert patch_histograms(np.array([[0, 1], [1, 1]]), (1, 1), classes=2, ignore=(0,)).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("labels", [np.zeros((2, 2, 3), int), np.zeros((2, 2)), np.zeros((0, 2), int)])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(SampleError, match="expected integers"):
        patch_histograms(labels, (1, 1), classes=2)
