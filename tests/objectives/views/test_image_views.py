import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from sporeprint import check_views
from sporeprint.backbones.inputs.boxes import resize_boxes
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import RecipeError
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.image import Crops, Patches, random_box
from sporeprint.objectives.views.whole import Whole


def raw(size):
    """Pixels as they are, 0 to 255."""
    return Preprocess(size=size, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)


def smooth(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def ramp(size):
    """Red is the column, green the row: the mean of a patch tells where its centre lies."""
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    return Image.fromarray(np.stack([column, row, np.zeros_like(row)], axis=-1).astype(np.uint8))


def rng(row_id="row", seed=0):
    return generator(seed, row_id, "test")


@pytest.mark.parametrize(("size", "side", "stride"), [(224, 112, 18), (32, 16, 2)])
def test_patches_are_a_seven_by_seven_grid_of_half_squares(size, side, stride):
    views = Patches()(ramp(size), raw(size), rng())
    assert views.shape == (49, 3, size, size)
    for number, view in enumerate(views):
        left, top = number % 7 * stride, number // 7 * stride
        centre = (side - 1) / 2
        # A resize is symmetric, so it keeps the mean of a ramp.
        assert view[0].mean().item() == pytest.approx(left + centre, abs=0.1)
        assert view[1].mean().item() == pytest.approx(top + centre, abs=0.1)
        # The corners are the patch's own pixels, spread: half a pixel and a bicubic's overshoot at most.
        assert view[0, 0, 0].item() == pytest.approx(left, abs=0.6)
        assert view[0, 0, -1].item() == pytest.approx(left + side - 1, abs=0.6)
        assert view[1, -1, 0].item() == pytest.approx(top + side - 1, abs=0.6)


def test_patches_squash_an_image_that_is_not_square():
    wide = ramp(32).resize((64, 32), Image.Resampling.BICUBIC)
    views = Patches(grid=7)(wide, raw(32), rng())
    assert views[0, 0].mean().item() == pytest.approx(7.5, abs=0.2)
    assert views[48, 0].mean().item() == pytest.approx(12 + 7.5, abs=0.2)
    assert views[48, 1].mean().item() == pytest.approx(12 + 7.5, abs=0.2)


@pytest.mark.parametrize(
    ("grid", "starts"),
    [(1, [56]), (2, [0, 112]), (3, [0, 56, 112]), (4, [0, 37, 74, 112]), (7, list(range(0, 109, 18)))],
)
def test_grids_other_than_the_papers_reach_from_edge_to_edge(grid, starts):
    assert Patches(grid).starts(224) == starts
    views = Patches(grid)(ramp(224), raw(224), rng())
    for number, view in enumerate(views):
        assert view[0].mean().item() == pytest.approx(starts[number % grid] + 55.5, abs=0.1)
        assert view[1].mean().item() == pytest.approx(starts[number // grid] + 55.5, abs=0.1)


def test_patches_of_half_the_side_are_the_squashed_images_own_pixels():
    image = smooth(50, 41)
    squashed = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    views = Patches(side=0.5)(image, replace(raw(32), patch=4), rng())
    assert views.shape == (49, 3, 16, 16)
    for number, view in enumerate(views):
        left, top = number % 7 * 2, number // 7 * 2
        np.testing.assert_allclose(view, squashed[:, top : top + 16, left : left + 16], atol=1e-4)


def test_crops_of_less_than_the_full_side_show_the_same_boxes():
    image, small = smooth(60, 45), replace(raw(64), patch=8)
    whole = Crops(2, 3)(image, small, rng())
    for augmentation, sizes in (
        (Crops(2, 3, local_side=0.5), [64, 64, 32, 32, 32]),
        (Crops(2, 3, side=0.5, local_side=0.5), [32] * 5),
    ):
        views = augmentation(image, small, rng())
        assert [view.shape[-1] for view in views] == sizes
        for view, full in zip(views, whole, strict=True):
            shrunk = interpolate(full[None], size=view.shape[1:], mode="bicubic", antialias=True)[0]
            assert (view - shrunk).abs().mean() < 2  # two resizes or one, of 256 levels
    assert isinstance(views, torch.Tensor)


def test_patches_are_cut_without_a_seam():
    """Each patch is what Pillow makes of that box of the squashed image."""
    image = smooth(50, 41)
    squashed = image.resize((32, 32), Image.Resampling.BICUBIC)
    views = Patches(grid=3)(image, raw(32), rng())
    for number, (top, left) in enumerate((y, x) for y in (0, 8, 16) for x in (0, 8, 16)):
        box = squashed.crop((left, top, left + 16, top + 16)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(box).transpose(2, 0, 1) - views[number].numpy()).max() <= 1.5


@pytest.mark.parametrize(
    ("width", "height", "size"), [(60, 45, 32), (20, 20, 32), (300, 200, 32), (31, 90, 64), (5, 7, 48)]
)
def test_resize_agrees_with_pillows_bicubic(width, height, size):
    # Not up to black and white: Pillow clips an overshoot between its two passes, we clip once, at the end.
    image = smooth(width, height).point(lambda value: 60 + value // 2)
    ours = resize_boxes(image, [(0, 0, width, height)], size)[0].numpy()
    pillow = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(ours - pillow).max() <= 1.5


def test_resized_noise_stays_between_black_and_white():
    noise = Image.fromarray(np.random.default_rng(0).choice([0, 255], (9, 9, 3)).astype(np.uint8))
    resized = resize_boxes(noise, [(0, 0, 9, 9), (0, 0, 4, 4)], 40)
    assert resized.min() >= 0
    assert resized.max() <= 255


def test_only_the_boxes_of_a_large_image_become_float_not_the_whole():
    image = Image.new("RGB", (2000, 1500))
    tracemalloc.start()
    try:
        resize_boxes(image, [(0, 0, 300, 200), (900, 900, 1000, 1100)], 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2000 * 1500 * 3  # its bytes; in float32 it is four times that


def test_boxes_of_different_shapes_keep_their_order():
    flat = np.zeros((10, 10, 3), dtype=np.uint8)
    flat[:5], flat[5:] = 50, 200
    resized = resize_boxes(Image.fromarray(flat), [(0, 6, 3, 9), (0, 0, 10, 4), (2, 6, 5, 9)], 8)
    assert [round(view.mean().item()) for view in resized] == [200, 50, 200]


def test_crops_are_two_global_and_ten_local_ones():
    views = Crops()(smooth(60, 45), raw(32), rng())
    assert views.shape == (12, 3, 32, 32)
    assert Crops().views == 12
    assert Crops(1, 3)(smooth(60, 45), raw(32), rng()).shape == (4, 3, 32, 32)


def test_crops_lie_where_the_ramp_says_and_global_ones_are_larger():
    for row in range(10):
        views = Crops()(ramp(200), raw(32), rng(str(row)))
        widths = (views[:, 0, 16, -1] - views[:, 0, 16, 0]).numpy()
        heights = (views[:, 1, -1, 16] - views[:, 1, 0, 16]).numpy()
        areas = widths * heights / 200**2  # half an output pixel is missing at each edge: 1/32 of each side
        assert (areas[:2] > 0.25 * 0.9).all()
        assert (areas[2:] > 0.05 * 0.85).all()
        assert (areas[2:] < 0.25 * 1.02).all()


@pytest.mark.parametrize("area", [(0.25, 1.0), (0.05, 0.25)])
def test_box_areas_and_aspects_stay_in_their_ranges_and_fill_them(area):
    draw = rng()
    boxes = np.array([random_box((350, 350), area, (3 / 4, 4 / 3), draw) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    fractions, aspects = widths * heights / 350**2, widths / heights
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 350
    assert boxes[:, 3].max() <= 350
    assert fractions.min() > area[0] * 0.97
    assert fractions.max() < area[1] * 1.03
    assert aspects.min() > 3 / 4 * 0.97
    assert aspects.max() < 4 / 3 * 1.03
    middle = sum(area) / 2
    assert 0.3 < (fractions < middle).mean() < 0.8  # large boxes are rejected more often, where they do not fit
    assert 0.4 < (np.log(aspects) < 0).mean() < 0.6
    if area[1] < 0.5:  # small ones land everywhere
        assert np.corrcoef(boxes[:, 0], boxes[:, 1])[0, 1] == pytest.approx(0, abs=0.1)
        assert boxes[:, 0].min() == boxes[:, 1].min() == 0
        assert boxes[:, 2].max() == boxes[:, 3].max() == 350


def test_an_aspect_that_cannot_be_had_gives_the_central_box():
    # 1000 x 10: no area of 0.9 with an aspect below 4/3 fits; width = 10 * 4/3, the whole height, centred
    assert random_box((1000, 10), (0.9, 1.0), (3 / 4, 4 / 3), rng()) == (493, 0, 506, 10)
    assert random_box((10, 1000), (0.9, 1.0), (3 / 4, 4 / 3), rng()) == (0, 493, 10, 506)


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (2, 3)])
@pytest.mark.parametrize("augmentation", [Whole(), Crops(), Patches()], ids=lambda a: type(a).__name__)
def test_the_smallest_and_thinnest_images_have_views(augmentation, size):
    views = raw(32).collate(augmentation(Image.new("RGB", size, (10, 200, 90)), raw(32), rng()))
    assert views.shape == (augmentation.views, 3, 32, 32)
    expected = torch.tensor([10.0, 200.0, 90.0]).view(1, 3, 1, 1).expand_as(views)
    torch.testing.assert_close(views, expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("augmentation", [Whole(), Crops(), Patches(3)], ids=lambda a: type(a).__name__)
def test_contract_same_seed_same_views_and_no_global_draw(augmentation):
    check_views(augmentation, smooth(60, 45), Preprocess(size=32))


def test_crops_depend_on_seed_row_and_objective():
    image, crops = smooth(60, 45), Crops()
    first = crops(image, raw(32), generator(0, "a", "dino"))
    assert torch.equal(first, crops(image, raw(32), generator(0, "a", "dino")))
    for other in (generator(1, "a", "dino"), generator(0, "b", "dino"), generator(0, "a", "dino-2")):
        assert not torch.equal(first, crops(image, raw(32), other))


def test_ids_that_join_alike_draw_differently():
    assert generator(1, "2a", "x").random() != generator(12, "a", "x").random()
    assert generator(0, "a", "bx").random() != generator(0, "ab", "x").random()


class TooFew:
    views = 3

    def __call__(self, image, preprocess, rng):
        return preprocess(image).unsqueeze(0)


class Unseeded(TooFew):
    def __call__(self, image, preprocess, rng):
        return preprocess(image).repeat(3, 1, 1, 1) * np.random.random()  # noqa: NPY002


class GlobalDraw(TooFew):
    def __call__(self, image, preprocess, rng):
        torch.rand(1)
        return preprocess(image).repeat(3, 1, 1, 1)


@pytest.mark.parametrize(
    ("augmentation", "complaint"),
    [(TooFew(), "3 promised"), (Unseeded(), "same seed"), (GlobalDraw(), "global generator")],
)
def test_contract_fails_on_broken_views(augmentation, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_views(augmentation, smooth(20, 20), raw(32))


def named(number, **more):
    return {"input_ids": [number, 5], "frames": torch.tensor(3), "is_longer": True, **more}


class Listed(TooFew):
    """Views as text and sound have them: named numbers, lists and tensors; `turn` changes those of a second call."""

    def __init__(self, turn=lambda views: views):
        self.turn, self.calls = turn, 0

    def __call__(self, image, preprocess, rng):
        self.calls += 1
        views = [named(number) for number in range(3)]
        return self.turn(views) if self.calls > 1 else views


def test_contract_holds_for_views_that_are_named_numbers():
    check_views(Listed(), "a text", None)


@pytest.mark.parametrize(
    "turn",
    [
        lambda views: [*views[:2], named(9)],
        lambda views: [*views[:2], {**views[2], "frames": torch.tensor(4)}],
        lambda views: [*views[:2], {**views[2], "more": 1}],
        lambda views: [{name: value for name, value in tensors.items() if name != "frames"} for tensors in views],
        lambda views: [*views[:2], {**views[2], "input_ids": [2, 5, 6]}],
        lambda views: views[::-1],
    ],
    ids=["a number", "a tensor", "one name more", "one name less", "longer", "order"],
)
def test_contract_sees_every_difference_of_named_views(turn):
    with pytest.raises(AssertionError, match="same seed"):
        check_views(Listed(turn), "a text", None)


@pytest.mark.parametrize("keep_aspect", [True, False])
def test_whole_is_the_backbones_own_preprocessing(keep_aspect):
    preprocess = Preprocess(size=32, resize=40, keep_aspect=keep_aspect)
    image = smooth(60, 45)
    (view,) = Whole()(image, preprocess, rng())
    assert view.shape == (3, 32, 32)
    assert torch.equal(view, preprocess(image))


def test_views_are_normalised_as_the_backbone_wants_them():
    grey = Image.new("RGB", (20, 20), (51, 102, 153))
    preprocess = Preprocess(size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.1))
    for augmentation in (Whole(), Crops(), Patches()):
        views = preprocess.collate(augmentation(grey, preprocess, rng()))
        for channel, value in enumerate([0.2, 0.8, 3.0]):  # (51 / 255 - 0.1) / 0.5, ...
            assert views[:, channel].numpy() == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crops(global_crops=0),
        lambda: Crops(local_crops=-1),
        lambda: Crops(local_area=(0.0, 0.5)),
        lambda: Crops(global_area=(0.9, 0.5)),
        lambda: Patches(0),
        lambda: Patches(8),
        lambda: Patches(side=0),
        lambda: Patches(side=1.5),
        lambda: Patches(side="half"),
        lambda: Crops(side=-1),
        lambda: Crops(local_side=True),
    ],
)
def test_views_that_cannot_be_made_are_refused(make):
    with pytest.raises(RecipeError, match="expected"):
        make()
