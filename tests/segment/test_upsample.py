import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.segment import upsample as module
from sporeprint.segment.upsample import upsample


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
    found = upsample(np.array([[[1.0, 0.0], [0.0, 0.8]]]), (1, 8))
    assert found.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    assert upsample(np.array([[[1.0, 0.0], [0.0, 0.2]]]), (1, 8)).tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("size", [(9, 14), (3, 5), (2, 31), (1, 1)])
def test_equals_interpolating_pixel_by_pixel(size):
    probabilities = np.random.default_rng(0).random((3, 5, 4)).astype(np.float32)
    found = upsample(probabilities, size)
    assert found.dtype == np.int32
    assert (found == slow(probabilities.astype(float), size)).all()


def test_classes_in_parts_give_the_same_labels(monkeypatch):
    probabilities = np.random.default_rng(1).integers(0, 3, (4, 4, 7)).astype(np.float32)  # many ties
    whole = upsample(probabilities, (8, 12))
    for classes in (1, 2, 3):
        monkeypatch.setattr(module, "_NUMBERS", classes * 96)
        assert (upsample(probabilities, (8, 12)) == whole).all()
    same = upsample(np.full((2, 2, 5), 0.2, np.float32), (4, 4))
    assert not same.any(), "a tie goes to the lower class"


def test_what_is_no_grid_of_probabilities_is_refused():
    with pytest.raises(SampleError, match="patch rows"):
        upsample(np.zeros((4, 3), np.float32), (8, 8))
