"""benchmarks/dense_variants.py: the mistakes of the paper's public code, for comparison."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from dense_variants import PublicSimCLR, PublicSupport

from small import noise_pictures, small_backbone
from sporeprint import Dense, Fungi, Recipe, TokenSimCLR
from sporeprint.features.dense import dense_features
from sporeprint.features.dense.support import owner_of

BANK = torch.tensor([[2.0, 0.0], [0.0, 3.0], [5.0, 5.0], [-1.0, 0.0]])
OWNERS = torch.tensor([owner_of(image) for image in ("a", "b", "b", "c")])
TOKENS = torch.tensor([[1.0, 0.1], [0.2, 9.0], [1.0, 0.9]])


class Never:
    """A generator whose numbers keep everything."""

    def random(self, count: int) -> np.ndarray:
        return np.zeros(count)


def negatives(objective: TokenSimCLR, tokens: Tensor, image: str = "d") -> list[list[float]]:
    support = PublicSupport(BANK, OWNERS)
    return support.negatives(objective, tokens, owner_of(image), Never()).tolist()  # type: ignore[arg-type]


def test_without_mistakes_it_is_the_loss_of_the_library() -> None:
    assert negatives(PublicSimCLR(), TOKENS) == negatives(TokenSimCLR(), TOKENS)
    latents, others = torch.randn(5, 8), torch.randn(3, 8)
    torch.testing.assert_close(PublicSimCLR().loss(latents, others), TokenSimCLR().loss(latents, others))


def test_an_image_finds_itself() -> None:
    assert negatives(PublicSimCLR(own_image=True), TOKENS[1:2], "b") == [[0, 3], [5, 5]]


def test_negatives_are_of_length_one() -> None:
    half = 0.5**0.5
    np.testing.assert_allclose(negatives(PublicSimCLR(unit_negatives=True), TOKENS[:1]), [[1, 0], [half, half]], 1e-6)


def test_the_numbers_of_negatives_are_mixed_up() -> None:
    # neighbours [2, E = 2] of a token: [[2, 0], [5, 5]], read as [E, 2] and turned
    assert negatives(PublicSimCLR(scrambled=True), TOKENS[:1]) == [[2, 5], [0, 5]]


def test_the_logsumexp_stays_at_temperature_1() -> None:
    loss = PublicSimCLR(temper_negatives=False, temperature=0.2).loss(torch.eye(2), torch.tensor([[0.0, 3.0]]))
    # Cosines of token 0: 0 with token 1, 0 with the negative; of token 1: 0 and 1.
    torch.testing.assert_close(loss, torch.tensor([2.0, 1 + np.e]).log())


@pytest.mark.parametrize("mistake", [{"scrambled": True}, {"unit_negatives": True}, {"own_image": True}])
def test_each_mistake_changes_the_features(mistake: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_features, "Support", PublicSupport)
    pictures = noise_pictures(3)

    def features(objective: TokenSimCLR) -> np.ndarray:
        dense = Dense(objectives=(objective,), size=32)
        fungi = Fungi(Recipe(dtype="float32", dense=dense), backbone=small_backbone())
        return fungi.fit_dense(pictures).dense(pictures)

    right, wrong = features(TokenSimCLR(kept=1.0)), features(PublicSimCLR(kept=1.0, **mistake))
    np.testing.assert_allclose(right[..., :16], wrong[..., :16], atol=1e-6)
    assert np.abs(right[..., 16:] - wrong[..., 16:]).max() > 1e-3
