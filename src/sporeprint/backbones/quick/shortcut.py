"""Speed up the network's own forward: compute its plain blocks from their parts while a pass runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.quick.anatomy import Anatomy, Weights, pack
from sporeprint.backbones.quick.kernels import first_token, whole_block
from sporeprint.backbones.quick.known_blocks import (
    Call,
    Known,
    RunAgain,
    UnknownArgument,
    alike,
    chained,
    keep_calls,
    mask_of,
    recognise,
    regime,
)
from sporeprint.backbones.twin import Twin
from sporeprint.errors import is_out_of_memory

# Numbers of the perceptron's hidden layer in flight for each thread of a CPU: what stays in its cache. With one
# thread DeiT-tiny's 62 views took 0.47 s with 1.2 million, 0.73 s with 4.8 million.
_IN_FLIGHT = 1_250_000
Run = Callable[[Callable[[Twin], None]], Tensor]  # prepares a twin, runs a pass through it, returns its embedding


class Shortcut:
    """The blocks of a network that can be computed from their parts.

    module: the network. blocks: its transformer blocks, first to last. targets: layers that must run as modules, since
    they are tapped.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[nn.Module], targets: Sequence[nn.Module]):
        self.blocks = list(blocks)
        self.targets = list(targets)
        inside = {part for block in blocks for part in block.modules()}
        self.outside = [part for part in module.modules() if part not in inside]
        self.known: dict[int, Known] = {}
        self.chained = False  # whether all blocks are known, and nothing happens between them
        self.trims = False  # whether the last block may give its first token alone
        self._packed: dict[tuple[int, torch.dtype], tuple[Any, Weights]] = {}
        self._sample: tuple[Tensor, Tensor] | None = None  # tokens, and what the blocks make of them
        self._sums: dict[torch.dtype, torch.dtype] = {}
        self._sum: list[float] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_packed": {}, "_sums": dict(self._sums)}  # what is packed again

    def learn(self, runs: Sequence[Run]) -> None:
        """Compare every block's parts with the block itself in each pass, then whole passes with the first."""
        embedding, calls = self._watch(runs[0])
        passes = [calls, *(self._watch(run)[1] for run in runs[1:])]
        for at, block in enumerate(self.blocks):
            calls_of_block = [pass_calls[at] for pass_calls in passes if at in pass_calls]
            if len(calls_of_block) == len(passes) and (known := recognise(block, calls_of_block)):
                self.known[at] = known
        if self.known and len(self.known) == len(self.blocks):
            self.chained = chained([calls[at] for at in self.known], list(self.known.values()))
            self._sample = calls[0].tokens, calls[len(self.blocks) - 1].output

        def same(trim: bool) -> bool:
            try:
                other = runs[0](partial(self.take, autocast=None, whole=False, trim=trim))
            except Exception as error:  # the network may refuse what the parts return
                if is_out_of_memory(error):
                    raise
                return False
            return other.shape == embedding.shape and alike(other, embedding)

        if self.chained and not same(trim=False):
            self.chained = False  # something reads the blocks between
        if self.known and not self.chained and not same(trim=False):
            self.known = {}
        self.trims = len(self.blocks) - 1 in self.known and same(trim=True)

    def _watch(self, run: Run) -> tuple[Tensor, dict[int, Call]]:
        calls: dict[int, Call] = {}

        def watch(twin: Twin) -> None:
            for at, block in enumerate(self.blocks):
                twin(block).register_forward_hook(keep_calls(calls, at), with_kwargs=True)

        return run(watch), calls

    def take(self, twin: Twin, autocast: torch.dtype | None, whole: bool, trim: bool) -> None:
        """Let the pass of a twin take the shortcut; it may raise RunAgain, and has to be run again then.

        whole: every block's output is read, not only the last one's. trim: of the last, the first token only.
        """
        first = min((at for at, block in enumerate(self.blocks) if self._tapped(block)), default=len(self.blocks))
        known = {at: candidate for at, candidate in self.known.items() if candidate.unchanged()}
        plain = [at for at in range(first) if at in known and not _hooked(known[at])]
        read = whole or any(_has_hooks(self.blocks[at]) for at in plain)
        stack = plain if self.chained and not read and len(plain) == first else []
        one_pass = _OnePass(twin)
        for at in plain:
            done = bool(stack) and at > 0
            one_pass.replace(known[at], _identity if done else self._stack(stack or [at], autocast), done)
        last = len(self.blocks) - 1
        if trim and last >= first and last in known and not _hooked(known[last]) and not self._looked_at(last):
            one_pass.replace(known[last], partial(_first_token, twin.parts(known[last].anatomy)))

    def _looked_at(self, last: int) -> bool:
        """Return whether the owner's hooks would see the last block's tokens."""
        return any(map(_has_hooks, (self.blocks[last], *self.outside)))

    def refresh(self) -> None:
        """Forget packed weights where they have been changed in ways that torch does not count, such as `.data`."""
        weights = [weight for known in self.known.values() for weight in known.anatomy.weights()]
        with torch.no_grad():
            now = torch.stack([weight.sum(dtype=torch.float64) for weight in weights]).tolist() if weights else []
        if now != self._sum:
            self._sum = now
            self._packed.clear()
            self._sums.clear()

    def _tapped(self, block: nn.Module) -> bool:
        return any(part is target for part in block.modules() for target in self.targets)

    def _stack(self, numbers: Sequence[int], autocast: torch.dtype | None) -> Callable[[Tensor, Tensor | None], Tensor]:
        """Return a function that runs blocks in turn, for as many samples at a time as a CPU's cache holds."""

        def run(tokens: Tensor, mask: Tensor | None) -> Tensor:
            precise = self.known[numbers[0]].anatomy.out.weight.dtype
            weights = [self._weights(at, autocast or precise) for at in numbers]
            sums = self._sums_in(autocast) if autocast is not None and len(numbers) > 1 else precise
            step = len(tokens)
            if tokens.device.type == "cpu":
                numbers_each = tokens.shape[1] * len(weights[0].up[0])
                step = max(1, _IN_FLIGHT * torch.get_num_threads() // numbers_each)
            outputs = []
            with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
                for start in range(0, len(tokens), step):
                    part = mask if mask is None or len(mask) == 1 else mask[start : start + step]
                    outputs.append(self._through(tokens[start : start + step].to(sums), weights, part))
            with torch.inference_mode(False):  # a copy that autograd may keep
                return torch.cat(outputs).to(precise)

        return run

    def _sums_in(self, dtype: torch.dtype) -> torch.dtype:
        """Return the precision of the sums over blocks: the products', unless it more than doubles their error."""
        if dtype not in self._sums:
            precise = self.known[0].anatomy.out.weight.dtype
            self._sums[dtype] = precise
            if self._sample is not None and self.chained:
                weights = [self._weights(at, dtype) for at in self.known]
                device = weights[0].qkv[0].device
                tokens, expected = (tensor.to(device) for tensor in self._sample)
                with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                    low, high = (
                        (self._through(tokens.to(sums), weights, None) - expected).norm() for sums in (dtype, precise)
                    )
                self._sums[dtype] = dtype if low <= 2 * high else precise
        return self._sums[dtype]

    def _through(self, tokens: Tensor, weights: Sequence[Weights], mask: Tensor | None) -> Tensor:
        for block_weights in weights:
            tokens = whole_block(tokens, block_weights, mask)
        return tokens

    def _weights(self, number: int, dtype: torch.dtype) -> Weights:
        """Return a block's packed weights; pack them again where the network's have been changed or moved."""
        anatomy = self.known[number].anatomy
        stamp = anatomy.stamp()
        packed = self._packed.get((number, dtype))
        if packed is None or not _same_stamp(packed[0], stamp):
            packed = self._packed[number, dtype] = stamp, pack(anatomy, dtype)
        return packed[1]


def _same_stamp(first: Any, other: Any) -> bool:
    pairs = zip_longest(first, other)
    return all(a is not None and b is not None and a[0] is b[0] and a[1:] == b[1:] for a, b in pairs)


def _hooked(known: Known) -> bool:
    """Return whether the owner's hooks inside a block would miss its pass."""
    inside = list(known.block.modules())[1:]
    return "forward" in vars(known.block) or any("forward" in vars(part) or _has_hooks(part) for part in inside)


def _has_hooks(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)


@dataclass
class _OnePass:
    """The twin that takes the shortcut, and whether its pass got an unknown argument and goes the long way."""

    twin: Twin
    long_way: bool = False

    def replace(self, known: Known, run: Callable[[Tensor, Tensor | None], Tensor], done: bool = False) -> None:
        """Let the twin's block call `run` instead of its forward. done: the first block did this one's work too."""
        block, original = self.twin(known.block), type(known.block).forward

        def forward(tokens: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.long_way:
                return original(block, tokens, *args, **kwargs)
            try:
                mask = mask_of(block, args, kwargs)
                if regime(mask) not in known.regimes:
                    raise UnknownArgument("mask")
            except UnknownArgument as error:
                if done:
                    raise RunAgain from error
                self.long_way = True  # the rest of the pass goes the long way; in a stack the first block meets it
                return original(block, tokens, *args, **kwargs)
            output = run(tokens, mask)
            return (output,) if known.tuple_ else output

        vars(block)["forward"] = forward


def _first_token(anatomy: Anatomy, tokens: Tensor, mask: Tensor | None) -> Tensor:
    return first_token(tokens, anatomy, mask)


def _identity(tokens: Tensor, _: Tensor | None) -> Tensor:
    """Return the tokens of a block whose work the first one did."""
    return tokens
