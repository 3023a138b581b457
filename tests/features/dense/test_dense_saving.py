from __future__ import annotations

import numpy as np
import pytest

from small import noise_pictures, small_backbone
from sporeprint import Combination, Copies, Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.errors import NotFitted

DENSE = Dense(
    objectives=(TokenSimCLR(), TokenKL()),
    layers=(1,),
    copies=Copies(shifts=2),
    size=32,
    combination=Combination(("embedding", "layers", "gradients"), whiten="auto", exponent=0.5),
)


def test_saved_features_of_patches_come_back_as_they_were(tmp_path):
    pictures = noise_pictures(4)
    fungi = Fungi(Recipe(dtype="float32", dense=DENSE, size=20), backbone=small_backbone()).fit_dense(pictures)
    expected = fungi.dense(pictures)
    assert expected.shape == (4, 8, 8, 20)
    fungi.save(tmp_path / "fungi")
    loaded = Fungi.load(tmp_path / "fungi", backbone=small_backbone())
    np.testing.assert_allclose(loaded.dense(pictures), expected, atol=1e-6)


def test_what_was_not_fitted_is_not_saved(tmp_path):
    fungi = Fungi(Recipe(dtype="float32", dense=DENSE), backbone=small_backbone())
    fungi.save(tmp_path / "fungi")
    loaded = Fungi.load(tmp_path / "fungi", backbone=small_backbone())
    with pytest.raises(NotFitted, match="fit_dense"):
        loaded.dense(noise_pictures(1))


def test_another_recipe_is_not_fitted_yet():
    fungi = Fungi(Recipe(dtype="float32", dense=DENSE), backbone=small_backbone()).fit_dense(noise_pictures(2))
    assert fungi.fitted_dense
    fungi.recipe = Recipe(dtype="float32", dense=DENSE, seed=1)
    assert not fungi.fitted_dense
