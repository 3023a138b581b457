"""What was found in a backbone, as JSON, and a digest of its weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sporeprint.backbones.base import Backbone


def weights_digest(backbone: Backbone) -> str:
    """16 hex digits over the shapes and values of all weights and buffers, in order, whatever they are called."""
    parts = []
    finish = {} if backbone.finish is None else backbone.finish.state_dict()
    whole = backbone.adapter.head or backbone.module
    for tensor in (*whole.state_dict().values(), *finish.values()):
        part = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
        part.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        parts.append(part.digest())
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def description(backbone: Backbone) -> dict[str, Any]:
    """What decides its features, and what people want to know of it."""
    return {
        "name": backbone.name,
        "class": type(backbone.module).__name__,
        "targets": list(backbone.targets),
        "pooling": backbone.pooling,
        "width": backbone.width,
        "modality": backbone.modality,
        **backbone.preprocess.limits(),
        "preprocess": backbone.preprocess.describe(),
        "finish": None if backbone.finish is None else " ".join(str(backbone.finish).split()),
        "tokens": backbone.tokens,
        "prefix_tokens": backbone.prefix,
        "blocks": backbone.depth,
        "weights": backbone.digest(),
    }
