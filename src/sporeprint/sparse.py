"""Very sparse random projection (Li, Hastie and Church, KDD 2006)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sporeprint.factors import FactorProjection, random_below, random_signs


class Sparse(FactorProjection):
    """Each output is a signed sum of ceil(sqrt(P)) coordinates of the gradient, drawn with replacement.

    D * sqrt(P) is about P where D is the layer's width, so reading them from the factors takes as long as forming the
    gradient for each token of it: one sample's gradient is formed where its tokens are many, and only there.
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
        """[N, O, I + 1] to [N, D]."""
        state = self._on(gradients.device)
        table, signs = gradients.flatten(1).T.contiguous(), state["signs"].to(gradients)  # [P, N]
        summed = torch.nn.functional.embedding_bag(state["coordinates"], table, per_sample_weights=signs, mode="sum")
        return summed.T

    def forms(self, tokens: int) -> bool:
        """Whether forming the gradient is cheaper: a random read costs about ten multiplications."""
        return 10 * tokens * self.dim * self.reads > tokens * self.width + 10 * self.dim * self.reads

    def _numbers(self, tokens: int) -> int:
        return 2 * self.width if self.forms(tokens) else tokens * sum(self.shape) + 3 * tokens * self.dim * self.reads

    def _factors(self, inputs: Tensor, sensitivities: Tensor) -> Tensor:
        if self.forms(inputs.shape[1]):
            return self._gather(sensitivities.mT @ inputs)
        state = self._on(inputs.device)
        coordinates = state["coordinates"].long().flatten()
        outputs = sensitivities[:, :, coordinates // self.shape[1]]
        entries = (outputs * inputs[:, :, coordinates % self.shape[1]]).sum(dim=1)  # [N, D * reads]
        return (entries.unflatten(1, (self.dim, self.reads)) * state["signs"].to(inputs)).sum(dim=2)
