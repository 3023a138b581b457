"""Images smaller than those a network was made for, against the library's own interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small import VISION, noise_pictures, small_backbone, small_module
from small_grids import shaken
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.libraries.image_sizes import resize_positions
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.features.engine_setup import make_engine
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.objectives.views.image import Crops, Patches

SIDE = 32
PREPROCESS = Preprocess(size=SIDE)
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"}
RELATIVE = {**VISION, "use_relative_position_bias": True, "use_absolute_position_embeddings": True}


def hugging(name: str, config: str, options: dict[str, Any] = VISION, **more: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        return getattr(transformers, name)(getattr(transformers, config)(**options, **more))

    return make


ASKED = {"interpolate_pos_encoding": True}
# Name: (build, the argument that the network itself needs)
HUGGING: dict[str, tuple[Callable[[], nn.Module], dict[str, bool]]] = {
    "vit": (hugging("ViTModel", "ViTConfig"), ASKED),
    "deit": (hugging("DeiTModel", "DeiTConfig"), ASKED),
    "clip": (hugging("CLIPVisionModel", "CLIPVisionConfig"), ASKED),
    "siglip": (hugging("SiglipVisionModel", "SiglipVisionConfig"), ASKED),
    "beit": (hugging("BeitModel", "BeitConfig", RELATIVE), ASKED),
    "data2vec": (hugging("Data2VecVisionModel", "Data2VecVisionConfig"), ASKED),
    "dinov2": (hugging("Dinov2Model", "Dinov2Config", DINOV2), {}),
    "registers": (hugging("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINOV2), {}),
    "dinov3": (hugging("DINOv3ViTModel", "DINOv3ViTConfig"), {}),
}


def images(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def outputs(backbone: Backbone, side: int) -> list[Tensor | None]:
    """Tokens, and the pooled ones where there are any, with no shortcut through the blocks."""
    with torch.no_grad():
        return list(backbone.adapter.outputs(images(side), backbone.name))


def same(backbone: Backbone, side: int, *expected: Tensor | None) -> bool:
    actual = outputs(backbone, side)
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("side", [16, 24])
@pytest.mark.parametrize("name", HUGGING)
def test_hugging_faces_networks_interpolate_as_they_do_when_asked(name, side):
    build, asked = HUGGING[name]
    module = shaken(build())
    backbone = Backbone(module, preprocess=PREPROCESS, pooling="mean")
    assert backbone.preprocess.patch == 8
    with torch.no_grad():
        output = module(pixel_values=images(side), **asked)
    assert output.last_hidden_state.shape[1] == backbone.prefix + (side // 8) ** 2
    assert same(backbone, side, output.last_hidden_state, output.pooler_output)
    with backbone.run(images(side)) as one_pass:
        mean = output.last_hidden_state[:, backbone.prefix :].mean(dim=1)
        torch.testing.assert_close(one_pass.embedding.detach(), mean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", HUGGING)
def test_at_their_own_size_nothing_is_asked_of_them(name):
    module = shaken(HUGGING[name][0]())
    backbone = Backbone(module, preprocess=PREPROCESS, pooling="mean")
    with torch.no_grad():
        output = module(pixel_values=images(SIDE))
    assert same(backbone, SIDE, output.last_hidden_state, output.pooler_output)


def test_maes_patches_stay_in_their_places_at_every_size():
    transformers = pytest.importorskip("transformers")
    mae = shaken(transformers.ViTMAEModel(transformers.ViTMAEConfig(mask_ratio=0.0, **VISION)))
    backbone = Backbone(mae, preprocess=PREPROCESS, pooling="mean")
    with torch.no_grad():
        order = torch.arange(4.0).repeat(3, 1)
        tokens = mae(pixel_values=images(16), noise=order, interpolate_pos_encoding=True).last_hidden_state
    assert same(backbone, 16, tokens, None)


def test_swin_whose_tokens_are_no_plain_grid_has_no_patch_size():
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
    )
    assert (
        Backbone(transformers.SwinModel(config).eval(), preprocess=PREPROCESS, pooling="mean").preprocess.patch is None
    )


def timm_networks() -> dict[str, Callable[..., Any]]:
    try:
        import timm
        from timm.models.deit import VisionTransformerDistilled
        from timm.models.eva import Eva
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        return {}
    small = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return {
        "vit": lambda **more: VisionTransformer(**small, **more),
        "registers": lambda **more: VisionTransformer(reg_tokens=4, no_embed_class=True, **small, **more),
        "average": lambda **more: VisionTransformer(global_pool="avg", fc_norm=True, **small, **more),
        "map": lambda **more: VisionTransformer(class_token=False, global_pool="map", **small, **more),
        "distilled": lambda **more: VisionTransformerDistilled(**small, **more),
        "eva": lambda **more: Eva(use_rot_pos_emb=False, global_pool="avg", **small, **more),
        "rotary": lambda **more: Eva(use_rot_pos_emb=True, **small, **more),
        "beit": lambda **more: timm.create_model("beit_base_patch16_224", pretrained=False, **small, **more),
    }


TIMM = timm_networks()
needs_timm = pytest.mark.skipif(not TIMM, reason="timm is not installed")
RIGID = ("rotary", "beit")


@needs_timm
@pytest.mark.parametrize("name", [name for name in TIMM if name not in RIGID])
def test_timms_networks_interpolate_as_those_built_to_and_stay_as_they_were(name):
    module = shaken(TIMM[name]())
    built_to = TIMM[name](dynamic_img_size=True).double().eval()
    built_to.load_state_dict(module.state_dict())
    flags = [{**part.__dict__} for part in (module, module.patch_embed)]
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert backbone.preprocess.patch == Backbone(built_to, preprocess=PREPROCESS).preprocess.patch == 8
    for side in (16, 24, SIDE):
        with torch.no_grad():
            tokens = built_to.forward_features(images(side))
            assert same(backbone, side, tokens, built_to.forward_head(tokens, pre_logits=True))
    assert flags == [{**part.__dict__} for part in (module, module.patch_embed)]
    with pytest.raises(AssertionError, match="doesn't match model"):
        module(images(16))


@needs_timm
@pytest.mark.parametrize("name", RIGID)
def test_timms_networks_of_tabulated_positions_have_no_patch_size(name):
    assert Backbone(shaken(TIMM[name]()), preprocess=PREPROCESS).preprocess.patch is None


@needs_timm
def test_timms_rotary_network_that_is_built_to_takes_them():
    backbone = Backbone(shaken(TIMM["rotary"](dynamic_img_size=True)), preprocess=PREPROCESS)
    assert backbone.preprocess.patch == 8
    tokens, pooled = outputs(backbone, 16)
    assert (tuple(tokens.shape), tuple(pooled.shape)) == ((3, 5, 32), (3, 32))


def test_positions_are_interpolated_between_neighbours_and_those_of_the_prefix_kept():
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    positions = torch.cat([torch.full((1, 2, 2), 77.0), torch.stack([row, column], dim=-1).view(1, 64, 2)], dim=1)
    assert resize_positions(positions, 2, 8) is positions
    resized = resize_positions(positions, 2, 4)
    assert resized.shape == (1, 18, 2)
    assert (resized[:, :2] == 77).all()
    # Halving a ramp of 8: the middles of pairs, which bicubic keeps to where no edge is near
    inner = resized[0, 2:].view(4, 4, 2)[1:3, 1:3]
    assert inner[..., 0].tolist() == [[pytest.approx(2.5)] * 2, [pytest.approx(4.5)] * 2]
    assert inner[..., 1].tolist() == [[pytest.approx(2.5), pytest.approx(4.5)]] * 2


def test_our_own_network_takes_smaller_images_and_is_the_same_at_its_own_size():
    module = small_module(dtype=torch.float64)
    with torch.no_grad():
        patches = module.patch_embed(images(16)).flatten(2).transpose(1, 2)
        tokens = torch.cat([module.cls_token.expand(3, -1, -1), patches], dim=1)
        expected = module.encode(tokens + resize_positions(module.pos_embed, 1, 2))
        assert torch.equal(module(images(16)), expected)
        whole = module.patch_embed(images(SIDE)).flatten(2).transpose(1, 2)
        tokens = torch.cat([module.cls_token.expand(3, -1, -1), whole], dim=1)
        assert torch.equal(module.embed(images(SIDE)), tokens + module.pos_embed)


def test_sides_are_the_nearest_multiples_of_the_patch_and_two_at_least():
    preprocess = Preprocess(size=224, patch=16)
    assert [preprocess.side(fraction) for fraction in (1, 0.5, 0.43, 0.46, 0.01, 0.999)] == [224, 112, 96, 96, 32, 224]
    assert Preprocess(size=224, patch=14).side(0.5) == 112
    assert Preprocess(size=30, patch=8).side(1.0) == 30


def test_a_patch_size_of_the_users_is_kept_and_decides_no_number():
    backbone = small_backbone()
    assert backbone.preprocess.patch == 8
    mine = Preprocess(size=SIDE, patch=4)
    assert Backbone(small_module(), preprocess=mine).preprocess.patch == 4
    assert mine.describe() == Preprocess(size=SIDE).describe()
    assert mine == Preprocess(size=SIDE)


class OneSize(nn.Module):
    """A network that nobody knows: a patch embedding, one linear layer, the mean."""

    def __init__(self):
        super().__init__()
        self.embed, self.attn = nn.Conv2d(3, 8, 8, stride=8), nn.Linear(8, 8)

    def forward(self, x):
        return self.attn(self.embed(x).flatten(2).transpose(1, 2)).mean(dim=1)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(objectives=None, views="native"),
        Recipe(objectives=[DINO(augmentation=Crops(local_side=0.5))]),
        Recipe(objectives=[SimCLR(augmentation=Patches(3, side=0.5))]),
    ],
)
def test_a_network_of_one_size_is_refused_before_any_row_is_read(recipe):
    for preprocess in (PREPROCESS, lambda image: torch.zeros(3, SIDE, SIDE)):
        backbone = Backbone(OneSize(), target="attn", preprocess=preprocess)
        with pytest.raises(RecipeError, match=r"images of 32 x 32; use another preset.*Preprocess\(\.\.\., patch="):
            make_engine(recipe, backbone)
    make_engine(recipe, Backbone(OneSize(), target="attn", preprocess=Preprocess(size=SIDE, patch=8)))


def test_without_views_below_the_full_side_any_network_will_do():
    backbone = Backbone(OneSize(), target="attn", preprocess=PREPROCESS)
    engine = make_engine(Recipe(objectives=[KL()], views="native"), backbone)
    assert (engine.backbone, [objective.views for objective in engine.objectives]) == (backbone, [1])


def test_a_preprocess_that_makes_too_small_images_is_still_refused():
    with pytest.raises(BackboneError, match=r"TinyViT takes images of 32 x 32, its preprocess makes 16 x 16.*native"):
        Backbone(small_module(), preprocess=Preprocess(size=16))


@pytest.mark.parametrize(
    "augmentation", [Patches(3, side=0.5), Crops(2, 3, local_side=0.5), Crops(1, 2, side=0.75)], ids=repr
)
def test_views_come_at_the_sizes_that_are_told_of_them(augmentation):
    preprocess = Preprocess(size=SIDE, patch=8)
    views = augmentation(noise_pictures(1)[0], preprocess, np.random.default_rng(0))
    assert [tuple(view.shape) for view in views] == [(3, side, side) for side in augmentation.sizes(preprocess)]
