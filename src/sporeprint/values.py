"""Frozen values as JSON: kinds by name, canonical bytes, and the checks of numbers that every value shares."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from numbers import Integral, Real
from typing import Any, TypeVar

from sporeprint.errors import RecipeError, Removed, SporeprintError

LATER = {"later": True}  # marks a field that came after stores were made; see `later`

DEEPEST = 64  # lists and objects within each other in JSON that is read; ours have fewer than 10
_TOO_DEEP = f"lists and objects are nested more than {DEEPEST} deep"

_NO_SUBSETS = (
    "views that are subsets of an image's tokens were never measured to be worth having; use Patches(side=0.5) or "
    "Crops(local_side=0.5)"
)
# Kinds that recipes of earlier versions may name, and why this version does not have them.
REMOVED_KINDS = {"windows": _NO_SUBSETS, "scatter": _NO_SUBSETS}

# Control characters, marks and overrides that turn the direction of what follows, ends of lines, halves of characters.
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_KINDS: dict[str, type] = {}
_T = TypeVar("_T", bound=type)


def kind(name: str) -> Callable[[_T], _T]:
    """Register a frozen dataclass under the name that its JSON carries. Raises RecipeError for a name that is taken."""

    def register(cls: _T) -> _T:
        other = _KINDS.get(name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):  # a notebook may define again
            raise RecipeError(f"kind {name!r} is taken by {other.__module__}.{other.__qualname__}; choose another name")
        _KINDS[name] = cls
        cls.kind = name  # type: ignore[attr-defined]
        return cls

    return register


def later(default: Any) -> Any:
    """A field that the JSON leaves out while it has its default, so that values made before it still compare equal."""
    return dataclasses.field(default=default, metadata=LATER)


def to_json(value: Any) -> Any:
    """A frozen value as plain JSON types; a registered dataclass becomes {"kind": name, field: ...}.

    1.0 is written as 1, since values that are equal must have equal JSON. Raises RecipeError for anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        if "kind" not in vars(cls):  # an inherited kind would come back as the parent
            raise RecipeError(
                f"{cls.__name__} cannot be written as JSON: it has no kind of its own; decorate the class with "
                "sporeprint.values.kind('a-name') to save it"
            )
        return {"kind": cls.kind, **fields_json(value)}  # type: ignore[attr-defined]
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (Integral, Real)) and math.isfinite(value):  # NumPy's
        return to_json(int(value) if isinstance(value, Integral) else float(value))
    raise RecipeError(f"a recipe holds plain values; {type(value).__name__} {value!r} cannot be written as JSON")


def fields_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON, without those of `later` that have their default.

    Fields that its class lists as `removed` are written with their last default: values keep the JSON that they had.
    """
    fields = {f.name: (f, getattr(value, f.name)) for f in dataclasses.fields(value)}
    kept = {name: to_json(v) for name, (f, v) in fields.items() if not (f.metadata.get("later") and v == f.default)}
    return kept | {name: to_json(default) for name, (default, _) in removed_fields(type(value)).items()}


def short_repr(value: Any, **defaults: Any) -> str:
    """A dataclass with the fields that differ from their defaults, such as "KL(latent=5)": for its `__repr__`.

    defaults: instead of the fields' own, where another field decides them.
    """
    fields = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
    shown = [
        f"{field.name}={part!r}"
        for field, part in fields.items()
        if field.repr and not _is_same(part, defaults.get(field.name, _default(field)))
    ]
    return f"{type(value).__name__}({', '.join(shown)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _is_same(value: Any, other: Any) -> bool:
    try:
        return bool(value == other)
    except (TypeError, ValueError, RuntimeError):  # arrays
        return False


def removed_fields(cls: type) -> dict[str, tuple[Any, str]]:
    """Fields that a class had in an earlier version: {name: (last default, why it was removed, and what to use)}.

    The class lists them as a ClassVar `removed`. A subclass that has such a field again is left alone.
    """
    present = {f.name for f in dataclasses.fields(cls)}
    return {name: entry for name, entry in getattr(cls, "removed", {}).items() if name not in present}


def from_json(data: Any) -> Any:
    """The inverse of `to_json`. Only registered kinds are made: nothing read from disk can run code."""
    if isinstance(data, Mapping):
        fields = {key: from_json(item) for key, item in data.items() if key != "kind"}
        return make(find_kind(data.get("kind")), fields)
    return tuple(from_json(item) for item in data) if isinstance(data, list) else data


def find_kind(name: Any) -> type:
    """The class registered as `name`: ours once `sporeprint.Recipe` is imported, the user's once its module is.

    Otherwise a `sporeprint.objectives` entry point of that name is loaded. Raises RecipeError for an unknown name.
    """
    if not isinstance(name, str):
        raise RecipeError(f"unknown kind {name!r}; expected a name, one of: {', '.join(sorted(_KINDS))}")
    if name in REMOVED_KINDS and name not in _KINDS:
        raise Removed(f"kind {name!r} was removed: {REMOVED_KINDS[name]}")
    if name not in _KINDS:
        for point in metadata.entry_points(group="sporeprint.objectives"):
            if point.name == name:
                point.load()
    if name not in _KINDS:
        raise RecipeError(
            f"unknown kind {name!r}; known: {', '.join(sorted(_KINDS)) or 'none yet'}. A kind is known once its module "
            "is imported: ours by `from sporeprint import Recipe`; an objective of your own by its module, which "
            "decorates it with `sporeprint.values.kind`"
        )
    return _KINDS[name]


def make(cls: type, fields: Mapping[str, Any]) -> Any:
    """A value from its fields. Raises RecipeError for unknown fields, and for values that the class refuses.

    A field that the class lists as `removed` is dropped where it has its last default, and refused with another value.
    """
    fields = dict(fields)
    for name, (default, why) in removed_fields(cls).items():
        given = canonical(to_json(fields.pop(name, default)))
        if given != canonical(to_json(default)):
            raise Removed(f"{cls.__name__} {name}={given.decode()} was removed: {why}")
    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(fields) - known):
        raise RecipeError(f"{cls.__name__} has no field {unknown[0]!r}; it has: {', '.join(sorted(known))}")
    try:
        return cls(**fields)
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"{cls.__name__} cannot be made of {fields}: {error}") from error


def canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: the bytes that fingerprints and checksums are taken of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """The value of a JSON text from anywhere, nested at most `DEEPEST`; hooks: of `json.loads`.

    Raises ValueError, and nothing else, for what is not JSON or is nested deeper: everything that walks the value
    afterwards may call itself for each level.
    """
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level, depth = [value], 0
    while level := [
        part
        for item in level
        for part in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        if isinstance(part, (dict, list))
    ]:
        depth += 1
        if depth >= DEEPEST:
            raise ValueError(_TOO_DEEP)
    return value


def json_text(value: Any, indent: int | None = 1) -> str:
    """JSON for files and for people: letters as they are, everything else that `printable` escapes as escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """`text` on one line that changes nothing around it: what is not text is written as JSON escapes it (\\u001b).

    JSON stays JSON with the same value, and can then be encoded and shown anywhere.
    """
    return _NOT_TEXT.sub(lambda match: json.dumps(match[0])[1:-1], text)


def is_count(value: Any, least: int = 1) -> bool:
    """Whether `value` is an integer, Python's or NumPy's, of at least `least`; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, Python's or NumPy's; True, False and what no float can hold are none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_positive(value: Any) -> bool:
    """Whether `value` is a finite number above 0, as a temperature or a scale must be."""
    return is_number(value) and value > 0


def is_fraction(value: Any) -> bool:
    """Whether `value` is a number above 0 and up to 1."""
    return is_positive(value) and value <= 1


def check_count(
    name: str, value: Any, least: int = 1, error: type[SporeprintError] = RecipeError, most: float = math.inf
) -> None:
    """Raise `error` for all but an integer from `least` to `most`."""
    if not is_count(value, least) or value > most:
        limit = "" if most == math.inf else f" and at most {most}"
        raise error(f"{name}={value!r}; expected an integer of at least {least}{limit}")


def check_list(name: str, values: Any, example: str, error: type[SporeprintError] = RecipeError) -> list[Any]:
    """Return the values of a list, a tuple or an array. Raise `error` for anything else, such as a single number."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise error(f"{name}={values!r}; expected a list, such as {example}")
    return list(values)


def check_mapping(name: str, value: Any, expected: str, error: type[SporeprintError] = RecipeError) -> None:
    """Raise `error` for all but a dictionary or its like."""
    if not isinstance(value, Mapping):
        raise error(f"{name} is a {type(value).__name__}; expected {expected}")


def check_fraction(name: str, value: Any) -> None:
    """Raise RecipeError for all but a number above 0 and up to 1."""
    if not is_fraction(value):
        raise RecipeError(f"{name}={value!r}; expected a fraction above 0 and up to 1")


def check_probability(value: Any, example: float) -> None:
    """Raise RecipeError for all but a number above 0 and below 1."""
    if not is_fraction(value) or value == 1:
        raise RecipeError(f"probability={value!r}; expected a number above 0 and below 1, such as {example}")


def check_choice(name: str, value: Any, allowed: Iterable[Any], error: type[SporeprintError] = RecipeError) -> None:
    """Raise `error` for a value that is not among those allowed."""
    known = tuple(allowed)
    if value not in known:
        raise error(f"{name}={value!r}; expected one of: {', '.join(map(str, known))}")
