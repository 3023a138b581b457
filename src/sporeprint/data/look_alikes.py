"""Find labels that people would take for one: they differ by blanks, case or the form of their Unicode only."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_LISTED = 3  # groups that a message names


def look_alikes(labels: Iterable[Any]) -> list[list[str]]:
    """Return the groups of different labels, texts or in lists, that are the same but for blanks, case or form."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for text in dict.fromkeys(_texts(labels)):
        groups[_look(text)].append(text)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def look_alike_note(labels: Iterable[Any]) -> str:
    """Return what people should know of labels that look alike, in a sentence; "" where none do."""
    groups = look_alikes(labels)
    if not groups:
        return ""
    return (
        f"labels that differ by blanks, case or Unicode form only are taken as different: {_shown(groups)}; if they "
        "are one label, write them in one way"
    )


def strangers_note(labels: Iterable[Any], known: Iterable[Any]) -> str:
    """Return which labels are none of the `known` ones, but look like one, in a sentence; "" where none do."""
    names = set(_texts(known))
    by_look = {_look(name): name for name in names}
    pairs = [[label, by_look[_look(label)]] for label in set(_texts(labels)) - names if _look(label) in by_look]
    if not pairs:
        return ""
    return f"different by blanks, case or Unicode form only: {_shown(sorted(pairs))}; write one label in one way"


def _shown(groups: Sequence[Sequence[str]]) -> str:
    """Return labels in quotes; letters beyond ASCII are escaped where labels would look the same."""
    parts = []
    for group in groups[:_LISTED]:
        same = len({unicodedata.normalize("NFC", label) for label in group}) < len(group)
        parts.append(" and ".join(map(ascii if same else repr, group)))
    more = [f"{len(groups) - _LISTED} more"] if len(groups) > _LISTED else []
    return "; ".join([*parts, *more])


def _texts(labels: Iterable[Any]) -> Iterator[str]:
    for label in labels:
        if isinstance(label, str):
            yield label
        elif isinstance(label, list):
            yield from _texts(label)


def _look(text: str) -> str:
    """Return a text without what people do not see: case, form, blanks at its ends and repeated, invisible letters."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", text) if unicodedata.category(letter) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen.lower()).split())
