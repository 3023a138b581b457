"""The labels of patches do not depend on the order of the patches that vote, where many are alike."""

import numpy as np
import pytest
import torch

from sporeprint.segment.bank import MemoryBank
from sporeprint.segment.vote import class_vote

ALIKE, FAR = [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]


def orders(count):
    return [
        np.arange(count),
        np.arange(count)[::-1],
        *(np.random.default_rng(at).permutation(count) for at in range(3)),
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_equal_patches_of_a_bank_share_the_places_that_are_left(dtype):
    features = np.array([*[ALIKE] * 40, *[FAR] * 10], dtype)
    histograms = np.array([*[[1, 0]] * 10, *[[0, 1]] * 30, *[[1, 0]] * 10], np.float32)
    for order in orders(50):
        bank = MemoryBank(features[order], histograms[order])
        shares = bank.predict(np.array([ALIKE, FAR], np.float32), 5, 0.1)
        np.testing.assert_allclose(shares, [[0.25, 0.75], [1.0, 0.0]], rtol=1e-6)


def test_nearer_patches_keep_their_own_votes():
    features = np.array([[0.6, 0.8, 0.0], *[[0.0, 1.0, 0.0]] * 3, *[[0.0, 0.6, 0.8]] * 4], np.float32)
    histograms = np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2, 2, 0, 0]]
    weights = np.exp([1.0, 0.8, 0.6])  # of the three, the one and the four, at temperature 1
    for order in orders(8):
        shares = MemoryBank(features[order], histograms[order]).predict(np.array([ALIKE], np.float32), 6, 1.0)
        near = 3 * weights[0] + weights[1] + 2 * weights[2]
        expected = [weights[1] + weights[2], 3 * weights[0], weights[2]]
        np.testing.assert_allclose(shares[0], expected / near, rtol=1e-6)


def test_equal_patches_share_the_last_place_of_their_class():
    similarities = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.7, 0.7]])
    histograms = torch.tensor([[1, 0], [1.0, 0], [0.5, 0.5], [0.2, 0.8], [0, 1], [0, 1]], dtype=torch.float32)
    mean, temperature = (1 + 0.5 + 0.2) / 3, 0.1
    first = (np.exp(0.9 / temperature) + mean * np.exp(0.5 / temperature)) / (1 + mean)
    second = np.exp(0.7 / temperature)
    for order in orders(6):
        shares = class_vote(similarities[:, order.copy()], histograms[order.copy()], 2, temperature)
        np.testing.assert_allclose(shares[0], np.array([first, second]) / (first + second), rtol=1e-5)


def test_patches_that_differ_by_rounding_share_the_last_place_as_equal_ones_do():
    near = np.float32(1 - 2**-22)  # a cosine that a product in float32 may give for an equal patch
    features = np.array([[1.0, 0.0], [near, np.sqrt(1 - near * near)], [0.0, 1.0]], np.float32)
    for order in orders(3):
        bank = MemoryBank(features[order], np.array([[1, 0], [0, 1], [1, 0]], np.float32)[order])
        shares = bank.predict(np.array([[1.0, 0.0]], np.float32), 1, 0.1)
        np.testing.assert_allclose(shares, [[0.5, 0.5]], rtol=1e-6)
