"""Finding the target by structure, and what is said where there is none."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sporeprint.backbones.base import Backbone
from sporeprint.backbones.preprocess import Preprocess
from sporeprint.backbones.structure import attention_output, blocks, resolve
from sporeprint.backbones.tiny import TinyConfig, TinyViT
from sporeprint.errors import BackboneError, LayerError

PREPROCESS = Preprocess(size=32)


def tiny() -> TinyViT:
    return TinyViT(TinyConfig(image_size=32, patch_size=8, width=16, depth=3, heads=2))


def tree(**children: Any) -> nn.Module:
    """A module with these children; a string is the kind of a leaf."""
    kinds = {"linear": lambda: nn.Linear(4, 4), "norm": lambda: nn.LayerNorm(4), "dropout": lambda: nn.Dropout()}
    made = nn.Module()
    for name, child in children.items():
        made.add_module(name, kinds[child]() if isinstance(child, str) else child)
    return made


def old_block() -> nn.Module:
    """One layer as transformers 4.56 names it: ViT, DeiT, DINOv2, MAE, BEiT."""
    return tree(
        attention=tree(
            attention=tree(query="linear", key="linear", value="linear", dropout="dropout"),
            output=tree(dense="linear", dropout="dropout"),
        ),
        intermediate=tree(dense="linear"),
        output=tree(dense="linear", dropout="dropout"),
        layernorm_before="norm",
        layernorm_after="norm",
    )


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_names_of_older_transformers_are_found(prefix):
    module = tree(
        embeddings=tree(patch_embeddings=tree(projection="linear")),
        encoder=tree(layer=nn.ModuleList(old_block() for _ in range(12))),
        layernorm="norm",
        pooler=tree(dense="linear"),
    )
    if prefix:
        module = tree(vit=module, classifier="linear")
    (path,) = resolve(module, None)
    assert path == f"{prefix}encoder.layer.11.attention.output.dense"


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (tree(attn=tree(qkv="linear", proj="linear"), mlp=tree(fc1="linear", fc2="linear")), "attn.proj"),
        (
            tree(
                norm1="norm", attn=tree(q_proj="linear", k_proj="linear", v_proj="linear", norm="norm", proj="linear")
            ),
            "attn.proj",
        ),
        (
            tree(self_attn=tree(k_proj="linear", v_proj="linear", q_proj="linear", out_proj="linear")),
            "self_attn.out_proj",
        ),
        (tree(self_attention=nn.MultiheadAttention(4, 2), mlp="linear"), "self_attention.out_proj"),
        (tree(attention=tree(o_proj="linear", q_proj="linear", k_proj="linear", v_proj="linear")), "attention.o_proj"),
        (tree(attn=tree(qkv="linear", proj="linear", proj_w=nn.Linear(2, 2))), "attn.proj"),  # CaiT mixes heads too
        (tree(attn=tree(cpb_mlp=nn.Linear(4, 2), qkv="linear", proj="linear")), "attn.proj"),
        (tree(attn=tree(mix="linear", qkv="linear", proj="linear")), "attn.proj"),  # the last one closes it
        (tree(mlp=tree(fc1="linear", fc2="linear")), None),
        (tree(attn=tree(qkv="linear")), None),
    ],
)
def test_output_projection_of_an_attention_is_told_from_its_inputs(block, expected):
    assert attention_output(block) == expected


def test_blocks_are_the_longest_list_of_one_class_that_holds_an_attention():
    def block() -> nn.Module:
        return tree(attn=tree(qkv="linear", proj="linear"))

    module = tree(
        stem=nn.Sequential(*(nn.Linear(4, 4) for _ in range(9))),
        stages=nn.ModuleList([block(), nn.Linear(4, 4)]),
        short=nn.ModuleList([block()]),
        blocks=nn.Sequential(block(), block(), block()),
    )
    assert [path for path, _ in blocks(module)] == ["blocks.0", "blocks.1", "blocks.2"]


def test_encoder_is_read_where_a_decoder_behind_it_is_as_deep():
    def stack() -> nn.Module:
        return nn.ModuleList(tree(attn=tree(qkv="linear", proj="linear")) for _ in range(2))

    (path,) = resolve(tree(encoder=stack(), decoder=stack()), None)
    assert path == "encoder.1.attn.proj"


def test_unknown_path_lists_the_linear_layers():
    with pytest.raises(LayerError, match=r"no layer 'blocks\.7\.attn\.proj' in TinyViT.*blocks\.2\.attn\.proj, "):
        Backbone(tiny(), "blocks.7.attn.proj", PREPROCESS)


def test_path_of_another_kind_of_module_says_its_kind_and_lists_the_linear_layers():
    with pytest.raises(
        LayerError, match=r"layer 'blocks\.2\.norm1' is a LayerNorm; FUNGI reads an nn\.Linear.*attn\.proj"
    ):
        Backbone(tiny(), "blocks.2.norm1", PREPROCESS)


def test_long_list_of_linear_layers_keeps_the_last():
    module = nn.Sequential(*(nn.Linear(4, 4) for _ in range(60)))
    with pytest.raises(LayerError, match=r"Linear layers here: \.\.\. 20, 21, .*58, 59$"):
        resolve(module, ["x"])


def test_network_without_attention_asks_for_a_path():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(LayerError, match=r"no list of transformer blocks.*target=PATH.*: 1, 3$"):
        Backbone(module, preprocess=PREPROCESS)
    backbone = Backbone(module, "3", PREPROCESS)
    assert (backbone.pooling, backbone.width, backbone.depth, backbone.tokens) == ("own", 4, 0, 1)


def test_network_without_any_linear_layer_says_so():
    module = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Flatten())
    with pytest.raises(LayerError, match="Linear layers here: none"):
        Backbone(module, preprocess=PREPROCESS)


def test_path_of_a_multihead_attention_means_its_output_projection():
    module = tree(attn=nn.MultiheadAttention(4, 2))
    (target,) = resolve(module, ["attn"]).values()
    assert target.layer is module.get_submodule("attn.out_proj")
    assert target.attention is module.get_submodule("attn")
    assert resolve(module, ["attn.out_proj"])["attn.out_proj"] == target


def test_layer_known_under_two_paths_is_found_under_both():
    shared = nn.Linear(4, 4)
    module = tree(first=shared, second=shared)
    assert resolve(module, ["second"])["second"].layer is shared


class Wrapped(nn.Module):
    def __init__(self, shape: Any):
        super().__init__()
        self.inner, self.shape = tiny(), shape

    def forward(self, images: Tensor) -> Any:
        return self.shape(self.inner(images))


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        (lambda tokens: {"features": tokens}, "Wrapped returned a dict; expected a tensor"),
        (lambda tokens: (tokens, tokens, tokens), "Wrapped returned a tuple"),
        (lambda tokens: None, "Wrapped returned a NoneType"),
        (lambda tokens: tokens.unflatten(1, (1, 17)), r"shape \(1, 1, 17, 16\); expected \[N, E\]"),
        (lambda tokens: tokens.sum(), r"shape \(\); expected \[N, E\]"),
    ],
)
def test_output_that_is_no_embedding_is_refused(shape, match):
    with pytest.raises(BackboneError, match=match):
        Backbone(Wrapped(shape), preprocess=PREPROCESS)


@pytest.mark.parametrize(
    ("shape", "pooling"),
    [
        (lambda tokens: tokens, "cls"),
        (lambda tokens: tokens[:, 0], "own"),
        (lambda tokens: (tokens, tokens.amax(dim=1)), "own"),
        (lambda tokens: _Output(last_hidden_state=tokens), "cls"),
    ],
)
def test_outputs_that_can_be_read(shape, pooling):
    backbone = Backbone(Wrapped(shape), preprocess=PREPROCESS)
    assert (backbone.pooling, backbone.prefix, backbone.width) == (pooling, 1, 16)


class _Output(OrderedDict):
    """As a Hugging Face output: a dictionary with attributes."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


def test_pooling_without_tokens_is_refused():
    with pytest.raises(BackboneError, match="gives no tokens, so pooling='mean' is not possible; use 'auto'"):
        Backbone(Wrapped(lambda tokens: tokens[:, 0]), preprocess=PREPROCESS, pooling="mean")


def test_unknown_pooling_is_refused():
    with pytest.raises(BackboneError, match="pooling='max'; expected one of: auto, cls, mean, last"):
        Backbone(tiny(), preprocess=PREPROCESS, pooling="max")


def test_network_that_fails_is_one_error_with_its_reason():
    with pytest.raises(BackboneError, match="TinyViT fails on one 40 x 40 image: The size of tensor a"):
        Backbone(tiny(), preprocess=Preprocess(size=40))


class LinearPatches(nn.Module):
    """Patches embedded by a linear layer: no convolution tells how many there are."""

    def __init__(self, prefix: int):
        super().__init__()
        self.prefix = prefix
        self.embed, self.attn = nn.Linear(192, 8), nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        patches = nn.functional.unfold(images, 8, stride=8).transpose(1, 2)  # [N, 16, 192]
        tokens = self.embed(patches)
        return self.attn(torch.cat([tokens[:, : self.prefix], tokens], dim=1))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_prefix_is_what_is_left_of_a_square(prefix):
    backbone = Backbone(LinearPatches(prefix), "attn", PREPROCESS)
    assert (backbone.prefix, backbone.tokens) == (prefix, prefix + 16)
    assert backbone.pooling == ("cls" if prefix else "mean")


def test_given_prefix_is_taken():
    assert Backbone(LinearPatches(5), "attn", PREPROCESS, prefix=3).prefix == 3
