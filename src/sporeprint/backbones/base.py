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
from sporeprint.backbones.adapters import adapt
from sporeprint.backbones.preprocess import CustomPreprocess, Preprocess
from sporeprint.capture import Capture, check_captured, check_reached, tap
from sporeprint.errors import BackboneError, LayerError
from sporeprint.recipe import POOLINGS
from sporeprint.switches import NO_TF32, one_thread


@dataclass
class Pass:
    """What one pass over [N] views gives."""

    embedding: Tensor  # [N, E], float32 or float64, with autograd behind it
    captures: dict[str, Capture]
    layers: dict[str, Tensor] = field(default_factory=dict)  # "cls-12", "patches-12": [N, E']


class Backbone:
    """A frozen network, any `nn.Module`, ready to be read. Its weights, flags, hooks and `.grad` stay as they are.

    module: takes [N, 3, S, S]; gives tokens [N, T, E], a pooled embedding [N, E], or a Hugging Face output.
    target: path(s) of the linear layers to read; default: found by structure.
    preprocess: a `Preprocess`, or a function from an RGB PIL image to [3, S, S].
    pooling: "auto", "cls", "mean" (patches only), "last". prefix: number of tokens before the patches (CLS,
    distillation, registers); default: found.
    Raises LayerError, BackboneError.
    """

    def __init__(
        self,
        module: nn.Module,
        target: str | Sequence[str] | None = None,
        preprocess: Preprocess | Callable[..., Any] | None = None,
        pooling: str = "auto",
        prefix: int | None = None,
        name: str | None = None,
    ):
        self.adapter = adapt(module)
        self.module = self.adapter.module
        self.name = name or type(self.module).__name__
        if any(parameter.is_inference() for parameter in self.module.parameters()):
            raise BackboneError(
                f"{self.name} was made inside torch.inference_mode(), so autograd can never pass through its weights; "
                "make or load it outside (torch.no_grad() is fine)"
            )
        if pooling not in POOLINGS:
            raise BackboneError(f"pooling={pooling!r}; expected one of: {', '.join(POOLINGS)}")
        self.targets = structure.resolve(self.module, [target] if isinstance(target, str) else target)
        if preprocess is None:
            raise BackboneError(
                "no preprocess given; the backbone cannot know how its images are normalised. Give "
                "preprocess=Preprocess(size=224, mean=(...), std=(...)) or a function from a PIL image to [3, S, S]"
            )
        self.preprocess = preprocess if isinstance(preprocess, Preprocess) else CustomPreprocess(preprocess)
        self._said = False
        self._blocks = structure.blocks(self.module)
        self._probe(pooling, self.adapter.prefix if prefix is None else prefix)

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
    def run(self, views: Tensor, layers: int = 0, autocast: torch.dtype | None = None) -> Iterator[Pass]:
        """One pass over views [N, 3, S, S]; inside the block, autograd reaches from the embedding to each target.

        layers: collect CLS and patch means of the last so many blocks. autocast: a lower precision for the pass.
        One thread at a time; another waits. Raises LayerError where a target did not run exactly once.
        """
        views = views.to(self.device, self.dtype)
        if views.is_inference():
            with torch.inference_mode(False):
                views = views.clone()  # autograd cannot save an inference tensor
        kept: dict[str, Tensor] = {}
        strange: dict[int, Any] = {}
        handles = []

        def keep(number: int) -> Any:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                tokens = output if isinstance(output, Tensor) else output[0]
                found = self._layer_blocks(number, tokens.detach())  # now: the next block may add in place
                kept.update(found)
                if not found:
                    strange[number] = list(tokens.shape)

            return hook

        lower = torch.autocast(self.device.type, autocast, enabled=autocast is not None)
        with one_thread(self.module), NO_TF32.hold(), evaluating(self.module), lower:
            try:
                first = max(0, len(self._blocks) - layers)
                for number, (_, block) in enumerate(self._blocks[first:], start=first + 1):
                    handles.append(block.register_forward_hook(keep(number)))
                with tap(self.targets) as captures:
                    embedding = self._embed(views)
                    check_captured(captures)
                    self._say_once(strange)
                    with torch.autocast(self.device.type, enabled=False):
                        yield Pass(embedding, captures, kept)
            finally:
                for handle in handles:
                    handle.remove()

    def digest(self) -> str:
        """16 hex digits over the shapes and values of all weights and buffers, in order, whatever they are called."""
        parts = []
        for tensor in self.module.state_dict().values():
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
            "image_size": self.preprocess.size,
            "preprocess": self.preprocess.describe(),
            "tokens": self.tokens,
            "prefix_tokens": self.prefix,
            "blocks": self.depth,
            "weights": self.digest(),
        }

    def __sklearn_clone__(self) -> Backbone:
        return self  # frozen: clones of an estimator share it

    def _embed(self, views: Tensor) -> Tensor:
        tokens, pooled = self.adapter.outputs(views, self.name)
        if self.pooling == "own":
            embedding = pooled
        else:
            if tokens is None:
                raise BackboneError(
                    f"{self.name} gives no tokens, so pooling={self.pooling!r} is not possible; use 'auto'"
                )
            embedding = self._pool(tokens)
        assert embedding is not None
        return embedding if embedding.dtype == torch.float64 else embedding.float()

    def _pool(self, tokens: Tensor) -> Tensor:
        if self.pooling == "mean":
            return tokens[:, self.prefix :].mean(dim=1)
        return tokens[:, 0 if self.pooling == "cls" else -1]

    def _layer_blocks(self, number: int, tokens: Tensor) -> dict[str, Tensor]:
        if tokens.dim() != 3 or tokens.shape[1] != self.tokens:
            return {}  # another layout (windows, time first): only known ones are read
        tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        cls = {f"cls-{number}": tokens[:, 0].clone()} if self.prefix else {}
        return cls | {f"patches-{number}": tokens[:, self.prefix :].mean(dim=1)}

    def _say_once(self, strange: dict[int, Any]) -> None:
        if strange and not self._said:
            self._said = True
            number, shape = next(iter(strange.items()))
            warnings.warn(
                f"{self.name}: {len(strange)} blocks give no cls-N and patches-N: number {number} has shape {shape}, "
                f"expected [N, {self.tokens}, E]",
                stacklevel=2,
            )

    @torch.inference_mode(False)
    def _probe(self, pooling: str, prefix: int | None) -> None:
        """One pass over a grey image: settles the shapes, the prefix and the pooling."""
        size = self.preprocess.size
        probe = torch.zeros(1, 3, size, size, device=self.device, dtype=self.dtype)
        with one_thread(self.module), evaluating(self.module), tap(self.targets) as captures:
            try:
                tokens, pooled = self.adapter.outputs(probe, self.name)
            except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
                if isinstance(error, BackboneError):
                    raise
                raise BackboneError(
                    f"{self.name} fails on one {size} x {size} image: {_first_line(error)}. Is that its image size, "
                    "and does its forward take a tensor [N, 3, S, S]?"
                ) from error
        check_captured(captures)
        for path, capture in captures.items():
            if capture.inputs.dim() == 3 and capture.inputs.shape[0] > 1 and capture.inputs.shape[1] == 1:
                raise LayerError(
                    f"layer {path!r} saw {tuple(capture.inputs.shape)} for one image: time first; expected [N, T, I]. "
                    "Read the out_proj of an nn.MultiheadAttention, which is turned round, or use batch_first=True"
                )
        self.tokens = tokens.shape[1] if tokens is not None and tokens.dim() == 3 else _tokens_of(captures)
        self.prefix = self._count_prefix() if prefix is None else prefix
        auto = self.adapter.auto
        if auto == "own" and pooled is None:
            auto = "cls" if self.prefix else "mean"
        self.pooling = auto if pooling == "auto" else pooling
        if self.pooling == "cls" and not self.prefix:
            raise BackboneError(f"{self.name} has no CLS token ({self.tokens} tokens, all patches); use pooling='mean'")
        with self.run(probe) as one_pass:
            embedding = one_pass.embedding
            if embedding.dim() != 2:
                shape = tuple(embedding.shape)
                raise BackboneError(f"{self.name} gives an embedding of shape {shape}; expected [N, E]")
            check_reached(one_pass.captures, embedding, structure.listing(self.module))
        self.width = embedding.shape[1]

    def _count_prefix(self) -> int:
        """Tokens that are no patch: T less the positions of the patch convolution, or less the largest square."""
        for layer in self.module.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.stride[0] > 1:
                patches = (self.preprocess.size // layer.stride[0]) ** 2
                return self.tokens - patches if patches <= self.tokens else 0
        return self.tokens - int(self.tokens**0.5) ** 2


def _first_line(error: BaseException) -> str:
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
