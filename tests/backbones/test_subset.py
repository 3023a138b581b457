"""Views as subsets of tokens: against the network's own parts, called by hand."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from small import PREPROCESS, VISION, noise_pictures, small_backbone, small_module
from sporeprint import Fungi, Recipe
from sporeprint.assemble import make_engine
from sporeprint.backbones.base import Backbone
from sporeprint.backbones.preprocess import Preprocess
from sporeprint.backbones.subset import batch_of, check_subsets, keeping, take_tokens
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.objectives import KL, SimCLR
from sporeprint.views.subsets import Scatter, Windows
from sporeprint.viewset import generator

KEPT = torch.tensor([[[0, 1, 4], [15, 3, 7]], [[2, 9, 10], [5, 6, 11]]])  # [N, V, K]


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def hugging(name: str, config: str, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    module = getattr(transformers, name)(getattr(transformers, config)(**{**VISION, **options}))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return module.double().eval()


def test_the_prefix_stays_with_every_view_and_the_patches_are_those_named():
    tokens = torch.arange(12.0).view(2, 6, 1)  # two images: CLS, another, four patches
    made = take_tokens(tokens, torch.tensor([[[0, 3], [1, 2]], [[3, 0], [2, 2]]]), 4)
    assert made.squeeze(2).tolist() == [[0, 1, 2, 5], [0, 1, 3, 4], [6, 7, 11, 8], [6, 7, 10, 10]]


def test_embeddings_are_those_of_the_networks_parts_called_by_hand():
    module = small_module(dtype=torch.float64)
    backbone = Backbone(module, preprocess=PREPROCESS)
    with torch.no_grad():
        tokens = module.embed(images())
        chosen = [torch.cat([tokens[n, :1], tokens[n, 1 + KEPT[n, v]]]) for n in range(2) for v in range(2)]
        expected = module.encode(torch.stack(chosen))[:, 0]
    with backbone.run(batch_of(images(), KEPT, 16)) as one_pass:
        torch.testing.assert_close(one_pass.embedding.detach(), expected, rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        assert torch.equal(module(images()), module.encode(module.embed(images())))  # nothing is left behind


@pytest.mark.parametrize(
    ("name", "config", "embed"),
    [
        ("ViTModel", "ViTConfig", lambda found: found.last_hidden_state[:, 0]),
        ("DeiTModel", "DeiTConfig", lambda found: found.last_hidden_state[:, 0]),
        ("CLIPVisionModel", "CLIPVisionConfig", lambda found: found.pooler_output),
        ("SiglipVisionModel", "SiglipVisionConfig", lambda found: found.pooler_output),
    ],
)
def test_hugging_faces_networks_see_the_same_as_if_the_other_patches_were_masked(name, config, embed, monkeypatch):
    module = hugging(name, config)
    backbone = Backbone(module, preprocess=Preprocess(size=32))
    check_subsets(backbone)
    with backbone.run(batch_of(images(), KEPT, 16)) as one_pass:
        made = one_pass.embedding.detach()
    # Each view by itself, through a patch embedding that gives fewer patches.
    embeddings = next(
        part
        for part in module.modules()
        if type(part).__name__.endswith("VisionEmbeddings")
        or type(part).__name__.endswith(("ViTEmbeddings", "DeiTEmbeddings"))
    )
    whole = embeddings.forward
    for n in range(2):
        for v in range(2):

            def some(*args, n=n, v=v, **kwargs):
                tokens = whole(*args, **kwargs)
                return torch.cat([tokens[:, :-16], tokens[:, -16:][:, KEPT[n, v]]], dim=1)

            monkeypatch.setattr(embeddings, "forward", some)
            with torch.no_grad():
                found = module(pixel_values=images()[n : n + 1])
            torch.testing.assert_close(made[2 * n + v], embed(found)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "config", "options", "reason"),
    [
        ("DINOv3ViTModel", "DINOv3ViTConfig", {}, "in another order gives another embedding"),
        (
            "BeitModel",
            "BeitConfig",
            {"use_relative_position_bias": True, "use_mean_pooling": False},
            "in another order gives another embedding",
        ),
    ],
)
def test_networks_with_positions_inside_the_blocks_are_refused(name, config, options, reason):
    backbone = Backbone(hugging(name, config, **options), preprocess=Preprocess(size=32))
    with pytest.raises(
        BackboneError, match=rf"{reason}.*positions are computed inside the blocks.*Patches\(side=0.5\)"
    ):
        make_engine(Recipe(objectives=[SimCLR(augmentation=Windows(2))]), backbone)


def test_a_network_whose_patches_are_unknown_is_refused_before_any_row_is_read():
    module = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.Flatten(1), nn.Linear(128, 8))
    backbone = Backbone(module, target="2", preprocess=Preprocess(size=32))
    with pytest.raises(RecipeError, match="patches is not known"):
        make_engine(Recipe(objectives=[SimCLR(augmentation=Windows(2))]), backbone)
    backbone = Backbone(module, target="2", preprocess=Preprocess(size=32, patch=8))
    with pytest.raises(BackboneError, match=r"no list of transformer blocks.*in their place"):
        make_engine(Recipe(objectives=[SimCLR(augmentation=Windows(2))]), backbone)


def test_a_wrong_patch_size_is_found_out():
    backbone = Backbone(small_module(), preprocess=Preprocess(size=32, patch=4))
    with pytest.raises(BackboneError, match=r"takes \[3, 17, 16\]; expected tokens \[3, T, E\], at least 64"):
        check_subsets(backbone)


def test_want_of_memory_is_not_taken_for_a_network_that_allows_no_subsets():
    backbone = small_backbone()
    handle = backbone.module.register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory"))
    )
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory$"):
        check_subsets(backbone)
    handle.remove()


def test_passes_of_other_threads_are_left_alone():
    module = small_module()
    picture = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected, seen = module(picture), []
        with keeping(module, KEPT, 16):
            other = threading.Thread(target=lambda: seen.append(module(picture)))
            other.start()
            other.join()
            assert module(picture).shape == (4, 4, 16)
    assert torch.equal(seen[0], expected)


def test_hooks_are_gone_after_an_exception_too():
    module = small_module()
    with pytest.raises(ValueError, match="mine"), keeping(module, KEPT, 16):
        raise ValueError("mine")
    assert not any(part._forward_pre_hooks for part in module.modules())
    with pytest.raises(BackboneError, match="ran 0 times"), keeping(module, KEPT, 16):
        pass


@pytest.mark.parametrize("augmentation", [Windows(2), Scatter(views=5, keep=0.5)], ids=repr)
def test_gradients_are_those_of_plain_autograd_over_the_subsets(augmentation):
    """A row at a time, the latents of its views made by the network's own parts."""
    backbone = small_backbone(dtype=torch.float64)
    simclr = SimCLR(latent=6, augmentation=augmentation, negatives=0)
    fungi = Fungi(Recipe(objectives=[KL(latent=5), simclr], dim=12, layers=0, dtype="auto"), backbone=backbone)
    pictures = noise_pictures(3)
    ids = ["a", "b", "c"]
    blocks = fungi.blocks(pictures, ids=ids)
    (target,) = backbone.targets.values()
    module, head = backbone.module, fungi.heads["simclr"].double()
    for at, picture in enumerate(pictures):
        views = augmentation(picture, backbone.preprocess, generator(0, ids[at], "simclr"))
        tokens = module.embed(views[0]["pixel_values"].double().unsqueeze(0))[0]
        embeddings = module.encode(torch.stack([torch.cat([tokens[:1], tokens[1 + view["kept"]]]) for view in views]))[
            :, 0
        ]
        loss = simclr.loss(head(embeddings).unsqueeze(0)).sum()
        weight, bias = torch.autograd.grad(loss, [target.layer.weight, target.layer.bias])
        gradient = torch.cat([weight, bias.unsqueeze(1)], dim=1).flatten()
        expected = normalize(fungi.projection(gradient.unsqueeze(0)).double(), dim=1)[0]
        np.testing.assert_allclose(blocks["simclr"][at], expected.detach(), atol=1e-5)
        mean = normalize(embeddings, dim=1).mean(dim=0)
        np.testing.assert_allclose(blocks["simclr.views"][at], (mean / mean.norm()).detach(), atol=1e-5)
    alone = fungi.blocks(pictures[1:2], ids=ids[1:2])
    np.testing.assert_allclose(alone["simclr"][0], blocks["simclr"][1], atol=1e-5)
