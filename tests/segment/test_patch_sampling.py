import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.objectives.view_sets import generator
from sporeprint.segment.patch_sampling import choose, class_counts


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
        assert choose(histograms, count, np.random.default_rng(7), counts).tolist() == expected


def test_a_rare_class_is_taken_more_often_than_its_share():
    histograms = image(common=90, rare=10, void=0)
    rare = {
        name: sum((choose(histograms, 10, np.random.default_rng(s), counts) >= 90).sum() for s in range(300)) / 3000
        for name, counts in (("uniform", None), ("balanced", class_counts(histograms)))
    }
    assert rare["uniform"] == pytest.approx(0.1, abs=0.02)
    # scores of 90 patches over (0, 90) and of 10 over (0, 10): below t lie about t of each
    assert 0.4 < rare["balanced"] < 0.6


def test_uniform_choice_favours_no_patch():
    times = np.zeros(12)
    for seed in range(2000):
        times[choose(image(5, 5, 2), 3, np.random.default_rng(seed))] += 1
    assert (times[10:] == 0).all()
    np.testing.assert_allclose(times[:10] / 2000, 0.3, atol=0.05)


def test_void_patches_are_never_taken_and_few_are_all_taken():
    histograms = image(common=2, rare=1, void=5)
    for counts in (None, [2, 1]):
        assert choose(histograms, 6, np.random.default_rng(0), counts).tolist() == [0, 1, 2]
    assert choose(image(0, 0, 4), 3, np.random.default_rng(0), [1, 1]).tolist() == []
    assert choose(histograms, 0, np.random.default_rng(0)).dtype == np.int64


def test_the_choice_depends_on_the_image_alone():
    histograms = {name: image(20 + at, 5, 3) for at, name in enumerate("abc")}
    counts = sum(class_counts(one) for one in histograms.values())

    def chosen(order):
        return {name: choose(histograms[name], 4, generator(3, name, "bank"), counts).tolist() for name in order}

    assert chosen("abc") == chosen("cab")
    same = {choose(histograms["a"], 4, generator(3, name, "bank"), counts).tobytes() for name in "abc"}
    assert len(same) > 1, "two images like each other need not give the same patches"


@pytest.mark.parametrize("counts", [[1], [1, -1], [1, np.nan], [[1, 1]], [5, 0]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(SampleError, match="count"):
        choose(image(2, 1, 0), 2, np.random.default_rng(0), counts)


def test_a_grid_of_histograms_has_to_be_flattened_first():
    with pytest.raises(SampleError, match=r"\[patches, classes\]"):
        choose(np.ones((2, 2, 3)), 2, np.random.default_rng(0))
    with pytest.raises(SampleError, match="-1 patches"):
        choose(np.ones((2, 3)), -1, np.random.default_rng(0))
