"""A very sparse random projection (Li, Hastie and Church, KDD 2006)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sporeprint.gradients.factors import FactorProjection, random_below, random_signs


class Sparse(FactorProjection):
    """Each output is a signed sum of ceil(sqrt(P)) coordinates of the gradient, drawn with replacement.

    D * sqrt(P) is about P where D is the layer's width: to read that many numbers from the factors, at random and for
    each token, took four times as long as to form the gradient of one token. So a few samples' gradients are formed.
    """

    def __init__(self, dim: int, shape: tuple[int, int], seed: int = 0):
        super().__init__(dim, shape, seed)
        self.reads = math.isqrt(self.width - 1) + 1  # ceil(sqrt(P)), for each output
        count = dim * self.reads
        self._state = {
            "coordinates": random_below(seed, 0, count, self.width).int().view(dim, self.reads),
            "signs": random_signs(seed, 1, dim, self.reads),
        }

    def __call__(self, gradients: Tensor) -> Tensor:
        return self._gather(self._unflatten(gradients)).to(gradients.dtype)

    def matrix(self) -> Tensor:
        state = self._on(torch.device("cpu"))
        return torch.zeros(self.dim, self.width).scatter_add_(1, state["coordinates"].long(), state["signs"])

    def _gather(self, gradients: Tensor) -> Tensor:
        """Project gradients [N, O, I + 1]. Returns [N, D]."""
        state = self._on(gradients.device)
        table, signs = gradients.flatten(1).T.contiguous(), state["signs"].to(gradients)  # [P, N]
        summed = torch.nn.functional.embedding_bag(state["coordinates"], table, per_sample_weights=signs, mode="sum")
        return summed.T

    def _numbers(self, tokens: int) -> int:
        return super()._numbers(tokens) + 2 * self.width

    def _factors(self, inputs: Tensor, sensitivities: Tensor) -> Tensor:
        return self._gather(sensitivities.mT @ inputs)
