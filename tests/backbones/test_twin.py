"""A pass reaches modules through whatever holds them, in evaluation mode, and leaves the owner's as they are."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from small import PREPROCESS, noise_pictures, small_module
from sporeprint import KL, Fungi, Recipe
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.twin import Twin
from sporeprint.errors import BackboneError


class Helper:
    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, values: Any) -> Any:
        return self.module(values)


class Slots:
    __slots__ = ("__module", "unset")

    def __init__(self, module: nn.Module):
        self.__module = module

    def __call__(self, values: Any) -> Any:
        return self.__module(values)


@dataclass(frozen=True)
class Frozen:
    modules: tuple[nn.Module, ...]

    def __call__(self, values: Any) -> Any:
        return self.modules[0](values)


class Cyclic(Helper):
    def __init__(self, module: nn.Module):
        super().__init__(module)
        self.own = [self]

    def __call__(self, values: Any) -> Any:
        return self.own[0].module(values)


class Blocks(list[nn.Module]):
    pass


Pair = namedtuple("Pair", ["name", "module"])


def by_closure(module: nn.Module) -> Any:
    modules = [{"one": module}]
    return lambda values: modules[0]["one"](values)


def by_default(module: nn.Module) -> Any:
    def run(values: Any, inner: Any = (module,), *, scale: float = 1.0) -> Any:
        return inner[0](values) * scale

    return run


def by_keyword_default(module: nn.Module) -> Any:
    def run(values: Any, *, inner: nn.Module = module) -> Any:
        return inner(values)

    return run


def by_recursion(module: nn.Module) -> Any:
    def run(values: Any, again: bool = True) -> Any:
        return run(values, False) if again else module(values)

    return run


def by_decorator(module: nn.Module) -> Any:
    inner = by_closure(module)
    return lambda values: inner(values)


def in_a_chain(module: nn.Module) -> Any:
    held: Any = module
    for _ in range(1000):
        held = Box(held)
    return held


class Box:
    def __init__(self, inner: Any):
        self.inner = inner

    def __call__(self, values: Any) -> Any:
        held = self
        while isinstance(held, Box):
            held = held.inner
        return held(values)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "helper": Helper,
    "helper of a helper": lambda module: Helper(Helper(module)),  # type: ignore[arg-type]
    "bound method": lambda module: Helper(module).__call__,
    "slots": Slots,
    "frozen dataclass": lambda module: Frozen((module,)),
    "object that holds itself": Cyclic,
    "long chain": in_a_chain,
    "nested containers": lambda module: {"a": [OrderedDict(b=({"c": module},))]},
    "list of a class": lambda module: Blocks([module]),
    "named tuple": lambda module: Pair("a", module),
    "partial": lambda module: partial(by_default(module), scale=1.0),
    "closure": by_closure,
    "default": by_default,
    "keyword default": by_keyword_default,
    "recursion": by_recursion,
    "decorator": by_decorator,
    "weak reference": weakref.ref,
}


def found(held: Any, values: torch.Tensor) -> torch.Tensor:
    """Run the module that lies in containers, or behind a weak reference."""
    while not callable(held):
        held = held[-1] if isinstance(held, (list, tuple)) else next(iter(held.values()))
    return held()(values) if isinstance(held, weakref.ref) else held(values)


class Around(nn.Module):
    """A network that reaches its dropout, its normalisation and its body through something else."""

    def __init__(self, way: Callable[[nn.Module], Any]):
        super().__init__()
        self.drop, self.norm, self.body = nn.Dropout(0.5), nn.BatchNorm2d(3), small_module()
        self.held = [way(part) for part in (self.drop, self.norm, self.body)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for held in self.held:
            images = found(held, images)
        return images


TARGET = "body.blocks.1.attn.proj"


@pytest.mark.parametrize("way", WAYS)
def test_modules_are_in_evaluation_mode_however_they_are_reached(way):
    plain, around = Around(Helper), Around(WAYS[way])
    plain.held = [plain.drop, plain.norm, plain.body]
    around.train()
    before = copy.deepcopy(around.state_dict())
    expected, actual = (
        Fungi(Recipe(objectives=[KL(latent=8)], dim=8), backbone=Backbone(module, TARGET, PREPROCESS, "cls"))
        for module in (plain.eval(), around)
    )
    pictures = noise_pictures(3)
    blocks = actual.fit(pictures).blocks(pictures)
    for name, values in expected.fit(pictures).blocks(pictures).items():
        torch.testing.assert_close(torch.from_numpy(blocks[name]), torch.from_numpy(values), atol=1e-6, rtol=0)
    assert all(part.training for part in (around, around.drop, around.norm))
    for name, tensor in around.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_module_that_is_not_registered_runs_in_evaluation_mode_too():
    around = Around(Helper)
    norm = around.norm
    del around.norm
    around.train()
    before = copy.deepcopy(norm.state_dict())
    Backbone(around, TARGET, PREPROCESS, "cls")
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())


_GLOBAL: list[nn.Module] = []


class ByGlobal(Around):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(_GLOBAL[0](images))


def test_a_module_that_is_reached_in_a_way_that_cannot_be_copied_is_named():
    module = ByGlobal(Helper).train()
    _GLOBAL[:] = [module.norm]
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(BackboneError, match=r"ByGlobal: .*reaches norm \(BatchNorm2d\).*self\.norm\(x\)"):
        Backbone(module, TARGET, PREPROCESS, "cls")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_what_holds_no_module_is_shared_so_that_a_hook_may_record():
    module, seen, calls = small_module(), [], 0

    def record(_: nn.Module, args: Any, output: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        seen.append(output)

    module.norm.register_forward_hook(record)
    with torch.no_grad():
        Twin([module])(module)(torch.zeros(1, 3, 32, 32))
    assert len(seen) == calls == 1


def test_what_a_pass_writes_to_its_containers_does_not_reach_the_owner():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = [0]

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            self.seen.append(values)
            return values

    module = Counts()
    Twin([module])(module)(torch.zeros(1))
    assert module.seen == [0]
