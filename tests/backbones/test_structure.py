"""Finding the target by structure, and what is said where there is none."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.libraries.tiny import TinyConfig, TinyViT
from sporeprint.backbones.structure import attention_output, blocks, resolve
from sporeprint.errors import BackboneError, LayerError

PREPROCESS = Preprocess(size=32)


def tiny() -> TinyViT:
    return TinyViT(TinyConfig(image_size=32, patch_size=8, width=16, depth=3, heads=2))


def tree(**children: Any) -> nn.Module:
    """A module with these children; a string is the kind of a leaf."""
    kinds = {"linear": lambda: nn.Linear(4, 4), "norm": lambda: nn.LayerNorm(4), "dropout": lambda: nn.Dropout()}
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, kinds[child]() if isinstance(child, str) else child)
    return module


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


def test_lists_of_all_stages_count_as_one():
    def stage(depth: int) -> nn.Module:
        return tree(blocks=nn.ModuleList(tree(attn=tree(qkv="linear", proj="linear")) for _ in range(depth)))

    module = tree(layers=nn.ModuleList(stage(depth) for depth in (1, 4, 2)), head=stage(2))
    assert [path for path, _ in blocks(module)] == [
        *["layers.0.blocks.0", "layers.1.blocks.0", "layers.1.blocks.1", "layers.1.blocks.2", "layers.1.blocks.3"],
        *["layers.2.blocks.0", "layers.2.blocks.1"],
    ]


def test_two_attentions_side_by_side_in_each_block_are_no_stages():
    def block() -> nn.Module:
        return tree(attns=nn.ModuleList(tree(attn=tree(qkv="linear", proj="linear")) for _ in range(2)))

    module = tree(blocks=nn.ModuleList(block() for _ in range(3)))
    assert [path for path, _ in blocks(module)] == ["blocks.0", "blocks.1", "blocks.2"]


BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 32}
LLAMA = BERT | {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
GPT = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
WAVES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32} | {
    "conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_position_embeddings": 32}
MODERN = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
T5 = {"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
WHISPER = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32} | {
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8, "vocab_size": 32,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
CLAP = {"patch_embeds_hidden_size": 8, "depths": [1, 1, 6, 2], "num_attention_heads": [1, 2, 2, 2], "spec_size": 64} | {
    "hidden_size": 64, "num_mel_bins": 16, "window_size": 2, "projection_dim": 16, "aff_block_r": 2,
}  # fmt: skip
SELF_OUTPUT = "encoder.layer.1.attention.output.dense"

# Family: (its configuration, the output projection of the last self-attention, read from the printed module)
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "Bert": (BERT, SELF_OUTPUT),
    "Roberta": (BERT, SELF_OUTPUT),
    "XLMRoberta": (BERT, SELF_OUTPUT),
    "Electra": (BERT, SELF_OUTPUT),
    "DebertaV2": (BERT | DEBERTA, SELF_OUTPUT),
    "MPNet": (BERT, "encoder.layer.1.attention.attn.o"),
    "DistilBert": (
        {"vocab_size": 32, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        "transformer.layer.1.attention.out_lin",
    ),
    "ModernBert": (BERT | MODERN, "layers.1.attn.Wo"),
    "T5Encoder": (T5, "encoder.block.1.layer.0.SelfAttention.o"),
    "CLIPText": (BERT | {"bos_token_id": 0, "eos_token_id": 0}, "encoder.layers.1.self_attn.out_proj"),
    "Llama": (LLAMA, "layers.1.self_attn.o_proj"),
    "Mistral": (LLAMA, "layers.1.self_attn.o_proj"),
    "Qwen2": (LLAMA, "layers.1.self_attn.o_proj"),
    "Qwen3": (LLAMA, "layers.1.self_attn.o_proj"),
    "Gemma2": (LLAMA, "layers.1.self_attn.o_proj"),
    "Phi": (BERT, "layers.1.self_attn.dense"),
    "Phi3": (LLAMA, "layers.1.self_attn.o_proj"),
    "GPTNeoX": (BERT, "layers.1.attention.dense"),
    "Bloom": ({"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32}, "h.1.self_attention.dense"),
    "GPT2": (GPT, "h.1.attn.c_proj"),
    "GPT2 with cross-attention": (GPT | {"add_cross_attention": True}, "h.1.attn.c_proj"),
    "Wav2Vec2": (WAVES, "encoder.layers.1.attention.out_proj"),
    "Wav2Vec2Conformer": (WAVES, "encoder.layers.1.self_attn.linear_out"),
    "Hubert": (WAVES, "encoder.layers.1.attention.out_proj"),
    "WavLM": (WAVES, "encoder.layers.1.attention.out_proj"),
    "Data2VecAudio": (WAVES | {"conv_pos_kernel_size": 3}, "encoder.layers.1.attention.out_proj"),
    "Whisper": (WHISPER, "layers.1.self_attn.out_proj"),
    "ClapAudio": (CLAP, "audio_encoder.layers.3.blocks.1.attention.output.dense"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_default_target_of_text_and_audio_closes_the_last_self_attention(family):
    transformers = pytest.importorskip("transformers")
    options, expected = FAMILIES[family]
    name = family.partition(" ")[0]
    config = getattr(transformers, {"T5Encoder": "T5"}.get(name, name) + "Config")(**options)
    module = getattr(transformers, f"{name}Model")(config)
    (path,) = resolve(module.encoder if name == "Whisper" else module, None)
    assert path == expected


@pytest.mark.parametrize("older", [False, True], ids=["transformers 5", "transformers 4"])
def test_default_target_of_the_audio_spectrogram_transformer(older):
    transformers = pytest.importorskip("transformers")
    if older != (int(transformers.__version__.partition(".")[0]) < 5):
        pytest.skip("the names of another release")
    module = transformers.ASTModel(transformers.ASTConfig(**BERT, num_mel_bins=32, max_length=64))
    assert list(resolve(module, None)) == [SELF_OUTPUT if older else "layers.1.attention.o_proj"]


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
    assert target.parent is module.get_submodule("attn")
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
    class Rigid(LinearPatches):
        def forward(self, x):
            return super().forward(x) + torch.zeros(16, 1)

    with pytest.raises(BackboneError, match="Rigid fails on one 40 x 40 image: The size of tensor a"):
        Backbone(Rigid(0), target="attn", preprocess=Preprocess(size=40))


def test_network_whose_own_size_is_smaller_is_not_asked_to_interpolate_by_its_preprocess():
    with pytest.raises(BackboneError, match="TinyViT fails on one 40 x 40 image: 32 x 32 is its own size"):
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
