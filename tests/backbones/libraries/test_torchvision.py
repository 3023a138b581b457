"""torchvision's vision transformer, whose fused attention never calls its output projection."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.errors import BackboneError
from sporeprint.features.contracts import check_backbone
from sporeprint.gradients.capture import weight_gradients

torchvision = pytest.importorskip("torchvision")

PATH = "encoder.layers.encoder_layer_1.self_attention.out_proj"
PREPROCESS = Preprocess(size=32)


def build(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torchvision.models.VisionTransformer(
            image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, **options
        )
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    module.heads = torch.nn.Identity()  # so that the network's own output is its embedding
    return module.to(dtype).eval()


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype)


def autograd_loop(module: Any, path: str, views: Tensor) -> Tensor:
    """One backward pass a sample through torchvision's own forward. [N, O, I + 1]"""
    layer = module.get_submodule(path).requires_grad_()
    rows = []
    for view in views:
        weight, bias = torch.autograd.grad(module(view.unsqueeze(0)).pow(3).sum(), [layer.weight, layer.bias])
        rows.append(torch.cat([weight, bias.unsqueeze(1)], dim=1))
    return torch.stack(rows)


def relative(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return ((actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def test_finds_the_projection_inside_the_last_attention():
    backbone = Backbone(build(), preprocess=PREPROCESS)
    assert list(backbone.targets) == [PATH]
    assert (backbone.pooling, backbone.prefix, backbone.tokens, backbone.width) == ("cls", 1, 17, 32)
    assert backbone.depth == 2


def test_keeps_the_contract():
    check_backbone(Backbone(build(torch.float32), preprocess=PREPROCESS))


def test_embedding_is_torchvisions_input_to_its_head():
    module, views = build(), images()
    with torch.no_grad():
        expected = module(views)
    with Backbone(module, preprocess=PREPROCESS).run(views) as one_pass:
        assert relative(one_pass.embedding.detach(), expected) < 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("path", [PATH, PATH.removesuffix(".out_proj"), PATH.replace("layer_1", "layer_0")])
def test_gradient_of_the_fused_projection_is_autograds(dtype, tolerance, trainable, training, path):
    module = build(dtype, dropout=0.5, attention_dropout=0.5).requires_grad_(trainable).train(training)
    with Backbone(module, path, PREPROCESS).run(images(dtype)) as one_pass:
        (capture,) = one_pass.captures.values()
        (sensitivities,) = torch.autograd.grad(one_pass.embedding.pow(3).sum(), [capture.outputs])
        gradients = weight_gradients(capture.inputs, sensitivities)
    assert module.training == training
    assert all(parameter.grad is None for parameter in module.parameters())
    out_proj = path if path.endswith("out_proj") else f"{path}.out_proj"
    assert relative(gradients, autograd_loop(module.eval(), out_proj, images(dtype))) <= tolerance


def test_layers_of_several_kinds_are_read_in_one_pass():
    module = build()
    paths = [PATH.replace("layer_1", "layer_0"), "encoder.layers.encoder_layer_1.mlp.0", PATH]
    with Backbone(module, paths, PREPROCESS).run(images()) as one_pass:
        outputs = [capture.outputs for capture in one_pass.captures.values()]
        sensitivities = torch.autograd.grad(one_pass.embedding.pow(3).sum(), outputs)
        gradients = [
            weight_gradients(capture.inputs, sensitivity)
            for capture, sensitivity in zip(one_pass.captures.values(), sensitivities, strict=True)
        ]
    for path, gradient in zip(paths, gradients, strict=True):
        assert relative(gradient, autograd_loop(module, path, images())) <= 1e-9


def test_layer_blocks_are_the_blocks_outputs():
    module, outputs = build(), []
    handles = [
        block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in module.encoder.layers
    ]
    with torch.no_grad():
        module(images())
    for handle in handles:
        handle.remove()
    with Backbone(module, preprocess=PREPROCESS).run(images(), layers=2) as one_pass:
        layers = one_pass.layers
    for number, tokens in enumerate(outputs, start=1):
        assert relative(layers[f"cls-{number}"], tokens[:, 0]) < 1e-12
        assert relative(layers[f"patches-{number}"], tokens[:, 1:].mean(dim=1)) < 1e-12


def test_wrong_image_size_is_one_clear_error():
    with pytest.raises(BackboneError, match="VisionTransformer fails on one 40 x 40 image: Wrong image height"):
        Backbone(build(), preprocess=Preprocess(size=40))
