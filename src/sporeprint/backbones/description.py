"""Describe a backbone as JSON, and digest its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Inputs


@dataclass(frozen=True)
class Description:
    """What decides a backbone's features, and what people want to know about it. `Backbone` explains the fields."""

    name: str
    module: nn.Module
    targets: tuple[str, ...]
    pooling: str
    width: int
    preprocess: Inputs
    finish: nn.Module | None
    tokens: int | None
    prefix: int
    depth: int
    weights: str

    def to_json(self) -> dict[str, Any]:
        """Return the description as stores and saved Fungis hold it."""
        return {
            "name": self.name,
            "class": type(self.module).__name__,
            "targets": list(self.targets),
            "pooling": self.pooling,
            "width": self.width,
            "modality": self.preprocess.modality,
            **self.preprocess.limits(),
            "preprocess": self.preprocess.describe(),
            "finish": None if self.finish is None else " ".join(str(self.finish).split()),
            "tokens": self.tokens,
            "prefix_tokens": self.prefix,
            "blocks": self.depth,
            "weights": self.weights,
        }


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Return 16 hex digits over the shapes and values of all weights and buffers, in order, whatever their names."""
    parts = [_part(tensor) for module in modules for tensor in module.state_dict().values()]
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def _part(tensor: Tensor) -> bytes:
    part = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
    part.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return part.digest()
