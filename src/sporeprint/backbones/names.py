"""A backbone's name that is nearly one of ours is not looked for on the hub."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from sporeprint.errors import RecipeError


def check_near_name(name: str, flag: str = "") -> None:
    """Raises RecipeError for a name that is nearly "tiny" or "timm:" and no folder. flag: begins the message."""
    if Path(name).expanduser().exists():
        return
    library, colon, rest = name.partition(":")
    if colon and library != "timm" and get_close_matches(library.lower(), ["timm"]):
        raise RecipeError(f"{flag}{name}: did you mean timm:{rest}?")
    if name != "tiny" and "/" not in name and get_close_matches(name.lower(), ["tiny"], cutoff=0.75):
        raise RecipeError(f"{flag}{name}: there is no such backbone; did you mean tiny?")
