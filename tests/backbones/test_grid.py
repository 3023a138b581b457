"""Grids of tokens of images of any height and width, against the libraries' own interpolation and plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from small import VISION
from sporeprint.backbones.base import Backbone
from sporeprint.backbones.grid import patch_factors
from sporeprint.backbones.preprocess import Preprocess

tf = pytest.importorskip("transformers")

PREPROCESS = Preprocess(size=32)
SHAPES = [(32, 32), (16, 64), (24, 16), (40, 56)]  # pixels, height and width, of patches of 8
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"}
NETWORKS: dict[str, Callable[[], Any]] = {
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**VISION)),
    "deit": lambda: tf.DeiTModel(tf.DeiTConfig(**VISION)),
    "registers": lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**DINOV2)),
}
ASKED = {"interpolate_pos_encoding": True}


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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_tokens_are_the_librarys_own_in_rows_and_columns(name, shape):
    module = shaken(NETWORKS[name]())
    backbone = Backbone(module, preprocess=PREPROCESS)
    asked = ASKED if name != "registers" and shape != (32, 32) else {}
    with torch.no_grad():
        found = module(pixel_values=images(*shape), **asked).last_hidden_state
    rows, columns = shape[0] // 8, shape[1] // 8
    with backbone.grid(images(*shape)) as one_pass:
        assert one_pass.tokens.shape == (2, rows, columns, 32)
        for row in range(rows):
            for column in range(columns):
                torch.testing.assert_close(
                    one_pass.tokens[:, row, column].detach(),
                    found[:, backbone.prefix + row * columns + column],
                    rtol=1e-9,
                    atol=1e-9,
                )
        (capture,) = one_pass.captures.values()
        assert capture.inputs.shape == (2, backbone.prefix + rows * columns, 32)
        assert patch_factors(capture.inputs, backbone.prefix).shape == (2, rows * columns, 32)
