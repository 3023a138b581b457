import numpy as np
import pytest
import torch

from small import noise_pictures
from sporeprint import check_views
from sporeprint.backbones.preprocess import Preprocess
from sporeprint.errors import RecipeError
from sporeprint.values import from_json, to_json
from sporeprint.views.subsets import Scatter, Windows
from sporeprint.viewset import ViewSet, generator

PREPROCESS = Preprocess(size=32, patch=8)  # 4 x 4 patches
BOTH = pytest.mark.parametrize("augmentation", [Windows(), Scatter()], ids=repr)


def test_windows_are_squares_of_patches_that_reach_from_edge_to_edge():
    assert Windows(2).kept(4).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    # 3 of 5 a side, starting at 0, 1, 2
    kept = Windows(3, side=0.6).kept(5)
    assert kept.shape == (9, 9)
    assert kept[0].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert kept[5].tolist() == [7, 8, 9, 12, 13, 14, 17, 18, 19]
    assert kept[8].tolist() == [12, 13, 14, 17, 18, 19, 22, 23, 24]
    assert Windows(1).kept(4).tolist() == [[5, 6, 9, 10]]
    assert Windows(7).kept(14).shape == (49, 49)
    assert set(Windows(7).kept(14).ravel()) == set(range(196))
    assert Windows(1, side=0.01).kept(4).shape == (1, 1)


def test_scattered_patches_differ_between_views_and_rows_and_none_comes_twice_in_a_view():
    image, scatter = noise_pictures(1)[0], Scatter(views=40, keep=0.5)
    kept = torch.stack([view["kept"] for view in scatter(image, PREPROCESS, generator(0, "row", "x"))])
    assert kept.shape == (40, 8)
    assert all(len(set(one.tolist())) == 8 for one in kept)
    assert len({tuple(one.tolist()) for one in kept}) > 35
    counts = torch.bincount(kept.ravel(), minlength=16)  # each about 20 times
    assert counts.min() >= 8
    assert counts.max() <= 32
    other = scatter(image, PREPROCESS, generator(0, "other", "x"))
    assert not torch.equal(kept, torch.stack([view["kept"] for view in other]))


@BOTH
def test_every_view_is_of_the_plain_one(augmentation):
    image = noise_pictures(1)[0]
    views = augmentation(image, PREPROCESS, generator(0, "row", "x"))
    assert len(views) == augmentation.views == 9
    assert len({id(view["pixel_values"]) for view in views}) == 1
    assert torch.equal(views[0]["pixel_values"], PREPROCESS(image))


@BOTH
def test_contract_same_seed_same_views(augmentation):
    check_views(augmentation, noise_pictures(1)[0], PREPROCESS)


@BOTH
def test_json_comes_back(augmentation):
    assert from_json(to_json(augmentation)) == augmentation


def test_cost_is_the_share_of_patches():
    assert ViewSet("x", Windows(3), ()).cost(PREPROCESS) == 9 / 4
    assert ViewSet("x", Scatter(views=10, keep=0.2), ()).cost(PREPROCESS) == 10 * 3 / 16


@BOTH
def test_batches_hold_each_image_once(augmentation):
    rows = [augmentation(image, PREPROCESS, generator(0, str(at), "x")) for at, image in enumerate(noise_pictures(3))]
    batch = PREPROCESS.collate([view for views in rows for view in views])
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert batch["patches"].tolist() == [16, 16, 16]
    for row, views in enumerate(rows):
        assert torch.equal(batch["pixel_values"][row], views[0]["pixel_values"])
        assert torch.equal(batch["kept"][row], torch.stack([view["kept"] for view in views]))
    part = PREPROCESS.collate(rows[1][4:7])
    assert (len(part["pixel_values"]), tuple(part["kept"].shape[:2])) == (1, (1, 3))


def test_where_the_patches_are_not_known_they_are_asked_for():
    with pytest.raises(
        RecipeError, match=r"patches is not known; use Patches or Crops at full size.*Preprocess\(\.\.\., patch=16\)"
    ):
        Windows()(noise_pictures(1)[0], Preprocess(size=32), np.random.default_rng(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Windows(0),
        lambda: Windows(2.5),
        lambda: Windows(side=0),
        lambda: Windows(side=1.1),
        lambda: Scatter(views=0),
        lambda: Scatter(keep=0.0),
        lambda: Scatter(keep=True),
    ],
)
def test_subsets_that_cannot_be_made_are_refused(make):
    with pytest.raises(RecipeError, match="expected"):
        make()
