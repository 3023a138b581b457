"""What every evaluation gives: one headline figure, its spread, and the settings that it depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Result:
    """value: the headline figure, a fraction unless the class says otherwise.

    spread: the standard deviation of `value` over repetitions (draws of few examples, starts), None of a single one.
    settings: what the figure depends on, as JSON.
    """

    value: float
    spread: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; NaN becomes None."""
        return {one.name: plain(getattr(self, one.name)) for one in fields(self)}


def plain(value: Any) -> Any:
    """As JSON types: mappings, lists, NumPy's numbers and arrays; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
