"""Settings that would be ignored, values that cannot be, and parameters changed after fitting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from small import noise_pictures, small_backbone
from sporeprint import DINO, KL, Combination, Fungi, Recipe, SimCLR, knn
from sporeprint.errors import LayerError, NotFitted, RecipeError, SampleError, StoreError
from sporeprint.gradients.projections.projection import Dense
from sporeprint.objectives import Objective
from sporeprint.objectives.views.image import Patches

KL_ = KL(latent=8)
RECIPE = Recipe(objectives=[KL_], dim=8, layers=0)


def fitted(recipe=RECIPE, **options):
    return Fungi(recipe, backbone=small_backbone(), **options).fit(noise_pictures(6))


@pytest.mark.parametrize(
    ("recipe", "device", "complaint"),
    [
        (Recipe(objectives=[KL_], pooling="mean"), None, "recipe's pooling is 'mean', .* given is 'cls'"),
        (RECIPE, "cuda:7", "device='cuda:7', but the backbone given is on cpu"),
        (RECIPE, "no such device", "device 'no such device'"),
    ],
)
def test_settings_that_a_given_backbone_cannot_follow_are_refused(recipe, device, complaint):
    with pytest.raises(RecipeError, match=complaint):
        Fungi(recipe, backbone=small_backbone(), device=device).blocks(noise_pictures(1))


def test_settings_that_agree_with_the_given_backbone_are_taken():
    recipe = Recipe(objectives=[KL_], pooling="cls", dim=8)
    for device in ("cpu", torch.device("cpu"), "cpu:0"):
        assert Fungi(recipe, backbone=small_backbone(), device=device).blocks(noise_pictures(1))["kl"].shape == (1, 8)


def test_a_device_set_after_fitting_is_not_ignored():
    fungi = Fungi(Recipe(backbone="tiny", objectives=[KL_], dim=8, layers=0), device="cpu").fit(noise_pictures(3))
    fungi.set_params(device="no such device")
    with pytest.raises(NotFitted, match="device"):
        fungi.transform(noise_pictures(1))
    with pytest.raises(RecipeError, match="device 'no such device' cannot be used"):
        fungi.blocks(noise_pictures(1))


def test_workers_set_after_fitting_are_used_and_the_fit_is_kept():
    fungi = fitted()
    features = fungi.transform(noise_pictures(2))
    fungi.set_params(workers=3)
    np.testing.assert_array_equal(fungi.transform(noise_pictures(2)), features)
    assert fungi.engine.workers == 3


def test_a_combination_fitted_for_another_recipe_is_dropped_once_the_engine_is_remade():
    fungi = fitted(Recipe(objectives=[KL_], dim=8, layers=0, size=4))
    fungi.set_params(recipe=RECIPE)
    assert "kl" in fungi.block_info()  # makes the new engine
    with pytest.raises(NotFitted):
        fungi.transform(noise_pictures(2))


@pytest.mark.parametrize("latent", [0, -1, "a", 2.5, True, None])
def test_a_latent_width_that_cannot_be_is_refused_in_json_too(latent):
    with pytest.raises(RecipeError, match=r"latent=.*expected an integer of at least 1"):
        Recipe(objectives=[KL(latent=latent)])
    with pytest.raises(RecipeError, match=r"latent=.*expected an integer of at least 1"):
        Recipe.from_json({"objectives": [{"kind": "kl", "latent": latent}]})


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: KL(name=None), "has no name"),
        (lambda: KL(name=3), "has no name"),
        (lambda: KL(augmentation=3), "augmentation=3 of 'kl'"),
        (lambda: KL(temperature="a"), "temperature='a'"),
        (lambda: KL(temperature=float("inf")), "temperature=inf"),
        (lambda: DINO(teacher_temperature="a"), "'a' .teacher."),
        (lambda: SimCLR(temperature=None), "temperature=None"),
        (lambda: SimCLR(negatives=2.5), "negatives=2.5"),
    ],
)
def test_objectives_that_cannot_be_are_refused(make, complaint):
    with pytest.raises(RecipeError, match=complaint):
        Recipe(objectives=[make()])


@pytest.mark.parametrize("value", [2.5, "a", True, 0, float("nan")])
@pytest.mark.parametrize("name", ["size", "whiten"])
def test_a_combination_of_a_size_that_cannot_be_is_refused(name, value):
    with pytest.raises(RecipeError, match=f"{name}=.*expected an integer"):
        Combination(**{name: value})


def test_numpy_integers_are_sizes_and_blocks_are_names():
    assert Combination(size=np.int64(3)).size == 3
    with pytest.raises(RecipeError, match="expected names of blocks"):
        Combination(blocks=(1, 2))


def test_an_unknown_metric_is_refused():
    with pytest.raises(SampleError, match="metric='l3'; expected one of: euclidean, cosine"):
        knn([[1.0], [2.0]], [0, 1], [[1.0]], [0], k=1, metric="l3")


@pytest.mark.parametrize("where", ["file", "file/inside"])
def test_saving_onto_a_file_is_refused(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="cannot be a folder"):
        fitted().save(tmp_path / where)
    assert (tmp_path / "file").read_text() == "mine"


SIMCLR_ = SimCLR(latent=6, augmentation=Patches(2), negatives=3)


@pytest.mark.parametrize("bank", [torch.ones(3, 7), torch.ones(6)])
def test_negatives_that_do_not_fit_the_head_are_refused(bank):
    fungi = Fungi(Recipe(objectives=[SIMCLR_], dim=8), backbone=small_backbone())
    fungi.negatives["simclr"] = bank
    with pytest.raises(RecipeError, match=r"negatives\['simclr'\] has shape .*expected \[M, 6\]"):
        fungi.blocks(noise_pictures(1))


def test_a_head_or_projection_of_another_width_is_refused():
    fungi = fitted()
    fungi.projection = Dense(torch.ones(4, 7))
    with pytest.raises(RecipeError, match=r"this projection expects \[N, 7\]"):
        fungi.blocks(noise_pictures(1))
    fungi = fitted()
    fungi.heads["kl"] = nn.Linear(7, 8)
    with pytest.raises(RecipeError, match=r"heads\['kl'\] takes 7 numbers; the embedding has 16"):
        fungi.blocks(noise_pictures(1))


@dataclass(frozen=True)
class ReadsNothing(Objective):
    name: str = "nothing"
    latent: int = 4

    def loss(self, latents):
        return latents.detach().sum(dim=(1, 2)).requires_grad_()


def test_a_loss_that_does_not_depend_on_the_target_is_refused_rather_than_zero():
    with pytest.raises(LayerError, match="loss of 'nothing' does not depend on layer"):
        Fungi(Recipe(objectives=[ReadsNothing()]), backbone=small_backbone()).blocks(noise_pictures(1))


def test_heads_and_negatives_move_to_the_device_once_a_batch_and_the_originals_stay(monkeypatch):
    fungi = fitted(Recipe(objectives=[SIMCLR_], dim=8, layers=0))
    monkeypatch.setattr(type(fungi.network), "device", torch.device("meta"))
    heads, banks = fungi.engine._on_device()
    assert heads["simclr"].weight.is_meta
    assert banks["simclr"].is_meta
    assert not fungi.heads["simclr"].weight.is_meta
    assert not fungi.negatives["simclr"].is_meta
