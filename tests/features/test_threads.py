"""Several threads at once: the same numbers as one, and torch's process-wide settings as they were."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from small_text import BERT, TEXTS, tf, wordpiece
from sporeprint import KL, Fungi, MaskedTokens, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.errors import LayerError
from sporeprint.gradients.switches import Switch
from sporeprint.objectives.views.image import Patches
from sporeprint.objectives.views.token_masks import Masks

RECIPE = Recipe(objectives=[KL(latent=8), SimCLR(latent=8, augmentation=Patches(2), negatives=3)], dim=8, layers=1)


class Meets(nn.Module):
    """Holds each pass at its block until another thread's pass is there too, or it is plain that none will come."""

    def __init__(self, block: nn.Module, barrier: threading.Barrier):
        super().__init__()
        self.block, self.barrier = block, barrier

    def forward(self, tokens):
        try:
            self.barrier.wait(0.05)
        except threading.BrokenBarrierError:
            self.barrier.reset()
        return self.block(tokens)


def meeting_module() -> nn.Module:
    module = small_module()
    barrier = threading.Barrier(2)
    module.blocks[1].attn.proj = nn.Sequential(Meets(module.blocks[1].attn.proj, barrier))
    return module


@pytest.mark.parametrize("shared", ["a Fungi", "a Backbone", "a network"])
def test_threads_get_the_blocks_that_one_thread_gets(shared):
    pictures = noise_pictures(3)
    module, target = meeting_module(), "blocks.1.attn.proj.0.block"

    def backbone():
        return Backbone(module, target=target, preprocess=PREPROCESS)

    fungi = Fungi(RECIPE, backbone=backbone()).fit(pictures)
    others = {
        "a Fungi": lambda: fungi,
        "a Backbone": lambda: clone(fungi).fit(pictures),
        "a network": lambda: Fungi(RECIPE, backbone=backbone()).fit(pictures),
    }
    alone = [fungi.blocks([picture]) for picture in pictures]
    runners = [others[shared]() for _ in pictures]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda runner, picture: runner.blocks([picture]), runners, pictures))
    for blocks, expected in zip(together, alone, strict=True):
        for name, block in expected.items():
            np.testing.assert_array_equal(blocks[name], block)
    assert not any(part._forward_hooks for part in module.modules())


class Encoder(nn.Module):
    """Patches through torch's encoder, whose attention is fused unless something keeps it from that."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, images):
        return self.encoder(self.stem(images).flatten(2).transpose(1, 2))


def masked_bert() -> Backbone:
    return Backbone(tf.BertForMaskedLM(tf.BertConfig(**BERT)), preprocess=wordpiece())


@pytest.mark.parametrize(
    ("make", "samples", "objectives"),
    [
        (small_backbone, noise_pictures(3), RECIPE.objectives),
        (lambda: Backbone(Encoder().eval(), preprocess=PREPROCESS), noise_pictures(3), [KL(latent=8)]),
        (masked_bert, TEXTS[:3], [MaskedTokens(augmentation=Masks(views=2))]),
    ],
    ids=["ViT", "fused attention", "masked tokens"],
)
def test_a_pass_of_the_owners_in_another_thread_is_neither_seen_nor_changed(make, samples, objectives):
    torch.manual_seed(0)
    backbone = make()
    fungi = Fungi(Recipe(objectives=objectives, layers=2), backbone=backbone).fit(samples)
    expected = fungi.blocks(samples)
    whole, inputs = backbone.adapter.head or backbone.module, backbone.preprocess
    views = inputs.collate([inputs(inputs.prepare(inputs.load(sample))) for sample in reversed(samples)])
    outputs = []

    class Owned:  # a pass reaches no module through a class: the hook's is the owner's own, not the copy
        network = whole

    def owner():
        with torch.no_grad():
            output = Owned.network(**views) if isinstance(views, dict) else Owned.network(views)
            outputs.append(getattr(output, "logits", output))

    def meanwhile(*_):
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=owner)
            other.start()
            other.join()

    whole.eval()
    owner()
    (target,) = backbone.targets.values()
    handle = target.layer.register_forward_pre_hook(meanwhile)
    try:
        blocks = fungi.blocks(samples)
    finally:
        handle.remove()
    assert len(outputs) > 1
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])
    for name, block in expected.items():  # with the hook the last block is not cut to one token
        np.testing.assert_allclose(blocks[name], block, atol=1e-6, err_msg=name)


def test_a_failing_call_names_its_own_rows_while_another_call_succeeds():
    fungi = Fungi(Recipe(objectives=[KL(latent=8)], dim=8, layers=0), backbone=small_backbone())
    pictures = noise_pictures(2)
    compute = fungi.compute

    def meanwhile(batch, names=None, engine=None):
        if len(batch) == 2:
            fungi.blocks(pictures[:1])  # as from another thread
        return compute(batch, names, engine)

    fungi.compute = meanwhile
    with pytest.warns(UserWarning, match="1 of 2 rows are NaN: row 1"):
        fungi.blocks([pictures[0], "no such file.png"])


def test_a_pass_whose_target_ran_twice_is_refused_wherever_it_happens():
    backbone = small_backbone()
    twice = backbone.module.blocks[1].attn.proj
    handle = backbone.module.register_forward_hook(lambda module, args, output: (twice(output), output)[1])
    try:
        with pytest.raises(LayerError, match="ran 2 times"), backbone.run(torch.zeros(1, 3, 32, 32)):
            pass
    finally:
        handle.remove()


def test_a_switch_held_by_overlapping_threads_is_put_back_by_the_last():
    setting = {"value": "found"}
    switch = Switch(lambda: setting["value"], lambda value: setting.update(value=value), lambda value: f"not {value}")
    first, second = switch.hold(), switch.hold()
    with first:
        second.__enter__()
        assert setting["value"] == "not found"
    assert setting["value"] == "not found"
    second.__exit__(None, None, None)
    assert setting["value"] == "found"


def test_convolutions_in_a_pass_are_in_full_float32_and_the_setting_comes_back():
    backbone, allowed = small_backbone(), []
    handle = backbone.module.patch_embed.register_forward_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        with backbone.run(torch.zeros(1, 3, 32, 32)):
            pass
        assert (set(allowed), torch.backends.cudnn.allow_tf32) == ({False}, True)
    finally:
        handle.remove()
        torch.backends.cudnn.allow_tf32 = before


def test_settings_of_convolutions_alone_come_back_too():
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is None:
        pytest.skip("this torch has one setting for all of cuDNN")
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.rnn.fp32_precision = "ieee"
        with small_backbone().run(torch.zeros(1, 3, 32, 32)):
            assert conv.fp32_precision == "ieee"
        assert (conv.fp32_precision, torch.backends.cudnn.rnn.fp32_precision) == ("tf32", "ieee")
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda fungi: pickle.loads(pickle.dumps(fungi))])
def test_a_fitted_fungi_that_has_run_can_be_copied(copied):
    pictures = noise_pictures(3)
    fungi = Fungi(RECIPE, backbone=small_backbone()).fit(pictures)
    expected = fungi.transform(pictures)
    np.testing.assert_array_equal(copied(fungi).transform(pictures), expected)
