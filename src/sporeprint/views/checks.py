"""What the numbers of an augmentation may be."""

from __future__ import annotations

from typing import Any

from sporeprint.errors import RecipeError


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise RecipeError for all but an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RecipeError(f"{name}={value!r}; expected an integer of at least {least}")


def check_probability(value: Any, example: float) -> None:
    """Raise RecipeError for all but a number above 0 and below 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise RecipeError(f"probability={value!r}; expected a number above 0 and below 1, such as {example}")


def check_fraction(name: str, value: Any) -> None:
    """Raise RecipeError for all but a number above 0 and up to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise RecipeError(f"{name}={value!r}; expected a fraction above 0 and up to 1")
