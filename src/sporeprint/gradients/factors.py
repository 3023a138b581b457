"""The base of the structured projections, which take a gradient's two factors and need not form it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sporeprint.errors import RecipeError

CHUNK = 2**23  # numbers in flight while factors are projected: 32 MiB in float32


def random_words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Return [count] words of 64 random bits; NumPy keeps PCG64 the same on every platform and in every version."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,))).random_raw(count).astype(np.uint64)


def random_signs(seed: int, stream: int, *shape: int) -> Tensor:
    """Return +1 or -1, float32, row by row: the bits of `random_words`, lowest first; 1 is +1."""
    count = int(np.prod(shape))
    stored = random_words(seed, stream, -(-count // 64)).astype("<u8").view(np.uint8)
    bits = np.unpackbits(stored, count=count, bitorder="little")
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1).view(shape)


def random_below(seed: int, stream: int, count: int, limit: int) -> Tensor:
    """Return [count] integers in [0, limit), int64: the words modulo `limit`, whose bias is below limit / 2^64."""
    return torch.from_numpy((random_words(seed, stream, count) % np.uint64(limit)).astype(np.int64))


def felt_tokens(inputs: Tensor, sensitivities: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the T' tokens on which some sample's loss depends: [N, T', I], 0 where a sample's does not, and [N, T', O].

    With CLS pooling that is one token of each view; one is kept where there is none. Padding may hold NaN, and 0 * NaN
    is NaN.
    """
    felt = (sensitivities != 0).any(dim=2)  # [N, T]
    read = felt.any(dim=0)
    read[:1] |= ~read.any()
    if not read.all():
        inputs, sensitivities, felt = inputs[:, read], sensitivities[:, read], felt[:, read]
    if not felt.all():
        inputs = inputs.masked_fill(~felt.unsqueeze(2), 0)
    return inputs, sensitivities


class FactorProjection(ABC):
    """A seeded linear map from the gradient sum_t s_t [x_t, 1]^T to D numbers, computed from s and x.

    A kind defines `_factors`, `__call__` and `matrix`, and keeps its tensors in `_state`.
    """

    def __init__(self, dim: int, shape: tuple[int, int], seed: int = 0):
        """dim: D. shape: that of the gradient, (O, I + 1); without a bias (O, I). seed: that of every random number."""
        self.dim, self.shape, self.seed = dim, (int(shape[0]), int(shape[1])), seed
        self.width = self.shape[0] * self.shape[1]
        self._state: dict[str, Tensor] = {}

    @abstractmethod
    def __call__(self, gradients: Tensor) -> Tensor:
        """Project gradients [N, P], P = O * (I + 1), to [N, D] of the same type."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return the explicit float32 [D, P] matrix, laid out as the row-major [O, I + 1] gradient."""

    @abstractmethod
    def _factors(self, inputs: Tensor, sensitivities: Tensor) -> Tensor:
        """Project inputs [N, T, I + 1] with their ones and sensitivities [N, T, O] to [N, D]."""

    def _numbers(self, tokens: int) -> int:
        """Return how many numbers are in flight for one sample of `tokens` tokens."""
        return tokens * (sum(self.shape) + 4 * self.dim)

    def of_factors(self, inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor:
        """Project the gradients of one layer's weight and bias, given by their factors: [N, D], in at least float32.

        inputs: [N, T, I], what the layer saw. sensitivities: [N, T, O], d loss / d output; T counts views and tokens.
        A token on which the loss does not depend adds nothing, whatever its inputs hold. Raises RecipeError.
        """
        shape = (sensitivities.shape[-1], inputs.shape[-1] + bias)
        if shape != self.shape or inputs.shape[:-1] != sensitivities.shape[:-1] or inputs.dim() != 3:
            raise RecipeError(
                f"factors of shapes {tuple(inputs.shape)} and {tuple(sensitivities.shape)}, bias {bias}; expected "
                f"[N, T, {self.shape[1] - bias}] and [N, T, {self.shape[0]}], since this projection was made for "
                f"gradients {self.shape}"
            )
        kind = torch.promote_types(torch.promote_types(inputs.dtype, sensitivities.dtype), torch.float32)
        inputs, sensitivities = felt_tokens(inputs, sensitivities)
        samples, tokens = inputs.shape[:2]
        projected = inputs.new_zeros(samples, self.dim, dtype=kind)
        step = max(1, CHUNK // (sum(self.shape) + 4 * self.dim))  # tokens
        rows = max(1, CHUNK // self._numbers(min(step, tokens)))
        for row in range(0, samples, rows):
            for token in range(0, tokens, step):
                part = slice(row, row + rows), slice(token, token + step)
                part_inputs, part_sensitivities = inputs[part].to(kind), sensitivities[part].to(kind)
                if bias:
                    part_inputs = torch.cat([part_inputs, part_inputs.new_ones(*part_inputs.shape[:2], 1)], dim=2)
                projected[part[0]] += self._factors(part_inputs, part_sensitivities)
        return projected

    def _on(self, device: torch.device) -> dict[str, Tensor]:
        """Return the state on `device`, moving it there if need be."""
        if any(tensor.device != device for tensor in self._state.values()):
            self._state = {name: tensor.to(device) for name, tensor in self._state.items()}
        return self._state

    def _unflatten(self, gradients: Tensor) -> Tensor:
        """Reshape [N, P] to [N, O, I + 1], in at least float32. Raises RecipeError."""
        check_width(gradients, self.width)
        return gradients.to(torch.promote_types(gradients.dtype, torch.float32)).unflatten(1, self.shape)


def check_width(gradients: Tensor, width: int) -> None:
    """Raise RecipeError unless gradients are [N, width]."""
    if gradients.dim() != 2 or gradients.shape[1] != width:
        raise RecipeError(
            f"gradients of shape {tuple(gradients.shape)}; this projection expects [N, {width}], where {width} is "
            "O * (I + 1) of the target layer (O * I without a bias)"
        )
