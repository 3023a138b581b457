"""Tap linear layers of a running network; per-sample weight gradients from the two factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.errors import LayerError
from sporeprint.switches import NO_FUSED_ATTENTION


@dataclass(frozen=True)
class Target:
    """A linear layer to read. `attention` is set where a fused attention skips the layer's own `forward`."""

    path: str
    layer: nn.Linear
    attention: nn.MultiheadAttention | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I + 1): the gradient of weight and bias; without a bias (O, I)."""
        return self.layer.out_features, self.layer.in_features + (self.layer.bias is not None)


@dataclass
class Capture:
    """What one layer saw in one pass: inputs [N, ..., I], and its output, a tensor that autograd can reach."""

    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))
    calls: int = 0
    bias: bool = True


@contextmanager
def tap(targets: Mapping[str, Target]) -> Iterator[dict[str, Capture]]:
    """Capture each target's factors in the forward pass run inside the block.

    The pass runs without autograd up to the first target reached; its output becomes a fresh leaf, so that autograd
    runs through the tail of the network only. No parameter, flag or `.grad` of the network is touched, and the hooks
    are gone afterwards, also when the pass raises. One thread at a time, since the hooks see every pass
    (`Backbone.run` locks).
    """
    captures = {path: Capture(bias=target.layer.bias is not None) for path, target in targets.items()}
    handles = []

    def record(capture: Capture) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            capture.calls += 1
            capture.inputs = args[0].detach().clone()  # the network may add to it in place later
            torch.set_grad_enabled(True)
            # A later target hangs on an earlier one's leaf already; cutting there would hide it from the loss.
            reached = output.grad_fn is not None
            capture.outputs = output if reached else output.detach().requires_grad_()
            # The network gets a copy: it may add to its activations in place, which a leaf does not allow.
            return capture.outputs.clone()

        return hook

    with torch.inference_mode(False), torch.no_grad(), NO_FUSED_ATTENTION.hold():
        try:
            for path, target in targets.items():
                handles.append(target.layer.register_forward_hook(record(captures[path])))
                if target.attention is not None:
                    handles.append(target.attention.register_forward_hook(_unfuse, with_kwargs=True))
            yield captures
        finally:
            for handle in handles:
                handle.remove()


def check_captured(captures: Mapping[str, Capture]) -> None:
    """Every target must have run exactly once in the pass. Raises LayerError."""
    for path, capture in captures.items():
        if capture.calls == 0:
            raise LayerError(
                f"layer {path!r} was not reached in the forward pass, so it has no gradient; "
                "choose a layer that the embedding depends on (`Backbone.linear_layers()` lists them)"
            )
        if capture.calls > 1:
            raise LayerError(
                f"layer {path!r} ran {capture.calls} times in one pass (shared weights); "
                "sporeprint reads layers that run once, choose another target"
            )


def check_reached(captures: Mapping[str, Capture], embedding: Tensor, layers: str) -> None:
    """The embedding must depend on every target. layers: those that could be read. Raises LayerError."""
    outputs = [capture.outputs for capture in captures.values()]
    found: Sequence[Tensor | None] = [None] * len(outputs)
    if embedding.requires_grad:
        found = torch.autograd.grad(embedding.sum(), outputs, allow_unused=True)
    for path, gradient in zip(captures, found, strict=True):
        if gradient is None:
            raise LayerError(
                f"layer {path!r} runs, but the embedding does not depend on it, so it has no gradient; choose another "
                f"(or another pooling). Linear layers here: {layers}"
            )


def _unfuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Run `nn.MultiheadAttention` again with an identity for its output projection, then that projection as a module.

    The fused kernel reads `out_proj.weight` directly, so `out_proj.forward`, and any hook on it, never runs.
    """
    assert isinstance(module, nn.MultiheadAttention)
    names = ("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights")
    bound = dict(zip((*names, "is_causal"), args, strict=False)) | kwargs
    query, key, value = bound["query"], bound["key"], bound["value"]
    batched = query.dim() == 3
    if module.batch_first and batched:
        query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
    same = module._qkv_same_embed_dim
    heads, _ = nn.functional.multi_head_attention_forward(
        query,
        key,
        value,
        module.embed_dim,
        module.num_heads,
        module.in_proj_weight,
        module.in_proj_bias,
        module.bias_k,
        module.bias_v,
        module.add_zero_attn,
        module.dropout,
        torch.eye(module.embed_dim, dtype=query.dtype, device=query.device),
        None,
        training=module.training,
        key_padding_mask=bound.get("key_padding_mask"),
        need_weights=False,
        attn_mask=bound.get("attn_mask"),
        use_separate_proj_weight=not same,
        q_proj_weight=None if same else module.q_proj_weight,
        k_proj_weight=None if same else module.k_proj_weight,
        v_proj_weight=None if same else module.v_proj_weight,
        is_causal=bound.get("is_causal", False),
    )
    heads = heads.transpose(0, 1) if batched else heads  # [N, T, E], as every other layer sees it
    projected = module.out_proj(heads)
    if batched and not module.batch_first:
        projected = projected.transpose(0, 1)
    return (projected, *output[1:])


def samples_first(tensor: Tensor, samples: int) -> Tensor:
    """[samples * V, ..., F] to [samples, V * tokens, F]: all views and tokens of a sample side by side."""
    if tensor.shape[0] % samples:
        raise LayerError(f"a target saw {tensor.shape[0]} rows for {samples} samples; expected a multiple")
    return tensor.reshape(samples, -1, tensor.shape[-1])


def weight_gradients(inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor:
    """Gradient of one linear layer's weight and bias, one for each sample.

    inputs: [N, T, I], what the layer saw. sensitivities: [N, T, O], d loss / d output; T counts views and tokens.
    Returns [N, O, I + 1]; the last column is the bias (without a bias [N, O, I]).
    """
    read = (sensitivities != 0).any(dim=2).any(dim=0)  # [T]: with CLS pooling one token of each view
    inputs, sensitivities = inputs[:, read], sensitivities[:, read]
    gradients = torch.einsum("nto,nti->noi", sensitivities, inputs)
    if not bias:
        return gradients
    return torch.cat([gradients, sensitivities.sum(dim=1).unsqueeze(-1)], dim=-1)
