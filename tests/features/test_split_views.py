"""One row whose views are too large for one pass: several passes, the same features."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from small import noise_pictures, small_backbone
from small_audio import tones, wav2vec2, wave_extractor
from small_text import BERT, TEXTS, tf, wordpiece
from sporeprint import DINO, KL, Backbone, Fungi, MaskedTokens, Recipe, SimCLR
from sporeprint.errors import LayerError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions
from sporeprint.objectives.views.token_masks import Masks


def images():
    simclr = SimCLR(latent=6, augmentation=Patches(3), negatives=2)
    objectives = [KL(latent=9), DINO(latent=8, augmentation=Crops(2, 3)), simclr]
    backbone = small_backbone(dtype=torch.float64, target=["blocks.0.attn.proj", "blocks.1.attn.proj"])
    return backbone, objectives, noise_pictures(3)


def texts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tf.BertForMaskedLM(tf.BertConfig(**BERT)).double().eval()
    simclr = SimCLR(latent=6, augmentation=Deletions(5), negatives=2)
    objectives = [KL(latent=9), simclr, MaskedTokens(augmentation=Masks(views=3))]
    return Backbone(module, preprocess=wordpiece()), objectives, TEXTS[:3]


def sound():
    simclr = SimCLR(latent=6, augmentation=NoiseAndRoll(5), negatives=2)
    backbone = Backbone(wav2vec2().double(), preprocess=wave_extractor())
    return backbone, [KL(latent=9), simclr], tones()


@pytest.mark.parametrize("make", [images, texts, sound])
def test_features_do_not_depend_on_how_many_passes_a_row_takes(make, monkeypatch):
    backbone, objectives, samples = make()
    patched = type(backbone.preprocess)
    monkeypatch.setattr(patched, "budget", 10**9)
    recipe = Recipe(objectives=objectives)
    expected = Fungi(recipe, backbone=backbone).fit_blocks(samples)
    monkeypatch.setattr(patched, "length", lambda inputs, ready: 1)
    for views in (2, 1):
        monkeypatch.setattr(patched, "budget", views * (16 if make is texts else 1))  # a head's budget is a sixteenth
        for name, block in Fungi(recipe, backbone=backbone).fit_blocks(samples).items():
            np.testing.assert_allclose(block, expected[name], atol=2e-7, err_msg=name)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(1000, [5]), (100, [5]), (80, [3, 2]), (40, [2, 2, 1]), (39, [1] * 5), (1, [1] * 5)],
)
def test_a_rows_views_are_spread_evenly_over_passes_within_the_budget(budget, expected, monkeypatch):
    backbone, objectives, samples = sound()
    fungi = Fungi(Recipe(objectives=objectives), backbone=backbone)
    monkeypatch.setattr(type(backbone.preprocess), "budget", budget)
    monkeypatch.setattr(type(backbone.preprocess), "length", lambda inputs, ready: 20)
    fungi.fit(samples[:2])
    sizes = []
    fungi.network.module.register_forward_pre_hook(
        lambda _, __, named: sizes.append(len(named["input_values"])), with_kwargs=True
    )
    fungi.blocks(samples[:1])
    assert sizes == [1, *expected]


@dataclass(frozen=True)
class Last(Objective):
    """Reads the last view alone."""

    name: str = "last"
    latent: int = 4
    augmentation: Patches = field(default_factory=lambda: Patches(3))

    def loss(self, latents):
        return latents[:, -1].sum(dim=-1)


@dataclass(frozen=True)
class Nothing(Last):
    name: str = "nothing"

    def loss(self, latents):
        return latents.detach().sum(dim=(1, 2)) + torch.zeros(1, requires_grad=True).sum()


def test_a_loss_may_read_some_views_only_and_must_read_one(monkeypatch):
    backbone = small_backbone(dtype=torch.float64)
    fungi = Fungi(Recipe(objectives=[Last()]), backbone=backbone)
    expected = fungi.fit_blocks(noise_pictures(1))["last"]
    monkeypatch.setattr(type(backbone.preprocess), "budget", 1)
    np.testing.assert_allclose(fungi.blocks(noise_pictures(1))["last"], expected, atol=2e-7)
    with pytest.raises(LayerError, match="the loss of 'nothing' does not depend on layer"):
        Fungi(Recipe(objectives=[Nothing()]), backbone=backbone).fit(noise_pictures(1))
