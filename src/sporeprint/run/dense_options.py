"""Options that `segment` and `propagate` share: the parsers of their words, and the layers joined by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sporeprint.errors import RecipeError

_T = TypeVar("_T")


def middle_layers(depth: int) -> tuple[int, ...]:
    """Blocks at half, two thirds and five sixths of the depth, from 1: 6, 8 and 10 of 12."""
    return tuple(sorted({max(1, round(depth * share)) for share in (1 / 2, 2 / 3, 5 / 6)}))


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width of "240x320", or of "512" for a square. Raises RecipeError, as all parsers here do."""
    if text is None:
        return None
    expected = "height x width in pixels: 240x320, or 512 for a square"
    sides = [parse_number("size", side, count, expected, text) for side in text.lower().split("x")]
    if len(sides) > 2:
        raise RecipeError(f"--size {text!r}; expected {expected}")
    return sides[0], sides[-1]


def parse_ignore(text: str | None) -> tuple[int, ...] | None:
    """Label values that are void; none for "none", None where nothing is given."""
    if text is None:
        return None
    none = text.strip().lower() == "none"
    return () if none else parse_numbers("ignore", text, int, "label values, such as 255 or 255,11, or none")


def parse_scales(text: str) -> tuple[float, ...]:
    """Scales of copies."""
    return parse_numbers("scales", text, float, "numbers, such as 1,1.5")


def parse_words(option: str, text: str, expected: str) -> tuple[str, ...]:
    """Words between commas, at least one."""
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise RecipeError(f"--{option} {text!r} names none; expected {expected}; without --{option}, the default")
    return words


def parse_numbers(option: str, text: str, kind: Callable[[str], _T], expected: str) -> tuple[_T, ...]:
    """Numbers between commas. kind: int, float, Fraction or `count`."""
    return tuple(parse_number(option, word, kind, expected, text) for word in text.split(","))


def parse_number(option: str, word: str, kind: Callable[[str], _T], expected: str, text: str | None = None) -> _T:
    """One number. text: the whole of the option's value, for the message."""
    try:
        return kind(word.strip())
    except (ValueError, ZeroDivisionError):
        raise RecipeError(f"--{option} {text or word!r}; expected {expected}") from None


def count(word: str) -> int:
    """An integer of at least 1. Raises ValueError."""
    if (number := int(word)) < 1:
        raise ValueError
    return number
