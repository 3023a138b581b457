"""How many rows, classes, groups, splits or draws were compared, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NOUNS = {
    "train_rows": ("training row", "training rows"),
    "test_rows": ("test row", "test rows"),
    "splits": ("split", "splits"),
    "classes": ("class", "classes"),
    "groups": ("group", "groups"),
    "shots": ("label a class", "labels a class"),
    "draws": ("draw", "draws"),
}


def facts_of(settings: Mapping[str, Any]) -> str:
    """The counts among a comparison's settings: "1,000 training rows, 500 test rows, 6 classes"; "" for none."""
    counts = [(settings[key], nouns) for key, nouns in _NOUNS.items() if isinstance(settings.get(key), int)]
    return ", ".join(f"{number:,} {one if number == 1 else many}" for number, (one, many) in counts)
