"""Every evaluation gives a result: a headline figure, its spread, and the settings that it depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Result:
    """A result has a headline figure, `value`, which is a fraction unless the class says otherwise.

    spread: the standard deviation of `value` over repetitions (few-shot draws, starts); None without repetitions.
    settings: what the figure depends on, as JSON.
    """

    value: float
    spread: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON types; NaN becomes None."""
        return {field.name: plain(getattr(self, field.name)) for field in fields(self)}


def plain(value: Any) -> Any:
    """Convert mappings, lists, NumPy's numbers and arrays to JSON types; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
