"""Guard what threads share: a network, which one thread at a time may run, its mode, and torch's global settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_NEW_LOCK = threading.Lock()


def one_thread(module: nn.Module) -> threading.RLock:
    """Return the lock of a network, the same for all who share it: hooks see every pass, another thread's too."""
    with _NEW_LOCK:
        return _LOCKS.setdefault(module, threading.RLock())


class Switch:
    """A setting that is changed while anyone is inside `hold`; the last one to leave puts it back.

    get, put: read and write the setting. held: from the value before, the value while it is held.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], None], held: Callable[[Any], Any]):
        self._get, self._put, self._held = get, put, held
        self._lock, self._holders, self._before = threading.Lock(), 0, None

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if not self._holders:
                self._before = self._get()
                self._put(self._held(self._before))
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if not self._holders:
                    self._put(self._before)


# The fused kernels of nn.TransformerEncoderLayer call none of the layers inside, nor their hooks.
NO_FUSED_ATTENTION = Switch(
    torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, lambda before: False
)


def _tf32() -> Any:
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # convolutions and recurrent layers were set apart, through torch's newer names
        return getattr(torch.backends.cudnn, "conv").fp32_precision  # noqa: B009


def _put_tf32(value: Any) -> None:
    if isinstance(value, bool):
        torch.backends.cudnn.allow_tf32 = value
    else:
        getattr(torch.backends.cudnn, "conv").fp32_precision = value  # noqa: B009


# By default cuDNN computes a float32 convolution, such as the patch embedding, with 10 bits of mantissa.
NO_TF32 = Switch(_tf32, _put_tf32, lambda before: False if isinstance(before, bool) else "ieee")


@contextmanager
def autocast_from(first: nn.Module, device: str, dtype: torch.dtype) -> Iterator[None]:
    """Autocast in this thread from the call of `first`, a network's first block, to the end of the context.

    What comes before it is cheap, and the rest cannot undo the rounding there: with DeiT-tiny's patches embedded in
    bfloat16 the least cosine of 24 embeddings with float32 was 0.9958, with them in float32 and all blocks in bfloat16
    0.9999 (docs/speed.md).
    """
    mine = threading.get_ident()
    with ExitStack() as stack:

        def enter(*_: Any) -> None:
            if threading.get_ident() == mine:
                stack.enter_context(torch.autocast(device, dtype))

        handle = first.register_forward_pre_hook(enter)
        stack.callback(handle.remove)
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold the module in evaluation mode (no dropout, no statistics updated), then restore every submodule's flag."""
    flags = [(part, part.training) for part in module.modules()]
    if not any(training for _, training in flags):
        yield
        return
    try:
        module.eval()
        yield
    finally:
        for part, flag in flags:
            part.training = flag
