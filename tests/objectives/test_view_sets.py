"""Negatives from the first views of augmentations that can only make all of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import Fungi, Recipe, SimCLR
from sporeprint.objectives.view_sets import ViewSet
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions

MIXED = Crops(2, 4, local_side=0.5)  # 32, 32, 16, 16, 16, 16 pixels


@dataclass(frozen=True)
class Turned:
    """Nothing but the call and the number of views."""

    views: ClassVar[int] = 4

    def __call__(self, image, preprocess, rng):
        whole = preprocess(image)
        return torch.stack([torch.rot90(whole, turns, (1, 2)) for turns in range(4)])


def latents(augmentation, negative_views):
    objective = SimCLR(latent=6, augmentation=augmentation, negatives=3, negative_views=negative_views)
    fungi = Fungi(Recipe(objectives=[objective]), backbone=small_backbone(dtype=torch.float64))
    preprocess = fungi.network.preprocess
    rows = [(str(at), preprocess.prepare(image)) for at, image in enumerate(noise_pictures(3))]
    return fungi.engine.encode(fungi.engine.objectives[0], rows)


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("augmentation", [Patches(2), MIXED, Turned()], ids=repr)
def test_negatives_are_of_the_first_views(augmentation, views):
    everything = latents(augmentation, None)
    assert everything.shape == (3, augmentation.views, 6)
    torch.testing.assert_close(latents(augmentation, views), everything[:, :views])
    assert not torch.allclose(everything[:, 0], everything[:, -1])


def test_a_bank_of_two_patches_of_each_image():
    objective = SimCLR(latent=6, augmentation=Patches(2), negatives=3, negative_views=2)
    fungi = Fungi(Recipe(objectives=[objective]), backbone=small_backbone()).fit(noise_pictures(4))
    assert fungi.negatives["simclr"].shape == (3 * 2, 6)


@pytest.mark.parametrize(
    ("augmentation", "views", "expected"),
    [
        (Patches(7, side=0.5), 4, 1),
        (MIXED, 3, 2.25),
        (Turned(), 3, 3),
    ],
    ids=repr,
)
def test_the_first_views_cost_their_share(augmentation, views, expected):
    subset = ViewSet("x", augmentation, ()).first(views)
    assert subset.views == views
    assert subset.cost(small_backbone().preprocess) == expected


def test_an_augmentation_that_can_makes_only_those():
    assert ViewSet("x", Deletions(12), ()).first(2).augmentation == Deletions(2)
