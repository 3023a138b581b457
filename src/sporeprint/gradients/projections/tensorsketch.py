"""TensorSketch joins count sketches of the two factors by the Fourier transform (Pham and Pagh, KDD 2013)."""

from __future__ import annotations

import torch
from torch import Tensor

from sporeprint.gradients.factors import FactorProjection, random_below, random_signs


class TensorSketch(FactorProjection):
    """Entry (o, i) of the gradient goes to place (h(o) + g(i)) mod D with sign u(o) v(i); h, g, u, v are random.

    For one token that is the circular convolution of a count sketch of s_t with one of [x_t, 1], so tokens are summed
    in the Fourier domain, and one inverse transform a sample gives the D numbers.
    """

    def __init__(self, dim: int, shape: tuple[int, int], seed: int = 0):
        super().__init__(dim, shape, seed)
        outputs, inputs = self.shape
        self._state = {
            "output_places": random_below(seed, 0, outputs, dim),
            "input_places": random_below(seed, 1, inputs, dim),
            "output_signs": random_signs(seed, 2, outputs),
            "input_signs": random_signs(seed, 3, inputs),
        }

    def __call__(self, gradients: Tensor) -> Tensor:
        whole = self._unflatten(gradients)
        places, signs = self._entries(gradients.device)
        signed = (whole * signs.to(whole)).flatten(1)
        return whole.new_zeros(len(whole), self.dim).index_add_(1, places.flatten(), signed).to(gradients.dtype)

    def matrix(self) -> Tensor:
        places, signs = self._entries(torch.device("cpu"))
        return torch.zeros(self.dim, self.width).scatter_(0, places.view(1, -1), signs.view(1, -1))

    def _entries(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Give the place and the sign of each entry of the gradient, [O, I + 1]."""
        state = self._on(device)
        places = (state["output_places"].unsqueeze(1) + state["input_places"]) % self.dim
        return places, state["output_signs"].unsqueeze(1) * state["input_signs"]

    def _factors(self, inputs: Tensor, sensitivities: Tensor) -> Tensor:
        felt = torch.fft.rfft(self._count(sensitivities, "output"))  # [N, T, D // 2 + 1]
        seen = torch.fft.rfft(self._count(inputs, "input"))
        return torch.fft.irfft((felt * seen).sum(dim=1), n=self.dim)

    def _count(self, factor: Tensor, which: str) -> Tensor:
        """Take the count sketch of a factor [N, T, F]. Returns [N, T, D]."""
        state = self._on(factor.device)
        signed = factor * state[f"{which}_signs"].to(factor)
        return factor.new_zeros(*factor.shape[:2], self.dim).index_add_(2, state[f"{which}_places"], signed)
