"""What a backbone refuses or says rather than reading it wrongly, and what tells two backbones apart."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from sporeprint import KL, Fungi, Recipe
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import BackboneError, LayerError, StoreMismatch


class Net(nn.Module):
    """Patches, one layer, the mean; and a head of five classes whose output is thrown away."""

    def __init__(self, output=lambda tokens, pooled, logits: pooled):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.output = output

    def forward(self, images):
        tokens = self.mix(self.stem(images).flatten(2).transpose(1, 2)).tanh()
        return self.output(tokens, tokens.mean(dim=1), self.head(tokens.mean(dim=1)))


@pytest.mark.parametrize(
    ("output", "shapes"),
    [
        (lambda tokens, pooled, logits: (pooled, logits), r"\[1, 8\] and \[1, 5\]"),
        (lambda tokens, pooled, logits: (tokens, logits), r"\[1, 16, 8\] and \[1, 5\]"),
        (lambda tokens, pooled, logits: (pooled, None), r"\[1, 8\] and NoneType"),
    ],
)
def test_a_pair_that_is_not_tokens_and_their_pooled_embedding_is_refused(output, shapes):
    with pytest.raises(BackboneError, match=f"returned a pair, {shapes}"):
        Backbone(Net(output), target="mix", preprocess=PREPROCESS)


@pytest.mark.parametrize("target", ["head", ["mix", "head"]])
def test_a_target_that_runs_but_does_not_reach_the_embedding_is_refused_with_the_layers_there_are(target):
    with pytest.raises(LayerError, match=r"'head' runs, but the embedding does not depend on it.*: mix, head"):
        Backbone(Net(), target=target, preprocess=PREPROCESS)


def test_networks_with_the_same_blocks_in_another_order_have_other_digests():
    first, other = small_module(), small_module()
    other.blocks = nn.ModuleList([other.blocks[1], other.blocks[0]])
    digests = [Backbone(module, preprocess=PREPROCESS).digest() for module in (first, other, small_module())]
    assert digests[0] == digests[2] != digests[1]


def scaled(factor, resample=Image.Resampling.BICUBIC):
    def preprocess(image):
        pixels = np.asarray(image.resize((32, 32), resample), dtype=np.float32)
        return torch.from_numpy(pixels.transpose(2, 0, 1) / 255 * factor - 0.5)

    return preprocess


@pytest.mark.parametrize("other", [scaled(-7.0), scaled(1.05), scaled(1.0, Image.Resampling.BILINEAR)])
def test_another_preprocess_function_is_noticed_when_a_fungi_is_loaded(tmp_path, other):
    recipe, pictures = Recipe(objectives=[KL(latent=8)], dim=8, layers=0), noise_pictures(3)
    Fungi(recipe, backbone=Backbone(small_module(), preprocess=scaled(1.0))).fit(pictures).save(tmp_path)
    Fungi.load(tmp_path, backbone=Backbone(small_module(), preprocess=scaled(1.0)))
    with pytest.raises(StoreMismatch, match="preprocess is custom"):
        Fungi.load(tmp_path, backbone=Backbone(small_module(), preprocess=other))


def test_rounding_of_a_preprocess_function_is_no_other_function():
    exact, rounded = scaled(1.0), scaled(1.0 + 1e-7)
    described = [Backbone(small_module(), preprocess=given).describe()["preprocess"] for given in (exact, rounded)]
    assert described[0] == described[1]


class Windows(nn.Module):
    """A block whose output is [N, T, 1, E]."""

    def __init__(self, block):
        super().__init__()
        self.attention = block

    def forward(self, tokens):
        return self.attention(tokens.flatten(1, -2)).unsqueeze(2)


def test_blocks_of_a_layout_that_cannot_be_read_are_named_once():
    module = small_module()
    module.blocks = nn.ModuleList(Windows(block) for block in module.blocks)
    module.norm = nn.Sequential(nn.Flatten(1, 2), module.norm)
    backbone = Backbone(module, target="blocks.1.attention.attn.proj", preprocess=PREPROCESS)
    fungi = Fungi(Recipe(objectives=[KL(latent=8)], dim=8, layers=2), backbone=backbone)
    with pytest.warns(UserWarning, match=r"2 blocks give no cls-N.*number 1 has shape \[1, 17, 1, 16\]") as warned:
        assert set(fungi.blocks(noise_pictures(1))) == {"embedding", "kl"}
    assert len(warned) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fungi.blocks(noise_pictures(1))
        with small_backbone().run(torch.zeros(1, 3, 32, 32), layers=2):
            pass


def test_an_image_processor_that_does_not_resize_is_said_to_be_overruled():
    with pytest.warns(UserWarning, match="does not resize .*; images are resized to 32 x 32"):
        Preprocess.from_huggingface({"do_resize": False, "size": {"height": 32, "width": 32}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Preprocess.from_huggingface({"size": {"height": 32, "width": 32}})


def test_a_fitted_fungi_of_a_hugging_face_network_can_be_pickled():
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    module = Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    )
    pictures = noise_pictures(3)
    fungi = Fungi(Recipe(objectives=[KL(latent=8)], dim=8), backbone=Backbone(module, preprocess=PREPROCESS))
    expected = fungi.fit_transform(pictures)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fungi)).transform(pictures), expected)
