"""The frozen network with its preprocessing, its pooled embedding, its blocks and its target layers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones import structure
from sporeprint.backbones.adapters import Adapter, adapt
from sporeprint.backbones.inputs import Batch, Inputs, batch_to
from sporeprint.backbones.pooling import mean, pool
from sporeprint.backbones.settle import settle_inputs, unpack_sentence
from sporeprint.backbones.tokens import Tokens
from sporeprint.capture import Capture, check_captured, check_reached, tap
from sporeprint.errors import BackboneError, LayerError
from sporeprint.recipe import POOLINGS
from sporeprint.switches import NO_TF32, one_thread


@dataclass
class Pass:
    """What one pass over [N] views gives."""

    embedding: Tensor  # [N, E], float32 or float64, with autograd behind it
    captures: dict[str, Capture]
    logits: Tensor | None = None  # [N, T, C], of the checkpoint's own head, where they were asked for
    labels: Tensor = field(default_factory=lambda: torch.empty(0))  # [N, T], of what was masked, beside the logits
    layers: dict[str, Tensor] = field(default_factory=dict)  # "cls-12", "patches-12", "tokens-12": [N, E']


class Backbone:
    """A frozen network, any `nn.Module`, ready to be read. Its weights, flags, hooks and `.grad` stay as they are.

    module: takes [N, 3, S, S], or for text and sound named tensors; gives tokens [N, T, E], a pooled embedding [N, E],
    or a Hugging Face output. A SentenceTransformer brings its own preprocess, pooling and finish.
    target: path(s) of the linear layers to read; default: found by structure.
    preprocess: for images a `Preprocess`, or a function from an RGB PIL image to [3, S, S]; for text a Hugging Face
    tokenizer, or `Tokens`; for sound a Hugging Face feature extractor, or `Sound`.
    pooling: "auto", "cls", "mean" (of the patches, or of the tokens that are no padding), "last".
    prefix: number of tokens before the patches (CLS, distillation, registers); default: found.
    finish: from the pooled [N, E] to the embedding, such as dense layers and a normalisation.
    modality: which tower of a network of two; "auto" for the one that sees or hears.
    Raises LayerError, BackboneError.
    """

    def __init__(
        self,
        module: nn.Module,
        target: str | Sequence[str] | None = None,
        preprocess: Inputs | Callable[..., Any] | None = None,
        pooling: str = "auto",
        prefix: int | None = None,
        name: str | None = None,
        finish: nn.Module | None = None,
        modality: str = "auto",
    ):
        self.adapter: Adapter
        module, preprocess, finish, own = unpack_sentence(module, preprocess, finish)
        self.adapter = adapt(module, modality)
        self.module = self.adapter.module
        self.name = name or type(self.module).__name__
        if any(parameter.is_inference() for parameter in self.module.parameters()):
            raise BackboneError(
                f"{self.name} was made inside torch.inference_mode(), so autograd can never pass through its weights; "
                "make or load it outside (torch.no_grad() is fine)"
            )
        if pooling not in POOLINGS:
            raise BackboneError(f"pooling={pooling!r}; expected one of: {', '.join(POOLINGS)}")
        target = target or self.adapter.target
        self.targets = structure.resolve(self.module, [target] if isinstance(target, str) else target)
        self.preprocess = settle_inputs(preprocess, self.adapter, self.name)
        self.finish = finish
        self._said = False
        self._blocks = structure.blocks(self.module)
        self._probe(own if pooling == "auto" else pooling, self.adapter.prefix if prefix is None else prefix)

    @property
    def modality(self) -> str:
        """ "image", "text" or "audio"."""
        return self.preprocess.modality

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.module.parameters()).dtype

    @property
    def depth(self) -> int:
        """Number of transformer blocks found; 0 where there is no such list."""
        return len(self._blocks)

    def linear_layers(self) -> list[str]:
        """Paths that `target` accepts."""
        return structure.linear_layers(self.module)

    @contextmanager
    def run(
        self, views: Batch, layers: int = 0, autocast: torch.dtype | None = None, logits: bool = False
    ) -> Iterator[Pass]:
        """One pass over N views, [N, 3, S, S] or what `preprocess.collate` makes of them.

        Inside the block, autograd reaches from the embedding to each target. layers: collect CLS and token means of the
        last so many blocks. autocast: a lower precision for the pass. logits: of the checkpoint's own head too. One
        thread at a time; another waits.
        Raises LayerError where a target did not run exactly once.
        """
        views = batch_to(views, self.device, self.dtype)
        real = self.adapter.real(views)
        kept: dict[str, Tensor] = {}
        strange: dict[int, Any] = {}
        handles = []

        def keep(number: int) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                tokens = output if isinstance(output, Tensor) else output[0]
                found = self._layer_blocks(number, tokens.detach(), real)  # now: the next block may add in place
                kept.update(found)
                if not found:
                    strange[number] = list(tokens.shape)

            return hook

        lower = torch.autocast(self.device.type, autocast, enabled=autocast is not None)
        whole = self.adapter.head or self.module
        with one_thread(self.module), NO_TF32.hold(), evaluating(whole), lower:
            try:
                first = max(0, len(self._blocks) - layers)
                for number, (_, block) in enumerate(self._blocks[first:], start=first + 1):
                    handles.append(block.register_forward_hook(keep(number)))
                with tap(self.targets) as captures:
                    outputs, found = self.adapter.predict(views, self.name) if logits else (None, None)
                    embedding = self._embed(outputs or self.adapter.outputs(views, self.name), real)
                    check_captured(captures)
                    self._say_once(strange)
                    with torch.autocast(self.device.type, enabled=False):
                        one_pass = Pass(embedding, captures, found, layers=kept)
                        if logits and isinstance(views, dict):
                            one_pass.labels = views["labels"]
                        yield one_pass
            finally:
                for handle in handles:
                    handle.remove()

    def digest(self) -> str:
        """16 hex digits over the shapes and values of all weights and buffers, in order, whatever they are called."""
        parts = []
        finish = {} if self.finish is None else self.finish.state_dict()
        whole = self.adapter.head or self.module
        for tensor in (*whole.state_dict().values(), *finish.values()):
            part = hashlib.blake2b(f"{tuple(tensor.shape)} {tensor.dtype}".encode(), digest_size=16)
            part.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            parts.append(part.digest())
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What was found, as JSON: for stores and for people."""
        return {
            "name": self.name,
            "class": type(self.module).__name__,
            "targets": list(self.targets),
            "pooling": self.pooling,
            "width": self.width,
            "modality": self.modality,
            **self.preprocess.limits(),
            "preprocess": self.preprocess.describe(),
            "finish": None if self.finish is None else " ".join(str(self.finish).split()),
            "tokens": self.tokens,
            "prefix_tokens": self.prefix,
            "blocks": self.depth,
            "weights": self.digest(),
        }

    def __sklearn_clone__(self) -> Backbone:
        return self  # frozen: clones of an estimator share it

    def _embed(self, outputs: tuple[Tensor | None, Tensor | None], real: Tensor | None) -> Tensor:
        tokens, pooled = outputs
        if self.pooling == "own":
            embedding = pooled
        else:
            if tokens is None:
                raise BackboneError(
                    f"{self.name} gives no tokens, so pooling={self.pooling!r} is not possible; use 'auto'"
                )
            embedding = pool(tokens, self.pooling, real, self.prefix)
        assert embedding is not None
        if self.finish is not None:
            embedding = self.finish(embedding)
        return embedding if embedding.dtype == torch.float64 else embedding.float()

    def _layer_blocks(self, number: int, tokens: Tensor, real: Tensor | None) -> dict[str, Tensor]:
        expected = self.tokens if real is None else real.shape[1]
        if tokens.dim() != 3 or (expected is not None and tokens.shape[1] != expected):
            return {}  # another layout (windows, time first): only known ones are read
        tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        made = {
            "cls": lambda: tokens[:, 0].clone(),
            "last": lambda: pool(tokens, "last", real, 0).clone(),
            "patches": lambda: mean(tokens[:, self.prefix :]),
            "tokens": lambda: pool(tokens, "mean", real, self.prefix),
        }
        return {f"{kind}-{number}": made[kind]() for kind in self.layer_kinds}

    def _say_once(self, strange: dict[int, Any]) -> None:
        if strange and not self._said:
            self._said = True
            number, shape = next(iter(strange.items()))
            warnings.warn(
                f"{self.name}: {len(strange)} blocks give no {' and '.join(f'{kind}-N' for kind in self.layer_kinds)}: "
                f"number {number} has shape {shape}, expected [N, {self.tokens or 'T'}, E]",
                stacklevel=2,
            )

    @torch.inference_mode(False)
    def _probe(self, pooling: str, prefix: int | None) -> None:
        """One pass over a harmless view: settles the shapes, the prefix and the pooling."""
        self.tokens: int | None
        probe = batch_to(self.preprocess.collate(self.preprocess.probes()[:1]), self.device, self.dtype)
        tokens, pooled, captures = self._try(probe)
        check_captured(captures)
        for path, capture in captures.items():
            if capture.inputs.dim() == 3 and capture.inputs.shape[0] > 1 and capture.inputs.shape[1] == 1:
                one = self.preprocess.sample
                raise LayerError(
                    f"layer {path!r} saw {tuple(capture.inputs.shape)} for one {one}: time first; expected [N, T, I]. "
                    "Read the out_proj of an nn.MultiheadAttention, which is turned round, or use batch_first=True"
                )
        self.tokens = tokens.shape[1] if tokens is not None and tokens.dim() == 3 else _tokens_of(captures)
        self.prefix = self._count_prefix(self.tokens) if prefix is None else prefix
        auto = self.adapter.auto
        if auto == "own" and pooled is None:
            auto = "found" if self.modality == "text" else "cls" if self.prefix else "mean"
        causal = self.modality == "text" and tokens is not None and self._is_causal(probe, tokens)
        first = isinstance(self.preprocess, Tokens) and not causal and self.preprocess.starts_special()
        if auto == "found":
            auto = "last" if causal else "cls" if first else "mean"
        self.pooling = auto if pooling == "auto" else pooling
        if self.modality != "text" and self.pooling == "cls" and not self.prefix:
            raise BackboneError(f"{self.name} has no CLS token ({self.tokens} tokens, all patches); use pooling='mean'")
        self.layer_kinds: tuple[str, ...] = ("patches" if self.modality == "image" else "tokens",)
        if self.prefix or first or self.pooling == "cls":
            self.layer_kinds = ("cls", *self.layer_kinds)
        elif causal or self.pooling == "last":
            self.layer_kinds = ("last", *self.layer_kinds)
        if self.modality != "image" and self.prefix == 0:
            self.tokens = None  # as many as the sample has
        with self.run(probe) as one_pass:
            embedding = one_pass.embedding
            if embedding.dim() != 2:
                shape = tuple(embedding.shape)
                raise BackboneError(f"{self.name} gives an embedding of shape {shape}; expected [N, E]")
            check_reached(one_pass.captures, embedding, structure.listing(self.module))
        self.width = embedding.shape[1]

    def _try(self, probe: Batch) -> tuple[Tensor | None, Tensor | None, dict[str, Capture]]:
        """(tokens, pooled, captures) of a first pass, whose failure is explained."""
        with one_thread(self.module), evaluating(self.module), tap(self.targets) as captures:
            try:
                return (*self.adapter.outputs(probe, self.name), captures)
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                if isinstance(error, BackboneError):
                    raise
                size = self.preprocess.limits().get("image_size")
                what, advice = f"one {self.preprocess.sample}", "Does its forward take input_ids and the like by name?"
                if size is not None:
                    what = f"one {size} x {size} image"
                    advice = "Is that its image size, and does its forward take a tensor [N, 3, S, S]?"
                raise BackboneError(f"{self.name} fails on {what}: {first_line(error)}. {advice}") from error

    def _is_causal(self, probe: Any, tokens: Tensor) -> bool:
        """Whether no token sees the ones after it: another last token changes no other output."""
        other = {**probe, "input_ids": probe["input_ids"].clone()}
        other["input_ids"][:, -1] = other["input_ids"][:, 1]
        changed = self._try(other)[0]
        assert changed is not None
        return bool((changed - tokens)[:, :-1].abs().max() <= 1e-6 * tokens.abs().max())

    def _count_prefix(self, tokens: int) -> int:
        """Tokens that are no patch: T less the positions of the patch convolution, or less the largest square."""
        size = self.preprocess.limits().get("image_size")
        if size is None:
            return 0
        for layer in self.module.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.stride[0] > 1:
                patches = (size // layer.stride[0]) ** 2
                return tokens - patches if patches <= tokens else 0
        return tokens - int(tokens**0.5) ** 2


def first_line(error: BaseException) -> str:
    """What an exception says, in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _tokens_of(captures: dict[str, Capture]) -> int:
    shape = next(iter(captures.values())).inputs.shape
    return shape[1] if len(shape) == 3 else 1


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout, no statistics updated); every submodule's own flag comes back afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, flag in flags:
            part.training = flag
