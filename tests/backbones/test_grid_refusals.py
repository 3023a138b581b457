"""Images and networks that give no grid of patches, and networks that nobody knows, whose word is checked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from small import VISION, small_module
from small_grids import NATIVE, by_hand, images, shaken
from small_text import wordpiece
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import BackboneError

tf = pytest.importorskip("transformers")

PREPROCESS = Preprocess(size=32)


@pytest.mark.parametrize(
    ("shape", "nearest"),
    [((30, 41), "32 x 40"), ((32, 33), "32 x 32"), ((3, 100), "8 x 96"), ((8, 9), "8 x 8")],
)
def test_images_that_are_no_whole_patches_are_told_the_nearest_size(shape, nearest):
    backbone = Backbone(small_module(), preprocess=PREPROCESS)
    with pytest.raises(BackboneError, match=rf"{shape[0]} x {shape[1]} pixels.*multiples .* 8\. Nearest: {nearest} "):
        backbone.grid_shape(*shape)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (0, 3, 32, 32)])
def test_what_is_no_batch_of_images_is_refused(shape):
    backbone = Backbone(small_module(), preprocess=PREPROCESS)
    with pytest.raises(BackboneError, match=r"expected \[N, 3, H, W\]"), backbone.grid(torch.zeros(shape)):
        pass


def test_a_backbone_of_texts_is_refused():
    config = tf.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=200
    )
    backbone = Backbone(tf.BertModel(config), preprocess=wordpiece())
    assert backbone.patch is None
    with pytest.raises(BackboneError, match="takes text; grids of tokens need a backbone of images"):
        backbone.grid_shape(32, 32)


class Custom(nn.Module):
    """A network that nobody knows: patches, one block with a made-up attention, CLS in front or behind."""

    def __init__(self, order: str = "rows", kernel: int = 8):
        super().__init__()
        self.order = order
        self.embed = nn.Conv2d(3, 8, kernel, stride=kernel)
        self.cls = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList([CustomBlock()])

    def forward(self, x):
        planes = self.embed(x)
        if self.order == "columns":
            planes = planes.transpose(2, 3)
        if self.order == "to and fro":
            planes = torch.cat([planes[:, :, :1], planes[:, :, 1:].flip(3)], dim=2)
        tokens = planes.flatten(2).transpose(1, 2)
        cls = self.cls.expand(len(x), -1, -1)
        tokens = self.blocks[0](torch.cat([tokens, cls] if self.order == "behind" else [cls, tokens], dim=1))
        return tokens.mean(dim=1) if self.order == "pooled" else tokens


class CustomBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.ModuleDict({"proj": nn.Linear(8, 8)})

    def forward(self, tokens):
        return tokens + self.attn["proj"](tokens)


def test_a_network_that_nobody_knows_is_used_at_its_own_size():
    module = Custom().double()
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert backbone.patch is None
    with backbone.grid(images(*NATIVE)) as one_pass:
        assert torch.equal(one_pass.tokens, by_hand(module(images(*NATIVE)), 1, NATIVE))
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    with (
        pytest.raises(BackboneError, match=r"40 x 24 pixels.*only known to take images of 32 x 32.*Preprocess\(\.\.\."),
        backbone.grid(images(40, 24)),
    ):
        pass
    assert not calls


def test_a_patch_size_that_is_told_opens_other_sizes():
    module = Custom().double()
    backbone = Backbone(module, preprocess=Preprocess(size=32, patch=8))
    with backbone.grid(images(40, 24)) as one_pass:
        assert torch.equal(one_pass.tokens, by_hand(module(images(40, 24)), 1, (40, 24)))


def test_a_wrong_patch_size_is_found_by_the_number_of_tokens():
    backbone = Backbone(Custom().double(), preprocess=Preprocess(size=32, patch=16))
    with (
        pytest.raises(BackboneError, match=r"gives shape \[2, 17, 8\]; expected \[2, 5, E\], 1 tokens before"),
        backbone.grid(images(*NATIVE)),
    ):
        pass


@pytest.mark.parametrize(
    ("order", "kernel", "expected", "changed"),
    [
        ("columns", 8, 5, 2),
        ("to and fro", 8, 5, 8),
        ("behind", 8, 5, 4),
        ("columns", 16, 3, 2),
        ("to and fro", 16, 3, 4),
        ("behind", 16, 3, 2),
    ],
)
def test_tokens_in_another_order_are_found_out(order, kernel, expected, changed):
    backbone = Backbone(Custom(order, kernel).double(), preprocess=PREPROCESS, pooling="mean")
    with (
        pytest.raises(BackboneError, match=rf"row 1, column 0 \(from 0\) change token {changed}; expected {expected}"),
        backbone.grid(images(*NATIVE)),
    ):
        pass


def test_a_network_that_gives_no_tokens_is_refused():
    backbone = Backbone(Custom("pooled").double(), preprocess=PREPROCESS)
    with (
        pytest.raises(BackboneError, match=r"gives no tokens; expected \[2, 17, E\]"),
        backbone.grid(images(*NATIVE)),
    ):
        pass


@pytest.mark.parametrize("patch", [None, 8])
def test_swin_whose_attention_sees_windows_is_refused(patch):
    config = tf.SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2)
    backbone = Backbone(tf.SwinModel(config), preprocess=Preprocess(size=32, patch=patch), pooling="mean")
    words = r"16 of them.*expected 8 x 8, by its patch convolution" if patch is None else r"sees shape \[8, 4, 16\]"
    with pytest.raises(BackboneError, match=words), backbone.grid(images(*NATIVE)):
        pass


def test_yolos_whose_detection_tokens_stand_behind_is_refused():
    config = tf.YolosConfig(**{**VISION, "image_size": [32, 32]}, num_detection_tokens=6)
    backbone = Backbone(tf.YolosModel(config), preprocess=PREPROCESS)
    assert backbone.prefix == 7
    with pytest.raises(BackboneError, match="change token 5; expected 11"), backbone.grid(images(*NATIVE)):
        pass


def test_a_target_that_sees_no_patches_is_refused():
    module = shaken(tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)))
    backbone = Backbone(module, target="head.mlp.fc1", preprocess=PREPROCESS)
    with (
        pytest.raises(BackboneError, match=r"target 'head\.mlp\.fc1' sees shape \[2, 1, 32\]; expected \[2, 16, E\]"),
        backbone.grid(images(*NATIVE)),
    ):
        pass


def test_a_network_that_fails_on_a_size_that_was_promised_says_so():
    class Rigid(Custom):
        def forward(self, x):
            return super().forward(x) + torch.zeros(17, 1)

    backbone = Backbone(Rigid().double(), preprocess=Preprocess(size=32, patch=8))
    with (
        pytest.raises(BackboneError, match=r"fails on images \[2, 3, 40, 24\]: The size of.*than its own, 32\?"),
        backbone.grid(images(40, 24)),
    ):
        pass
