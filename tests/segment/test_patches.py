import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.objectives.view_sets import generator
from sporeprint.segment.patches import class_counts, draw_patches, patch_histograms


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
    histograms = patch_histograms(labels, (2, 2), classes=3, ignore=(9,))
    assert histograms.dtype == np.float32
    assert histograms.tolist() == [[[0.75, 0.25, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]]


def test_three_pixels_over_two_patches_go_by_their_centres():
    # The middle centre is on the border.
    histograms = patch_histograms(np.array([[0, 1, 2]], np.uint8), (1, 2), classes=3)
    assert histograms.tolist() == [[[1, 0, 0], [0, 0.5, 0.5]]]


def test_a_patch_smaller_than_a_pixel_may_be_empty():
    assert patch_histograms(np.array([[1]]), (1, 3), classes=2).tolist() == [[[0, 0], [0, 1], [0, 0]]]


@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    grid=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 99),
)
def test_equals_counting_pixel_by_pixel(size, grid, seed):
    labels = np.random.default_rng(seed).integers(-1, 6, size).astype(np.int32)
    histograms = patch_histograms(labels, grid, classes=5, ignore=(5, -1))
    np.testing.assert_allclose(histograms, slow(labels, grid, 5, (5, -1)), rtol=1e-6)


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


def image(common, rare, void):
    """Patches of class 0, then of class 1, then void ones."""
    return np.repeat(np.float32([[1, 0], [0, 1], [0, 0]]), [common, rare, void], axis=0)


def test_counts_are_of_patches_that_have_the_class_however_little():
    histograms = np.array([[[0.9, 0.1, 0], [0, 0, 0]], [[0, 1, 0], [0.5, 0.5, 0]]])
    assert class_counts(histograms).tolist() == [2, 3, 0]
    assert class_counts(histograms.reshape(4, 3)).tolist() == [2, 3, 0]


def test_the_lowest_of_frequency_times_a_uniform_number_are_taken():
    histograms = np.float32([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]])
    counts = [3, 2, 1]
    uniform = np.random.default_rng(7).random(6)
    frequency = [3, 3 + 2, 1, None, 2, 3]
    scores = {at: uniform[at] * frequency[at] for at in range(6) if frequency[at] is not None}
    for count in range(7):
        expected = sorted(sorted(scores, key=scores.__getitem__)[:count])
        assert draw_patches(histograms, count, np.random.default_rng(7), counts).tolist() == expected


def test_a_rare_class_is_taken_more_often_than_its_share():
    histograms = image(common=90, rare=10, void=0)
    rare = {
        name: sum((draw_patches(histograms, 10, np.random.default_rng(s), counts) >= 90).sum() for s in range(300))
        / 3000
        for name, counts in (("uniform", None), ("balanced", class_counts(histograms)))
    }
    assert rare["uniform"] == pytest.approx(0.1, abs=0.02)
    # scores of 90 patches over (0, 90) and of 10 over (0, 10): below t lie about t of each
    assert 0.4 < rare["balanced"] < 0.6


def test_uniform_choice_favours_no_patch():
    times = np.zeros(12)
    for seed in range(2000):
        times[draw_patches(image(5, 5, 2), 3, np.random.default_rng(seed))] += 1
    assert (times[10:] == 0).all()
    np.testing.assert_allclose(times[:10] / 2000, 0.3, atol=0.05)


def test_void_patches_are_never_taken_and_few_are_all_taken():
    histograms = image(common=2, rare=1, void=5)
    for counts in (None, [2, 1]):
        assert draw_patches(histograms, 6, np.random.default_rng(0), counts).tolist() == [0, 1, 2]
    assert draw_patches(image(0, 0, 4), 3, np.random.default_rng(0), [1, 1]).tolist() == []
    assert draw_patches(histograms, 0, np.random.default_rng(0)).dtype == np.int64


def test_the_choice_depends_on_the_image_alone():
    histograms = {name: image(20 + at, 5, 3) for at, name in enumerate("abc")}
    counts = sum(class_counts(histogram) for histogram in histograms.values())

    def chosen(order):
        return {name: draw_patches(histograms[name], 4, generator(3, name, "bank"), counts).tolist() for name in order}

    assert chosen("abc") == chosen("cab")
    same = {draw_patches(histograms["a"], 4, generator(3, name, "bank"), counts).tobytes() for name in "abc"}
    assert len(same) > 1, "two images like each other need not give the same patches"


@pytest.mark.parametrize("counts", [[1], [1, -1], [1, np.nan], [[1, 1]], [5, 0]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(SampleError, match="count"):
        draw_patches(image(2, 1, 0), 2, np.random.default_rng(0), counts)


def test_a_grid_of_histograms_has_to_be_flattened_first():
    with pytest.raises(SampleError, match=r"\[patches, classes\]"):
        draw_patches(np.ones((2, 2, 3)), 2, np.random.default_rng(0))
    with pytest.raises(SampleError, match="-1 patches"):
        draw_patches(np.ones((2, 3)), -1, np.random.default_rng(0))
