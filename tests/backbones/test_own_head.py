"""Whose linear map from the embedding is found, and what is refused where there is none."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from small import PREPROCESS, VISION
from small_text import BERT, CLIP, stirred, tf, wordpiece
from sporeprint import KL, Backbone, Fungi, Recipe
from sporeprint.backbones.load import load_backbone
from sporeprint.backbones.own_head import own_head
from sporeprint.errors import BackboneError, SporeprintWarning

ONLY_VISION = VISION | {"projection_dim": 9}


def build(network: str, config: str, **options: Any) -> nn.Module:
    return stirred(network, config, options, torch.float32)


classifier = partial(build, "ViTForImageClassification", "ViTConfig", **VISION, num_labels=7)


def save(folder: Path, module: Any, inputs: str = "image") -> str:
    module.save_pretrained(folder)
    if inputs == "text":
        wordpiece().save_pretrained(folder)
    else:
        settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_each_tower_of_clip_has_its_own_projection(modality):
    clip = build("CLIPModel", "CLIPConfig", **CLIP, projection_dim=32)  # as wide as both towers
    inputs = PREPROCESS if modality == "image" else wordpiece()
    head = own_head(Backbone(clip, preprocess=inputs, modality=modality))
    assert torch.equal(head.weight, (clip.visual_projection if modality == "image" else clip.text_projection).weight)


def test_the_network_is_left_as_it_was():
    module = classifier().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    own_head(Backbone(module, preprocess=PREPROCESS))
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_network_of_any_library_whose_output_is_the_heads_is_enough():
    class Pooled(nn.Module):
        """As timm's: tokens, their pooled embedding, and a classifier at the end."""

        def __init__(self):
            super().__init__()
            self.embed, self.fc_norm, self.head = nn.Linear(3 * 32 * 32, 8), nn.LayerNorm(8), nn.Linear(8, 8)

        def forward_features(self, images):
            return self.embed(images.flatten(1))[:, None]

        def forward_head(self, tokens, pre_logits=False):
            pooled = self.fc_norm(tokens.mean(dim=1))
            return pooled if pre_logits else self.head(pooled)

        def forward(self, images):
            return self.forward_head(self.forward_features(images))

    Pooled.__module__ = "timm.models.pooled"
    module = Pooled()
    backbone = Backbone(module, target="embed", preprocess=PREPROCESS, prefix=0)
    assert torch.equal(own_head(backbone).weight, module.head.weight)


REFUSED = {
    "the classifier of another pooling": (
        lambda: Backbone(classifier(), preprocess=PREPROCESS, pooling="mean"),
        r"\(32 numbers, pooling='mean'\): it has classifier \(32 to 7\), which takes another vector",
    ),
    "a classifier of CLS and the patches' mean": (
        lambda: Backbone(
            build(
                "Dinov2ForImageClassification",
                "Dinov2Config",
                **{key: value for key, value in VISION.items() if key != "intermediate_size"},
                num_labels=7,
            ),
            preprocess=PREPROCESS,
        ),
        r"it has classifier \(64 to 7\), which takes another vector",
    ),
    "a classifier of the pooler's output": (
        lambda: Backbone(
            build("BertForSequenceClassification", "BertConfig", **BERT, num_labels=5), preprocess=wordpiece()
        ),
        r"pooling='cls'\): it has classifier \(32 to 5\), which takes another vector",
    ),
    "a head for every token": (
        lambda: Backbone(build("BertForMaskedLM", "BertConfig", **BERT), preprocess=wordpiece()),
        "it ends in the embedding or in tokens",
    ),
    "a bare network": (
        lambda: Backbone(build("ViTModel", "ViTConfig", **VISION), preprocess=PREPROCESS),
        'it ends in the embedding or in tokens.*KL.. has a random head; or set fungi.heads."kl".',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_linear_head_on_the_embedding_is_refused_with_what_there_is(name):
    read, match = REFUSED[name]
    with pytest.raises(BackboneError, match=match):
        own_head(read())


def test_a_network_that_fails_as_a_whole_is_refused_with_its_reason():
    module = classifier()
    module.classifier = nn.Linear(5, 7)
    with pytest.raises(BackboneError, match="ViTForImageClassification fails as a whole on one image: mat1 and mat2"):
        own_head(Backbone(module, preprocess=PREPROCESS))


@pytest.mark.parametrize(
    ("network", "config", "options", "layer"),
    [
        ("ViTForImageClassification", "ViTConfig", VISION, "classifier"),
        ("CLIPVisionModelWithProjection", "CLIPVisionConfig", ONLY_VISION, "visual_projection"),
        ("CLIPModel", "CLIPConfig", CLIP, "visual_projection"),
    ],
)
def test_a_folder_is_loaded_as_the_class_that_it_was_saved_with(network, config, options, layer, tmp_path):
    module = build(network, config, **options)
    backbone = load_backbone(save(tmp_path, module), device="cpu", whole=True)
    assert torch.equal(own_head(backbone).weight, module.get_submodule(layer).weight)


@pytest.mark.parametrize("named", [["ViTModel"], ["AutoModel"], ["no such class"], ["BertModel"], [7], [], None])
def test_a_folder_that_names_no_class_with_a_head_is_loaded_and_has_none(named, tmp_path):
    folder = save(tmp_path, build("ViTModel", "ViTConfig", **VISION))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"architectures": named}))
    with pytest.raises(BackboneError, match="no linear head of its own"):
        Fungi(Recipe(backbone=folder, objectives=[KL(head="own")])).blocks([])


def test_a_classifier_that_the_checkpoint_lacks_is_refused_and_random_only_where_asked_for(tmp_path):
    folder, weights = save(tmp_path, classifier()), tmp_path / "model.safetensors"
    kept = {name: weight for name, weight in load_file(weights).items() if not name.startswith("classifier")}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(BackboneError, match=r"2 weights that the features read are not in .*classifier\.bias"):
        load_backbone(folder, device="cpu", whole=True)
    with pytest.warns(SporeprintWarning, match="they are random, as was asked for"):
        assert load_backbone(folder, device="cpu", whole=True, allow_random=True).caveats == {"random_weights": 2}
    assert load_backbone(folder, device="cpu").caveats == {}  # a random head needs no classifier


def test_a_configuration_that_asks_for_more_than_its_weights_is_refused_whole_too(tmp_path):
    folder = save(tmp_path, classifier())
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"hidden_size": 20_000, "intermediate_size": 20_000}))
    with pytest.raises(BackboneError, match="makes a network of"):
        load_backbone(folder, device="cpu", whole=True)


@pytest.mark.real
def test_the_classifier_of_deit_is_the_checkpoints_and_its_gradients_are_autograds(shared):
    folder = shared / "models/deit-tiny"
    fungi = Fungi(Recipe(backbone=str(folder), objectives=[KL(head="own")], layers=0))
    expected = load_file(folder / "model.safetensors")["classifier.weight"].float()
    assert torch.equal(fungi.heads["kl"].weight, expected)
    assert fungi.heads["kl"].weight.shape == (1000, 192)
    picture = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    (block,) = fungi.blocks([picture])["kl"]
    module = tf.ViTForImageClassification.from_pretrained(folder, dtype=torch.float32).double().eval()
    layer = module.vit.get_submodule(next(iter(fungi.network.targets)))
    ready = fungi.network.preprocess.prepare(fungi.network.preprocess.load(picture))
    logits = module(pixel_values=fungi.network.preprocess(ready)[None].double()).logits
    loss = -torch.log_softmax(logits, dim=1).mean()
    weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
    projected = fungi.projection.matrix().double() @ torch.cat([weight, bias[:, None]], dim=1).flatten()
    assert (torch.from_numpy(block).double() - projected / projected.norm()).norm() < 1e-4
