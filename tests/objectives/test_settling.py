"""What an objective comes to on images, text and audio: METHOD's constants, written here by hand."""

from dataclasses import dataclass, replace

import pytest
import torch

from sporeprint import DINO, KL, MaskedTokens, SimCLR, check_objective
from sporeprint.errors import RecipeError
from sporeprint.objectives import NAMES, paper, settle
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions


@pytest.mark.parametrize(
    ("modality", "views", "latent", "negatives", "bank"),
    [("image", 49, 96, 256, 256 * 49), ("text", 12, 256, 256, 256 * 2), ("audio", 16, 768, 64, 64 * 2)],
)
def test_simclrs_defaults_are_the_papers_for_each_modality(modality, views, latent, negatives, bank):
    simclr = SimCLR().for_modality(modality)
    assert (simclr.views, simclr.latent, simclr.negatives) == (views, latent, negatives)
    assert simclr.negatives * (simclr.negative_views or simclr.views) == bank
    assert (simclr.temperature, simclr.temper_negatives, simclr.normalize) == (0.07, True, False)


def test_the_papers_views_of_text_and_sound_have_the_papers_strength():
    text, audio = SimCLR().for_modality("text"), SimCLR().for_modality("audio")
    assert text.augmentation == Deletions(views=12, probability=0.1)
    assert audio.augmentation == NoiseAndRoll(views=16, noise=0.1, frames=10)


@pytest.mark.parametrize("objective", [SimCLR(), SimCLR(latent=5, negatives=3), DINO(name="dino-2")])
def test_the_number_of_views_is_not_guessed_before_the_modality_is_known(objective):
    with pytest.raises(
        RecipeError, match=rf"{objective.name!r} .* choose one first: objective\.for_modality\('image'\)"
    ):
        _ = objective.views
    assert objective.for_modality("image").views == (49 if isinstance(objective, SimCLR) else 12)


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_the_modality_decides_only_what_was_left_open(modality):
    mine = SimCLR(name="mine", latent=5, negatives=0, temperature=0.5, negative_views=3, temper_negatives=False)
    settled = mine.for_modality(modality)
    assert replace(settled, augmentation=None) == mine
    assert SimCLR(augmentation=Patches(2)).for_modality("image").augmentation == Patches(2)
    assert settled.for_modality(modality) == settled


def test_settling_leaves_the_objective_as_it_was():
    simclr = SimCLR()
    simclr.for_modality("audio")
    assert simclr == SimCLR()
    assert simclr.latent is None


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_dino_is_refused_where_there_are_no_crops(modality):
    with pytest.raises(RecipeError, match=f"'dino' is for image; the backbone takes {modality}: leave it out"):
        DINO().for_modality(modality)
    with pytest.raises(RecipeError, match="'dino' is for image"):
        settle([KL(), DINO()], modality)


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_kl_is_the_same_on_everything(modality):
    assert KL(latent=9).for_modality(modality) == KL(latent=9)


def test_objectives_that_are_not_named_are_the_papers_for_the_modality():
    kl, dino, simclr = settle(None, "image")
    assert (kl, dino, simclr) == (KL(), DINO(augmentation=Crops()), SimCLR().for_modality("image"))
    for modality, views in (("text", 12), ("audio", 16)):
        assert settle(None, modality) == paper(modality) == (KL(), SimCLR().for_modality(modality))
        assert [objective.views for objective in paper(modality)] == [1, views]
    assert paper() == paper("image")
    assert settle([], "text") == ()


def test_a_plain_class_with_a_loss_is_settled_as_it_is():
    class Duck:
        name, latent, views, augmentation, negatives = "duck", 3, 1, None, 0

        def loss(self, latents):
            return latents.sum(dim=(1, 2))

    duck = Duck()
    assert settle([duck, SimCLR()], "text") == (duck, SimCLR().for_modality("text"))


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_contract_holds_for_simclr_on_every_modality(modality):
    check_objective(SimCLR(), modality=modality)


def test_contract_checks_the_modality_that_is_asked_for():
    modalities = []

    @dataclass(frozen=True)
    class Watched(SimCLR):
        def loss(self, latents, negatives=None):
            modalities.append((latents.shape[1], negatives is not None))
            return super().loss(latents, negatives)

    for modality, views in ((None, 49), ("text", 12), ("audio", 16)):
        check_objective(Watched(), modality=modality)
        assert set(modalities) == {(views, True)}
        modalities.clear()
    with pytest.raises(RecipeError, match="is for image"):
        check_objective(DINO(), modality="audio")


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_that_has_a_name_keeps_the_contract(name):
    check_objective(NAMES[name]())


def test_a_loss_of_logits_that_reads_other_samples_is_found_out():
    @dataclass(frozen=True)
    class Peeks(MaskedTokens):
        def loss(self, latents, labels=None):
            return super().loss(latents, labels) * labels.roll(1, dims=0).clamp(min=0).float().mean(dim=(1, 2))

    with pytest.raises(AssertionError, match="reads other samples' labels"):
        check_objective(Peeks())
    with pytest.raises(RecipeError, match="needs the labels"):
        MaskedTokens().loss(torch.zeros(1, 2, 3, 4))


def test_native_views_are_half_as_wide_for_patches_and_local_crops_of_images():
    kl, dino, simclr = settle(None, "image", "native")
    assert kl == KL()
    assert dino == DINO(augmentation=Crops(local_side=0.5))
    assert simclr == replace(SimCLR().for_modality("image"), augmentation=Patches(side=0.5))
    assert settle([KL(), DINO(), SimCLR()], "image", "native") == (kl, dino, simclr)


def test_an_augmentation_that_is_named_is_not_made_native():
    named = (DINO(augmentation=Crops(1, 2)), SimCLR(augmentation=Patches(3)))
    assert [objective.augmentation for objective in settle(named, "image", "native")] == [Crops(1, 2), Patches(3)]


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_native_views_change_nothing_where_there_is_no_resolution(modality):
    assert settle(None, modality, "native") == settle(None, modality)


def test_an_objective_of_a_users_that_knows_the_modality_alone_is_still_settled():
    @dataclass(frozen=True)
    class Old(KL):
        def for_modality(self, modality):
            return replace(self, name=f"{self.name}-{modality}")

    assert settle([Old()], "text")[0].name == "kl-text"
