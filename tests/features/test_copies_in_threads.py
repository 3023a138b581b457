"""A copy taken while another thread is in a pass is whole; the owner's network is never changed, not for a moment."""

from __future__ import annotations

import copy
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from small import PREPROCESS, noise_pictures, small_backbone, small_module
from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.gradients.switches import NO_FUSED_ATTENTION
from sporeprint.objectives.views.image import Patches

RECIPE = Recipe(objectives=[KL(latent=8), SimCLR(latent=8, augmentation=Patches(2), negatives=3)], dim=8, layers=1)


class Waits(nn.Module):
    """Passes its input on; in a thread that was named, only after `go`."""

    reached, go, name = threading.Event(), threading.Event(), "held"

    def forward(self, values):
        if threading.current_thread().name == self.name:
            self.reached.set()
            assert self.go.wait(60)
        return values


def waiting_module() -> nn.Module:
    module = small_module()
    module.blocks[1].mlp = nn.Sequential(module.blocks[1].mlp, Waits())
    return module


@contextmanager
def during(call: Callable[[], Any]) -> Iterator[list[Any]]:
    """Hold `call` in the middle of a pass of another thread; the results are there afterwards."""
    results: list[Any] = []
    Waits.reached.clear()
    Waits.go.clear()
    thread = threading.Thread(target=lambda: results.append(call()), name=Waits.name)
    thread.start()
    assert Waits.reached.wait(60)
    try:
        yield results
    finally:
        Waits.go.set()
        thread.join()


def state(module: nn.Module) -> list[Any]:
    """Everything that hangs on a network: flags, hooks, attributes, by identity."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (part.training, sorted(vars(part)), [list(getattr(part, name)) for name in hooks], vars(part).get("forward"))
        for part in module.modules()
    ]


@pytest.mark.parametrize("training", [False, True])
def test_nothing_hangs_on_the_network_during_a_pass(training):
    module = waiting_module()
    fungi = Fungi(RECIPE, backbone=Backbone(module, preprocess=PREPROCESS)).fit(noise_pictures(4))
    module.train(training)
    before = state(module)
    with during(lambda: fungi.blocks(noise_pictures(2))):
        assert state(module) == before
    assert state(module) == before


def by_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value)), "torch.save": by_torch}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_fungi_in_the_middle_of_a_pass_gives_the_same_numbers(how):
    pictures = noise_pictures(4)
    fungi = Fungi(RECIPE, backbone=Backbone(waiting_module(), preprocess=PREPROCESS)).fit(pictures)
    expected = fungi.transform(pictures)
    with during(lambda: fungi.transform(pictures)) as results:
        other = COPIES[how](fungi)
    np.testing.assert_array_equal(other.transform(pictures), expected)
    np.testing.assert_array_equal(results[0], expected)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_owners_network_in_the_middle_of_a_pass_is_unpatched(how):
    module = waiting_module()
    backbone = Backbone(module, preprocess=PREPROCESS)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fungi = Fungi(RECIPE, backbone=backbone).fit(noise_pictures(4))
    with torch.no_grad():
        expected = module(images)
    before = state(module)
    with during(lambda: fungi.blocks(noise_pictures(2))):
        other = COPIES[how](module)
    assert state(other) == before
    with torch.no_grad():
        assert torch.equal(other(images), expected)


def test_a_clone_in_the_middle_of_a_fit_fits_to_the_same_numbers():
    pictures = noise_pictures(4)
    fungi = Fungi(RECIPE, backbone=Backbone(waiting_module(), preprocess=PREPROCESS))
    with during(lambda: fungi.fit_transform(pictures)) as results:
        other = clone(fungi)
    np.testing.assert_array_equal(other.fit_transform(pictures), results[0])


def test_a_copy_in_the_middle_of_a_second_fit_is_as_the_first_fit_left_it():
    first, second = noise_pictures(4), noise_pictures(4, seed=1)
    fungi = Fungi(RECIPE, backbone=Backbone(waiting_module(), preprocess=PREPROCESS)).fit(first)
    expected = fungi.transform(first)
    with during(lambda: fungi.fit_transform(second)) as results:
        other = copy.deepcopy(fungi)
        np.testing.assert_array_equal(fungi.transform(first), expected)
    np.testing.assert_array_equal(other.transform(first), expected)
    np.testing.assert_array_equal(fungi.transform(second), results[0])


def test_a_fit_that_fails_leaves_what_was_fitted():
    pictures = noise_pictures(4)
    fungi = Fungi(RECIPE, backbone=small_backbone()).fit(pictures)
    expected = fungi.transform(pictures)
    compute = fungi.compute

    def interrupted(*batch: Any, **options: Any) -> Any:
        compute(*batch, **options)
        raise KeyboardInterrupt

    fungi.compute = interrupted
    with pytest.raises(KeyboardInterrupt):
        fungi.fit(noise_pictures(4, seed=1))
    del fungi.compute
    np.testing.assert_array_equal(fungi.transform(pictures), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_in_the_middle_of_a_pass_computes_the_same_numbers():
    pictures = noise_pictures(4)
    module = waiting_module()
    fungi = Fungi(RECIPE, backbone=Backbone(module, preprocess=PREPROCESS), workers=0).fit(pictures)
    expected, before = fungi.transform(pictures), state(module)
    fused = torch.backends.mha.get_fastpath_enabled()
    reading, writing = os.pipe()
    with during(lambda: fungi.transform(pictures)):
        child = os.fork()
        if child == 0:
            same = state(module) == before and torch.backends.mha.get_fastpath_enabled() == fused
            same = same and np.array_equal(fungi.transform(pictures), expected)
            os.write(writing, b"same" if same else b"other")
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"same"
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_switch_that_another_thread_holds_is_put_back_in_a_forked_process():
    before = torch.backends.mha.get_fastpath_enabled()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with NO_FUSED_ATTENTION.hold():
            held.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.backends.mha.get_fastpath_enabled() == before else 1)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_the_owner_trains_its_network_while_a_pass_runs():
    module, other = waiting_module(), waiting_module()
    module.blocks[0].mlp.insert(0, nn.Dropout(0.5)) if isinstance(module.blocks[0].mlp, nn.Sequential) else None
    fungi = Fungi(RECIPE, backbone=Backbone(module, preprocess=PREPROCESS)).fit(noise_pictures(4))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def step(network: nn.Module) -> list[torch.Tensor]:
        network.train()
        with torch.enable_grad():
            loss = network(images).pow(2).sum()
        return list(torch.autograd.grad(loss, [*network.parameters()], allow_unused=True))

    for parameter in (*module.parameters(), *other.parameters()):
        parameter.requires_grad_(True)
    with during(lambda: fungi.blocks(noise_pictures(2))):
        actual = step(module)
    for gradient, expected in zip(actual, step(other), strict=True):
        assert (gradient is None) == (expected is None)
        if gradient is not None and expected is not None:
            torch.testing.assert_close(gradient, expected)


class Closes(nn.Module):
    """Calls its parts through a function, a method and a partial that were set on it."""

    def __init__(self, way: str):
        super().__init__()
        self.inner = small_module()
        inner = self.inner
        if way == "closure":
            self.forward = lambda images: inner(images)
        elif way == "method":
            self.forward = self.inner.forward
        elif way == "partial":
            from functools import partial

            self.forward = partial(call, self)


def call(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return module.inner(images)


@pytest.mark.parametrize("way", ["closure", "method", "partial"])
def test_a_forward_that_was_set_on_the_network_runs_the_pass(way):
    module = Closes(way)
    target = "inner.blocks.1.attn.proj"
    pictures = noise_pictures(3)
    actual = Fungi(RECIPE, backbone=Backbone(module, target=target, preprocess=PREPROCESS, pooling="cls"))
    expected = Fungi(RECIPE, backbone=small_backbone())
    for name, values in expected.fit_blocks(pictures).items():
        np.testing.assert_allclose(actual.fit_blocks(pictures)[name], values, atol=1e-6, err_msg=name)
