"""KL on the checkpoint's own head: gradients against plain autograd through the whole network, and what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from small import PREPROCESS, VISION, noise_pictures, small_backbone
from small_text import BERT, CLIP_TEXT, GPT, TEXTS, byte_level, stirred, tf, wordpiece
from sporeprint import KL, Backbone, Fungi, Recipe, check_objective
from sporeprint.data.rows import ListSource
from sporeprint.errors import BackboneError, RecipeError, StoreMismatch
from sporeprint.run.extract import extract

OWN = KL(head="own", temperature=3.0)


def classifier(dtype: torch.dtype = torch.float64) -> nn.Module:
    return stirred("ViTForImageClassification", "ViTConfig", VISION | {"num_labels": 7}, dtype)


def bert_of_pooled(module: nn.Module) -> Backbone:
    """BERT classifies what its pooler makes of CLS; as a finish, that is the embedding."""
    return Backbone(module, preprocess=wordpiece(), finish=nn.Sequential(module.bert.pooler.dense, nn.Tanh()))


def images_of(module: nn.Module) -> Backbone:
    return Backbone(module, preprocess=PREPROCESS)


# A checkpoint, how it is read, the field of its output that its own head makes, and that head.
WHOLE = {
    "image classifier": (classifier, images_of, "logits", lambda module: module.classifier),
    "CLIP's image tower": (
        lambda: stirred("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION | {"projection_dim": 9}),
        images_of,
        "image_embeds",
        lambda module: module.visual_projection,
    ),
    "CLIP's text tower": (
        lambda: stirred("CLIPTextModelWithProjection", "CLIPTextConfig", CLIP_TEXT | {"projection_dim": 9}),
        lambda module: Backbone(module, preprocess=wordpiece()),
        "text_embeds",
        lambda module: module.text_projection,
    ),
    "BERT classifier": (
        lambda: stirred("BertForSequenceClassification", "BertConfig", BERT | {"num_labels": 5}),
        bert_of_pooled,
        "logits",
        lambda module: module.classifier,
    ),
    "GPT classifier, of the last token": (
        lambda: stirred("GPT2ForSequenceClassification", "GPT2Config", GPT | {"num_labels": 4}),
        lambda module: Backbone(module, preprocess=byte_level()),
        "logits",
        lambda module: module.score,
    ),
}


def views_of(backbone: Backbone) -> tuple[list, list[dict]]:
    """Samples, and the input of the whole network for each."""
    if backbone.modality == "image":
        samples = noise_pictures(3)
        return samples, [{"pixel_values": backbone.preprocess(each)[None].double()} for each in samples]
    tokenizer = backbone.preprocess.tokenizer
    return TEXTS[:3], [dict(tokenizer([text], return_tensors="pt")) for text in TEXTS[:3]]


@pytest.mark.parametrize("name", WHOLE)
def test_gradients_equal_those_of_a_loss_on_the_checkpoints_own_output(name):
    build, read, output, _ = WHOLE[name]
    module = build()
    backbone = read(module)
    fungi = Fungi(Recipe(objectives=[OWN], layers=0, dim=24), backbone=backbone)
    samples, inputs = views_of(backbone)
    block, matrix = fungi.blocks(samples)["kl"], fungi.projection.matrix().double()
    (target,) = backbone.targets.values()
    for at, batch in enumerate(inputs):
        if "token_type_ids" in batch and "BERT" not in name:
            del batch["token_type_ids"]
        (logits,) = getattr(module(**batch), output)
        log_p = torch.log_softmax(logits / 3, dim=0)
        loss = sum(-math.log(len(logits)) - value for value in log_p) / len(logits)
        weight, bias = torch.autograd.grad(loss, [target.layer.weight, target.layer.bias])
        projected = matrix @ torch.cat([_as_linear(target.layer, weight), bias[:, None]], dim=1).flatten()
        expected = (projected / projected.norm()).numpy()
        assert np.linalg.norm(block[at] - expected) < 1e-6  # the block itself is float32


def _as_linear(layer: nn.Module, weight: torch.Tensor) -> torch.Tensor:
    return weight if isinstance(layer, nn.Linear) else weight.T  # GPT's Conv1D is [I, O]


@pytest.mark.parametrize("name", WHOLE)
def test_the_head_is_the_checkpoints_own_layer_and_its_width_the_latents(name):
    build, read, _, layer = WHOLE[name]
    module = build()
    fungi = Fungi(Recipe(objectives=[OWN]), backbone=read(module))
    own, head = layer(module), fungi.heads["kl"]
    assert torch.equal(head.weight, own.weight)
    assert own.bias is None or torch.equal(head.bias, own.bias)
    assert fungi.engine.objectives[0].latent == own.out_features
    assert not head.weight.requires_grad
    assert own.weight.requires_grad  # the user's stays as it was


def test_the_default_head_is_random_and_left_out_of_the_json():
    assert KL() == KL(head="random")
    assert "head" not in Recipe(objectives=[KL()]).to_json()["objectives"][0]
    recipe = Recipe(objectives=[KL(), KL(name="kl-own", head="own")])
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.fingerprint() != Recipe(objectives=[KL(), KL(name="kl-own")]).fingerprint()


def test_another_kind_of_head_is_refused():
    with pytest.raises(RecipeError, match="KL head='trained'; expected one of: random, own"):
        KL(head="trained")


def test_it_keeps_an_objectives_promises():
    check_objective(OWN)


def test_a_random_head_next_to_it_is_what_it_is_alone():
    backbone, pictures = images_of(classifier(torch.float32)), noise_pictures(2)
    both = Fungi(Recipe(objectives=[KL(), KL(name="own", head="own")], layers=0), backbone=backbone).blocks(pictures)
    alone = Fungi(Recipe(objectives=[KL()], layers=0), backbone=backbone).blocks(pictures)
    np.testing.assert_allclose(both["kl"], alone["kl"], atol=1e-6)
    assert not np.allclose(both["own"], alone["kl"], atol=0.1)


def test_a_backbone_without_a_head_is_refused():
    with pytest.raises(BackboneError, match="no linear head of its own on this embedding"):
        Fungi(Recipe(objectives=[OWN]), backbone=small_backbone()).blocks(noise_pictures(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of a classifier, as it is saved."""
    path = tmp_path_factory.mktemp("own") / "vit"
    classifier(torch.float32).save_pretrained(path)
    processor = getattr(tf, "ViTImageProcessorPil", None) or tf.ViTImageProcessor
    processor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def recipe(folder):
    return Recipe(backbone=str(folder), objectives=[OWN], layers=0)


def with_other_classifier(folder, path):
    """The same checkpoint but for its classifier."""
    module = tf.ViTForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        module.classifier.weight[0, 0] += 1
    module.save_pretrained(path)
    (path / "preprocessor_config.json").write_bytes((folder / "preprocessor_config.json").read_bytes())
    return path


def test_a_folder_is_loaded_with_its_classifier(folder, recipe):
    pictures = noise_pictures(3)
    given = Backbone(classifier(torch.float32), preprocess=Fungi(recipe).network.preprocess)
    expected = Fungi(Recipe(objectives=[OWN], layers=0), backbone=given).blocks(pictures)
    np.testing.assert_allclose(Fungi(recipe).blocks(pictures)["kl"], expected["kl"], atol=1e-5)


def test_weights_have_the_digest_that_they_have_without_the_head(folder, recipe):
    plain = Fungi(Recipe(backbone=str(folder), objectives=[KL()])).describe()["backbone"]
    own = Fungi(recipe).describe()["backbone"]
    assert own.pop("own_head")
    assert own == plain


def test_saved_and_loaded_it_gives_the_same_and_another_classifier_is_refused(folder, recipe, tmp_path):
    pictures = noise_pictures(3)
    fungi = Fungi(recipe).fit(pictures)
    fungi.save(tmp_path / "fungi")
    again = Fungi.load(tmp_path / "fungi")
    assert np.array_equal(again.blocks(pictures)["kl"], fungi.blocks(pictures)["kl"])
    with pytest.raises(StoreMismatch, match="whose own_head is"):
        Fungi.load(tmp_path / "fungi", backbone=with_other_classifier(folder, tmp_path / "other"))


def test_a_store_goes_on_with_the_same_classifier_and_not_with_another(folder, recipe, tmp_path):
    train, test = ListSource(noise_pictures(3)), ListSource(noise_pictures(2, seed=1))
    store = extract(train, tmp_path / "train", recipe)
    assert len(extract(train, tmp_path / "train", recipe)) == 3
    other = str(with_other_classifier(folder, tmp_path / "other"))
    with pytest.raises(StoreMismatch, match=r"resolved\.backbone\.own_head"):
        extract(train, tmp_path / "train", recipe, backbone=other)
    fitted = extract(test, tmp_path / "test", fit_from=tmp_path / "train")
    np.testing.assert_allclose(
        fitted.blocks()["kl"], Fungi.load(tmp_path / "train").blocks(noise_pictures(2, seed=1))["kl"], atol=1e-6
    )
    assert store.block_names == ["embedding", "kl"]
    with pytest.raises(StoreMismatch, match="own_head"):
        extract(test, tmp_path / "test-other", fit_from=tmp_path / "train", backbone=other)
