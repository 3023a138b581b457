"""Small networks with seeded random weights: a backbone for tests that need numbers and no meaning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.libraries.tiny import TinyConfig, TinyViT

VISION: dict[str, Any] = {  # of a Hugging Face configuration: 16 patches
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
PREPROCESS = Preprocess(size=32, mean=(0.5, 0.4, 0.6), std=(0.25, 0.3, 0.2))


def small_module(seed: int = 0, dtype: torch.dtype = torch.float32, width: int = 16, depth: int = 2) -> TinyViT:
    """A CLS-pooled vision transformer of 16 patches; tokens differ, so that attention is not uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = TinyViT(TinyConfig(image_size=32, patch_size=8, width=width, depth=depth, heads=2))
        nn.init.normal_(module.cls_token)
        nn.init.normal_(module.pos_embed, std=0.5)
    return module.to(dtype).eval()


def small_backbone(seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> Backbone:
    return Backbone(small_module(seed, dtype), preprocess=PREPROCESS, **options)


def noise_pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Different pictures of different sizes."""
    rng = np.random.default_rng(seed)
    pictures = []
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 5, 3), dtype=np.uint8))
        pictures.append(coarse.resize((36 + number % 7, 48 - number % 5), Image.Resampling.BICUBIC))
    return pictures


@contextmanager
def seen_by(layer: nn.Module) -> Iterator[list[Tensor]]:
    """What a layer takes while the context is open."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    try:
        yield seen
    finally:
        handle.remove()
