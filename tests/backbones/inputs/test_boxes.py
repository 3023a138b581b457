import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from sporeprint.backbones.inputs.boxes import resize_boxes
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.objectives.views.image import Crops, Patches


def noise(width, height, seed=0):
    """Black and white pixels: a bicubic resize overshoots everywhere."""
    return Image.fromarray(np.random.default_rng(seed).choice([0, 130, 255], (height, width, 3)).astype(np.uint8))


def slowly(image, boxes, size):
    """Each box by itself through torch, in double precision but for the weights: [V, 3, size, size]."""
    cuts = [torch.tensor(np.array(image.crop(box))).permute(2, 0, 1).float() for box in boxes]
    resized = [interpolate(cut[None], size=(size, size), mode="bicubic", antialias=True) for cut in cuts]
    return torch.cat(resized).clamp(0, 255)


def grid(size, side, starts):
    return [(left, top, left + side, top + side) for top in starts for left in starts]


CASES = {
    "the paper's patches": (noise(64, 64), grid(64, 32, range(0, 32, 5)), 64),
    "two by two": (noise(48, 48), grid(48, 24, (0, 24)), 48),
    "uneven steps, in another order": (noise(48, 48), grid(48, 24, (0, 5, 7, 24))[::-1], 48),
    "the same one four times": (noise(40, 40), [(3, 5, 23, 25)] * 4, 40),
    "the smallest that are shared": (noise(20, 20), grid(16, 8, (0, 2, 3, 4)), 16),
    "smaller than that": (noise(20, 20), grid(12, 6, (0, 2, 3, 4)), 12),
    "an odd size": (noise(33, 33), grid(33, 16, range(0, 17, 4)), 33),
    "far apart": (noise(300, 200), [(0, 0, 16, 16), (284, 184, 300, 200), (0, 100, 16, 116), (8, 8, 24, 24)], 32),
    "larger": (noise(60, 45), [(0, 0, 7, 5), (3, 4, 33, 20), (59, 0, 60, 45)], 64),
    "smaller": (noise(301, 205), [(0, 0, 301, 205), (7, 9, 130, 190), (0, 0, 97, 33)], 32),
    "three times": (noise(60, 60), grid(60, 20, (0, 10, 40)), 60),
    "as it is": (noise(60, 60), grid(60, 30, (0, 10, 30)), 30),
}


@pytest.mark.parametrize(("image", "boxes", "size"), CASES.values(), ids=CASES)
def test_boxes_are_what_torch_makes_of_each_by_itself(image, boxes, size):
    torch.testing.assert_close(resize_boxes(image, boxes, size), slowly(image, boxes, size), rtol=0, atol=1e-4)


def test_levels_are_scaled_and_shifted_then_clipped_whatever_their_sign():
    image, boxes = noise(64, 64), grid(64, 32, range(0, 32, 10))
    gain, shift = (0.5, -2.0, 0.01), (3.0, 100.0, -1.0)
    by, plus = (torch.tensor(levels).view(3, 1, 1) for levels in (gain, shift))
    for subset in (boxes, [*boxes, (0, 0, 31, 32)]):  # shared, and each by itself
        expected = slowly(image, subset, 64) * by + plus
        torch.testing.assert_close(resize_boxes(image, subset, 64, gain, shift), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(50, 41), (400, 300)])
@pytest.mark.parametrize("augmentation", [Patches(), Patches(4), Crops()], ids=repr)
def test_views_are_normalised_as_the_plain_one_is(augmentation, size):
    image = noise(*size)
    preprocess = Preprocess(size=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    plain = Preprocess(size=64, mean=(0,) * 3, std=(1,) * 3, scale=1.0)
    mean, std = (torch.tensor(levels).view(3, 1, 1) for levels in (preprocess.mean, preprocess.std))
    normalised, pixels = (augmentation(image, processor, np.random.default_rng(1)) for processor in (preprocess, plain))
    torch.testing.assert_close(normalised, (pixels / 255 - mean) / std, rtol=0, atol=1e-5)


def test_views_hold_no_more_memory_than_their_own():
    views = Patches()(noise(50, 50), Preprocess(size=32), np.random.default_rng(0))
    assert views.untyped_storage().nbytes() == views.numel() * 4
    assert views.is_contiguous()
