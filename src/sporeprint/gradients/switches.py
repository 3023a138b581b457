"""Hold settings of torch, NumPy and the warnings as our numbers need them, then put them back as they were found."""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import nn, overrides
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes

from sporeprint.errors import SporeprintWarning

_SWITCHES: WeakSet[Switch] = WeakSet()
# Settings can be written inside it also after torch.backends.disable_global_flags().
_unfrozen = getattr(torch.backends, "__allow_nonbracketed_mutation", nullcontext)


class Switch:
    """A process-wide setting that is changed while anyone is inside `hold`; the last one to leave puts it back.

    get, put: read and write the setting. held: from the value before, the value while it is held. A setting that has
    this value already is left alone. In a forked process only the holds of the thread that forked go on.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], object], held: Callable[[Any], Any]):
        self._get, self._put, self._held = get, put, held
        self._lock, self._holders, self._before = threading.RLock(), Counter[int](), None
        self._changed = False
        _SWITCHES.add(self)

    @contextmanager
    def hold(self) -> Iterator[None]:
        thread, entered = threading.get_ident(), False
        try:
            with self._lock:
                if not self._holders:
                    self._before = self._get()
                    wanted = self._held(self._before)
                    self._changed = wanted != self._before
                    if self._changed:
                        self._write(wanted)
                self._holders[thread] += 1
                entered = True
            yield
        finally:
            with self._lock:
                self._holders[thread] -= entered
                self._leave(thread)

    def _leave(self, thread: int) -> None:
        if not self._holders[thread]:
            del self._holders[thread]
        if not self._holders and self._changed:
            self._changed = False
            self._write(self._before)

    def _write(self, value: Any) -> None:
        with _unfrozen():
            self._put(value)

    def after_fork(self) -> None:
        """Forget the threads that are not in this new process."""
        self._lock = threading.RLock()
        thread = threading.get_ident()
        self._holders = Counter({thread: self._holders[thread]})
        self._leave(thread)


def _after_fork() -> None:
    for switch in list(_SWITCHES):
        switch.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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


def _matmul() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set through torch's newer names, which have switches of their own
        return None


def _filters() -> list[Any]:
    return list(warnings.filters)


def _put_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # which also forgets what was shown under other filters
    warnings.filters[:] = filters  # type: ignore[index]


def _show_others(filters: list[Any]) -> list[Any]:
    """Return the filters with warnings of other libraries shown where they would be raised; ours are raised still."""
    shown = []
    for action, message, category, *place in filters:
        if action == "error":
            if issubclass(SporeprintWarning, category):
                shown.append((action, message, SporeprintWarning, *place))
            action = "default"
        shown.append((action, message, category, *place))
    return shown


def _flag(owner: Any, name: str, wanted: Any) -> Switch:
    return Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), lambda before: wanted)


def _precision(owner: Any) -> Switch:
    """Return the switch of torch's newer name for the precision of float32: "none" and "ieee" are its own."""
    return Switch(
        lambda: owner.fp32_precision,
        lambda value: setattr(owner, "fp32_precision", value),
        lambda before: before if before in ("none", "ieee") else "ieee",
    )


def _switches() -> list[Switch]:
    backends: Any = torch.backends
    cuda = backends.cuda
    switches = [_precision(backends)] if hasattr(backends, "fp32_precision") else []  # first: others inherit it
    switches += [
        Switch(_filters, _put_filters, _show_others),
        Switch(torch.get_default_dtype, torch.set_default_dtype, lambda before: torch.float32),
        Switch(_matmul, torch.set_float32_matmul_precision, lambda before: before and "highest"),
        NO_TF32,
        Switch(
            torch.is_anomaly_enabled,
            lambda value: torch.autograd.set_detect_anomaly(value, torch.is_anomaly_check_nan_enabled()),
            lambda before: False,
        ),
        _flag(backends.cudnn, "benchmark", False),
        Switch(
            torch._C._get_mkldnn_enabled,
            torch._C._set_mkldnn_enabled,
            lambda before: True,
        ),
    ]
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        enabled, enable = getattr(cuda, f"{name}_sdp_enabled", None), getattr(cuda, f"enable_{name}_sdp", None)
        if enabled is not None and enable is not None:
            switches.append(Switch(enabled, enable, lambda before: True))
    parts = [(cuda, "matmul"), *((backends.mkldnn, name) for name in ("matmul", "conv", "rnn"))]
    for owner, name in parts:
        if hasattr(getattr(owner, name, None), "fp32_precision"):
            switches.append(_precision(getattr(owner, name)))
    return switches


_PROCESS_WIDE = _switches()
_SMALLEST = 5e-324


@contextmanager
def own_settings() -> Iterator[None]:
    """Compute as in a new process, whatever the caller's process has switched on; put everything back afterwards.

    This thread's modes of torch (inference, autocast, a default device, function and dispatch modes, functorch's
    transforms, hooks on saved tensors, flushed denormals) and NumPy's reaction to overflow are set aside. Settings of
    the whole process (the default dtype, the precision of float32, the kernels of attention and convolutions, anomaly
    detection, warnings of other libraries raised as errors) are held, so other threads see them meanwhile too.
    """
    with ExitStack() as stack:
        for switch in _PROCESS_WIDE:
            stack.enter_context(switch.hold())
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(_without_modes())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def _without_modes() -> Iterator[None]:
    """Set aside what only this thread has switched on in torch."""
    functions, saved, flushes = [], [], _SMALLEST * 1.0 == 0
    try:
        while torch._C._len_torch_function_stack():
            functions.append(overrides._pop_mode())
        while (hooks := _saved_hooks()) is not None:
            saved.append(hooks)
            torch._C._autograd._pop_saved_tensors_default_hooks()
        if flushes:
            torch.set_flush_denormal(False)
        with _disable_current_modes(), temporarily_clear_interpreter_stack():
            yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)
        for pack, unpack in reversed(saved):
            torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)
        for mode in reversed(functions):
            overrides._push_mode(mode)


def _saved_hooks() -> tuple[Any, Any] | None:
    try:
        return torch._C._autograd._top_saved_tensors_default_hooks(False)
    except (AttributeError, TypeError):
        return None


@contextmanager
def autocast_from(first: nn.Module, device: str, dtype: torch.dtype) -> Iterator[None]:
    """Autocast from the call of `first`, a network's first block, to the end of the context.

    What comes before it is cheap, and the rest cannot undo the rounding there: with DeiT-tiny's patches embedded in
    bfloat16 the least cosine of 24 embeddings with float32 was 0.9958, with them in float32 and all blocks in bfloat16
    0.9999 (docs/speed.md).
    """
    with ExitStack() as stack:
        handle = first.register_forward_pre_hook(lambda *_: stack.enter_context(torch.autocast(device, dtype)) and None)
        stack.callback(handle.remove)
        yield
