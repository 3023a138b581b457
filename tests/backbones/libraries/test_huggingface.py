"""Every Hugging Face vision family, tiny and with random weights, against autograd and the model's own outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small import VISION
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import BackboneError
from sporeprint.features.contracts import check_backbone
from sporeprint.gradients.capture import weight_gradients

tf = pytest.importorskip("transformers")

SIDE, PATCHES = 32, 16
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"}
TEXT = {  # deeper than the vision tower, so that the longest list of blocks is the wrong one
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
PREPROCESS = Preprocess(size=SIDE)


def cls(module: nn.Module, images: Tensor) -> Tensor:
    return module(pixel_values=images).last_hidden_state[:, 0]


def pooled(module: nn.Module, images: Tensor) -> Tensor:
    return module(pixel_values=images).pooler_output


def patch_mean(module: nn.Module, images: Tensor) -> Tensor:
    return module(pixel_values=images).last_hidden_state[:, 1:].mean(dim=1)


def normed_patch_mean(module: Any, images: Tensor) -> Tensor:
    return module.pooler.layernorm(patch_mean(module, images))


@dataclass(frozen=True)
class Family:
    """build: the module as a user has it. targets, parts: paths of the layer and of the part of the network that are
    read, in the versions of transformers; the first that exists counts. embed: what "auto" means."""

    build: Callable[[], nn.Module]
    targets: tuple[str, ...]
    pooling: str = "cls"
    prefix: int = 1
    embed: Callable[[Any, Tensor], Tensor] = cls
    parts: tuple[str, ...] = ("",)

    def part(self, module: nn.Module) -> nn.Module:
        return module.get_submodule(_first(self.parts, module))

    def target(self, module: nn.Module) -> str:
        return _first(self.targets, self.part(module))


def _first(paths: tuple[str, ...], module: nn.Module) -> str:
    there = {path for path, _ in module.named_modules()}
    return next(path for path in paths if path in there)


OLD = "encoder.layer.1.attention.output.dense"  # transformers 4
VIT = ("layers.1.attention.o_proj", OLD)
DINO = ("encoder.layer.1.attention.o_proj", OLD)
DINOV3 = ("model.layer.1.attention.o_proj", "layer.1.attention.o_proj")
DATA2VEC = (OLD,)
CLIP = ("encoder.layers.1.self_attn.out_proj",)
TOWER = ("vision_model", "")
FAMILIES = {
    "vit": Family(lambda: tf.ViTModel(tf.ViTConfig(**VISION)), VIT),
    "dino": Family(lambda: tf.ViTModel(tf.ViTConfig(**VISION), add_pooling_layer=False), VIT),
    "vit-classifier": Family(lambda: tf.ViTForImageClassification(tf.ViTConfig(**VISION)), VIT, parts=("vit",)),
    "deit": Family(lambda: tf.DeiTModel(tf.DeiTConfig(**VISION)), VIT, prefix=2),
    "deit-classifier": Family(
        lambda: tf.DeiTForImageClassification(tf.DeiTConfig(**VISION)), VIT, prefix=2, parts=("deit",)
    ),
    "dinov2": Family(lambda: tf.Dinov2Model(tf.Dinov2Config(**DINOV2)), DINO),
    "dinov2-classifier": Family(
        lambda: tf.Dinov2ForImageClassification(tf.Dinov2Config(**DINOV2)), DINO, parts=("dinov2",)
    ),
    "dinov2-registers": Family(
        lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(num_register_tokens=4, **DINOV2)),
        DINO,
        prefix=5,
    ),
    "dinov3": Family(
        lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(num_register_tokens=4, **VISION)),
        DINOV3,
        prefix=5,
    ),
    "clip-vision": Family(
        lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)), CLIP, pooling="own", embed=pooled, parts=TOWER
    ),
    "clip-projection": Family(
        lambda: tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(**VISION)),
        CLIP,
        pooling="own",
        embed=pooled,
        parts=TOWER,
    ),
    "clip": Family(
        lambda: tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=VISION)),
        CLIP,
        pooling="own",
        embed=pooled,
        parts=TOWER,
    ),
    "siglip-vision": Family(
        lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**VISION)),
        CLIP,
        pooling="own",
        prefix=0,
        embed=pooled,
        parts=TOWER,
    ),
    "siglip": Family(
        lambda: tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION)),
        CLIP,
        pooling="own",
        prefix=0,
        embed=pooled,
        parts=TOWER,
    ),
    "mae": Family(lambda: tf.ViTMAEModel(tf.ViTMAEConfig(mask_ratio=0.0, **VISION)), VIT),
    "beit": Family(lambda: tf.BeitModel(tf.BeitConfig(use_mean_pooling=False, **VISION)), VIT),
    "beit-mean": Family(
        lambda: tf.BeitModel(tf.BeitConfig(use_mean_pooling=True, use_relative_position_bias=True, **VISION)),
        VIT,
        pooling="own",
        embed=normed_patch_mean,
    ),
    "data2vec": Family(
        lambda: tf.Data2VecVisionModel(tf.Data2VecVisionConfig(use_relative_position_bias=True, **VISION)),
        DATA2VEC,
        pooling="mean",
        embed=patch_mean,
    ),
    "data2vec-cls": Family(
        lambda: tf.Data2VecVisionModel(tf.Data2VecVisionConfig(use_mean_pooling=False, **VISION)), DATA2VEC
    ),
    "data2vec-classifier": Family(
        lambda: tf.Data2VecVisionForImageClassification(tf.Data2VecVisionConfig(**VISION)),
        DATA2VEC,
        pooling="own",
        embed=normed_patch_mean,
        parts=("data2vec_vision",),
    ),
}


def build(family: Family, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Seeded, in evaluation mode, with every parameter stirred: fresh models have zeros for CLS and positions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = family.build()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def images(dtype: torch.dtype = torch.float64, count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).to(dtype)


def autograd_loop(family: Family, module: nn.Module, views: Tensor) -> Tensor:
    """One backward pass a sample through the model as its authors call it. [N, O, I + 1]"""
    part = family.part(module)
    layer: Any = part.get_submodule(family.target(module))
    flags = layer.weight.requires_grad
    layer.requires_grad_()
    rows = []
    for view in views:
        loss = family.embed(part, view.unsqueeze(0)).pow(3).sum()
        weight, bias = torch.autograd.grad(loss, [layer.weight, layer.bias])
        rows.append(torch.cat([weight, bias.unsqueeze(1)], dim=1))
    layer.requires_grad_(flags)
    return torch.stack(rows)


def from_factors(backbone: Backbone, views: Tensor) -> Tensor:
    with backbone.run(views) as one_pass:
        (capture,) = one_pass.captures.values()
        (sensitivities,) = torch.autograd.grad(one_pass.embedding.pow(3).sum(), [capture.outputs])
        return weight_gradients(capture.inputs, sensitivities)


def relative(actual: Tensor, expected: Tensor) -> float:
    """The worst sample's."""
    assert actual.shape == expected.shape
    return ((actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def embedding(backbone: Backbone, views: Tensor) -> Tensor:
    with backbone.run(views) as one_pass:
        return one_pass.embedding.detach()


every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


@every
def test_finds_the_last_attention_output_the_pooling_and_the_prefix(family):
    module = build(family)
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert backbone.module is family.part(module)
    assert list(backbone.targets) == [family.target(module)]
    assert (backbone.pooling, backbone.prefix) == (family.pooling, family.prefix)
    assert (backbone.tokens, backbone.width, backbone.depth) == (family.prefix + PATCHES, 32, 2)


@every
def test_keeps_the_contract(family):
    check_backbone(Backbone(build(family, torch.float32), preprocess=PREPROCESS))


@every
def test_embedding_is_what_the_authors_use(family):
    module, views = build(family), images()
    with torch.no_grad():
        expected = family.embed(family.part(module), views)
    assert relative(embedding(Backbone(module, preprocess=PREPROCESS), views), expected) < 1e-12


@every
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("trainable", [True, False])
def test_gradient_from_the_factors_is_autograds(family, dtype, tolerance, trainable):
    module = build(family, dtype).requires_grad_(trainable)
    views = images(dtype)
    gradients = from_factors(Backbone(module, preprocess=PREPROCESS), views)
    assert gradients.dtype == dtype
    assert relative(gradients, autograd_loop(family, module, views)) <= tolerance
    assert all(parameter.grad is None for parameter in module.parameters())


@every
def test_layer_blocks_are_the_hidden_states_of_each_block(family):
    module = build(family)
    backbone = Backbone(module, preprocess=PREPROCESS)
    views, last = images(), []
    handle = backbone.module.get_submodule(family.target(module).partition(".1.")[0])[1].register_forward_hook(
        lambda _, __, output: last.append(output if isinstance(output, Tensor) else output[0])
    )
    patches = {"noise": torch.arange(PATCHES).expand(len(views), -1)} if "MAE" in type(backbone.module).__name__ else {}
    with torch.no_grad():
        hidden = backbone.module(pixel_values=views, output_hidden_states=True, **patches).hidden_states
    handle.remove()
    with backbone.run(views, layers=2) as one_pass:
        layers = one_pass.layers
    with_cls = ["cls-1", "patches-1", "cls-2", "patches-2"]
    assert list(layers) == (with_cls if family.prefix else ["patches-1", "patches-2"])
    assert not any(values.requires_grad for values in layers.values())
    for number, tokens in ((1, hidden[1]), (2, last[0])):
        if family.prefix:
            assert relative(layers[f"cls-{number}"], tokens[:, 0]) < 1e-12
        assert relative(layers[f"patches-{number}"], tokens[:, family.prefix :].mean(dim=1)) < 1e-12


@every
def test_training_mode_neither_drops_anything_nor_is_left_changed(family):
    module, views = build(family), images()
    expected = embedding(Backbone(module, preprocess=PREPROCESS), views)
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.5
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.5
    next(iter(module.children())).eval()
    flags = [part.training for part in module.modules()]
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert relative(embedding(backbone, views), expected) < 1e-12
    assert [part.training for part in module.modules()] == flags


@every
@pytest.mark.parametrize("outer", [torch.no_grad, torch.inference_mode])
def test_gradients_are_the_same_where_the_caller_has_turned_autograd_off(family, outer):
    module = build(family)
    expected = autograd_loop(family, module, images())
    with outer():
        gradients = from_factors(Backbone(module, preprocess=PREPROCESS), images())
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (outer is torch.inference_mode)
    assert relative(gradients, expected) <= 1e-9


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_pooling_can_be_chosen(pooling):
    module, views = build(FAMILIES["dinov2-registers"]), images()
    with torch.no_grad():
        tokens: Any = module(pixel_values=views).last_hidden_state
    expected = {"cls": tokens[:, 0], "mean": tokens[:, 5:].mean(dim=1), "last": tokens[:, -1]}[pooling]
    assert relative(embedding(Backbone(module, preprocess=PREPROCESS, pooling=pooling), views), expected) < 1e-12


def test_siglip_classifier_without_a_pooling_head_is_read_at_its_patches():
    config = tf.SiglipConfig(text_config=TEXT, vision_config=VISION | {"vision_use_head": False})
    backbone = Backbone(tf.SiglipForImageClassification(config), preprocess=PREPROCESS)
    assert (backbone.pooling, backbone.prefix) == ("mean", 0)


def test_a_network_without_a_cls_token_is_read_at_its_patches():
    module, views = tf.IJepaModel(tf.IJepaConfig(**VISION)).double().eval(), images()
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert (backbone.pooling, backbone.prefix) == ("mean", 0)
    with torch.no_grad():
        expected = module(pixel_values=views).last_hidden_state.mean(dim=1)
    assert relative(embedding(backbone, views), expected) < 1e-12


def test_cls_pooling_is_refused_where_there_is_no_cls_token():
    with pytest.raises(BackboneError, match=r"no CLS token \(16 tokens, all patches\); use pooling='mean'"):
        Backbone(build(FAMILIES["siglip"]), preprocess=PREPROCESS, pooling="cls")


@pytest.mark.parametrize("full", [True, False])
def test_siglip2_naflex_is_refused_by_name(full):
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": PATCHES}
    module = (
        tf.Siglip2Model(tf.Siglip2Config(text_config=TEXT, vision_config=vision))
        if full
        else tf.Siglip2VisionModel(tf.Siglip2VisionConfig(**vision))
    )
    with pytest.raises(BackboneError, match="NaFlex"):
        Backbone(module, preprocess=PREPROCESS)


def test_mae_that_drops_patches_is_refused_with_what_to_do():
    with pytest.raises(BackboneError, match=r"drops 75% of the patches at random.*mask_ratio=0.0"):
        Backbone(tf.ViTMAEModel(tf.ViTMAEConfig(**VISION)), preprocess=PREPROCESS)


def test_mae_pass_draws_nothing_from_the_global_generator():
    backbone = Backbone(build(FAMILIES["mae"]), preprocess=PREPROCESS)
    before = torch.get_rng_state()
    embedding(backbone, images())
    assert torch.equal(torch.get_rng_state(), before)


def test_text_model_is_refused_with_what_is_for_images():
    bert = tf.BertModel(tf.BertConfig(**{key: TEXT[key] for key in list(TEXT)[:6]}))
    with pytest.raises(BackboneError, match="BertModel takes text, its preprocess makes image"):
        Backbone(bert, preprocess=PREPROCESS)
    with pytest.raises(BackboneError, match="no preprocess given; give preprocess=tokenizer"):
        Backbone(bert)
    with pytest.raises(BackboneError, match="preprocess is a function; give preprocess=tokenizer"):
        Backbone(bert, preprocess=lambda text: text)
    with pytest.raises(BackboneError, match="BertModel takes input_ids, not image; give a vision model"):
        Backbone(bert, preprocess=PREPROCESS, modality="image")


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_vision_model_is_refused_for_another_modality(modality):
    with pytest.raises(BackboneError, match=f"ViTModel takes pixel_values, not {modality}; give a vision model"):
        Backbone(build(FAMILIES["vit"]), preprocess=PREPROCESS, modality=modality)


def test_wrong_image_size_is_one_clear_error():
    with pytest.raises(BackboneError, match=r"ViTModel fails on one 40 x 40 image: .*size"):
        Backbone(build(FAMILIES["vit"]), preprocess=Preprocess(size=40))


def test_model_made_inside_inference_mode_is_refused_with_what_to_do():
    with torch.inference_mode():
        module = tf.ViTModel(tf.ViTConfig(**VISION))
    with pytest.raises(BackboneError, match=r"made inside torch.inference_mode\(\).*load it outside"):
        Backbone(module, preprocess=PREPROCESS)
