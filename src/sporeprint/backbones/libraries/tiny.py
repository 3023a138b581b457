"""A small vision transformer of our own, shipped with the package so that the demo needs no download.

`training/train_tiny.py` makes the weights; TINY_MODEL_CARD.md next to this file says what they are good for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import as_file, files

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from sporeprint.backbones.libraries.image_sizes import resize_positions


@dataclass(frozen=True)
class TinyConfig:
    """What the weights were trained with; `dataclasses.asdict` of it is JSON.

    mean, std: of grey values in [0, 1], the same for the three channels.
    """

    image_size: int = 28
    patch_size: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4
    mean: float = 0.2860
    std: float = 0.3530


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [N, T, E] to [N, T, E]."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # [N, T, 3, H, E / H]
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [N, H, T, E / H]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [N, T, E] to [N, T, E]."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [N, T, E] to [N, T, E]."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class TinyViT(nn.Module):
    """A plain pre-norm vision transformer with a CLS token; no dropout, no pooling, no head."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.patch, self.side = config.patch_size, config.image_size  # in pixels
        side = config.image_size // config.patch_size
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images [N, 3, H, W] of any size. Returns the tokens before block 1, [N, 1 + P, E]."""
        planes = self.patch_embed(images)  # [N, E, H_p, W_p]
        patches = planes.flatten(2).transpose(1, 2)  # [N, P, E]
        cls = self.cls_token.expand(len(patches), -1, -1)
        return torch.cat([cls, patches], dim=1) + resize_positions(self.pos_embed, 1, *planes.shape[-2:])

    def encode(self, tokens: Tensor) -> Tensor:
        """Encode tokens [N, T, E] from `embed`, or a subset of them. Returns [N, T, E] after the final norm."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def forward(self, images: Tensor) -> Tensor:
        """Return [N, 1 + P, E] after the final norm, of normalised images [N, 3, H, W]; token 0 is CLS."""
        return self.encode(self.embed(images))


def load_tiny() -> tuple[TinyViT, TinyConfig]:
    """Load the shipped model in float32 and eval mode, and its configuration.

    `tiny.safetensors` is package data next to this file, found through importlib.resources, so a zipped install
    works too. It holds the weights in float16 and the configuration as JSON in its metadata; nothing is unpickled.
    """
    with (
        as_file(files("sporeprint.backbones.libraries") / "tiny.safetensors") as path,
        safe_open(path, framework="pt") as weights,
    ):
        config = TinyConfig(**json.loads(weights.metadata()["config"]))
        state = {name: weights.get_tensor(name).float() for name in weights.keys()}  # noqa: SIM118
    model = TinyViT(config)
    model.load_state_dict(state)
    return model.eval(), config
