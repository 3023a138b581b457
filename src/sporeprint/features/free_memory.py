"""Give freed memory back to the system: glibc keeps what lies below anything that is still in use."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any


def give_back() -> None:
    """Give back the pages of freed tensors, which takes milliseconds; without glibc, do nothing.

    Texts differ in length, so tensors of every size up to 32 MB come and go between small objects that stay, and leave
    holes that later ones do not fit into.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
