"""Grids of tokens of images of any height and width, against the libraries' own interpolation and plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small import VISION, small_module
from small_grids import NATIVE, SHAPES, assert_close, by_hand, images, shaken
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.grid import patch_factors
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.libraries.image_sizes import resize_positions
from sporeprint.errors import BackboneError

tf = pytest.importorskip("transformers")

PREPROCESS = Preprocess(size=32)
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"}
RELATIVE = {**VISION, "use_relative_position_bias": True, "use_absolute_position_embeddings": True}
NETWORKS: dict[str, Callable[[], Any]] = {
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**VISION)),
    "deit": lambda: tf.DeiTModel(tf.DeiTConfig(**VISION)),
    "clip": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)),
    "siglip": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)),
    "beit": lambda: tf.BeitModel(tf.BeitConfig(**RELATIVE)),
    "data2vec": lambda: tf.Data2VecVisionModel(tf.Data2VecVisionConfig(**VISION)),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**DINOV2)),
    "registers": lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**DINOV2)),
    "dinov3": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**VISION, num_register_tokens=4)),
}
UNASKED = ("dinov2", "registers", "dinov3")
PREFIX = {"deit": 2, "registers": 5, "dinov3": 5, "siglip": 0}  # 1 elsewhere
ASKED = {"interpolate_pos_encoding": True}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_the_librarys_own_row_by_row(name, shape):
    module = shaken(NETWORKS[name]())
    backbone = Backbone(module, preprocess=PREPROCESS, pooling="mean")
    assert (backbone.patch, backbone.prefix) == (8, PREFIX.get(name, 1))
    with torch.no_grad():
        tokens = module(pixel_values=images(*shape), **({} if name in UNASKED else ASKED)).last_hidden_state
    with backbone.grid(images(*shape)) as one_pass:
        assert_close(one_pass.tokens, by_hand(tokens, backbone.prefix, shape))
        (capture,) = one_pass.captures.values()
        assert capture.inputs.shape == (2, tokens.shape[1], 32)
        patches = patch_factors(capture.inputs, backbone.prefix)
        assert torch.equal(patches[1, -1], capture.inputs[1, -1])
        assert patches.shape[1] == shape[0] * shape[1] // 64


@pytest.mark.parametrize("name", NETWORKS)
def test_at_their_own_size_tokens_are_those_of_an_ordinary_pass(name):
    module = shaken(NETWORKS[name]())
    backbone = Backbone(module, preprocess=PREPROCESS, pooling="mean")
    backbone.quick = False
    with torch.no_grad():
        expected = by_hand(module(pixel_values=images(*NATIVE)).last_hidden_state, backbone.prefix, NATIVE)
    with backbone.grid(images(*NATIVE)) as one_pass:
        assert torch.equal(one_pass.tokens.detach(), expected)
    with backbone.run(images(*NATIVE)) as ordinary, backbone.grid(images(*NATIVE)) as one_pass:
        assert_close(one_pass.tokens.mean(dim=(1, 2)), ordinary.embedding.detach())


@pytest.mark.parametrize("shape", [NATIVE, (16, 40)])
def test_maes_patches_stay_in_their_places(shape):
    mae = shaken(tf.ViTMAEModel(tf.ViTMAEConfig(mask_ratio=0.0, **VISION)))
    backbone = Backbone(mae, preprocess=PREPROCESS)
    order = torch.arange(shape[0] * shape[1] / 64).repeat(2, 1)
    with torch.no_grad():
        tokens = mae(pixel_values=images(*shape), noise=order, interpolate_pos_encoding=True).last_hidden_state
    with backbone.grid(images(*shape)) as one_pass:
        assert_close(one_pass.tokens, by_hand(tokens, 1, shape))


@pytest.mark.parametrize("shape", [NATIVE, *SHAPES])
def test_our_own_network_interpolates_to_any_height_and_width(shape):
    module = small_module(dtype=torch.float64)
    rows, columns = shape[0] // 8, shape[1] // 8
    with torch.no_grad():
        patches = module.patch_embed(images(*shape)).flatten(2).transpose(1, 2)
        positions = resize_positions(module.pos_embed, 1, rows, columns)
        assert positions.shape == (1, 1 + rows * columns, 16)
        expected = module.encode(torch.cat([module.cls_token.expand(2, -1, -1), patches], dim=1) + positions)
    with Backbone(module, preprocess=PREPROCESS).grid(images(*shape)) as one_pass:
        assert_close(one_pass.tokens, by_hand(expected, 1, shape))


def test_positions_of_a_wide_grid_follow_their_own_axis():
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    positions = torch.cat([torch.full((1, 1, 2), 77.0), torch.stack([row, column], dim=-1).view(1, 64, 2)], dim=1)
    resized = resize_positions(positions, 1, 8, 4)
    assert (resized[:, 0] == 77).all()
    grid = resized[0, 1:].view(8, 4, 2)
    # Rows as they were; halving the columns' ramp gives the middles of pairs, where no edge is near
    assert grid[:, 1, 0].tolist() == pytest.approx(list(range(8)))
    assert grid[3, 1:3, 1].tolist() == pytest.approx([2.5, 4.5])


def read(backbone: Backbone, shape: tuple[int, int], layers: int) -> list[Tensor]:
    """Tokens, factors of every target for a loss of the tokens, and layers."""
    with backbone.grid(images(*shape), layers=layers) as one_pass:
        outputs = [capture.outputs for capture in one_pass.captures.values()]
        felt = torch.autograd.grad(one_pass.tokens.pow(3).sum(), outputs)
        inputs = [capture.inputs for capture in one_pass.captures.values()]
        return [one_pass.tokens.detach(), *felt, *inputs, *one_pass.layers.values()]


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("name", ["vit", "deit", "clip", "siglip", "dinov2", "registers", "dinov3", "beit"])
def test_the_quick_path_gives_what_the_network_gives(name, layers):
    backbone = Backbone(shaken(NETWORKS[name]()), preprocess=PREPROCESS, pooling="cls" if name != "siglip" else "mean")
    quick = {shape: read(backbone, shape, layers) for shape in [NATIVE, *SHAPES]}
    assert len(backbone._shortcut.known) == (0 if name in ("dinov3", "beit") else 2)
    backbone.quick = False
    for shape, tensors in quick.items():
        for first, other in zip(tensors, read(backbone, shape, layers), strict=True):
            torch.testing.assert_close(first, other, rtol=1e-9, atol=1e-12 * float(other.abs().max()))


def test_images_whose_blocks_go_through_one_by_one(monkeypatch):
    backbone = Backbone(small_module(dtype=torch.float64), preprocess=PREPROCESS)
    whole = read(backbone, (40, 56), 0)
    monkeypatch.setattr("sporeprint.backbones.quick.shortcut._IN_FLIGHT", 1)
    for first, other in zip(read(backbone, (40, 56), 0), whole, strict=True):
        assert_close(first, other)


@pytest.mark.parametrize("name", ["deit", "registers"])
def test_sensitivities_of_a_loss_of_the_grid_are_those_of_plain_autograd(name):
    module = shaken(NETWORKS[name]())
    backbone = Backbone(module, preprocess=PREPROCESS)
    (path,) = backbone.targets
    weights = torch.randn(2, 3, 5, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with backbone.grid(images(24, 40)) as one_pass:
        capture = one_pass.captures[path]
        (felt,) = torch.autograd.grad((one_pass.tokens.tanh() * weights).sum(), [capture.outputs])

    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = module.get_submodule(path).register_forward_hook(keep)
    asked = ASKED if name == "deit" else {}
    tokens = module(pixel_values=images(24, 40), **asked).last_hidden_state
    handle.remove()
    (by_hand(tokens, backbone.prefix, (24, 40)).tanh() * weights).sum().backward()
    assert kept[0].grad is not None
    assert_close(felt, kept[0].grad)
    assert felt[:, : backbone.prefix].abs().max() == 0  # after the last attention no token feels another's
    # The two factors make the gradient of weight and bias.
    parameters = module.get_submodule(path)
    assert_close(torch.einsum("nto,nti->oi", felt, capture.inputs), parameters.weight.grad)
    assert_close(felt.sum(dim=(0, 1)), parameters.bias.grad)


def test_sensitivities_at_several_targets_feel_through_the_attention_and_the_prefix():
    module, paths = small_module(dtype=torch.float64), ["blocks.0.mlp.fc2", "blocks.1.attn.proj"]
    backbone = Backbone(module, target=paths, preprocess=PREPROCESS)
    with backbone.grid(images(24, 40)) as one_pass:
        outputs = [one_pass.captures[path].outputs for path in paths]
        felt = torch.autograd.grad(one_pass.tokens.pow(3).sum(), outputs)
        all_inputs = [one_pass.captures[path].inputs for path in paths]
    assert felt[0][:, 0].abs().max() > 0  # CLS, which the patches attend to
    module(images(24, 40))[:, 1:].pow(3).sum().backward()
    for path, sensitivities, inputs in zip(paths, felt, all_inputs, strict=True):
        assert_close(torch.einsum("nto,nti->oi", sensitivities, inputs), module.get_submodule(path).weight.grad)


def test_layers_are_grids_of_the_last_blocks_before_the_final_norm():
    module = small_module(dtype=torch.float64, depth=3)
    backbone = Backbone(module, preprocess=PREPROCESS)
    with torch.no_grad():
        first = module.blocks[0](module.embed(images(16, 40)))
        second = module.blocks[1](first)
        third = module.blocks[2](second)
    with backbone.grid(images(16, 40), layers=2) as one_pass:
        assert list(one_pass.layers) == ["patches-2", "patches-3"]
        assert not any(grid.requires_grad for grid in one_pass.layers.values())
        assert_close(one_pass.layers["patches-2"], by_hand(second, 1, (16, 40)))
        assert_close(one_pass.layers["patches-3"], by_hand(third, 1, (16, 40)))
    with backbone.grid(images(16, 40), layers=9) as one_pass:
        assert list(one_pass.layers) == ["patches-1", "patches-2", "patches-3"]


def test_bfloat16_tokens_are_given_in_float32_and_near():
    backbone = Backbone(small_module(depth=3), preprocess=PREPROCESS)
    tokens = {}
    for autocast in (None, torch.bfloat16):
        with backbone.grid(images(40, 24), layers=1, autocast=autocast) as one_pass:
            assert one_pass.tokens.dtype == one_pass.layers["patches-3"].dtype == torch.float32
            tokens[autocast] = one_pass.tokens.detach()
    cosine = nn.functional.cosine_similarity(tokens[None], tokens[torch.bfloat16], dim=-1)
    assert 0.99 < cosine.min() < 1 - 1e-7


def test_the_network_is_left_as_it_was_also_after_an_exception():
    module = small_module().train()
    backbone = Backbone(module, preprocess=PREPROCESS)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    read(backbone, (16, 40), 2)
    with pytest.raises(KeyboardInterrupt), backbone.grid(images(16, 40), layers=2):
        raise KeyboardInterrupt
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert not any("forward" in vars(part) for part in module.modules())


def test_torchvisions_network_is_used_at_its_own_size_alone():
    torchvision = pytest.importorskip("torchvision")
    module = shaken(
        torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
        )
    )
    backbone = Backbone(module, preprocess=PREPROCESS)
    kept: list[Tensor] = []
    handle = module.encoder.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        module(images(*NATIVE))
    handle.remove()
    with backbone.grid(images(*NATIVE)) as one_pass:
        assert_close(one_pass.tokens, by_hand(kept[0], 1, NATIVE))
        (capture,) = one_pass.captures.values()
        (felt,) = torch.autograd.grad(one_pass.tokens.sum(), [capture.outputs])
    assert felt.shape == capture.inputs.shape == (2, 17, 32)
    with pytest.raises(BackboneError, match="only known to take images of 32 x 32"):
        backbone.grid_shape(64, 64)
