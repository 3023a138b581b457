"""A twin of a network shares its weights; hooks, flags and functions set on the twin never reach the network."""

from __future__ import annotations

import copy
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import CellType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from sporeprint.errors import BackboneError

_T = TypeVar("_T")
_CONTAINERS = {dict, OrderedDict, list, tuple, set}
_PLAIN = {bool, int, float, str, type(None)}
_CLOSED = (Tensor, ModuleType, type)
_BACKWARD = ("_backward_hooks", "_backward_pre_hooks")  # the owner's are for the owner's training
_SHARED = {"_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"}


class Twin:
    """A twin copies every module of some networks for one pass, in evaluation mode; parameters and buffers are shared.

    Whatever a pass needs is set on these copies, so the owner can run, train or copy the network in other threads
    meanwhile, and nothing has to be undone. Objects, functions and containers through which a forward reaches a module
    are copied too. The owner's forward hooks run with the copies. Scripted modules are shared, and in evaluation mode
    while the context is open.
    """

    def __init__(self, roots: Iterable[nn.Module]):
        self._copies: dict[int, tuple[Any, Any]] = {}  # by id: an object, which keeps the id its own, and its copy
        self._holders: dict[int, Any] = {}  # by id: objects through which a module can be reached
        self._unfilled: list[tuple[Any, Any]] = []
        self._scripted: list[tuple[nn.Module, bool]] = []
        self._no_hooks = {name: OrderedDict[Any, Any]() for name in _BACKWARD}
        for root in roots:
            self(root)

    def __enter__(self) -> Twin:
        for part, _ in self._scripted:
            part.training = False
        return self

    def __exit__(self, *_: object) -> None:
        for part, flag in self._scripted:
            part.training = flag

    def __call__(self, value: Any) -> Any:
        """Return a module's copy; of what holds modules a copy that holds the copies; anything else as it is."""
        result = self._copy(value)
        while self._unfilled:  # no recursion, however long a chain of objects is
            original, empty = self._unfilled.pop()
            if isinstance(original, nn.Module):
                self._fill_module(original, empty)
            else:
                self._fill(original, empty)
        return result

    def parts(self, value: _T) -> _T:
        """Return a dataclass with the copies of the modules that its fields hold."""
        return replace(value, **{name: self(part) for name, part in vars(value).items()})  # type: ignore[type-var]

    @contextmanager
    def watch(self, network: nn.Module, name: str) -> Iterator[None]:
        """Raise BackboneError where this thread calls a module of the network itself, not its copy."""
        thread = threading.get_ident()

        def check(module: nn.Module, _: Any) -> None:
            known = self._copies.get(id(module))
            if known is None or known[0] is not module or known[1] is module or threading.get_ident() != thread:
                return
            path = next((path for path, part in network.named_modules() if part is module), "")
            raise BackboneError(
                f"{name}: its forward reaches {path or 'a module'} ({type(module).__name__}) in a way that cannot be "
                "copied, such as a global variable; register it as a submodule and call it directly, as in "
                f"self.{path or 'layer'}(x)"
            )

        handle = register_module_forward_pre_hook(check)
        try:
            yield
        finally:
            handle.remove()

    def _copy(self, value: Any) -> Any:
        if type(value) in _PLAIN or isinstance(value, _CLOSED):
            return value
        known = self._copies.get(id(value))
        if known is not None:
            return known[1]
        if isinstance(value, nn.Module):
            return self._module(value)
        return self._like(value) if self._holds(value) else value

    def _keep(self, value: Any, made: Any) -> Any:
        self._copies[id(value)] = value, made
        return made

    def _holds(self, value: Any) -> bool:
        """Return whether a module can be reached through a value; everything on the way is looked at once."""
        seen: dict[int, Any] = {}
        above: dict[int, list[int]] = {}
        top, holders = 0, list[int]()  # the top stands above the value itself
        left = [(value, top)]
        while left:
            part, parent = left.pop()
            if type(part) in _PLAIN or isinstance(part, _CLOSED):
                continue
            key = id(part)
            if isinstance(part, nn.Module) or key in self._holders:
                holders.append(parent)
                continue
            above.setdefault(key, []).append(parent)
            known = self._copies.get(key)
            if key not in seen and (known is None or known[1] is not part):
                seen[key] = part
                left.extend((inner, key) for inner in _inside(part))
        found = False
        while holders:
            key = holders.pop()
            if key == top:
                found = True
            elif key not in self._holders:
                self._holders[key] = seen[key]
                holders.extend(above[key])
        for key, part in seen.items():
            if key not in self._holders:
                self._copies.setdefault(key, (part, part))
        return found

    def _module(self, module: nn.Module) -> Any:
        if isinstance(module, torch.jit.ScriptModule):
            for part in module.modules():
                self._scripted.append((part, part.training))
                self._keep(part, part)
            return module
        return self._empty(module)

    def _empty(self, value: Any) -> Any:
        """Return a new object of the same type, whose attributes follow."""
        made = self._keep(value, object.__new__(type(value)))
        self._unfilled.append((value, made))
        return made

    def _fill_module(self, module: nn.Module, made: nn.Module) -> None:
        state = vars(made)
        for name, value in list(vars(module).items()):
            kind = type(value)
            if kind in _PLAIN or name in _SHARED:
                state[name] = value
            elif kind in _CONTAINERS:  # also where it holds no module: a pass may write to it
                state[name] = self._container(value) if value else kind()
            else:
                state[name] = self._copy(value)
        state |= {"training": False, "_compiled_call_impl": None, **self._no_hooks}

    def _fill(self, value: Any, made: Any) -> None:
        for name, part in list(getattr(value, "__dict__", {}).items()):
            made.__dict__[name] = self._copy(part)
        for member, part in _slots(value):
            member.__set__(made, self._copy(part))

    def _like(self, value: Any) -> Any:
        """Copy what holds modules; what cannot be copied is returned as it is."""
        kind = type(value)
        if kind in _CONTAINERS:
            return self._container(value)
        if kind is MethodType:
            return self._keep(value, MethodType(self._copy(value.__func__), self._copy(value.__self__)))
        if kind is FunctionType:
            return self._function(value)
        if kind is weakref.ref:
            return self._keep(value, weakref.ref(self._copy(value())))
        if kind is partial:
            named = {name: self._copy(part) for name, part in value.keywords.items()}
            return self._keep(value, partial(self._copy(value.func), *map(self._copy, value.args), **named))
        try:
            if isinstance(value, tuple):
                made = self._keep(value, tuple.__new__(kind, map(self._copy, value)))
                self._unfilled.append((value, made))
            elif isinstance(value, (dict, list, deque)):
                made = self._keep(value, copy.copy(value))
                for name in list(value) if isinstance(value, dict) else range(len(value)):
                    made[name] = self._copy(value[name])
                self._unfilled.append((value, made))
            else:
                made = self._empty(value)
        except TypeError:  # a class of an extension
            return self._keep(value, value)
        return made

    def _container(self, value: Any) -> Any:
        kind = type(value)
        known = self._copies.get(id(value))
        if known is not None and known[1] is not value:
            return known[1]
        if kind is tuple:
            return self._keep(value, tuple(map(self._copy, value)))
        made = self._keep(value, kind())  # kept before it is filled: it may hold itself
        if kind is list:
            made.extend(map(self._copy, value))
        elif kind is set:
            made.update(map(self._key, value))
        else:
            for name, part in value.items():
                made[self._key(name)] = self._copy(part)
        return made

    def _key(self, value: Any) -> Any:
        return self._copy(value) if isinstance(value, nn.Module) else value  # others may not be hashed before filled

    def _function(self, function: FunctionType) -> FunctionType:
        """Return a function that reaches the copies by its closure, its defaults and the modules among its globals."""
        cells = function.__closure__ or ()
        closure = tuple(CellType() if any(map(self._holds, _contents(cell))) else cell for cell in cells)
        named = {name: self._copy(part) for name, part in _globals(function).items()}
        scope = {**function.__globals__, **named} if named else function.__globals__
        made: FunctionType = self._keep(
            function, FunctionType(function.__code__, scope, function.__name__, closure=closure)
        )
        made.__defaults__, made.__kwdefaults__ = map(self._copy, (function.__defaults__, function.__kwdefaults__))
        for cell, new in zip(cells, closure, strict=True):
            if new is not cell:
                new.cell_contents = self._copy(cell.cell_contents)
        return made


def _inside(value: Any) -> list[Any]:
    """Return what a forward can reach through a value; of torch's own objects, and of those that clean up, nothing."""
    kind = type(value)
    if kind is MethodType:
        return [value.__func__, value.__self__]
    if kind is FunctionType:
        contents = [part for cell in value.__closure__ or () for part in _contents(cell)]
        return [*contents, value.__defaults__, value.__kwdefaults__, *_globals(value).values()]
    if kind is weakref.ref:
        return [value()]
    if kind is partial:
        return [value.func, *value.args, *value.keywords.values()]
    if kind.__module__.partition(".")[0] == "torch" or hasattr(kind, "__del__"):
        return []
    parts = [*getattr(value, "__dict__", {}).values(), *(part for _, part in _slots(value))]
    if isinstance(value, dict):
        parts += [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, deque)):
        parts += value
    return parts


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Return (descriptor, value) of every slot that is set."""
    members = [
        (name, member)
        for kind in type(value).__mro__
        if "__slots__" in vars(kind)
        for name, member in vars(kind).items()
        if isinstance(member, MemberDescriptorType)
    ]
    return [(member, member.__get__(value)) for name, member in members if hasattr(value, name)]


def _globals(function: FunctionType) -> dict[str, nn.Module]:
    found = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return {name: part for name, part in found.items() if isinstance(part, nn.Module)}


def _contents(cell: CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # a name that is not set yet
        return []
