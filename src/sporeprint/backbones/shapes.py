"""Learn from one pass over a harmless view how many tokens a network has, which are no patches, how to pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Batch, Inputs, for_network
from sporeprint.backbones.inputs.tokens import Tokens
from sporeprint.backbones.libraries.adapter import Adapter
from sporeprint.backbones.twin import Twin
from sporeprint.errors import BackboneError, LayerError, first_line
from sporeprint.gradients.capture import Capture, Target, check_captured, tap


@dataclass(frozen=True)
class Shapes:
    """The shapes of a pass. tokens: None where the sample decides. prefix: those before the patches.

    layers: kinds of layer blocks. attention: how what an attention's heads gave is pooled: as the embedding.
    """

    tokens: int | None
    prefix: int
    pooling: str
    layers: tuple[str, ...]
    attention: str


@dataclass(frozen=True)
class Probe:
    """A network and one view for it, on its device."""

    module: nn.Module
    adapter: Adapter
    inputs: Inputs
    targets: Mapping[str, Target]
    name: str
    view: Batch

    def resolve(self, pooling: str, prefix: int | None) -> Shapes:
        """Resolve "auto" and None by what the pass gives. Raises BackboneError, LayerError."""
        modality = self.inputs.modality
        last_tokens, pooled, captures = self._pass(self.view)
        self._check(captures)
        tokens = last_tokens.shape[1] if last_tokens is not None and last_tokens.dim() == 3 else _tokens_of(captures)
        prefix = self._count_prefix(tokens) if prefix is None else prefix
        auto = self.adapter.auto
        if auto == "own" and pooled is None:
            auto = "found" if modality == "text" else "cls" if prefix and not self.adapter.mean else "mean"
        causal = modality == "text" and last_tokens is not None and self._is_causal(last_tokens)
        first = isinstance(self.inputs, Tokens) and not causal and self.inputs.starts_special()
        if auto == "found":
            auto = "last" if causal else "cls" if first else "mean"
        if auto == "cls" and modality != "text" and not prefix:
            auto = "mean"  # I-JEPA, for one
        pooling = auto if pooling == "auto" else pooling
        if modality != "text" and pooling == "cls" and not prefix:
            what = "patches" if modality == "image" else "frames"
            raise BackboneError(f"{self.name} has no CLS token ({tokens} tokens, all {what}); use pooling='mean'")
        layers: tuple[str, ...] = ("patches" if modality == "image" else "tokens",)
        if prefix or first or pooling == "cls":
            layers = ("cls", *layers)
        elif causal or pooling == "last":
            layers = ("last", *layers)
        if modality == "text":
            layers = (*layers, "max")  # one word may decide; of patches and frames the maximum says less
        attention = pooling
        if pooling == "own":  # a text tower like CLIP's reads its last token
            attention = layers[0] if layers[0] in ("cls", "last") else "mean"
        return Shapes(None if modality != "image" and prefix == 0 else tokens, prefix, pooling, layers, attention)

    def _pass(self, view: Batch) -> tuple[Tensor | None, Tensor | None, dict[str, Capture]]:
        """Return (tokens, pooled, captures) of a pass; explain its failure."""
        twin = Twin([self.module])
        adapter: Adapter = twin.parts(self.adapter)
        targets = {path: twin.parts(target) for path, target in self.targets.items()}
        with twin, twin.watch(self.module, self.name), tap(targets) as captures:
            try:
                return (*adapter.outputs(view, self.name), captures)
            except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError) as error:
                if isinstance(error, BackboneError):
                    raise
                size = self.inputs.limits().get("image_size")
                what, advice = f"one {self.inputs.sample}", "Does its forward take a tensor?"
                if isinstance(view, dict):
                    advice = f"Does its forward take {', '.join(for_network(view))} by name?"
                if size is not None:
                    what = f"one {size} x {size} image"
                    advice = "Is that its image size, and does its forward take a tensor [N, 3, S, S]?"
                raise BackboneError(f"{self.name} fails on {what}: {first_line(error)}. {advice}") from error

    def _check(self, captures: dict[str, Capture]) -> None:
        check_captured(captures)
        for path, capture in captures.items():
            if capture.inputs.dim() == 3 and capture.inputs.shape[0] > 1 and capture.inputs.shape[1] == 1:
                raise LayerError(
                    f"layer {path!r} saw {tuple(capture.inputs.shape)} for one {self.inputs.sample}: time first; "
                    "expected [N, T, I]. Read the out_proj of an nn.MultiheadAttention, which is transposed, or use "
                    "batch_first=True"
                )

    def _is_causal(self, tokens: Tensor) -> bool:
        """Return whether no token sees the ones after it: another last token changes no other output."""
        assert isinstance(self.view, dict)
        other = {**self.view, "input_ids": self.view["input_ids"].clone()}
        other["input_ids"][:, -1] = other["input_ids"][:, 1]
        changed = self._pass(other)[0]
        assert changed is not None
        return bool((changed - tokens)[:, :-1].abs().max() <= 1e-6 * tokens.abs().max())

    def _count_prefix(self, tokens: int) -> int:
        """Count the tokens that are no patch: T less the patch convolution's positions, or less the largest square."""
        size = self.inputs.limits().get("image_size")
        if size is None:
            return 0
        for layer in self.module.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.stride[0] > 1:
                patches = (size // layer.stride[0]) ** 2
                return tokens - patches if patches <= tokens else 0
        return tokens - int(tokens**0.5) ** 2


def _tokens_of(captures: dict[str, Capture]) -> int:
    shape = next(iter(captures.values())).inputs.shape
    return shape[1] if len(shape) == 3 else 1
