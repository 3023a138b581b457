"""check_backbone passes on a sound backbone and fails, with the reason, on each kind of broken one."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from small import PREPROCESS, small_backbone
from sporeprint.backbones.backbone import Backbone
from sporeprint.features.contracts import check_backbone


class Network(nn.Module):
    """Patches to an embedding, with one linear layer to read."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, kernel_size=8, stride=8)
        self.mix = nn.Linear(8, 8)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.mix(self.stem(images).flatten(2).transpose(1, 2)).tanh().mean(dim=1)


class ReadsTheBatch(Network):
    def forward(self, images: Tensor) -> Tensor:
        embedding = super().forward(images)
        return embedding - embedding.mean(dim=0) / 2


class CountsItsInputs(Network):
    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().forward(images)


class Freezes(Network):
    def forward(self, images: Tensor) -> Tensor:
        self.mix.weight.requires_grad_(False)
        return super().forward(images)


class LeavesAHook(Network):
    def forward(self, images: Tensor) -> Tensor:
        self.mix.register_forward_hook(lambda module, args, output: None)
        return super().forward(images)


class LeavesAnAttribute(Network):
    def forward(self, images: Tensor) -> Tensor:
        self.last = super().forward(images)
        return self.last


def test_a_sound_backbone_keeps_the_contract():
    check_backbone(small_backbone())
    torch.manual_seed(0)
    check_backbone(Backbone(Network(), target="mix", preprocess=PREPROCESS))


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (ReadsTheBatch, "depends on its batch"),
        (CountsItsInputs, "changed parameters, buffers"),
        (Freezes, "flags"),
    ],
)
def test_the_check_names_what_a_broken_network_does(network, complaint):
    torch.manual_seed(0)
    module = network()
    backbone = Backbone(module, target="mix", preprocess=PREPROCESS)
    module.mix.weight.requires_grad_(True)  # as before its first pass
    with pytest.raises(AssertionError, match=complaint):
        check_backbone(backbone)


@pytest.mark.parametrize("network", [LeavesAHook, LeavesAnAttribute])
def test_what_a_network_sets_on_itself_in_a_pass_ends_with_the_pass(network):
    torch.manual_seed(0)
    module = network()
    backbone = Backbone(module, target="mix", preprocess=PREPROCESS)
    check_backbone(backbone)
    assert "last" not in vars(module)
    assert not module.mix._forward_hooks


class ForgetsItsHooks(Backbone):
    @contextmanager
    def run(self, views, layers=0, autocast=None):
        with super().run(views, layers, autocast) as one_pass:
            self.module.blocks[0].register_forward_hook(lambda module, args, output: None)
            yield one_pass


def test_the_check_names_what_a_broken_backbone_class_does():
    sound = small_backbone()
    with pytest.raises(AssertionError, match="hooks"):
        check_backbone(ForgetsItsHooks(sound.module, preprocess=PREPROCESS))
