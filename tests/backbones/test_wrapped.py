"""A network inside a wrapper is read as the bare one is, or the error says what is read instead."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from small import PREPROCESS, VISION, small_module
from small_sentence import save_bert
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.inputs import Batch
from sporeprint.backbones.load import load_backbone
from sporeprint.errors import BackboneError, LayerError

tf = pytest.importorskip("transformers")


def vit(seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tf.ViTModel(tf.ViTConfig(**VISION)).eval()


def clip() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tf.CLIPVisionModel(tf.CLIPVisionConfig(**VISION)).eval()


def beit(pooler: bool) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tf.BeitModel(tf.BeitConfig(**VISION, use_mean_pooling=True), add_pooling_layer=pooler).eval()


class Thin(nn.Module):
    """A module of a user's own around a network; `read` picks from the network's output."""

    def __init__(self, network: nn.Module, read: Any = lambda output: output):
        super().__init__()
        self.network, self.read = network, read

    def forward(self, images: torch.Tensor) -> Any:
        return self.read(self.network(images))


class BaseTuner(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **named: Any) -> Any:
        return self.model(*args, **named)


class PeftModel(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.base_model = BaseTuner(model)

    def forward(self, *args: Any, **named: Any) -> Any:
        return self.base_model(*args, **named)


def distributed(module: nn.Module) -> nn.Module:
    """A DistributedDataParallel without a process group, which its constructor asks for."""
    wrapper = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = module
    return wrapper


def hooked(module: nn.Module) -> nn.Module:
    """As accelerate's add_hook_to_module leaves it."""
    from functools import update_wrapper

    inner = module.forward
    module.forward = update_wrapper(lambda *args, **named: inner(*args, **named), inner)  # type: ignore[method-assign]
    return module


def patched(module: nn.Module) -> nn.Module:
    inner = module.forward
    module.forward = lambda *args, **named: inner(*args, **named)  # type: ignore[method-assign]
    return module


def subclassed(forward: Any) -> Any:
    """Return a function from a module to one of a subclass, with another forward."""

    def make(module: nn.Module) -> nn.Module:
        kind = type("Mine", (type(module),), {"forward": forward(type(module)), "__module__": __name__})
        mine = kind(module.config).eval()
        mine.load_state_dict(module.state_dict())
        return mine

    return make


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": distributed,
    "torch.compile": torch.compile,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "Sequential": nn.Sequential,
    "peft": PeftModel,
    "accelerate": hooked,
    "patched": patched,
    "subclass, any names": subclassed(lambda kind: lambda self, *args, **named: kind.forward(self, *args, **named)),
    "subclass, another name": subclassed(lambda kind: lambda self, images: kind.forward(self, images)),
    "subclass, tokens": subclassed(lambda kind: lambda self, images: kind.forward(self, images).last_hidden_state),
    "several": lambda module: nn.DataParallel(torch.compile(nn.Sequential(module))),
    "thin": Thin,
    "thin in DataParallel": lambda module: nn.DataParallel(Thin(module)),
    "thin, tokens": lambda module: Thin(module, lambda output: output.last_hidden_state),
    "thin, tuple": lambda module: Thin(module, lambda output: output.last_hidden_state[:, 0]),
    "thin of thin": lambda module: Thin(Thin(module)),
}


def embedding(module: nn.Module) -> torch.Tensor:
    backbone = Backbone(module, preprocess=PREPROCESS)
    views: Batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with backbone.run(views) as one_pass:
        return one_pass.embedding.detach()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_vision_transformer_gives_the_bare_ones_cls_token(wrapper):
    views = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vit()(pixel_values=views).last_hidden_state[:, 0]
    torch.testing.assert_close(embedding(WRAPPERS[wrapper](vit())), expected, atol=1e-5, rtol=1e-5)


def test_a_text_encoder_whose_forward_passes_on_what_it_is_given_is_read_as_the_bare_one(tmp_path):
    bare = load_backbone(str(save_bert(tmp_path / "bert")), device="cpu")
    wrapped = Backbone(patched(copy.deepcopy(bare.module)), preprocess=bare.preprocess)
    views = bare.preprocess.collate(bare.preprocess.probes())
    with bare.run(views) as expected, wrapped.run(views) as got:
        assert torch.equal(got.embedding, expected.embedding)


def test_the_random_pooler_of_a_checkpoint_without_one_decides_nothing():
    first, second = vit(), vit()
    nn.init.normal_(second.pooler.dense.weight)
    assert torch.equal(embedding(Thin(first)), embedding(Thin(second)))


@pytest.mark.parametrize("build", [clip, lambda: beit(True), lambda: beit(False)])
@pytest.mark.parametrize("wrapper", ["DataParallel", "thin"])
def test_a_wrapper_changes_nothing_of_how_a_network_is_pooled(build, wrapper):
    torch.testing.assert_close(embedding(WRAPPERS[wrapper](build())), embedding(build()), atol=1e-6, rtol=1e-6)


def test_a_pooler_output_alone_is_read_only_where_the_network_inside_is_read_by_it():
    def pooled(output: Any) -> Any:
        return SimpleNamespace(pooler_output=output.pooler_output)

    with pytest.raises(BackboneError, match=r"Thin returned a pooler_output alone, .*random.*last_hidden_state too"):
        Backbone(Thin(vit(), pooled), preprocess=PREPROCESS)
    torch.testing.assert_close(embedding(Thin(clip(), pooled)), embedding(clip()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("read", [lambda output: output.to_tuple(), lambda output: (output[0], output[1])])
def test_a_pair_from_a_network_whose_pooler_is_not_read_is_refused(read):
    with pytest.raises(BackboneError, match=r"Thin returned a pair, .*random.*Return the embedding alone"):
        Backbone(Thin(vit(), read), preprocess=PREPROCESS)


def test_a_tensor_that_a_users_module_returns_is_the_embedding():
    views = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vit()(pixel_values=views).pooler_output
    given = embedding(Thin(vit(), lambda output: output.pooler_output))
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-6)


def test_of_two_networks_inside_no_pooler_is_read():
    class Two(Thin):
        def __init__(self) -> None:
            super().__init__(vit())
            self.other = vit(1)

    torch.testing.assert_close(embedding(Two()), embedding(vit()), atol=1e-6, rtol=1e-6)


def test_the_path_of_a_layer_may_be_the_wrappers_or_the_networks():
    for target in ("module.blocks.0.mlp.fc2", "blocks.0.mlp.fc2"):
        backbone = Backbone(nn.DataParallel(small_module()), target=target, preprocess=PREPROCESS)
        assert list(backbone.targets) == ["blocks.0.mlp.fc2"]


@pytest.mark.parametrize("where", ["whole", "block"])
def test_a_network_that_is_compiled_in_place_is_read_as_the_bare_one(where):
    module = small_module()
    (module if where == "whole" else module.blocks[1]).compile()
    bare, compiled = Backbone(small_module(), preprocess=PREPROCESS), Backbone(module, preprocess=PREPROCESS)
    views: Batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for backbone in (bare, compiled):
        with backbone.run(views) as one_pass:
            (capture,) = one_pass.captures.values()
            gradients.append((one_pass.embedding, *torch.autograd.grad(one_pass.embedding.sum(), capture.outputs)))
    for given, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-6)


def test_a_compiled_module_inside_a_network_is_refused_with_what_to_do():
    module = small_module()
    module.blocks[1] = torch.compile(module.blocks[1])
    with pytest.raises(BackboneError, match=r"blocks\.1 is compiled, .*before torch.compile"):
        Backbone(module, preprocess=PREPROCESS)


def test_torchscript_is_refused_with_what_to_do():
    traced = torch.jit.trace(nn.Conv2d(3, 8, 8, stride=8), torch.zeros(1, 3, 32, 32))
    with pytest.raises(BackboneError, match=r"is TorchScript, .*give the nn.Module it was made from"):
        Backbone(traced, preprocess=PREPROCESS)


class Lora(nn.Module):
    def __init__(self, base_layer: nn.Linear):
        super().__init__()
        self.base_layer = base_layer
        self.lora_A, self.lora_B = nn.Linear(base_layer.in_features, 2), nn.Linear(2, base_layer.out_features)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.base_layer(tokens) + self.lora_B(self.lora_A(tokens))


def test_an_adapter_in_the_layer_that_is_read_is_to_be_merged_first():
    module = small_module()
    module.blocks[1].attn.proj = Lora(module.blocks[1].attn.proj)
    with pytest.raises(LayerError, match=r"holds an adapter \(LoRA\): 'blocks\.1\.attn\.proj\..*merge_and_unload"):
        Backbone(PeftModel(module), preprocess=PREPROCESS)
    Backbone(PeftModel(module), target="blocks.0.attn.proj", preprocess=PREPROCESS)


@pytest.mark.parametrize("place", ["weight", "buffer"])
def test_a_network_of_the_users_own_with_numbers_that_are_not_finite_is_refused_by_name(place):
    module = small_module()
    module.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))
    Backbone(module, preprocess=PREPROCESS)
    if place == "weight":
        module.blocks[0].mlp.fc1.bias.data[3] = torch.inf
    else:
        module.mask[1] = torch.nan
    name = {"weight": r"blocks\.0\.mlp\.fc1\.bias", "buffer": "mask"}[place]
    with pytest.raises(BackboneError, match=f"TinyViT: 1 of the .* numbers of its weight '{name}' are NaN or infinite"):
        Backbone(module, preprocess=PREPROCESS)
