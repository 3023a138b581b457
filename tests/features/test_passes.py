"""Views of several sizes, and passes that get smaller where memory runs out."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from small import noise_pictures, small_backbone
from sporeprint import DINO, KL, Fungi, Recipe, SimCLR
from sporeprint.errors import BackboneError, is_out_of_memory
from sporeprint.features.passes import Passes
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.view_sets import view_sets
from sporeprint.objectives.views.image import Crops, Patches

OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


@dataclass(frozen=True)
class Mixed:
    """Views of 32, 16, 16 and 32 pixels: sizes that come back do not stand together."""

    views = 4

    def __call__(self, image, preprocess, rng):
        whole = preprocess(image)
        small = functional.interpolate(whole[None], 16, mode="area")[0]
        return [whole, small, small.flip(2), whole.flip(2)]

    def cost(self, inputs):
        return 2.5


@dataclass(frozen=True)
class Weighed(Objective):
    """Each view counts another number of times, so that their order is seen."""

    name: str = "weighed"
    latent: int = 5
    augmentation: Mixed = Mixed()

    def loss(self, latents):
        return (latents.tanh().sum(dim=2) * torch.tensor([1.0, 3, 10, 30]).to(latents)).sum(dim=1)


def oracle(fungi, image):
    """Plain autograd, one view at a time."""
    module, layer = fungi.network.module, next(iter(fungi.network.targets.values())).layer
    total = 0
    for view, weight in zip(Mixed()(image, fungi.network.preprocess, None), (1.0, 3, 10, 30), strict=True):
        embedding = functional.normalize(module(view[None].to(fungi.network.dtype))[:, 0], dim=1)
        head = fungi.heads["weighed"]
        latents = functional.linear(embedding, head.weight.double(), head.bias.double())
        total = total + weight * latents.tanh().sum()
    weight, bias = torch.autograd.grad(total, [layer.weight, layer.bias])
    projected = fungi.projection.matrix().double() @ torch.cat([weight, bias[:, None]], dim=1).flatten()
    return functional.normalize(projected, dim=0).numpy()


@pytest.mark.parametrize("budget", [64, 6, 3, 1])
def test_views_of_several_sizes_keep_their_order_whatever_shares_a_pass(budget, monkeypatch):
    backbone = small_backbone(dtype=torch.float64)
    monkeypatch.setattr(type(backbone.preprocess), "budget", budget)
    fungi = Fungi(Recipe(objectives=[Weighed()]), backbone=backbone)
    images = noise_pictures(3)
    block = fungi.fit_blocks(images)["weighed"]
    for row, image in zip(block, images, strict=True):
        np.testing.assert_allclose(row, oracle(fungi, image), atol=2e-7)
    assert fungi.block_info()["weighed"]["passes"] == 2.5


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (KL(), 1),
        (SimCLR(), 49),
        (SimCLR(augmentation=Patches(7, side=0.5)), 12.25),
        (DINO(), 12),
        (DINO(augmentation=Crops(2, 4, local_side=0.5)), 3),
    ],
)
def test_a_view_of_half_the_side_costs_a_quarter(objective, expected):
    view_set = view_sets([objective.for_modality("image")])[-1]
    assert view_set.cost(small_backbone().preprocess) == expected


@contextmanager
def memory_for(backbone, views, monkeypatch):
    """Passes of more than this many views fail as torch does; `taken` lists the others."""
    taken, run = [], type(backbone).run

    @contextmanager
    def limited(self, batch, *args, **kwargs):
        if len(batch) > views:
            raise RuntimeError(OUT_OF_MEMORY)
        taken.append(len(batch))
        with run(self, batch, *args, **kwargs) as one_pass:
            yield one_pass

    with monkeypatch.context() as patch:
        patch.setattr(type(backbone), "run", limited)
        yield taken


@pytest.mark.parametrize("views", [20, 12, 5, 1])
def test_where_memory_runs_out_passes_get_smaller_and_features_stay(views, monkeypatch):
    backbone = small_backbone(dtype=torch.float64)
    fungi = Fungi(Recipe(objectives=[KL(latent=8), DINO(latent=8)]), backbone=backbone).fit(noise_pictures(5))
    expected = fungi.blocks(noise_pictures(5))
    with memory_for(backbone, views, monkeypatch) as taken, pytest.warns(UserWarning, match="memory ran out"):
        blocks = fungi.blocks(noise_pictures(5))
    for name, block in blocks.items():
        np.testing.assert_allclose(block, expected[name], atol=2e-7, err_msg=name)
    assert sum(taken) == 5 * 13
    with memory_for(backbone, views, monkeypatch) as taken:
        fungi.blocks(noise_pictures(5))  # it is known by now
    assert sum(taken) == 5 * 13


def test_one_view_that_does_not_fit_is_an_error_that_says_so(monkeypatch):
    backbone = small_backbone()
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=backbone).fit(noise_pictures(2))
    with (
        memory_for(backbone, 0, monkeypatch),
        pytest.warns(UserWarning, match="memory ran out"),
        pytest.raises(BackboneError, match=r"one view of a row does not fit into the memory of cpu.*smaller backbone"),
    ):
        fungi.blocks(noise_pictures(2))


@pytest.mark.parametrize("views", [12, 0])
def test_a_failed_pass_is_let_go_before_less_is_taken(views, monkeypatch):
    backbone = small_backbone()
    fungi = Fungi(Recipe(objectives=[DINO(latent=8)]), backbone=backbone).fit(noise_pictures(2))
    held, alive, caused = [], [], None

    class Tensors:
        pass

    def fail(module, args):
        if len(args[0]) > views:
            tensors = Tensors()  # of the failed pass, which its traceback keeps
            held.append(weakref.ref(tensors))
            try:
                raise RuntimeError("the first try")
            except RuntimeError:
                raise RuntimeError(OUT_OF_MEMORY)  # noqa: B904 - in a handler, as a fallback does

    def warn(message, *_, **__):
        alive.extend(reference() is not None for reference in held)

    monkeypatch.setattr("sporeprint.features.passes.warn", warn)
    handle = backbone.module.register_forward_pre_hook(fail)
    try:
        fungi.blocks(noise_pictures(2))
    except BackboneError as error:
        caused = error.__cause__
    handle.remove()
    assert alive
    assert not any(alive)
    assert (caused is None) == (views > 0)
    assert getattr(caused, "__traceback__", None) is None


def test_on_a_gpu_memory_that_torch_keeps_counts_as_free(monkeypatch):
    backbone = SimpleNamespace(
        modality="image", tokens=197, width=16, device=torch.device("cuda"), preprocess=small_backbone().preprocess
    )
    unit = 4 * 64 * 197 * 16 * 80  # bytes of which a quarter holds 64 views
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 * unit, 9 * unit))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6 * unit)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 4 * unit)
    passes = Passes(backbone, seed=0, layers=0, layer_kinds=())
    (view_set,) = view_sets([KL(latent=8)])
    assert [len(chunk) for chunk in passes.chunks(view_set, [(str(at), None) for at in range(200)])] == [192, 8]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(OUT_OF_MEMORY), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
    ],
)
def test_want_of_memory_is_told_from_other_failures(error, expected):
    assert is_out_of_memory(error) is expected


def test_another_failure_is_not_taken_for_want_of_memory(monkeypatch):
    backbone = small_backbone()
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=backbone).fit(noise_pictures(2))
    handle = backbone.module.norm.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        fungi.blocks(noise_pictures(2))
    handle.remove()


def test_an_image_of_many_tokens_has_fewer_views_a_pass():
    backbone = small_backbone()
    fungi = Fungi(Recipe(objectives=[KL(latent=8)]), backbone=backbone)
    (view_set,) = view_sets(fungi.engine.objectives)
    rows = [(str(at), None) for at in range(200)]
    assert len(next(fungi.engine.passing().chunks(view_set, rows))) == 64
    backbone.tokens = 4 * 197
    assert len(next(fungi.engine.passing().chunks(view_set, rows))) == 16
