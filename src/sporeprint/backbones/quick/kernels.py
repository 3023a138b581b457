"""Compute one transformer block from its parts: whole, without autograd; or for its first token only."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sporeprint.backbones.quick.anatomy import Anatomy, Weights

# oneDNN's product with bias or sum in its own epilogue. `functional.linear` first copies
# the bias to every row: of DeiT-tiny's products in bfloat16 that is a quarter of the time. Absent from other builds.
_FUSED: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def whole_block(tokens: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
    """Compute the whole block.

    tokens: [N, T, E], in the precision that sums and norms keep; products have that of the weights.
    mask: bool or added to the scores, [N or 1, H or 1, T or 1, T]. Returns [N, T, E] in the tokens' precision.
    """
    quick = weights.qkv[0].dtype
    n, t, _ = tokens.shape
    first = weights.first

    inputs = _norm(tokens, weights, 0) if first else tokens
    qkv = _linear(inputs.to(quick), weights.qkv)  # [N, T, 3 I]
    query, key, value = qkv.view(n, t, 3, weights.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=_mask(mask, quick))
    tokens = _add_linear(tokens, mixed.transpose(1, 2).flatten(2), weights.out)
    inputs = _norm(tokens, weights, 1 if first else 0)
    tokens = tokens if first else inputs
    hidden = weights.activation(_linear(inputs.to(quick), weights.up))
    tokens = _add_linear(tokens, hidden, weights.down)
    return tokens if first else _norm(tokens, weights, 1)


def first_token(tokens: Tensor, block: Anatomy, mask: Tensor | None = None) -> Tensor:
    """Compute the block's first token alone by its own layers, whose hooks run: one query, all keys, one row after.

    tokens: [N, T, E]; mask as above. Returns [N, 1, E], with autograd from the layer that was tapped on.
    """
    scales: list[Any] = [next(part.parameters()) for part in block.scales] or [1, 1]
    inputs = block.norms[0](tokens) if block.first else tokens
    n, t, _ = tokens.shape
    if len(block.inner) == 1:
        query, key, value = block.inner[0](inputs).view(n, t, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
        query = query[:, :, :1]
    else:
        layer_inputs = (inputs[:, :1], inputs, inputs)
        query, key, value = (
            layer(part).unflatten(-1, (block.heads, -1)).transpose(1, 2)
            for layer, part in zip(block.inner, layer_inputs, strict=True)
        )
    mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., :1, :]
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=_mask(mask, query.dtype))
    token = tokens[:, :1] + block.out(mixed.transpose(1, 2).flatten(2)) * scales[0]
    inputs = block.norms[1 if block.first else 0](token)
    token = token if block.first else inputs
    token = token + block.down(block.activation(block.up(inputs))) * scales[1]
    return token if block.first else block.norms[1](token)


def _norm(values: Tensor, weights: Weights, number: int) -> Tensor:
    weight, bias, eps = weights.norms[number]
    bias = None if bias is None else bias.to(values)
    return functional.layer_norm(values, values.shape[-1:], weight.to(values), bias, eps)


@lru_cache(maxsize=1)
def _has_fused() -> bool:
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return _FUSED is not None and supported is not None and bool(supported())


def _fused(inputs: Tensor) -> bool:
    return inputs.device.type == "cpu" and inputs.dtype == torch.bfloat16 and _has_fused()


def _linear(inputs: Tensor, layer: tuple[Tensor, Tensor | None]) -> Tensor:
    if _fused(inputs):
        product: Tensor = _FUSED(inputs, *layer, "none", [], "")
        return product
    return functional.linear(inputs, *layer)


def _add_linear(tokens: Tensor, inputs: Tensor, layer: tuple[Tensor, Tensor | None]) -> Tensor:
    """Return tokens + inputs W + b: [N, T, E] in the tokens' precision."""
    if _fused(inputs) and tokens.dtype == inputs.dtype:
        total: Tensor = _FUSED.binary(inputs, tokens, *layer, "add")
        return total
    return tokens + _linear(inputs, layer)


def _mask(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
