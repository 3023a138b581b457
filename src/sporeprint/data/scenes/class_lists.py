"""Read the names, and perhaps the colours, of the classes of masks: a `classes.json` or `classes.txt` next to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sporeprint.data.encodings import read_utf8
from sporeprint.data.rows import brief
from sporeprint.data.scenes.masks import Colour
from sporeprint.data.texts import not_unicode
from sporeprint.errors import SourceError
from sporeprint.values import parse_json

_GREATEST = 65_535  # in a 16-bit mask
_FORMS = 'a list of names, {"0": "sky", ...} or {"sky": [128, 128, 128], ...}'


@dataclass(frozen=True)
class ClassList:
    """The classes of masks.

    names: by label value, "" where it has none. colours: for masks in colour, colour -> label value. file: its name.
    """

    names: list[str]
    colours: dict[Colour, int] | None
    file: str


def find_class_list(folders: Iterable[Path]) -> ClassList | None:
    """Read the first `classes.json` or `classes.txt` in `folders`. Raises SourceError where it is not as expected.

    classes.txt: one name a line, the first for label 0; an empty line is for a label without name. classes.json: a list
    of names; or {"value": name}; or {name: [red, green, blue]}, perhaps under the key "colours": the classes count from
    0 in that order.
    """
    for folder in folders:
        for path in (folder / "classes.json", folder / "classes.txt"):
            if path.is_file():
                return _read(path)
    return None


def _read(path: Path) -> ClassList:
    try:
        text = read_utf8(path)
        if path.suffix == ".txt":
            return ClassList(_checked(_numbered(text), path), None, path.name)
        classes = parse_json(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"'{path}' cannot be read ({error}); expected {_FORMS}") from None
    if isinstance(classes, dict) and isinstance(classes.get("colours"), dict):
        classes = classes["colours"]
    if isinstance(classes, list):
        return ClassList(_checked(dict(enumerate(classes)), path), None, path.name)
    if isinstance(classes, dict) and classes and all(map(_is_colour, classes.values())):
        colours = {(value[0], value[1], value[2]): label for label, value in enumerate(classes.values())}
        if len(colours) < len(classes):
            raise SourceError(f"'{path}' gives one colour to two classes; each has its own")
        return ClassList(_checked(dict(enumerate(classes)), path), colours, path.name)
    if isinstance(classes, dict) and classes and all(map(_is_label, classes)):
        return ClassList(_checked({int(key): name for key, name in classes.items()}, path), None, path.name)
    raise SourceError(f"'{path}' holds {brief(classes)}; expected {_FORMS}")


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise SourceError(f"'{path}' has the key {max(keys, key=keys.count)!r} twice; each may be there once")
    return dict(pairs)


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part < 256 for part in value)


def _is_label(key: str) -> bool:
    return key.isdecimal() and len(key) <= 640 and int(key) <= _GREATEST  # Python converts 640 digits


def _numbered(text: str) -> dict[int, str]:
    lines = [line.strip() for line in text.rstrip().split("\n")]
    return {label: name for label, name in enumerate(lines) if name or not any(lines)}


def _checked(by_value: dict[int, Any], path: Path) -> list[str]:
    """Return the names by label value, "" between them: a number would look like the name of a class."""
    for label, name in by_value.items():
        if not isinstance(name, str) or not name or not_unicode(name):
            raise SourceError(
                f"'{path}': the name of class {label} is {brief(name)}; expected a text that is not empty"
            )
    labels: dict[str, int] = {}
    for label, name in sorted(by_value.items()):
        if labels.setdefault(name, label) != label:
            raise SourceError(f"'{path}' calls both class {labels[name]} and class {label} {name!r}; each has its own")
    return [by_value.get(label, "") for label in range(max(by_value, default=-1) + 1)]
