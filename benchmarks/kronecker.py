"""The projection `kronecker`, which sporeprint had until its measurement removed it: a sign matrix for each factor.

docs/projections.md has the measurement, and projections.py repeats it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sporeprint.gradients.factors import FactorProjection, random_signs


def near_square(dim: int, shape: tuple[int, int]) -> tuple[int, int]:
    """This gives (a, b), the rows of the two sign matrices.

    a * b = dim where dim has divisors within a factor of two, else it is above dim. The error grows with 1 / a + 1 / b,
    so both are near sqrt(dim); the wider factor gets the larger one.
    """
    low = math.isqrt(dim)
    small = max((a for a in range(1, low + 1) if dim % a == 0 and dim // a <= 2 * a), default=math.isqrt(dim - 1) + 1)
    large = -(-dim // small)
    small, large = min(small, large), max(small, large)
    return (large, small) if shape[0] > shape[1] else (small, large)


class Kronecker(FactorProjection):
    """y = vec(sum_t (A s_t) (B [x_t, 1])^T), the first D numbers of it; A [a, O] and B [b, I + 1] are random signs.

    Its matrix is the Kronecker product of A and B, without its last a * b - D rows. Where two
    gradients share a factor it keeps their cosine only as well as a or b rows can (docs/projections.md).
    """

    def __init__(self, dim: int, shape: tuple[int, int], seed: int = 0):
        super().__init__(dim, shape, seed)
        left, right = near_square(dim, self.shape)
        self._state = {
            "left": random_signs(seed, 0, left, self.shape[0]),
            "right": random_signs(seed, 1, right, self.shape[1]),
        }

    def __call__(self, gradients: Tensor) -> Tensor:
        whole, state = self._unflatten(gradients), self._on(gradients.device)
        left, right = state["left"].to(whole), state["right"].to(whole)
        return (left @ whole @ right.T).flatten(1)[:, : self.dim].to(gradients.dtype)

    def matrix(self) -> Tensor:
        state = self._on(torch.device("cpu"))
        return torch.kron(state["left"], state["right"])[: self.dim]

    def _factors(self, inputs: Tensor, sensitivities: Tensor) -> Tensor:
        state = self._on(inputs.device)
        felt = sensitivities @ state["left"].to(inputs).T  # [N, T, a]
        seen = inputs @ state["right"].to(inputs).T  # [N, T, b]
        return (felt.mT @ seen).flatten(1)[:, : self.dim]
