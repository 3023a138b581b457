"""One Fungi each on images, text and sound: the same calls, and copies that give the same features."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from small import noise_pictures, small_backbone
from small_audio import FAMILIES, tones, whisper_extractor
from small_text import BERT, TEXTS, tf, wordpiece
from sporeprint import DINO, KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.errors import RecipeError


def text_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tf.BertModel(tf.BertConfig(**BERT))
    return Backbone(module, preprocess=wordpiece())


BACKBONES = {
    "image": small_backbone,
    "text": text_backbone,
    "audio": lambda: FAMILIES["whisper"].backbone(),
    "waveform": lambda: FAMILIES["hubert-batch-norm"].backbone(),  # torch pickles no weight norm, which others have
}
SAMPLES = {"image": lambda: noise_pictures(4), "text": lambda: TEXTS, "audio": tones, "waveform": tones}
VIEWS = {"image": 49, "text": 12, "audio": 16, "waveform": 16}
BANK = {"image": 49, "text": 2, "audio": 2, "waveform": 2}  # latents of a row
KINDS = list(BACKBONES)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    kind = request.param
    recipe = Recipe(objectives=[KL(), SimCLR()], dim=9, size=4, layers=1)
    fungi = Fungi(recipe, backbone=BACKBONES[kind]())
    samples = SAMPLES[kind]()
    return kind, fungi, samples, fungi.fit_transform(samples)


def test_objectives_are_settled_by_the_backbone_and_the_recipe_stays_as_it_was(fitted):
    kind, fungi, samples, features = fitted
    assert features.shape == (len(samples), 4)
    assert np.isfinite(features).all()
    assert fungi.recipe.objectives == (KL(), SimCLR())
    assert [one.views for one in fungi.engine.objectives] == [1, VIEWS[kind]]
    latent = {"image": 96, "text": 256}.get(kind, 768)
    assert fungi.heads["simclr"].out_features == latent
    assert fungi.negatives["simclr"].shape == (len(samples) * BANK[kind], latent)
    assert fungi.block_info()["simclr"]["passes"] == VIEWS[kind]
    modality = "audio" if kind == "waveform" else kind
    assert fungi.describe()["backbone"]["modality"] == fungi.network.modality == modality


def test_a_fitted_fungi_is_shown_in_a_notebook(fitted):
    _, fungi, _, _ = fitted
    assert "KL(), SimCLR()" in repr(fungi)
    for estimator in (fungi, make_pipeline(fungi, LogisticRegression())):
        assert "SimCLR()" in estimator._repr_mimebundle_()["text/html"]
    assert fungi.get_feature_names_out().tolist() == ["fungi0", "fungi1", "fungi2", "fungi3"]


@pytest.mark.parametrize("copied", [lambda fungi: pickle.loads(pickle.dumps(fungi)), copy.deepcopy])
def test_a_fitted_fungi_can_be_pickled_and_copied(fitted, copied):
    _, fungi, samples, features = fitted
    other = copied(fungi)
    assert other.network is not fungi.network
    np.testing.assert_array_equal(other.transform(samples), features)
    with torch.no_grad():
        for parameter in other.network.module.parameters():
            parameter.mul_(1.5)
    assert np.abs(other.blocks(samples)["embedding"] - fungi.blocks(samples)["embedding"]).max() > 1e-4
    np.testing.assert_array_equal(fungi.transform(samples), features)


def test_a_fitted_fungi_is_saved_and_loaded(fitted, tmp_path):
    _, fungi, samples, features = fitted
    fungi.save(tmp_path / "saved")
    loaded = Fungi.load(tmp_path / "saved", backbone=fungi.network)
    np.testing.assert_array_equal(loaded.transform(samples), features)
    assert loaded.engine.objectives == fungi.engine.objectives


@pytest.mark.parametrize("kind", KINDS)
def test_where_objectives_are_none_the_papers_for_the_modality_are_taken(kind):
    fungi = Fungi(Recipe(objectives=None, dim=5), backbone=BACKBONES[kind]())
    names = ["kl", "dino", "simclr"] if kind == "image" else ["kl", "simclr"]
    assert [one.name for one in fungi.engine.objectives] == names
    assert fungi.recipe.objectives is None


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_a_row_takes_one_pass_whatever_the_modality(kind):
    fungi = Fungi(Recipe(dim=5, layers=1), backbone=BACKBONES[kind]())
    assert [objective.name for objective in fungi.engine.objectives] == ["kl"]
    assert {block["passes"] for block in fungi.block_info().values()} == {1}


@pytest.mark.parametrize("kind", KINDS[1:])
def test_dino_is_refused_on_what_has_no_crops(kind):
    with pytest.raises(RecipeError, match=r"'dino' is for image; the backbone takes (text|audio): leave it out"):
        _ = Fungi(Recipe(objectives=[KL(), DINO()]), backbone=BACKBONES[kind]()).engine


def test_a_recipe_for_another_modality_than_the_backbones_is_refused():
    assert Fungi(Recipe(modality="text"), backbone=text_backbone()).engine.backbone.modality == "text"
    with pytest.raises(RecipeError, match="the recipe is for audio, the backbone given takes text"):
        _ = Fungi(Recipe(modality="audio"), backbone=text_backbone()).engine


def test_over_long_texts_and_clips_are_cut_and_named():
    text = " ".join(["the quick brown fox"] * 40)
    fungi = Fungi(Recipe(objectives=[KL()], dim=5), backbone=text_backbone())
    with pytest.warns(UserWarning, match=r"1 of 2 rows are too long and were cut \(max_tokens 60\): row 0$"):
        fungi.blocks([text, "the cat sat"])
    assert fungi.truncated == ["row 0"]
    sound = Fungi(Recipe(objectives=[KL()], dim=5), backbone=BACKBONES["audio"]())
    with pytest.warns(UserWarning, match=r"1 of 2 rows are too long and were cut \(max_seconds 2\): long$"):
        sound.blocks(tones((0.1, 2.1)), ids=["short", "long"])
    assert sound.truncated == ["long"]
    assert whisper_extractor().n_samples == 2 * 16_000
