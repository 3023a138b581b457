"""Every token's gradient against plain autograd, in which each token has a copy of the layer of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from small import noise_pictures, small_backbone
from sporeprint import Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.features.dense.token_gradients import project_tokens
from sporeprint.gradients.projections.projection import PROJECTIONS, Rademacher, make_projection
from sporeprint.objectives.view_sets import generator

SIZE = (24, 40)  # height and width: 3 x 5 patches, neither square nor the network's own


def loss_by_hand(latents: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE summed over tokens, as one would write it on paper."""
    unit = [row / row.norm() for row in latents]
    others = [row / row.norm() for row in negatives]
    total = latents.new_zeros(())
    for at, token in enumerate(unit):
        positives = [token @ other for j, other in enumerate(unit) if j != at]
        repelled = [*positives, *(token @ other for other in others)]
        lse = torch.stack([similarity / temperature for similarity in repelled]).exp().sum().log()
        total = total + lse - torch.stack(positives).mean() / temperature
    return total


def gradients_by_hand(module: nn.Module, layer: nn.Linear, image: Tensor, loss: Any, prefix: int) -> Tensor:
    """[P, O, I + 1]: the layer is given a weight and a bias for every token, and each is differentiated."""
    copies: dict[str, Tensor] = {}

    def instead(_: nn.Module, args: Any, __: Any) -> Tensor:
        tokens = args[0].shape[1]
        copies["weight"] = layer.weight.detach().expand(tokens, -1, -1).clone().requires_grad_()
        copies["bias"] = layer.bias.detach().expand(tokens, -1).clone().requires_grad_()
        return torch.einsum("nti,toi->nto", args[0], copies["weight"]) + copies["bias"]

    handle = layer.register_forward_hook(instead)
    try:
        value = loss(module(image.unsqueeze(0))[0, prefix:])
    finally:
        handle.remove()
    weight, bias = torch.autograd.grad(value, [copies["weight"], copies["bias"]])
    return torch.cat([weight, bias.unsqueeze(2)], dim=2)[prefix:]


def fitted(objective: Any, **options: Any) -> Fungi:
    backbone = small_backbone(dtype=torch.float64)
    recipe = Recipe(dim=12, dtype="float32", dense=Dense(objectives=(objective,), size=SIZE, **options))
    return Fungi(recipe, backbone=backbone).fit_dense(noise_pictures(4, seed=5))


def directions(rows: Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=1, keepdim=True)).detach().numpy()


def test_token_simclr_is_the_gradient_of_each_tokens_own_copy_of_the_layer() -> None:
    objective = TokenSimCLR(temperature=0.2)
    fungi, picture = fitted(objective), noise_pictures(1)[0]
    engine, backbone = fungi.patches.engine, fungi.network
    head = engine.heads["simclr"].double()
    image = backbone.preprocess.at(picture, *SIZE).double()
    tokens = backbone.module(image.unsqueeze(0))[0, 1:].detach()
    support = engine.support
    assert support is not None
    rng = generator(0, "a", "dense simclr 0")
    unit = support.tokens / support.tokens.norm(dim=1, keepdim=True)
    nearest = [(unit @ (token / token.norm()).float()).argsort(descending=True)[:2] for token in tokens]
    kept = torch.from_numpy(rng.random(2 * len(tokens)) < 0.5)
    negatives = head(support.tokens.double())[torch.cat(nearest)[kept]].detach()
    expected = gradients_by_hand(
        backbone.module,
        backbone.module.blocks[-1].attn.proj,
        image,
        lambda tokens: loss_by_hand(head(tokens), negatives, 0.2),
        prefix=1,
    )
    projected = expected.flatten(1) @ fungi.projection.matrix().double().T
    blocks = next(maps for _, maps in fungi.patches.blocks([("a", picture)]))
    assert blocks["simclr"].shape == (3, 5, 12)
    np.testing.assert_allclose(blocks["simclr"].reshape(15, 12), directions(projected), atol=2e-6)


def test_token_kl_is_the_gradient_of_each_tokens_own_copy_of_the_layer() -> None:
    fungi, picture = fitted(TokenKL(latent=20)), noise_pictures(1)[0]
    backbone, head = fungi.network, fungi.patches.engine.heads["kl"].double()
    image = backbone.preprocess.at(picture, *SIZE).double()

    def divergence(tokens: Tensor) -> Tensor:
        total = tokens.new_zeros(())
        for token in tokens:
            p = torch.softmax(head(token / token.norm()), dim=0)
            total = total + sum((1 / 20) * (math.log(1 / 20) - value.log()) for value in p)
        return total

    expected = gradients_by_hand(backbone.module, backbone.module.blocks[-1].attn.proj, image, divergence, prefix=1)
    projected = expected.flatten(1) @ fungi.projection.matrix().double().T
    blocks = next(maps for _, maps in fungi.patches.blocks([("a", picture)]))
    np.testing.assert_allclose(blocks["kl"].reshape(15, 12), directions(projected), atol=2e-6)


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_tokens_are_projected_as_their_outer_products_are(name: str, bias: bool) -> None:
    rng = torch.Generator().manual_seed(1)
    inputs = torch.randn(37, 9, generator=rng, dtype=torch.float64)
    felt = torch.randn(37, 21, generator=rng, dtype=torch.float64)
    projection = make_projection(name, 12, (21, 9 + bias), seed=3)
    saw = torch.cat([inputs, torch.ones(37, 1, dtype=torch.float64)], dim=1) if bias else inputs
    whole = torch.stack([torch.outer(s, x).flatten() for s, x in zip(felt, saw, strict=True)])
    expected = whole @ projection.matrix().double().T
    torch.testing.assert_close(project_tokens(projection, inputs, felt, bias), expected)


def test_products_larger_than_the_chunk_are_projected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = torch.Generator().manual_seed(1)
    inputs, felt = torch.randn(11, 6, generator=rng), torch.randn(11, 43, generator=rng)
    projection = Rademacher(8, 43 * 7)

    class Plain:
        """A user's projection that only takes gradients."""

        dim = 8

        def __call__(self, gradients: Tensor) -> Tensor:
            assert gradients.nbytes <= 2 * 43 * 7 * 4
            return projection(gradients)

        def matrix(self) -> Tensor:
            return projection.matrix()

    expected = project_tokens(projection, inputs, felt)
    monkeypatch.setattr("sporeprint.gradients.projections.projection.OUTER_BYTES", 1)
    torch.testing.assert_close(project_tokens(projection, inputs, felt), expected)
    monkeypatch.setattr("sporeprint.features.dense.token_gradients.CHUNK_BYTES", 2 * 43 * 7 * 4)
    torch.testing.assert_close(project_tokens(Plain(), inputs, felt), expected)


def test_the_paper_s_feature_is_the_token_and_its_gradient() -> None:
    pictures = noise_pictures(3)
    recipe = Recipe(dtype="float32", dense=Dense(size=SIZE))
    fungi = Fungi(recipe, backbone=small_backbone()).fit_dense(pictures)
    features = fungi.dense(pictures)
    assert features.shape == (3, 3, 5, 32)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-6)
    image = fungi.network.preprocess.at(pictures[1], *SIZE).unsqueeze(0)
    tokens = fungi.network.module(image)[0, 1:].detach()
    expected = directions(tokens).reshape(3, 5, 16) / math.sqrt(2)
    np.testing.assert_allclose(features[1, ..., :16], expected, atol=1e-6)


def test_an_images_features_do_not_depend_on_the_batch_the_order_or_the_others() -> None:
    pictures = noise_pictures(5)
    ids = [f"picture {at}" for at in range(5)]
    dense = Dense(objectives=(TokenSimCLR(), TokenKL()), layers=(1,), size=SIZE)
    fungi = Fungi(Recipe(dtype="float32", dense=dense), backbone=small_backbone(), batch_size=4)
    whole = fungi.fit_dense(pictures, ids).dense(pictures, ids)
    fungi.batch_size = 1
    alone = fungi.dense(pictures[::-1], ids[::-1])[::-1]
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    other_order = Fungi(Recipe(dtype="float32", dense=dense), backbone=small_backbone())
    np.testing.assert_allclose(other_order.fit_dense(pictures[::-1], ids[::-1]).dense(pictures, ids), whole, atol=1e-5)


def test_images_at_their_own_size_give_grids_of_their_own() -> None:
    pictures = [Image.new("RGB", (41, 24), "red"), Image.new("RGB", (16, 33), "blue")]
    for at, picture in enumerate(pictures):
        picture.putpixel((3, 3 + at), (255, 255, 255))
    fungi = Fungi(Recipe(dtype="float32", dense=Dense(objectives=(TokenKL(),))), backbone=small_backbone())
    features = fungi.fit_dense(pictures).dense(pictures)
    assert [image.shape for image in features] == [(3, 5, 32), (4, 2, 32)]


def test_an_image_that_cannot_be_read_costs_itself_and_is_named() -> None:
    pictures: list[Any] = [*noise_pictures(3), b"no image"]
    fungi = Fungi(Recipe(dtype="float32", dense=Dense(size=SIZE)), backbone=small_backbone()).fit_dense(pictures[:3])
    with pytest.warns(UserWarning, match="1 of 4 images have no features: row 3"):
        features = fungi.dense(pictures)
    assert np.isnan(features[3]).all()
    assert np.isfinite(features[:3]).all()
    assert [failure.id for failure in fungi.failures] == ["row 3"]


def test_the_network_is_left_as_it_was() -> None:
    backbone = small_backbone()
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    flags = [(parameter.requires_grad, parameter.grad) for parameter in backbone.module.parameters()]
    Fungi(Recipe(dtype="float32", dense=Dense(size=SIZE)), backbone=backbone).fit_dense(noise_pictures(2))
    assert all(torch.equal(before[name], value) for name, value in backbone.module.state_dict().items())
    assert [(parameter.requires_grad, parameter.grad) for parameter in backbone.module.parameters()] == flags
    assert not any(part._forward_hooks for part in backbone.module.modules())
