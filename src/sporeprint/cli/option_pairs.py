"""An option that takes two values and may be repeated, which typer cannot say: `--with TRAIN TEST --with TRAIN TEST`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

FLAG = "--with"


class PairedCommand(TyperCommand):
    """A command whose --with takes two values at a time; typer sees each of them as an option of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, split_pairs(args))


def split_pairs(words: Sequence[str]) -> list[str]:
    """The words of a command line, `--with A B` as `--with A --with B`. What lacks a second value stays as it is."""
    split, at = list(words), 0
    while at + 2 < len(split) and split[at] != "--":
        if split[at] == FLAG and not split[at + 2].startswith("-"):
            split.insert(at + 2, FLAG)
            at += 3
        at += 1
    return split
