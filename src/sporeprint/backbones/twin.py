"""A twin of a network shares its weights; hooks, flags and functions set on the twin never reach the network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import nn

_T = TypeVar("_T")
_WITH_MODULES = (nn.Module, MethodType, FunctionType, partial)
_MAPPINGS = {dict, OrderedDict}
_CONTAINERS = {*_MAPPINGS, list, tuple, set}
_PLAIN = {bool, int, float, str, type(None)}
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")  # the owner's are for the owner's training


class Twin:
    """A twin copies every module of some networks for one pass, in evaluation mode; parameters and buffers are shared.

    Whatever a pass needs is set on these copies, so the owner can run, train or copy the network in other threads
    meanwhile, and nothing has to be undone. The owner's forward hooks run with the copies. Scripted modules are shared,
    and in evaluation mode while the context is open.
    """

    def __init__(self, roots: Iterable[nn.Module]):
        originals = {id(part): part for root in roots for part in root.modules()}
        scripted = {key for key, part in originals.items() if isinstance(part, torch.jit.ScriptModule)}
        self._scripted = [(originals[key], originals[key].training) for key in scripted]
        self._copies: dict[int, Any] = {
            key: object.__new__(type(part)) for key, part in originals.items() if key not in scripted
        }
        for key, copy in self._copies.items():
            state = copy.__dict__
            for name, value in originals[key].__dict__.items():
                kind = type(value)
                if kind in _MAPPINGS and not value:  # most are: a module has a dozen of them
                    state[name] = kind()
                else:
                    state[name] = value if kind in _PLAIN else self(value)
            state |= {"training": False, "_compiled_call_impl": None}
            state |= {name: OrderedDict() for name in _BACKWARD}

    def __enter__(self) -> Twin:
        for part, _ in self._scripted:
            part.training = False
        return self

    def __exit__(self, *_: object) -> None:
        for part, flag in self._scripted:
            part.training = flag

    def __call__(self, value: Any) -> Any:
        """Return a module's copy; of a container a copy that holds the copies; of a function one that calls them."""
        kind = type(value)
        if kind in _CONTAINERS:
            if not value:
                return kind()
            if kind in _MAPPINGS:
                return kind({name: self._element(part) for name, part in value.items()})
            return kind(map(self._element, value))
        if isinstance(value, nn.Module):
            return self._copies.get(id(value), value)
        if kind is MethodType:
            return MethodType(value.__func__, self(value.__self__))
        if kind is partial:
            return partial(self(value.func), *map(self, value.args), **{k: self(v) for k, v in value.keywords.items()})
        return self._function(value) if kind is FunctionType else value

    def _element(self, value: Any) -> Any:
        return self(value) if isinstance(value, _WITH_MODULES) else value

    def parts(self, value: _T) -> _T:
        """Return a dataclass with the copies of the modules that its fields hold."""
        return replace(value, **{name: self(part) for name, part in vars(value).items()})  # type: ignore[type-var]

    def _function(self, function: FunctionType) -> FunctionType:
        """Return a function that calls the copies where it named the modules, as closure or global."""
        names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
        seen = {name: self._copies[id(part)] for name, part in names.items() if id(part) in self._copies}
        cells = [_contents(cell) for cell in function.__closure__ or ()]
        if not seen and not any(isinstance(part, (nn.Module, MethodType, partial)) for part in cells):
            return function
        closure = tuple(
            CellType(self(part)) if isinstance(part, (nn.Module, MethodType, partial)) else cell
            for cell, part in zip(function.__closure__ or (), cells, strict=True)
        )
        scope = {**function.__globals__, **seen} if seen else function.__globals__
        copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not set yet
        return None
