"""Tap linear layers of a running network; per-sample weight gradients from the two factors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from sporeprint.errors import LayerError
from sporeprint.gradients.switches import NO_FUSED_ATTENTION

_FUSED = inspect.signature(nn.functional.multi_head_attention_forward)


def is_linear(module: nn.Module) -> bool:
    """Return whether it is an `nn.Linear` or GPT-2's Conv1D: y = x W + b with W [I, O], so the same factors serve."""
    if isinstance(module, nn.Linear):
        return True
    weight, width = getattr(module, "weight", None), getattr(module, "nf", None)
    named = type(module).__name__ == "Conv1D"  # in transformers, which is never imported here
    return named and isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[1] == width


def widths(layer: nn.Module) -> tuple[int, int]:
    """Return (I, O) of a linear layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    inputs, outputs = layer.get_parameter("weight").shape
    return inputs, outputs


@dataclass(frozen=True)
class Target:
    """A linear layer to read. `parent` holds it, and may hand its weight to a fused attention instead of calling it."""

    path: str
    layer: nn.Module
    parent: nn.Module | None = None

    @property
    def bias(self) -> bool:
        return self.layer.bias is not None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape (O, I + 1) of the gradient of weight and bias; without a bias (O, I)."""
        inputs, outputs = widths(self.layer)
        return outputs, inputs + self.bias


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
    are gone afterwards, also when the pass raises. `Backbone.run` taps a twin, so that the network itself has no hooks.
    """
    captures = {path: Capture(bias=target.bias) for path, target in targets.items()}
    handles = []

    def record(capture: Capture) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            capture.calls += 1
            capture.inputs = args[0].detach().clone()  # the network may add to it in place later
            torch.set_grad_enabled(True)
            # A later target depends on an earlier one's leaf already; cutting there would hide that leaf from the loss.
            reached = output.grad_fn is not None
            capture.outputs = output if reached else output.detach().requires_grad_()
            # The network gets a copy: it may add to its activations in place, which a leaf does not allow.
            return capture.outputs.clone()

        return hook

    with torch.inference_mode(False), torch.no_grad(), NO_FUSED_ATTENTION.hold(), ExitStack() as left_open:
        try:
            for path, target in targets.items():
                handles.append(target.layer.register_forward_hook(record(captures[path])))
                if target.parent is not None:
                    handles.extend(_unfuse(target.layer, target.parent, left_open))
            yield captures
        finally:
            for handle in handles:
                handle.remove()


def check_captured(captures: Mapping[str, Capture]) -> None:
    """Raise LayerError unless every target ran exactly once in the pass."""
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
    """Raise LayerError unless the embedding depends on every target. layers: those that can be read."""
    outputs = [capture.outputs for capture in captures.values()]
    gradients: Sequence[Tensor | None] = [None] * len(outputs)
    if embedding.requires_grad:
        gradients = torch.autograd.grad(embedding.sum(), outputs, allow_unused=True)
    for path, gradient in zip(captures, gradients, strict=True):
        if gradient is None:
            raise LayerError(
                f"layer {path!r} runs, but the embedding does not depend on it, so it has no gradient; choose another "
                f"(or another pooling). Linear layers here: {layers}"
            )


def _unfuse(layer: nn.Module, parent: nn.Module, left_open: ExitStack) -> list[RemovableHandle]:
    """While `parent` runs, make a fused attention that is handed `layer`'s weight call `layer` instead.

    Only then: a mode costs every operation some microseconds, which shows in a small network. `left_open` closes
    the mode where an interrupt kept the parent's own hook from doing so.
    """
    mode = left_open.enter_context(ExitStack())

    def enter(*_: Any) -> None:
        mode.enter_context(_Unfused(layer))

    def leave(*_: Any) -> None:
        mode.close()

    return [parent.register_forward_pre_hook(enter), parent.register_forward_hook(leave, always_call=True)]


class _Unfused(TorchFunctionMode):
    """Split torch's fused attention into the heads and their output projection, run as a module.

    The fused function reads the projection's weight, so that the module's `forward`, and any hook on it, never runs.
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not nn.functional.multi_head_attention_forward:
            return func(*args, **(kwargs or {}))
        bound = _FUSED.bind(*args, **(kwargs or {})).arguments
        if bound["out_proj_weight"] is not self.layer.weight:
            return func(**bound)
        query = bound["query"]
        identity = torch.eye(query.shape[-1], dtype=query.dtype, device=query.device)
        heads, weights = func(**bound | {"out_proj_weight": identity, "out_proj_bias": None})
        if heads.dim() == 2:  # one sample, without a batch
            return self.layer(heads), weights
        # [T, N, E] to [N, T, E], as every other layer sees it, and back
        return self.layer(heads.transpose(0, 1)).transpose(0, 1), weights


def samples_first(tensor: Tensor, samples: int) -> Tensor:
    """Reshape [samples * V, ..., F] to [samples, V * tokens, F]: all views and tokens of a sample in one row."""
    if tensor.shape[0] % samples:
        raise LayerError(f"a target saw {tensor.shape[0]} rows for {samples} samples; expected a multiple")
    return tensor.reshape(samples, -1, tensor.shape[-1])


def weight_gradients(inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor:
    """Return the gradient of one linear layer's weight and bias for each sample.

    inputs: [N, T, I], what the layer saw. sensitivities: [N, T, O], d loss / d output; T counts views and tokens.
    Returns [N, O, I + 1]; the last column is the bias (without a bias [N, O, I]). A token on which the loss
    does not depend adds nothing, whatever its inputs hold.
    """
    felt = (sensitivities != 0).any(dim=2)  # [N, T]
    read = felt.any(dim=0)  # [T]: with CLS pooling one token of each view
    inputs, sensitivities, felt = inputs[:, read], sensitivities[:, read], felt[:, read]
    if not felt.all():  # padding may hold NaN, and 0 * NaN is NaN
        inputs = inputs.masked_fill(~felt.unsqueeze(2), 0)
    gradients = torch.einsum("nto,nti->noi", sensitivities, inputs)
    if not bias:
        return gradients
    return torch.cat([gradients, sensitivities.sum(dim=1).unsqueeze(-1)], dim=-1)
