"""Blocks computed from their parts, against the network's own forward."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from small_text import TEXTS, wordpiece
from sporeprint import DINO, KL, Backbone, Fungi, Recipe, SimCLR
from sporeprint.backbones.load import load_backbone
from sporeprint.backbones.quick.anatomy import dissect
from sporeprint.objectives.views.image import Crops, Patches

tf = pytest.importorskip("transformers")

SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
IMAGE = {**SHAPE, "image_size": 32, "patch_size": 8}
WIDE = {**IMAGE, "intermediate_size": 64}
TEXT = {**SHAPE, "intermediate_size": 64, "vocab_size": 200}
KNOWN = {
    "ViT": lambda: tf.ViTModel(tf.ViTConfig(**WIDE)),
    "DeiT": lambda: tf.DeiTModel(tf.DeiTConfig(**WIDE)),
    "DINOv2": lambda: tf.Dinov2Model(tf.Dinov2Config(**IMAGE)),
    "DINOv2 with registers": lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**IMAGE)),
    "CLIP": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**WIDE)),
    "SigLIP": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**WIDE)),
    "MAE": lambda: tf.ViTMAEModel(tf.ViTMAEConfig(**WIDE, mask_ratio=0.0)),
    "BERT": lambda: tf.BertModel(tf.BertConfig(**TEXT)),
    "RoBERTa": lambda: tf.RobertaModel(tf.RobertaConfig(**TEXT)),
}
STRANGE = {
    "BEiT": lambda: tf.BeitModel(tf.BeitConfig(**WIDE)),  # relative positions inside the attention
    "DINOv3": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**WIDE)),  # turned ones
    "gated": lambda: tf.Dinov2Model(tf.Dinov2Config(**IMAGE, use_swiglu_ffn=True)),
}


def made(build) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build().double().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)
    text = "input_ids" in module.forward.__code__.co_varnames or "Bert" in type(module).__name__
    return Backbone(module, preprocess=wordpiece() if text or "Roberta" in type(module).__name__ else PREPROCESS)


def read(backbone: Backbone, quick: bool, layers: int = 0):
    """Embedding, gradient at the target of each view's first token, and layers, of three views."""
    backbone.quick = quick
    with backbone.run(backbone.preprocess.collate(backbone.preprocess.probes()), layers=layers) as one_pass:
        (capture,) = one_pass.captures.values()
        (felt,) = torch.autograd.grad(one_pass.embedding.pow(3).sum(), [capture.outputs])
        gradient = torch.einsum("nto,nti->noi", felt, capture.inputs)
        return one_pass.embedding.detach(), gradient, one_pass.layers


def assert_alike(actual, expected):
    for part, expected_part in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-9, atol=1e-12 * float(expected_part.abs().max()))
    assert actual[2].keys() == expected[2].keys()
    for name, values in actual[2].items():
        torch.testing.assert_close(values, expected[2][name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("build", KNOWN.values(), ids=KNOWN)
def test_known_blocks_give_what_the_network_gives(build, layers):
    backbone = made(build)
    slow = read(backbone, False, layers)
    assert backbone._shortcut is None
    assert_alike(read(backbone, True, layers), slow)
    assert len(backbone._shortcut.known) == 3


@pytest.mark.parametrize("build", STRANGE.values(), ids=STRANGE)
def test_other_blocks_run_as_they_are(build):
    backbone = made(build)
    assert_alike(read(backbone, True), read(backbone, False))
    assert not backbone._shortcut.known


@pytest.mark.parametrize(("pooling", "tokens"), [("cls", 1), ("mean", 17)])
def test_the_last_block_is_cut_to_the_token_that_is_pooled(pooling, tokens):
    backbone = small_backbone(dtype=torch.float64, pooling=pooling)
    with backbone.run(torch.zeros(2, 3, 32, 32)) as one_pass:
        (capture,) = one_pass.captures.values()
        assert capture.inputs.shape == (2, tokens, 16)
    assert_alike(read(backbone, True), read(backbone, False))


@pytest.mark.parametrize("place", ["norm", "blocks.1", "blocks.1.attn", "blocks.1.attn.proj"])
@pytest.mark.parametrize("before", [True, False])
def test_the_owners_hooks_see_every_token_of_the_last_block(place, before):
    backbone, shapes = small_backbone(dtype=torch.float64), []
    read(backbone, True)
    part = backbone.module.get_submodule(place)
    if before:
        part.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape[1]))
    else:
        part.register_forward_hook(lambda _, args, output: shapes.append(output.shape[1]))
    assert_alike(read(backbone, True), read(backbone, False))
    assert set(shapes) == {17}


class Gathers(nn.Module):
    """Reads the CLS token of every block, as DINOv2 does it for its linear probes."""

    def __init__(self, picky):
        super().__init__()
        self.inner, self.picky = small_module(dtype=torch.float64, depth=4), picky

    def forward(self, images):
        tokens, cls = self.inner.embed(images), []
        for block in self.inner.blocks:
            tokens = block(tokens)
            cls.append(tokens[:, 0])
        assert not self.picky or tokens.shape[1] == 17
        return tokens[:, 0] if self.picky else torch.stack(cls).mean(dim=0)


@pytest.mark.parametrize("picky", [True, False])
def test_a_network_that_reads_more_than_the_last_token_gets_it(picky):
    backbone = Backbone(Gathers(picky=picky), preprocess=PREPROCESS)
    assert_alike(read(backbone, True), read(backbone, False))
    assert backbone._shortcut.chained == picky
    assert backbone._shortcut.trims != picky
    assert backbone._shortcut.known


class Masked(nn.Module):
    """Blocks that take a mask, true where a token is hidden or where it is seen; given for pictures that are dark."""

    def __init__(self, first, hidden):
        super().__init__()
        self.inner = small_module(dtype=torch.float64, depth=4)
        for block in self.inner.blocks:
            block.__class__ = MaskedBlock
            block.hidden = hidden
        self.first = first

    def forward(self, images):
        tokens = self.inner.embed(images)
        mask = torch.ones(17, 17, dtype=torch.bool).tril()[None, None]
        for number, block in enumerate(self.inner.blocks):
            wanted = bool(images.mean() < -1) and number >= self.first
            tokens = block(tokens, attention_mask=(~mask if block.hidden else mask) if wanted else None)
        return self.inner.norm(tokens)


class MaskedBlock(type(small_module().blocks[0])):
    def forward(self, tokens, attention_mask=None):
        inputs, attn = self.norm1(tokens), self.attn
        query, key, value = attn.qkv(inputs).unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = attention_mask if attention_mask is None or not self.hidden else ~attention_mask
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens + attn.proj(mixed.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm2(tokens))


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_masks_that_the_trial_did_not_show_are_left_to_the_network(first, hidden):
    backbone = Backbone(Masked(first, hidden), preprocess=PREPROCESS)
    views = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) - 3
    outputs = []
    for quick in (False, True, True):
        backbone.quick = quick
        with backbone.run(views) as one_pass:
            outputs.append(one_pass.embedding.detach())
    assert len(backbone._shortcut.known) == 4
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("change", ["data", "assign", "eps", "heads", "class"])
def test_changes_that_torch_does_not_count_are_seen(change):
    backbone = made(KNOWN["DINOv2"])
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=backbone)
    before = fungi.fit_blocks(noise_pictures(2))
    block = backbone.module.encoder.layer[0] if hasattr(backbone.module, "encoder") else backbone.module.layers[0]
    if change == "data":
        block.mlp.fc1.weight.data.mul_(0.5)
    elif change == "assign":
        state = {name: value * 1.5 for name, value in backbone.module.state_dict().items()}
        backbone.module.load_state_dict(state, assign=True)
    elif change == "eps":
        block.norm1.eps = 0.3
    elif change == "heads":
        (attention,) = [part for part in block.modules() if "num_attention_heads" in vars(part)]
        attention.num_attention_heads = 2
        attention.head_dim = attention.attention_head_size = 16
        attention.scaling = 0.25
    else:

        class Another(type(block)):
            def forward(self, *args, **kwargs):
                return super().forward(*args, **kwargs) * torch.linspace(1, 2, 32, dtype=torch.float64)

        block.__class__ = Another
    after = fungi.blocks(noise_pictures(2))
    backbone.quick = False
    for name, block in fungi.blocks(noise_pictures(2)).items():
        np.testing.assert_allclose(after[name], block, atol=2e-7, err_msg=name)
    assert abs(after["embedding"] - before["embedding"]).max() > 1e-4


def test_an_interrupt_while_the_network_is_tried_leaves_it_to_be_tried_again():
    backbone = small_backbone(dtype=torch.float64, pooling="mean")
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    handle = backbone.module.patch_embed.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        read(backbone, True)
    handle.remove()
    assert_alike(read(backbone, True), read(backbone, False))


def test_backbones_that_share_blocks_do_not_disturb_each_other():
    module = small_module(dtype=torch.float64, depth=3)
    wrapper = nn.Sequential(module)
    both = [Backbone(module, preprocess=PREPROCESS), Backbone(wrapper, preprocess=PREPROCESS)]
    expected = [read(backbone, False) for backbone in both]
    wrong = []

    def repeat(backbone, right):
        for _ in range(60):
            if not torch.allclose(read(backbone, True)[0], right[0], rtol=1e-9):
                wrong.append(1)

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(both, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_backbone_that_has_run_can_be_pickled():
    backbone = small_backbone(dtype=torch.float64)
    expected = read(backbone, True)
    assert_alike(read(pickle.loads(pickle.dumps(backbone)), True), expected)


class Louder(nn.Module):
    """Has every part of a block, and adds twice what its attention says."""

    def __init__(self, block):
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp

    def forward(self, tokens):
        tokens = tokens + 2 * self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


def test_a_block_that_only_looks_plain_is_found_out():
    module = small_module(dtype=torch.float64, depth=3)
    module.blocks = nn.ModuleList([Louder(block) for block in module.blocks])
    assert dissect(module.blocks[0])
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert_alike(read(backbone, True), read(backbone, False))
    assert not backbone._shortcut.known


def test_one_strange_block_among_plain_ones():
    module = small_module(dtype=torch.float64, depth=4)
    plain = list(module.blocks)

    class Block(type(plain[0])):
        def forward(self, tokens):
            return super().forward(tokens) * self.factor

    for number, block in enumerate(plain):
        block.__class__, block.factor = Block, 2 if number == 1 else 1
    backbone = Backbone(module, preprocess=PREPROCESS)
    assert_alike(read(backbone, True), read(backbone, False))
    assert sorted(backbone._shortcut.known) == [0, 2, 3]


@pytest.mark.parametrize("place", ["blocks.1", "blocks.1.mlp", "blocks.2.attn", "blocks.1.attn.qkv"])
def test_the_owners_hooks_are_obeyed(place):
    backbone = Backbone(small_module(dtype=torch.float64, depth=3), preprocess=PREPROCESS)
    plain = read(backbone, True)[0]
    handle = backbone.module.get_submodule(place).register_forward_hook(lambda _, __, output: output * 1.5)
    steered = read(backbone, True)
    assert_alike(steered, read(backbone, False))
    assert (steered[0] - plain).abs().max() > 1e-3
    handle.remove()


def test_a_forward_that_the_owner_put_in_place_is_called():
    backbone = Backbone(small_module(dtype=torch.float64, depth=3), preprocess=PREPROCESS)
    plain = read(backbone, True)[0]
    block = backbone.module.blocks[1]
    block.forward = lambda tokens: type(block).forward(block, tokens) * torch.linspace(1, 2, 16, dtype=torch.float64)
    assert_alike(read(backbone, True), read(backbone, False))
    assert "forward" in vars(block)
    assert (read(backbone, True)[0] - plain).abs().max() > 1e-3


def test_weights_that_change_are_packed_again():
    backbone = small_backbone(dtype=torch.float64)
    read(backbone, True)
    with torch.no_grad():
        backbone.module.blocks[0].mlp.fc1.weight.mul_(1.7)
    assert_alike(read(backbone, True), read(backbone, False))


def test_an_interrupt_leaves_nothing_behind():
    backbone = small_backbone()
    before = [sorted(vars(part)) for part in backbone.module.modules()]
    read(backbone, True)
    with pytest.raises(KeyboardInterrupt), backbone.run(torch.zeros(1, 3, 32, 32)):
        raise KeyboardInterrupt
    handle = backbone.module.norm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), backbone.run(torch.zeros(1, 3, 32, 32)):
        pass
    handle.remove()
    assert [sorted(vars(part)) for part in backbone.module.modules()] == before


def test_long_batches_go_through_in_parts(monkeypatch):
    backbone = small_backbone(dtype=torch.float64, pooling="mean")
    whole = read(backbone, True)
    monkeypatch.setattr("sporeprint.backbones.quick.shortcut._IN_FLIGHT", 1)
    assert_alike(read(backbone, True), whole)


def test_padded_texts_go_through_in_parts(monkeypatch):
    monkeypatch.setattr("sporeprint.backbones.quick.shortcut._IN_FLIGHT", 1)
    backbone = made(KNOWN["BERT"])
    fungi = Fungi(Recipe(objectives=[KL(latent=8), SimCLR(latent=8, negatives=2)]), backbone=backbone)
    quick = fungi.fit_blocks(TEXTS)
    backbone.quick = False
    for name, block in fungi.blocks(TEXTS).items():
        np.testing.assert_allclose(quick[name], block, atol=2e-7, err_msg=name)


@pytest.mark.parametrize("quick", [True, False])
def test_bfloat16_blocks_stay_within_cosine_0999_of_float32(quick, pictures):
    objectives = [KL(), DINO(augmentation=Crops(2, 2)), SimCLR(augmentation=Patches(2), negatives=3)]
    pictures, backbone = pictures[:4], load_backbone("tiny")  # real weights
    full = Fungi(Recipe(objectives=objectives, dtype="float32"), backbone=backbone)
    backbone.quick = False
    expected = full.fit_blocks(pictures)
    half = Fungi(Recipe(objectives=objectives, dtype="bfloat16"), backbone=backbone)
    half.negatives.update(full.negatives)
    backbone.quick = quick
    for name, block in half.blocks(pictures).items():
        assert (block * expected[name]).sum(axis=1).min() > 0.999, name


def test_quick_blocks_through_fungi_equal_slow_ones():
    objectives = [KL(latent=8), DINO(latent=16), SimCLR(latent=8, negatives=2)]
    backbone = small_backbone(dtype=torch.float64)
    fungi = Fungi(Recipe(objectives=objectives), backbone=backbone)
    quick = fungi.fit_blocks(noise_pictures(3))
    backbone.quick = False
    for name, block in fungi.blocks(noise_pictures(3)).items():
        np.testing.assert_allclose(quick[name], block, atol=2e-7, err_msg=name)


class Skips(nn.Module):
    """A network that adds something between its blocks."""

    def __init__(self):
        super().__init__()
        self.inner = small_module(dtype=torch.float64, depth=3)

    def forward(self, images):
        tokens = self.inner.embed(images)
        for number, block in enumerate(self.inner.blocks):
            tokens = block(tokens) + number * 0.1 * tokens
        return self.inner.norm(tokens)


def test_what_happens_between_blocks_is_not_skipped():
    backbone = Backbone(Skips(), preprocess=PREPROCESS)
    assert_alike(read(backbone, True), read(backbone, False))
    assert len(backbone._shortcut.known) == 3
    assert not backbone._shortcut.chained


def test_an_encoder_of_sound_is_known_too():
    config = tf.WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
        num_mel_bins=80,
        max_source_positions=1500,
        vocab_size=200,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = tf.WhisperModel(config).double().get_encoder().eval()
    backbone = Backbone(encoder, preprocess=tf.WhisperFeatureExtractor())
    assert_alike(read(backbone, True), read(backbone, False))
    assert len(backbone._shortcut.known) == 3


class Adapted(nn.Module):
    """As LoRA does it: instead of a layer, which it adds to."""

    def __init__(self, layer):
        super().__init__()
        self.base = layer
        self.more = nn.Linear(layer.in_features, layer.out_features, dtype=torch.float64)

    def forward(self, tokens):
        return self.base(tokens) + self.more(tokens)


def test_a_part_that_is_replaced_later_is_obeyed():
    backbone = Backbone(small_module(dtype=torch.float64, depth=3), preprocess=PREPROCESS)
    plain = read(backbone, True)[0]
    mlp = backbone.module.blocks[0].mlp
    mlp.fc1 = Adapted(mlp.fc1)
    adapted = read(backbone, True)
    assert_alike(adapted, read(backbone, False))
    assert (adapted[0] - plain).abs().max() > 1e-3


def test_a_weight_that_is_replaced_is_packed_again():
    backbone = small_backbone(dtype=torch.float64)
    read(backbone, True)
    fc1 = backbone.module.blocks[0].mlp.fc1
    fc1.weight = nn.Parameter(fc1.weight.detach() * 1.5)
    assert_alike(read(backbone, True), read(backbone, False))
