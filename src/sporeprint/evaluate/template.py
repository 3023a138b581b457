"""A template gives the user's own words around the examples and the query of a prompt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from string import Formatter

from sporeprint.data.texts import load_text
from sporeprint.errors import RecipeError, SampleError

SEPARATOR = "---"  # between the parts of a template file, on a line of its own

# Fields that each part of a template may have, and those that it must.
_FIELDS = {"header": ("labels",), "example": ("text", "label", "labels"), "query": ("text", "labels")}
_NEEDED: dict[str, tuple[str, ...]] = {"header": (), "example": ("text", "label"), "query": ("text",)}

Pieces = tuple[tuple[str, "str | None"], ...]  # (literal text, name of the field behind it)


@dataclass(frozen=True)
class Template:
    """A template makes a prompt: the header once, the example for each training row, then the query.

    The only fields are {text}, {label} (of an example) and {labels} (all class names, separated by commas). They take
    no attribute, index, conversion or width; write a literal brace twice. Values are filled in unchanged, braces
    included. Raises RecipeError.

    Examples
    --------
    >>> from sporeprint import Template
    >>> template = Template(header="Topics: {labels}. ", example="{text} {label}. ", query="{text}")
    >>> template.prompt([("Who wrote Faust?", "person")], "How far is the moon?", ["number", "person"])
    'Topics: number, person. Who wrote Faust? person. How far is the moon?'
    """

    example: str = "Text: {text}\nLabel: {label}\n\n"
    query: str = "Text: {text}\nLabel:"
    header: str = ""

    def __post_init__(self) -> None:
        for part in _FIELDS:
            if not isinstance(value := getattr(self, part), str):
                raise RecipeError(f"template {part} is a {type(value).__name__}; expected a str")
            _parse(part, value)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Template:
        """Read a UTF-8 text file: example and query, or header, example and query, separated by lines of `---`.

        Each part keeps its line ends, except that the query loses the last one, which editors add to a file.
        Raises RecipeError.
        """
        try:
            text = load_text(Path(path))
        except SampleError as error:
            raise RecipeError(f"the template cannot be read: {error}") from None
        parts = [""]
        for line in StringIO(text, newline=None):
            if line.rstrip() == SEPARATOR:
                parts.append("")
            else:
                parts[-1] += line
        if len(parts) not in (2, 3):
            raise RecipeError(
                f"template {os.path.basename(path)!r} has {len(parts) - 1} lines {SEPARATOR!r}; expected one, between "
                "example and query, or two: header, example, query"
            )
        return cls(example=parts[-2], query=parts[-1].removesuffix("\n"), header=parts[0] if len(parts) == 3 else "")

    def prompt(self, examples: Iterable[tuple[str, str]], query: str, labels: Sequence[str]) -> str:
        """Write a prompt. examples: (text, label) in the order of the prompt. labels: all class names."""
        names = ", ".join(labels)
        filled = [self._fill("example", text=text, label=label, labels=names) for text, label in examples]
        return "".join([self._fill("header", labels=names), *filled, self._fill("query", text=query, labels=names)])

    def _fill(self, part: str, **values: str) -> str:
        return "".join(literal + (values[name] if name else "") for literal, name in _parse(part, getattr(self, part)))


@lru_cache(maxsize=64)
def _parse(part: str, template: str) -> Pieces:
    """Split one part of a template into pieces. Raises RecipeError for all but the plain fields of that part."""
    allowed = ", ".join(f"{{{name}}}" for name in _FIELDS[part])
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(f"template {part}: {error}; write a literal brace twice: {{{{ or }}}}") from None
    for _, name, width, conversion in parsed:
        if name is not None and (name not in _FIELDS[part] or width or conversion):
            given = name + (f"!{conversion}" if conversion else "") + (f":{width}" if width else "")
            raise RecipeError(
                f"template {part} has the field {{{given}}}; known: {allowed}; write a literal brace twice"
            )
    present = {name for _, name, _, _ in parsed}
    if absent := [name for name in _NEEDED[part] if name not in present]:
        raise RecipeError(f"template {part} has no {{{absent[0]}}}; add it, or every prompt would be the same there")
    return tuple((literal, name) for literal, name, _, _ in parsed)
