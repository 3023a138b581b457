"""How two plans differ, in the words of the command line: the options that make the difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sporeprint.errors import StoreError, StoreMismatch
from sporeprint.store.plan import differences
from sporeprint.store.reader import Store

Plan = Mapping[str, Any]
_ROWS = {"image": "images", "text": "texts", "audio": "sounds"}


def open_alike(train_path: Path, test_path: Path) -> tuple[Store, Store]:
    """Two stores of one recipe and one backbone. Raises StoreError, which names the options that differ."""
    train, test = Store.open(train_path), Store.open(test_path)
    if differences(_comparable(train.plan), _comparable(test.plan)):
        kinds = [_field("resolved", "backbone", "modality")(store.plan) for store in (train, test)]
        if kinds[0] != kinds[1] and None not in kinds:
            seen = f"{train_path} holds {_ROWS[kinds[0]]}, {test_path} {_ROWS[kinds[1]]}"
            raise StoreError(f"{seen}: they cannot be compared")
        try:
            ours, theirs = options_that_differ(_comparable(train.plan), _comparable(test.plan))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise StoreError(f"{train_path} and {test_path}: the recipe of one of them cannot be understood") from None
        raise StoreError(
            f"{train_path} was made with {ours}, {test_path} with {theirs}: their features cannot be compared. Make "
            f"the test store with --fit-from {train_path}"
        )
    return train, test


def other_run(folder: Path, error: StoreMismatch) -> StoreMismatch:
    """The error where `folder` is a store of another run, with the options that differ; others as they are."""
    if error.plans is None:
        return error
    stored, given = options_that_differ(*error.plans)
    return StoreMismatch(
        f"'{folder}' was made by another run, with {stored}; this run has {given}. Give another --out, or the options "
        "that made it"
    )


def options_that_differ(first: Plan, second: Plan) -> tuple[str, str]:
    """The options, with their values, that make two plans differ: those of the first, and those of the second.

    Of two backbones only these, and of other objectives not their negatives: those follow.
    """
    pairs = {flag: (value(first), value(second)) for flag, value in _OPTIONS.items()}
    differing = {flag: values for flag, values in pairs.items() if values[0] != values[1]}
    for whole, parts in (("--backbone", list(_OPTIONS)[1:]), ("--objectives", ["--negatives", "--views"])):
        if whole in differing:
            differing = {flag: values for flag, values in differing.items() if flag not in parts}
    if not differing:
        key, _, rest = differences(first, second, ("it", "it"))[0].partition(": it has ")
        ours, _, theirs = rest.partition(", it has ")
        return f"{key} {ours}", f"{key} {theirs}"
    sides = zip(*([_shown(flag, value) for value in values] for flag, values in differing.items()), strict=True)
    ours, theirs = (", ".join(side) for side in sides)
    return (f"{ours}, as it was then", f"{theirs}, as it is now") if ours == theirs else (ours, theirs)


def _comparable(plan: Plan) -> Plan:
    """What two stores must share for their blocks to be comparable: not the device, and not the rows."""
    resolved = {key: value for key, value in plan["resolved"].items() if key != "device"}
    return {"recipe": plan["recipe"], "resolved": resolved}


def _shown(flag: str, value: Any) -> str:
    if value is None:
        return f"no {flag}"
    return f"{flag} {','.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"


def _field(*path: str) -> Callable[[Plan], Any]:
    def value(plan: Plan) -> Any:
        found: Any = plan
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    return value


def _backbone(plan: Plan) -> Any:
    backbone = _field("resolved", "backbone")(plan) or {}
    return None if backbone.get("weights") is None else _Named(backbone["weights"], backbone)


class _Named:
    """Something that is known by its digest, and shown by its name."""

    def __init__(self, digest: Any, described: Plan):
        self.digest = digest
        self.name = described.get("name", "another")
        self.rows = described.get("modality")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Named) and self.digest == other.digest

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return f"{self.name}{f' ({self.rows})' if self.rows else ''}"


def _source(plan: Plan) -> Any:
    source = plan.get("source")
    if not source:
        return None
    rows = f"{source['rows']} rows" if "rows" in source else ""
    digest = {key: source.get(key) for key in ("digest", "kind")}
    return _Named(digest, {"name": source.get("name", "of a list"), "modality": rows})


def _objectives(plan: Plan) -> Any:
    objectives = _field("recipe", "objectives")(plan)
    return [objective.get("name", "?") for objective in objectives or ()] or "none" if objectives is not None else None


def _negatives(plan: Plan) -> Any:
    counts = [objective.get("negatives") for objective in _field("recipe", "objectives")(plan) or ()]
    return [count for count in counts if count] or None


def _views(plan: Plan) -> Any:
    """The views of each objective, in words."""
    views = {of.get("name"): of.get("augmentation") for of in _field("recipe", "objectives")(plan) or ()}
    return [
        f"{value['kind']} ({name}; {', '.join(f'{key} {part}' for key, part in value.items() if key != 'kind')})"
        for name, value in views.items()
        if value and len(value) > 1
    ] or None


def _fit(plan: Plan) -> Any:
    fitted = _field("fit", "from")(plan)
    return None if fitted in (None, "this source") else fitted[:8]


_RECIPE = ("seed", "pooling", "targets", "projection", "dim", "layers", "layer_kinds", "dtype", "modality")
_OPTIONS: dict[str, Callable[[Plan], Any]] = {
    "--backbone": _backbone,
    "--objectives": _objectives,
    "--negatives": _negatives,
    "--views": _views,
    **{f"--{name.replace('_', '-')}": _field("recipe", name) for name in _RECIPE},
    "SOURCE": _source,
    "--label-column": _field("source", "columns", "label"),
    "--sample-column": _field("source", "columns", "sample"),
    "--id-column": _field("source", "columns", "id"),
    "--limit": _field("source", "limit"),
    "--sample": _field("source", "sample"),
    "--fit-from": _fit,
    "--store-dtype": _field("store.dtype"),
    "--shard-rows": _field("store.shard_rows"),
}
