"""Find the blocks of a network that its parts explain, by comparing them with a pass of the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.quick.anatomy import Anatomy, dissect, heads_of, pack
from sporeprint.backbones.quick.kernels import whole_block
from sporeprint.errors import is_out_of_memory

_HARMLESS = ("use_cache",)  # arguments that change nothing: an encoder caches nothing
_ALIKE = 1e-4  # relative error, in float32, above which a block is not what it looks like


Regime = torch.dtype | None  # the kind of a mask: none at all, bool, or numbers that are added


@dataclass(frozen=True)
class Known:
    """A block that is what it looks like.

    regimes: the kinds of masks with which this was checked. tuple_: it returns (tokens,), as in transformers before
    version 5. facts: its parts and settings at that time; with others it is unknown again.
    """

    block: nn.Module
    anatomy: Anatomy
    regimes: frozenset[Regime]
    tuple_: bool
    facts: list[Any]

    def unchanged(self) -> bool:
        """Return whether its parts, their classes and settings are those that were compared."""
        both = zip_longest(_facts(self.block, self.anatomy), self.facts)
        return all(now is then or now == then for now, then in both)

    def explains(self, call: Call) -> bool:
        """Return whether its parts compute from the tokens what the block computed."""
        try:
            mask = mask_of(self.block, call.args, call.kwargs)
            computed = whole_block(call.tokens, pack(self.anatomy, call.tokens.dtype), mask)
        except (RuntimeError, ValueError, TypeError, UnknownArgument) as error:
            if is_out_of_memory(error):
                raise
            return False
        return computed.shape == call.output.shape and alike(computed, call.output)


def _facts(block: nn.Module, anatomy: Anatomy) -> list[Any]:
    parts = list(block.modules())
    return [heads_of(block), *(norm.eps for norm in anatomy.norms), *parts, *map(type, parts)]


class RunAgain(Exception):
    """A block that was computed already, along with others, was called with an argument that its parts do not know."""


@dataclass(frozen=True)
class Call:
    """What a block was called with, and what it returned: tokens alone, or as a tuple of one."""

    tokens: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    tuple_: bool


def keep_calls(calls: dict[int, Call], at: int) -> Any:
    """Return a forward hook that keeps the call of block `at`; copies, since a network may add in place."""

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        tuple_ = isinstance(output, tuple) and len(output) == 1
        tokens = output[0] if tuple_ else output
        if args and isinstance(args[0], Tensor) and isinstance(tokens, Tensor):
            calls[at] = Call(args[0].detach().clone(), args[1:], kwargs, tokens.detach().clone(), tuple_)

    return hook


def recognise(block: nn.Module, calls: list[Call]) -> Known | None:
    """Find the parts that compute from the tokens what the block computed, in every call; None where none do."""
    if any(call.output.shape != call.tokens.shape or call.tokens.dim() != 3 for call in calls):
        return None
    for anatomy in dissect(block):
        known = Known(block, anatomy, frozenset(), calls[0].tuple_, _facts(block, anatomy))
        if all(known.explains(call) for call in calls):
            masks = (mask_of(block, call.args, call.kwargs) for call in calls)
            return replace(known, regimes=frozenset(map(regime, masks)))
    return None


def regime(mask: Tensor | None) -> Regime:
    """Return the kind of a mask."""
    return None if mask is None else mask.dtype


def chained(calls: list[Call], known: list[Known]) -> bool:
    """Return whether each block got what the one before it returned, none of them with a mask."""
    return all(block.regimes == {None} for block in known) and all(
        torch.equal(before.output, after.tokens) for before, after in pairwise(calls)
    )


def alike(computed: Tensor, expected: Tensor) -> bool:
    return bool((computed - expected).norm() <= _ALIKE * expected.norm())


@lru_cache(maxsize=64)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


class UnknownArgument(Exception):
    """A block was called with an argument that its parts do not know."""


def mask_of(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the attention mask among the arguments after the tokens. Raises UnknownArgument for any other."""
    signature = _signature(type(block).forward)
    try:
        bound = signature.bind(block, None, *args, **kwargs).arguments
    except TypeError as error:
        raise UnknownArgument from error
    given = dict(list(bound.items())[2:])
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(parameter.name, {})
    mask = None
    for name, value in given.items():
        if isinstance(value, Tensor):
            if name not in ("attention_mask", "attn_mask") or value.dim() != 4:
                raise UnknownArgument(name)
            mask = value
        elif name not in _HARMLESS and value not in (None, False, ()):
            raise UnknownArgument(name)
    return mask
