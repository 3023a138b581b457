"""timm's vision transformers and EVA, tiny and with random weights, against autograd and timm's own calls."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.load import load_backbone, timm_preprocess
from sporeprint.errors import BackboneError, MissingExtra
from sporeprint.features.contracts import check_backbone
from sporeprint.gradients.capture import weight_gradients


def test_timm_that_is_absent_gives_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"'timm:vit' needs timm; pip install 'sporeprint\[timm\]'"):
        load_backbone("timm:vit")


def test_timm_that_cannot_be_imported_says_why(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match="torchvision::nms does not exist; install the torchvision that fits torch"):
        load_backbone("timm:vit")


try:
    import timm
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer
except ImportError:
    timm = None

needs_timm = pytest.mark.skipif(timm is None, reason="timm is not installed")
TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
PREPROCESS = Preprocess(size=32)

# Name: (build, tokens before the patches, the embedding by hand from timm's tokens [N, T, E])
MODELS: dict[str, tuple[Callable[[], Any], int, Callable[[Any, Tensor], Tensor]]] = {
    "vit": (lambda: VisionTransformer(**TINY), 1, lambda m, t: t[:, 0]),
    "vit-no-head": (lambda: VisionTransformer(num_classes=0, **TINY), 1, lambda m, t: t[:, 0]),
    "registers": (lambda: VisionTransformer(reg_tokens=4, **TINY), 5, lambda m, t: t[:, 0]),
    "average": (
        lambda: VisionTransformer(global_pool="avg", fc_norm=True, **TINY),
        1,
        lambda m, t: m.fc_norm(t[:, 1:].mean(dim=1)),
    ),
    "average-registers-no-cls": (
        lambda: VisionTransformer(global_pool="avg", class_token=False, reg_tokens=4, **TINY),
        4,
        lambda m, t: m.fc_norm(t[:, 4:].mean(dim=1)),
    ),
    "dinov2": (
        lambda: VisionTransformer(init_values=0.1, no_embed_class=True, reg_tokens=4, num_classes=0, **TINY),
        5,
        lambda m, t: t[:, 0],
    ),
    "siglip": (
        lambda: VisionTransformer(class_token=False, global_pool="map", **TINY),
        0,
        lambda m, t: m.attn_pool(t),
    ),
    "deit-distilled": (lambda: VisionTransformerDistilled(**TINY), 2, lambda m, t: (t[:, 0] + t[:, 1]) / 2),
    "eva": (
        lambda: Eva(use_rot_pos_emb=False, global_pool="avg", **TINY),
        1,
        lambda m, t: m.fc_norm(t[:, 1:].mean(dim=1)),
    ),
    "eva02": (
        lambda: Eva(
            use_rot_pos_emb=True, swiglu_mlp=True, qkv_fused=False, scale_mlp=True, scale_attn_inner=True, **TINY
        ),
        1,
        lambda m, t: m.fc_norm(t[:, 1:].mean(dim=1)),
    ),
    "eva-cls": (lambda: Eva(global_pool="token", use_rot_pos_emb=True, **TINY), 1, lambda m, t: t[:, 0]),
    "dinov3": (
        lambda: timm.create_model("vit_small_patch16_dinov3", pretrained=False, **TINY),
        5,
        lambda m, t: m.fc_norm(t[:, 5:].mean(dim=1)),
    ),
    "beit": (
        lambda: timm.create_model("beit_base_patch16_224", pretrained=False, **TINY),
        1,
        lambda m, t: m.fc_norm(t[:, 1:].mean(dim=1)),
    ),
}
every = pytest.mark.parametrize("name", MODELS)


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MODELS[name][0]()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def relative(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


@needs_timm
@every
def test_finds_the_last_attention_output_and_the_prefix_and_keeps_the_contract(name):
    backbone = Backbone(build(name, torch.float32), preprocess=PREPROCESS)
    prefix = MODELS[name][1]
    assert list(backbone.targets) == ["blocks.1.attn.proj"]
    assert (backbone.prefix, backbone.tokens, backbone.width, backbone.depth) == (prefix, prefix + 16, 32, 2)
    check_backbone(backbone)


@needs_timm
@every
def test_embedding_is_timms_own_and_what_the_pooling_says_by_hand(name):
    module, views = build(name), images()
    with Backbone(module, preprocess=PREPROCESS).run(views) as one_pass:
        embedding = one_pass.embedding.detach()
    with torch.no_grad():
        tokens = module.forward_features(views)
        assert relative(embedding, module.forward_head(tokens, pre_logits=True)) < 1e-12
        assert relative(embedding, MODELS[name][2](module, tokens)) < 1e-12


@needs_timm
@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("trainable", [True, False])
def test_gradient_from_the_factors_is_autograds(name, dtype, tolerance, trainable):
    module = build(name, dtype).requires_grad_(trainable)
    views, layer = images(dtype), module.blocks[1].attn.proj
    with Backbone(module.train(), preprocess=PREPROCESS).run(views) as one_pass:
        (capture,) = one_pass.captures.values()
        (sensitivities,) = torch.autograd.grad(one_pass.embedding.pow(3).sum(), [capture.outputs])
        gradients = weight_gradients(capture.inputs, sensitivities)
    assert module.training
    assert all(parameter.grad is None for parameter in module.parameters())
    module.eval()
    layer.requires_grad_()
    expected = []
    for view in views:
        loss = module.forward_head(module.forward_features(view.unsqueeze(0)), pre_logits=True).pow(3).sum()
        weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
        expected.append(torch.cat([weight, bias.unsqueeze(1)], dim=1))
    assert relative(gradients, torch.stack(expected)) <= tolerance


@needs_timm
@every
def test_layer_blocks_are_the_blocks_outputs(name):
    module, views, prefix = build(name), images(), MODELS[name][1]
    outputs: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _, __, out: outputs.append(out)) for block in module.blocks]
    with torch.no_grad():
        module(views)
    for handle in handles:
        handle.remove()
    with Backbone(module, preprocess=PREPROCESS).run(views, layers=2) as one_pass:
        layers = one_pass.layers
    for number, tokens in enumerate(outputs, start=1):
        if prefix:
            assert relative(layers[f"cls-{number}"], tokens[:, 0]) < 1e-12
        assert relative(layers[f"patches-{number}"], tokens[:, prefix:].mean(dim=1)) < 1e-12


@needs_timm
def test_pooling_can_be_chosen():
    module, views = build("registers"), images()
    with torch.no_grad():
        tokens = module.forward_features(views)
    with Backbone(module, preprocess=PREPROCESS, pooling="mean").run(views) as one_pass:
        assert relative(one_pass.embedding.detach(), tokens[:, 5:].mean(dim=1)) < 1e-12


# Preprocessing


def configured(**config: Any) -> Any:
    module = build("vit")
    module.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.48, 0.45, 0.4), "std": (0.26, 0.25, 0.27)} | config
    return module


@needs_timm
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
@pytest.mark.parametrize(
    "config",
    [
        {"crop_pct": 0.9},
        {"crop_pct": 0.875, "crop_mode": "center"},
        {"crop_pct": 1.0, "crop_mode": "center"},
        {"crop_pct": 0.9, "crop_mode": "squash"},
        {"crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_pct": 1.2, "crop_mode": "center"},
        {"crop_pct": 1.1, "crop_mode": "center"},  # 29 of 32: an odd margin is added
        {"crop_pct": 1.2, "crop_mode": "squash"},
        {"crop_pct": 0.95, "input_size": (3, 33, 33)},
    ],
    ids=str,
)
def test_pixels_are_those_of_timms_evaluation_transform(config, interpolation):
    module = configured(interpolation=interpolation, **config)
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    ours = timm_preprocess(module)
    rng = np.random.default_rng(0)
    for width, height in [(5, 7), (32, 32), (35, 61), (61, 35), (97, 41), (200, 31), (31, 200), (36, 37), (1, 9)]:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        expected, actual = theirs(image), ours(image)
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() < 1e-6, (width, height)


@needs_timm
@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"crop_mode": "border"}, "crop_mode='border'.*expected center or squash"),
        ({"interpolation": "random"}, "resized with 'random'"),
        ({"input_size": (3, 32, 48)}, "32 x 48 images; sporeprint needs square ones"),
    ],
)
def test_other_transforms_are_refused(config, match):
    with pytest.raises(BackboneError, match=match):
        timm_preprocess(configured(**config))


@needs_timm
def test_name_gives_the_pretrained_network_without_its_head(monkeypatch):
    asked: dict[str, Any] = {}

    def create_model(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        return configured()

    monkeypatch.setattr(timm, "create_model", create_model)
    backbone = load_backbone("timm:vit_tiny", device="cpu")
    assert asked == {"name": "vit_tiny", "pretrained": True, "num_classes": 0}
    assert (backbone.name, backbone.dtype, backbone.preprocess.size) == ("timm:vit_tiny", torch.float32, 32)
    check_backbone(backbone)


@needs_timm
def test_unknown_name_is_one_clear_error():
    with pytest.raises(BackboneError, match="timm could not load 'no_such_model'"):
        load_backbone("timm:no_such_model")


@needs_timm
def test_network_without_attention_lists_its_linear_layers():
    with pytest.raises(ValueError, match="Linear layers here: fc"):
        Backbone(timm.create_model("resnet18", pretrained=False), preprocess=PREPROCESS)
