from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from small import noise_pictures, small_backbone
from sporeprint import Copies, Dense, Fungi, Recipe, TokenKL
from sporeprint.errors import RecipeError
from sporeprint.features.dense.copies import Copy, add_copy


def ramp(height: int, width: int) -> torch.Tensor:
    """[3, H, W]: each pixel's row, column and a constant, at the pixels' centres."""
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([rows, columns, torch.ones(height, width)])


def patch_means(image: torch.Tensor, patch: int) -> torch.Tensor:
    """A backbone whose token is its patch's mean colour: [h, w, 3]."""
    return torch.nn.functional.avg_pool2d(image, patch).permute(1, 2, 0)


@pytest.mark.parametrize(("down", "right", "flipped"), list(itertools.product((-3, 0, 5), (-2, 0, 4), (False, True))))
def test_a_copy_in_register_says_where_it_lies_in_the_image(down: int, right: int, flipped: bool) -> None:
    height, width, patch = 64, 80, 8
    copy = Copy(height, width, down, right, flipped)
    placed = copy.register(patch_means(copy(ramp(height, width)), patch), (16, 20))
    rows = (np.arange(16) + 0.5) * height / 16
    columns = (np.arange(20) + 0.5) * width / 20
    inside = placed[3:-3, 3:-3].numpy()  # at the border a patch is cut off, and its neighbour stands in
    np.testing.assert_allclose(inside[..., 0], np.broadcast_to(rows[3:-3, None], (10, 14)), atol=1e-3)
    np.testing.assert_allclose(inside[..., 1], np.broadcast_to(columns[None, 3:-3], (10, 14)), atol=1e-3)
    np.testing.assert_allclose(placed[..., 2], 1, atol=1e-6)


def test_a_scaled_copy_lies_where_the_image_does() -> None:
    small, large = Copy(32, 40), Copy(48, 60)
    shrunk = patch_means(torch.nn.functional.interpolate(ramp(32, 40)[None], (48, 60), mode="bilinear")[0], 4)
    np.testing.assert_allclose(
        large.register(shrunk, (8, 10))[1:-1, 1:-1].numpy(),
        small.register(patch_means(ramp(32, 40), 4), (8, 10))[1:-1, 1:-1].numpy(),
        atol=1e-3,
    )


def test_what_is_moved_in_repeats_the_border() -> None:
    image = torch.arange(12.0).view(1, 3, 4).expand(3, 3, 4)
    moved = Copy(3, 4, down=1, right=-1)(image)
    assert moved[0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert Copy(3, 4, down=1, right=-1, flipped=True)(image)[0].tolist() == [[3, 3, 2, 1], [3, 3, 2, 1], [7, 7, 6, 5]]


def test_two_shifts_give_the_centres_of_a_grid_twice_as_fine() -> None:
    copies = Copies(shifts=2).of(32, 48, 16)
    assert [(copy.down, copy.right) for copy in copies] == [(-4, -4), (-4, 4), (4, -4), (4, 4)]
    assert Copies(shifts=2).grid(32, 48, 16) == (4, 6)
    moved = patch_means(copies[0](ramp(32, 48)), 16)  # its content moved up and left: tokens lie further down and right
    placed = copies[0].register(moved, (4, 6))
    np.testing.assert_allclose(placed[1, 1].numpy(), moved[0, 0].numpy(), atol=1e-4)


def test_copies_of_an_image_count_as_what_they_cost() -> None:
    assert Copies().passes == 1
    assert Copies(shifts=2, flip=True, scales=(1.0, 1.5)).passes == 4 * 2 * 3.25
    assert len(Copies(shifts=2, flip=True, scales=(1.0, 1.5)).of(32, 32, 16)) == 16
    assert {(copy.height, copy.width) for copy in Copies(scales=(0.5, 1.5)).of(32, 64, 16)} == {(16, 32), (48, 96)}


def test_the_sum_is_of_directions() -> None:
    once = add_copy(None, Copy(16, 16), torch.tensor([[[3.0, 0.0]]]), (1, 1))
    twice = add_copy(once, Copy(16, 16), torch.tensor([[[0.0, 1e-12]]]), (1, 1))
    np.testing.assert_allclose(twice.numpy(), [[[1, 1]]], rtol=1e-6)


def test_dense_features_with_copies_are_the_mean_of_those_of_each_copy() -> None:
    picture = noise_pictures(1)[0]
    backbone = small_backbone()
    dense = Dense(objectives=(TokenKL(),), size=(32, 24), copies=Copies(shifts=2, flip=True, scales=(1.0, 1.5)))
    fungi = Fungi(Recipe(dtype="float32", dense=dense), backbone=backbone).fit_dense([picture])
    (_, blocks), *_ = fungi.patches.blocks([("a", picture)])
    total = torch.zeros(8, 6, 16)
    for copy in dense.copies.of(32, 24, 8):
        image = copy(backbone.preprocess.at(picture, copy.height, copy.width))
        tokens = backbone.module(image.unsqueeze(0))[0, 1:].detach().view(copy.height // 8, copy.width // 8, 16)
        total += copy.register(tokens / tokens.norm(dim=-1, keepdim=True), (8, 6))
    expected = total / total.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(blocks["embedding"], expected.numpy(), atol=1e-5)
    assert blocks["kl"].shape == (8, 6, 16)


@pytest.mark.parametrize(
    "settings", [{"shifts": 0}, {"shifts": True}, {"flip": 1}, {"scales": ()}, {"scales": (1.0, -2)}]
)
def test_copies_that_cannot_be_are_refused(settings: dict) -> None:
    with pytest.raises(RecipeError, match="Copies"):
        Copies(**settings)
