"""Floating point that raises nothing, whatever a caller's `np.seterr` makes of an underflow."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

_P = ParamSpec("_P")
_T = TypeVar("_T")


def quiet_floats(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let numbers under- and overflow in a function without an error or a warning of NumPy: it checks what matters.

    `np.errstate` as a decorator would do the same, but before NumPy 2 keeps one state for all threads.
    """

    @wraps(function)
    def quiet(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return quiet
