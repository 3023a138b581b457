"""Which blocks of a network are what they look like, by what one pass of it gives."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.anatomy import Anatomy, dissect, pack
from sporeprint.backbones.kernels import whole_block

_HARMLESS = ("use_cache",)  # of what a block may be told beside its tokens: an encoder caches nothing
_ALIKE = 1e-4  # relative error, in float32, above which a block is something else than it looked like


@dataclass(frozen=True)
class Known:
    """A block that is what it looks like. mask: of the pass that showed it. tuple_: it returns (tokens,), as
    transformers had it before version 5. parts: its modules then; with others it is unknown again.
    """

    block: nn.Module
    anatomy: Anatomy
    mask: Tensor | None
    tuple_: bool
    parts: list[nn.Module]

    @property
    def called(self) -> list[nn.Module]:
        """The parts that run as modules where only the first token is computed."""
        return self.anatomy.layers


@dataclass(frozen=True)
class Call:
    """What a block was called with, and what it gave: tokens alone, or as a tuple of one."""

    tokens: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    tuple_: bool


def keep_calls(calls: dict[int, Call], at: int) -> Any:
    """A forward hook that keeps this thread's call of block `at`; copies, since a network may add in place."""
    mine = threading.get_ident()

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tuple_ = isinstance(output, tuple) and len(output) == 1
        made = output[0] if tuple_ else output
        if threading.get_ident() == mine and args and isinstance(args[0], Tensor) and isinstance(made, Tensor):
            calls[at] = Call(args[0].detach().clone(), args[1:], kwargs, made.detach().clone(), tuple_)

    return hook


def recognise(block: nn.Module, call: Call) -> Known | None:
    """The parts that make of the tokens what the block made of them; None where nothing does."""
    if call.output.shape != call.tokens.shape or call.tokens.dim() != 3:
        return None
    try:
        mask = mask_of(block, call.args, call.kwargs)
    except Strange:
        return None
    for anatomy in dissect(block):
        try:
            made = whole_block(call.tokens, pack(anatomy, call.tokens.dtype), mask)
        except (RuntimeError, ValueError, TypeError):
            continue
        if alike(made, call.output):
            return Known(block, anatomy, mask, call.tuple_, list(block.modules()))
    return None


def chained(calls: list[Call], known: list[Known]) -> bool:
    """Whether each block was given what the one before it made, all of them with one mask."""
    masks = [one.mask for one in known]
    same = all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairwise(masks))
    return same and all(torch.equal(before.output, after.tokens) for before, after in pairwise(calls))


def alike(made: Tensor, expected: Tensor) -> bool:
    return bool((made - expected).norm() <= _ALIKE * expected.norm())


@lru_cache(maxsize=64)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


class Strange(Exception):
    """A block was called with something that its parts do not know."""


def mask_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The attention mask among the arguments beside the tokens; whatever else is set there is strange."""
    signature = _signature(type(block).forward)
    try:
        bound = signature.bind(block, None, *args, **kwargs).arguments
    except TypeError as error:
        raise Strange from error
    given = dict(list(bound.items())[2:])
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name, {})
    mask = None
    for name, value in given.items():
        if isinstance(value, Tensor):
            if name not in ("attention_mask", "attn_mask") or value.dim() != 4:
                raise Strange(name)
            mask = value
        elif name not in _HARMLESS and value not in (None, False, ()):
            raise Strange(name)
    return mask
