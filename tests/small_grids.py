"""Images of any height and width, networks that tell places apart, and grids of tokens put together by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NATIVE = (32, 32)
SHAPES = [(16, 64), (24, 16), (40, 56), (64, 64)]  # pixels, height and width, of patches of 8


def shaken(module: nn.Module) -> Any:
    """Seeded weights, so that no two positions are alike."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return module.double().eval()


def images(height: int, width: int, count: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, height, width, generator=draw, dtype=torch.float64)


def by_hand(tokens: Tensor, prefix: int, shape: tuple[int, int]) -> Tensor:
    """[N, T, E] to [N, H_p, W_p, E], one by one."""
    rows, columns = shape[0] // 8, shape[1] // 8
    assert tokens.shape[1] == prefix + rows * columns
    return torch.stack(
        [
            torch.stack([tokens[:, prefix + row * columns + column] for column in range(columns)], dim=1)
            for row in range(rows)
        ],
        dim=1,
    )


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-9, atol=1e-9)
