"""Find the parts of one transformer block by its structure: norms, attention, perceptron, scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sporeprint.backbones import structure

_QUERY, _KEY, _VALUE = (
    {"q", "q_proj", "q_lin", "linear_q", "query", "query_proj"},
    {"k", "k_proj", "k_lin", "linear_k", "key", "key_proj"},
    {"v", "v_proj", "v_lin", "linear_v", "value", "value_proj"},
)
_FUSED = {"qkv", "qkv_proj", "Wqkv", "query_key_value"}
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "heads", "nhead")
_NO_WEIGHT = (nn.Dropout, nn.Identity)
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Anatomy:
    """The modules of one block of width E, the network's own.

    inner: the linear layers to queries, keys and values, or one to all three. scales: two with a weight of [E], or
    none. first: whether the norms come before attention and perceptron, not after their sums.
    """

    norms: tuple[nn.LayerNorm, nn.LayerNorm]
    inner: tuple[nn.Linear, ...]
    out: nn.Linear
    up: nn.Linear
    down: nn.Linear
    activation: Activation
    scales: tuple[nn.Module, ...]
    heads: int
    first: bool

    @property
    def layers(self) -> list[nn.Module]:
        """All modules that have weights."""
        return [*self.norms, *self.inner, self.out, self.up, self.down, *self.scales]

    def weights(self) -> list[Tensor]:
        """Return the weights as they are now: one may have been replaced."""
        return [weight for layer in self.layers for weight in layer._parameters.values() if weight is not None]

    def stamp(self) -> list[tuple[Tensor, int, int]]:
        """Return the weights, their addresses, and how often they were changed other than through `.data`."""
        return [(weight, weight.data_ptr(), weight._version) for weight in self.weights()]


def dissect(block: nn.Module) -> list[Anatomy]:
    """Return what the block may be, most likely first; empty where it has other parts.

    This is a guess by names and shapes: compare its result with the block's own.
    """
    linears = {path: part for path, part in block.named_modules() if isinstance(part, nn.Linear)}
    heads = heads_of(block)
    closing = structure.attention_output(block)
    if closing not in linears or not heads or any(type(layer) is not nn.Linear for layer in linears.values()):
        return []
    out = linears.pop(closing)
    width = out.out_features
    inner = _inner(linears)
    rest = [layer for layer in linears.values() if layer not in inner]
    norms = [part for part in block.modules() if isinstance(part, nn.LayerNorm)]
    others = [part for part in block.modules() if not list(part.children()) and not isinstance(part, _NO_WEIGHT)]
    others = [part for part in others if part not in norms and not isinstance(part, nn.Linear)]
    scales = [part for part in others if [weight.shape for weight in part.parameters()] == [(width,)]]
    known = len(scales) + len(norms) + len(linears) + 1
    shapes = [(layer.in_features, layer.out_features) for layer in rest]
    if (
        not inner
        or len(shapes) != 2
        or shapes[0] != (width, shapes[1][0])
        or shapes[1][1] != width
        or len(norms) != 2
        or any(norm.normalized_shape != (width,) or norm.weight is None for norm in norms)
        or len(scales) not in (0, 2)
        or sum(1 for part in block.modules() if list(part.parameters(recurse=False))) != known
        or out.in_features % heads
    ):
        return []
    silent = [part for part in others if not list(part.parameters())]
    activations: list[Activation] = [*silent, functional.gelu, functional.relu]
    return [
        Anatomy((norms[0], norms[1]), inner, out, rest[0], rest[1], activation, tuple(scales), heads, first)
        for activation in activations
        for first in (True, False)
    ]


def heads_of(block: nn.Module) -> int:
    """Return the number of heads that its attention declares; 0 where none does."""
    declared = (vars(part)[name] for part in block.modules() for name in _HEADS if name in vars(part))
    return next((int(number) for number in declared), 0)


def _inner(linears: dict[str, nn.Linear]) -> tuple[nn.Linear, ...]:
    """Return the layers to queries, keys and values, or the one to all of them."""
    named = [(path.rpartition(".")[2], layer) for path, layer in linears.items()]
    fused = [layer for name, layer in named if name in _FUSED]
    if len(fused) == 1:
        return (fused[0],)
    matches = [[layer for name, layer in named if name in names] for names in (_QUERY, _KEY, _VALUE)]
    if any(len(layers) != 1 for layers in matches):
        return ()
    layers = tuple(layers[0] for layers in matches)
    return layers if len({layer.weight.shape for layer in layers}) == 1 else ()


@dataclass(frozen=True)
class Weights:
    """One block's weights in the precision of its products, queries, keys and values joined, scales multiplied in.

    qkv, out, up, down: (weight [O, I], bias [O] or None). norms: (weight, bias, eps), in their own precision.
    """

    norms: tuple[tuple[Tensor, Tensor | None, float], ...]
    qkv: tuple[Tensor, Tensor | None]
    out: tuple[Tensor, Tensor | None]
    up: tuple[Tensor, Tensor | None]
    down: tuple[Tensor, Tensor | None]
    activation: Activation
    heads: int
    first: bool


@torch.inference_mode(False)
@torch.no_grad()
def pack(block: Anatomy, dtype: torch.dtype) -> Weights:
    """Pack the network's own weights where they are as needed, else copies: the network stays unchanged."""

    def linear(layers: Sequence[nn.Linear], scale: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        weights = [layer.weight.detach() for layer in layers]
        biases = [None if layer.bias is None else layer.bias.detach() for layer in layers]
        weight: Tensor = weights[0]
        bias: Tensor | None = biases[0]
        if len(layers) > 1:
            weight = torch.cat(weights)
            zeros = weights[0].new_zeros(len(weights[0]))
            any_bias = any(values is not None for values in biases)  # Whisper's keys have none
            bias = torch.cat([zeros if values is None else values for values in biases]) if any_bias else None
        if scale is not None:
            weight, bias = weight * scale[:, None], None if bias is None else bias * scale
        return weight.to(dtype), _to(bias, dtype)

    scales: list[Any] = [next(part.parameters()).detach() for part in block.scales] or [None, None]
    return Weights(
        norms=tuple((norm.weight.detach(), _to(norm.bias, norm.weight.dtype), norm.eps) for norm in block.norms),
        qkv=linear(block.inner),
        out=linear((block.out,), scales[0]),
        up=linear((block.up,)),
        down=linear((block.down,), scales[1]),
        activation=block.activation,
        heads=block.heads,
        first=block.first,
    )


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(dtype)
