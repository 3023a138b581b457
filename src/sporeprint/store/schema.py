"""The shape that JSON from disk must have is a value, and is compared before anything is made of the JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sporeprint.errors import DamagedStore
from sporeprint.store.atomic import damaged
from sporeprint.values import is_count, is_number

_SHA256 = re.compile("[0-9a-f]{64}")
MOST = 2**53  # no file of ours counts further, and every JSON reader agrees up to here


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called, and the test that tells it."""

    name: str
    holds: Callable[[Any], bool]


def one_of(choices: Sequence[str]) -> Kind:
    return Kind(" or ".join(choices), lambda value: isinstance(value, str) and value in choices)


COUNT = Kind("a count", lambda value: is_count(value, 0) and value < MOST)
INTEGER = Kind("an integer of at least 0", lambda value: is_count(value, 0))
SIZE = Kind("a count of at least 1", lambda value: is_count(value) and value < MOST)
NUMBER = Kind("a finite number", lambda value: is_number(value) and abs(value) < MOST)
TEXT = Kind("a text", lambda value: isinstance(value, str))
YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))
NOTHING = Kind("null", lambda value: value is None)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
DIGEST = Kind("a sha256", lambda value: isinstance(value, str) and bool(_SHA256.fullmatch(value)))

FILE = {"bytes": COUNT, "sha256": DIGEST}  # as `atomic.record_of` gives it


def mismatch(value: Any, shape: Any, at: str = "") -> str:
    """Say where `value` first differs from `shape`; "" where it does not.

    shape: a `Kind`; a tuple of shapes, of which one has to fit; [shape] of every item of a list; {key: shape} of an
    object, where "key?" may be absent, and `...` is the shape of every key that is not named. Other keys are let be.
    """
    if isinstance(shape, Kind):
        return "" if shape.holds(value) else f"{at or 'it'} is {_short(value)}; expected {shape.name}"
    if isinstance(shape, tuple):
        found = [mismatch(value, part, at) for part in shape]
        return "" if "" in found else found[-1]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{at or 'it'} is {_short(value)}; expected a list"
        parts = [(f"{at}[{number}]", item, shape[0]) for number, item in enumerate(value)]
    else:
        if not isinstance(value, dict):
            return f"{at or 'it'} is {_short(value)}; expected an object"
        named = {key.removesuffix("?"): part for key, part in shape.items() if key is not ...}
        missing = [key for key in named if key not in value and f"{key}?" not in shape]
        if missing:
            return f"{at or 'it'} has no {missing[0]!r}"
        rest = {key: shape[...] for key in value if key not in named} if ... in shape else {}
        parts = [(f"{at}.{key}" if at else key, value[key], p) for key, p in (named | rest).items() if key in value]
    return next((text for name, item, part in parts if (text := mismatch(item, part, name))), "")


def check_shape(path: Path, value: Mapping[str, Any], shape: Any) -> None:
    """Raises DamagedStore where the JSON that `path` holds has another shape."""
    refuse(path, mismatch(value, shape))


def refuse(path: Path, reason: str) -> None:
    """Raises DamagedStore for a reason that is not ""."""
    if reason:
        raise DamagedStore(damaged(path, f"cannot be understood ({reason})"))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
