"""timm's networks at any height and width, against those that are built to take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from small_grids import NATIVE, SHAPES, assert_close, by_hand, images, shaken
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import BackboneError

timm = pytest.importorskip("timm")
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

PREPROCESS = Preprocess(size=32)
TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
# Name: (build, tokens before the patches)
NETWORKS: dict[str, tuple[Callable[..., Any], int]] = {
    "vit": (lambda **more: VisionTransformer(**TINY, **more), 1),
    "registers": (lambda **more: VisionTransformer(reg_tokens=4, no_embed_class=True, **TINY, **more), 5),
    "average": (lambda **more: VisionTransformer(global_pool="avg", fc_norm=True, **TINY, **more), 1),
    "map": (lambda **more: VisionTransformer(class_token=False, global_pool="map", **TINY, **more), 0),
    "distilled": (lambda **more: VisionTransformerDistilled(**TINY, **more), 2),
    "eva": (lambda **more: Eva(use_rot_pos_emb=False, global_pool="avg", **TINY, **more), 1),
}


@pytest.mark.parametrize("shape", [NATIVE, *SHAPES])
@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_those_of_a_network_that_is_built_to_take_the_size(name, shape):
    build, prefix = NETWORKS[name]
    module = shaken(build())
    built_to = build(dynamic_img_size=True).double().eval()
    built_to.load_state_dict(module.state_dict())
    flags = [{**part.__dict__} for part in (module, module.patch_embed)]
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert (backbone.patch, backbone.prefix) == (8, prefix)
    with torch.no_grad():
        expected = by_hand(built_to.forward_features(images(*shape)), prefix, shape)
    for quick in (True, False):
        backbone.quick = quick
        with backbone.grid(images(*shape)) as one_pass:
            assert_close(one_pass.tokens, expected)
            (capture,) = one_pass.captures.values()
            (felt,) = torch.autograd.grad(one_pass.tokens.pow(2).sum(), [capture.outputs])
            assert felt.shape == capture.inputs.shape == (2, prefix + shape[0] * shape[1] // 64, 32)
    assert flags == [{**part.__dict__} for part in (module, module.patch_embed)]


def test_a_rotary_network_that_is_built_to_takes_other_sizes_and_another_its_own_alone():
    rotary = Backbone(shaken(Eva(use_rot_pos_emb=True, dynamic_img_size=True, **TINY)), preprocess=PREPROCESS)
    with rotary.grid(images(40, 24)) as one_pass, torch.no_grad():
        assert_close(one_pass.tokens, by_hand(rotary.module.forward_features(images(40, 24)), 1, (40, 24)))
    rigid = Backbone(shaken(Eva(use_rot_pos_emb=True, **TINY)), preprocess=PREPROCESS)
    with rigid.grid(images(*NATIVE)) as one_pass, torch.no_grad():
        assert_close(one_pass.tokens, by_hand(rigid.module.forward_features(images(*NATIVE)), 1, NATIVE))
    with pytest.raises(BackboneError, match="Eva is only known to take images of 32 x 32"):
        rigid.grid_shape(40, 24)


@pytest.mark.parametrize(
    ("name", "target"),
    [("convnext_atto", "stages.3.blocks.1.mlp.fc2"), ("swin_tiny_patch4_window7_224", "layers.3.blocks.1.attn.proj")],
)
def test_networks_of_stages_are_refused(name, target):
    side = 224 if "swin" in name else 32
    preprocess = Preprocess(size=side)
    linear = {"conv_mlp": False} if "convnext" in name else {}
    backbone = Backbone(timm.create_model(name, pretrained=False, **linear), target=target, preprocess=preprocess)
    with pytest.raises(BackboneError, match="not a plain grid of patches"):
        backbone.grid_shape(side, side)
