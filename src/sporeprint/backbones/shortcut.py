"""A quicker way through the network's own forward: its plain blocks computed from their parts while a pass runs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.anatomy import Anatomy, Weights, pack
from sporeprint.backbones.kernels import first_token, whole_block
from sporeprint.backbones.recognise import Call, Known, Strange, alike, chained, keep_calls, mask_of, recognise
from sporeprint.errors import first_line, is_out_of_memory

# Numbers of the perceptron's hidden layer in flight for each thread of a CPU: what stays in its cache. With one
# thread DeiT-tiny's 62 views took 0.47 s with 1.2 million, 0.73 s with 4.8 million.
_IN_FLIGHT = 1_250_000


class Shortcut:
    """The blocks of a network that can be computed from their parts, as copies of their weights.

    blocks: of the network, first to last. targets: layers that must run as modules, since they are tapped.
    """

    def __init__(self, blocks: Sequence[nn.Module], targets: Sequence[nn.Module]):
        self.blocks = list(blocks)
        self.targets = list(targets)
        self.known: dict[int, Known] = {}
        self.chained = False  # whether all blocks are known, and nothing happens between them
        self.trims = False  # whether the last block may give its first token alone
        self._packed: dict[tuple[int, torch.dtype], tuple[Any, Weights]] = {}
        self._sample: tuple[Tensor, Tensor] | None = None  # tokens, and what the blocks make of them
        self._sums: dict[torch.dtype, torch.dtype] = {}
        self.compile = False  # the kernel of a block, with torch.compile
        self._compiled: Any = None
        self._failed = False

    def learn(self, run: Callable[[], Tensor]) -> None:
        """Compare every block's parts with the block itself, in the calls of one pass; run: gives its embedding."""
        calls: dict[int, Call] = {}
        handles = [
            block.register_forward_hook(keep_calls(calls, at), with_kwargs=True) for at, block in enumerate(self.blocks)
        ]
        try:
            embedding = run()
        finally:
            for handle in handles:
                handle.remove()
        for at, block in enumerate(self.blocks):
            known = recognise(block, calls[at]) if at in calls else None
            if known is not None:
                self.known[at] = known
        last = len(self.blocks) - 1
        if self.known and len(self.known) == len(self.blocks):
            self.chained = chained([calls[at] for at in self.known], list(self.known.values()))
            self._sample = calls[0].tokens, calls[last].output
        if last in self.known:
            self.trims = True
            try:
                with self.hold(None, whole=False, trim=True):
                    trimmed = run()
                self.trims = trimmed.shape == embedding.shape and alike(trimmed, embedding)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
                self.trims = False  # another pooling, or something behind the blocks that reads all tokens

    @contextmanager
    def hold(self, autocast: torch.dtype | None, whole: bool, trim: bool) -> Iterator[None]:
        """Inside, a pass of this thread takes the shortcut.

        whole: every block's output is read, not only the last one's. trim: of the last, the first token only.
        """
        first = min((at for at, block in enumerate(self.blocks) if self._tapped(block)), default=len(self.blocks))
        plain = [at for at in range(first) if at in self.known and not _hooked(self.known[at])]
        seen = whole or any(_has_hooks(self.blocks[at]) for at in plain)
        stack = plain if self.chained and not seen and len(plain) == first else []
        one_pass = _OnePass(threading.get_ident())
        with ExitStack() as undo:
            for at in plain:
                run = self._stack(stack or [at], autocast) if not stack or at == 0 else _identity
                _replace(self.known[at], one_pass.instead(self.known[at], run), undo)
            last = len(self.blocks) - 1
            if trim and self.trims and last >= first and not _hooked(self.known[last], called=self.known[last].called):
                anatomy = self.known[last].anatomy
                run = partial(_first_token, anatomy)
                _replace(self.known[last], one_pass.instead(self.known[last], run), undo)
            yield

    def _tapped(self, block: nn.Module) -> bool:
        return any(part is target for part in block.modules() for target in self.targets)

    def _stack(self, numbers: Sequence[int], autocast: torch.dtype | None) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Blocks one after the other, for so many samples at a time that a CPU's cache holds them."""

        def run(tokens: Tensor, mask: Tensor | None) -> Tensor:
            precise = self.known[numbers[0]].anatomy.out.weight.dtype
            weights = [self._weights(at, autocast or precise) for at in numbers]
            sums = self._sums_in(autocast) if autocast is not None and len(numbers) > 1 else precise
            step = len(tokens)
            if tokens.device.type == "cpu":
                numbers_each = tokens.shape[1] * len(weights[0].up[0])
                step = max(1, _IN_FLIGHT * torch.get_num_threads() // numbers_each)
            made = []
            with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
                for start in range(0, len(tokens), step):
                    some = mask if mask is None or len(mask) == 1 else mask[start : start + step]
                    made.append(self._through(tokens[start : start + step].to(sums), weights, some))
            with torch.inference_mode(False):  # a copy that autograd may keep
                return torch.cat(made).to(precise)

        return run

    def _sums_in(self, dtype: torch.dtype) -> torch.dtype:
        """The precision of the sums over blocks: that of the products, unless it more than doubles their error."""
        if dtype not in self._sums:
            precise = self.known[0].anatomy.out.weight.dtype
            self._sums[dtype] = precise
            if self._sample is not None and self.chained:
                weights = [self._weights(at, dtype) for at in self.known]
                device, mask = weights[0].qkv[0].device, self.known[0].mask
                tokens, expected = (one.to(device) for one in self._sample)
                mask = mask if mask is None else mask.to(device)
                with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                    low, high = (
                        (self._through(tokens.to(sums), weights, mask) - expected).norm() for sums in (dtype, precise)
                    )
                self._sums[dtype] = dtype if low <= 2 * high else precise
        return self._sums[dtype]

    def _through(self, tokens: Tensor, weights: Sequence[Weights], mask: Tensor | None) -> Tensor:
        for one in weights:
            tokens = self._block(tokens, one, mask)
        return tokens

    def _block(self, tokens: Tensor, weights: Weights, mask: Tensor | None) -> Tensor:
        if self.compile and not self._failed:
            try:
                if self._compiled is None:
                    self._compiled = torch.compile(whole_block)
                made: Tensor = self._compiled(tokens, weights, mask)
                return made
            except Exception as error:  # of the compiler, of which there are many
                if is_out_of_memory(error):
                    raise
                self._failed = True
                warnings.warn(f"torch.compile failed ({first_line(error)}); going on without it", stacklevel=2)
        return whole_block(tokens, weights, mask)

    def _weights(self, number: int, dtype: torch.dtype) -> Weights:
        """Packed once, and again where the network's weights have been changed or moved."""
        anatomy = self.known[number].anatomy
        version = anatomy.version()
        found = self._packed.get((number, dtype))
        if found is None or found[0] != version:
            found = self._packed[number, dtype] = version, pack(anatomy, dtype)
        return found[1]


def _hooked(known: Known, called: Sequence[nn.Module] = ()) -> bool:
    """Whether hooks inside a block, its owner's, would miss what passes; or its parts have been replaced.

    called: parts that run as modules.
    """
    parts = list(known.block.modules())
    if len(parts) != len(known.parts) or any(now is not then for now, then in zip(parts, known.parts, strict=True)):
        return True
    inside = [part for part in parts[1:] if not any(part is one for one in called)]
    return "forward" in vars(known.block) or any("forward" in vars(part) or _has_hooks(part) for part in inside)


def _has_hooks(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)


def _replace(known: Known, forward: Callable[..., Any], undo: ExitStack) -> None:
    vars(known.block)["forward"] = forward
    undo.callback(vars(known.block).pop, "forward", None)


@dataclass
class _OnePass:
    """The thread that the shortcut is for, and whether its pass met something strange and goes the long way."""

    thread: int
    strange: bool = False

    def instead(self, known: Known, run: Callable[[Tensor, Tensor | None], Tensor]) -> Callable[..., Any]:
        """`run` in the place of the block's forward."""
        block, original = known.block, type(known.block).forward

        def forward(tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == self.thread and not self.strange:
                try:
                    made = run(tokens, mask_of(block, args, kwargs))
                    return (made,) if known.tuple_ else made
                except Strange:
                    self.strange = True  # in a stack it is the first block that meets it
            return original(block, tokens, *args, **kwargs)

        return forward


def _first_token(anatomy: Anatomy, tokens: Tensor, mask: Tensor | None) -> Tensor:
    return first_token(tokens, anatomy, mask)


def _identity(tokens: Tensor, _: Tensor | None) -> Tensor:
    """Of a block whose work the first one did."""
    return tokens
