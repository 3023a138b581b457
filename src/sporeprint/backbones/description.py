"""Describe a backbone as JSON, and digest its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.errors import BackboneError


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
    caveats: Mapping[str, Any]

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
            **self.caveats,
        }


def caveats_text(described: Mapping[str, Any]) -> list[str]:
    """Say what a reader of features must know of how their backbone, described as above, was loaded."""
    texts = []
    if random := described.get("random_weights"):
        what = f"{random} weights of the backbone are" if random > 1 else "1 weight of the backbone is"
        texts.append(f"{what} random, because its checkpoint lacks {'them' if random > 1 else 'it'}")
    if described.get("trust_remote_code"):
        texts.append("code of the checkpoint was run (trust_remote_code)")
    return texts


def check_finite(
    module: nn.Module, name: str, find_read: Callable[[Mapping[str, Tensor]], Iterable[str]] = iter
) -> None:
    """Raise BackboneError for a weight that is NaN or infinite, or a buffer that is NaN (a mask may be infinite).

    find_read: of named weights, those that matter.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    found = {key: tensor for key, tensor in tensors.items() if not tensor.is_meta and _wrong(tensor).any()}
    for key in find_read(found) if found else ():
        wrong = _wrong(found[key])
        raise BackboneError(
            f"{name}: {int(wrong.sum())} of the {wrong.numel()} numbers of its weight {key!r} are NaN or "
            "infinite; the checkpoint is damaged, or its training failed: fetch it again, or give another"
        )


def _wrong(tensor: Tensor) -> Tensor:
    return ~torch.isfinite(tensor) if isinstance(tensor, nn.Parameter) else torch.isnan(tensor)


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """Return 16 hex digits over the shapes and values of all weights and buffers, in order, whatever their names."""
    parts = [_part(tensor) for module in modules for tensor in module.state_dict().values()]
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def _part(tensor: Tensor) -> bytes:
    part = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
    part.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return part.digest()
