"""Class prompts as a head, against CLIP's own zero-shot logits, and as the head of a fit that a store takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from small import PREPROCESS, noise_pictures, small_module
from small_text import CLIP, tf, wordpiece
from sporeprint import KL, Backbone, Fungi, Recipe, Store, prompt_head
from sporeprint.backbones.own_head import own_head
from sporeprint.data.rows import ListSource
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.run.extract import extract

CLASSES = ["cat", "dog", "tree"]
TEMPLATES = ("a {}.", "this is the {}")


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = tf.CLIPModel(tf.CLIPConfig(**CLIP, projection_dim=9))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture(scope="module")
def embedded(clip):
    """Embeddings [5, E] before the projection, and their pixels."""
    pixels = torch.stack([PREPROCESS(picture) for picture in noise_pictures(5)])
    with torch.no_grad():
        return clip.vision_model(pixel_values=pixels).pooler_output, pixels


def test_logits_are_clips_own_times_the_length_of_the_projection(clip, embedded):
    embedding, pixels = embedded
    tokens = wordpiece()([f"a photo of a {name}." for name in CLASSES], padding=True, return_tensors="pt")
    with torch.no_grad():
        whole = clip(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels
        ).logits_per_image
        unit = normalize(embedding, dim=1)
        lengths = clip.visual_projection(unit).norm(dim=1, keepdim=True)
    head = prompt_head(clip, wordpiece(), CLASSES)
    assert head.bias is None
    assert not head.weight.requires_grad
    torch.testing.assert_close(head(unit), whole * lengths, rtol=1e-4, atol=1e-4)
    assert head(unit).argmax(dim=1).tolist() == whole.argmax(dim=1).tolist()
    assert head(embedding).argmax(dim=1).tolist() == whole.argmax(dim=1).tolist()


def test_several_templates_are_one_mean_direction(clip):
    head, rows = prompt_head(clip, wordpiece(), CLASSES, TEMPLATES), []
    for name in CLASSES:
        total = torch.zeros(9)
        for template in TEMPLATES:
            with torch.no_grad():
                tokens = wordpiece()([template.format(name)], return_tensors="pt")
                pooled = clip.text_model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
                text = clip.text_projection(pooled)[0]
            total += text / text.norm()
        rows.append(math.exp(clip.logit_scale.item()) * (total / total.norm()) @ clip.visual_projection.weight)
    torch.testing.assert_close(head.weight, torch.stack(rows).detach(), rtol=1e-4, atol=1e-4)


def test_a_model_in_training_gives_the_same_and_stays_in_training(clip):
    expected = prompt_head(clip, wordpiece(), CLASSES).weight
    clip.train()
    try:
        assert torch.equal(prompt_head(clip, wordpiece(), CLASSES).weight, expected)
        assert clip.text_model.training
    finally:
        clip.eval()


def test_gradients_of_class_prompts_are_saved_with_the_fit_and_used_by_a_store(clip, tmp_path):
    pictures, recipe = noise_pictures(3), Recipe(objectives=[KL()], layers=0)
    backbone = Backbone(clip, preprocess=PREPROCESS)
    fungi = Fungi(recipe, backbone=backbone)
    fungi.heads["kl"] = prompt_head(clip, wordpiece(), CLASSES)
    fungi.fit(pictures)
    block = fungi.blocks(pictures)["kl"]
    assert not np.allclose(block, Fungi(recipe, backbone=backbone).blocks(pictures)["kl"], atol=0.1)
    fungi.save(tmp_path / "fungi")
    again = Fungi.load(tmp_path / "fungi", backbone=backbone)
    assert torch.equal(again.heads["kl"].weight, fungi.heads["kl"].weight)
    extract(ListSource(pictures), tmp_path / "store", fit_from=tmp_path / "fungi", backbone=backbone)
    np.testing.assert_allclose(Store.open(tmp_path / "store").blocks()["kl"], block, atol=1e-6)
    test = extract(ListSource(pictures), tmp_path / "test", fit_from=tmp_path / "store", backbone=backbone)
    np.testing.assert_allclose(test.blocks()["kl"], block, atol=1e-6)


def test_the_gradient_is_that_of_the_prompts_logits(clip):
    (picture,) = noise_pictures(1)
    fungi = Fungi(Recipe(objectives=[KL()], layers=0, dim=24), backbone=Backbone(clip, preprocess=PREPROCESS))
    fungi.heads["kl"] = head = prompt_head(clip, wordpiece(), CLASSES)
    (target,) = fungi.network.targets.values()
    embedding = clip.vision_model(pixel_values=PREPROCESS(picture)[None]).pooler_output
    loss = -torch.log_softmax(normalize(embedding, dim=1) @ head.weight.T, dim=1).mean()
    weight, bias = torch.autograd.grad(loss, [target.layer.weight, target.layer.bias])
    projected = fungi.projection.matrix() @ torch.cat([weight, bias[:, None]], dim=1).flatten()
    assert (torch.from_numpy(fungi.blocks([picture])["kl"][0]) - projected / projected.norm()).norm() < 1e-4


def test_what_has_no_text_tower_is_refused(clip):
    tower = tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(**CLIP["vision_config"]))
    assert own_head(Backbone(tower, preprocess=PREPROCESS)).in_features == 32
    for module in (tower, small_module()):
        with pytest.raises(BackboneError, match=f"a {type(module).__name__} has no text tower and linear visual"):
            prompt_head(module, wordpiece(), CLASSES)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"classes": "cat"}, "classes='cat'; expected a list"),
        ({"classes": []}, r"classes=\[\]; expected at least one text"),
        ({"classes": ["cat", 3]}, r"classes=\['cat', 3\]; expected"),
        ({"templates": "a {}"}, "templates='a {}'; expected a list"),
        ({"templates": ["a photo"]}, "template 'a photo' has no {}"),
        ({"classes": ["cat " * 70]}, "tokens; the text tower takes 64: shorten it"),
    ],
)
def test_bad_classes_and_templates_are_named(clip, options, match):
    with pytest.raises(RecipeError, match=match):
        prompt_head(**{"model": clip, "tokenizer": wordpiece(10**30), "classes": CLASSES, **options})
