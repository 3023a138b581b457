"""The plan of a store: what determines its contents, and how it differs from another run's."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sporeprint.errors import DamagedStore, StoreError, StoreMismatch
from sporeprint.store.atomic import TEMPORARY, canonical, seal, sync_folder, unseal, write_file
from sporeprint.store.schema import COUNT, INTEGER, NOTHING, NUMBER, OBJECT, SIZE, TEXT, check_shape, one_of
from sporeprint.store.shards import DTYPES, manifest_path, plan_path

log = logging.getLogger(__name__)

FORMAT = 1
HEADER = {"dtype": one_of(DTYPES), "shard_rows": SIZE, "plan": OBJECT}
_TEXT_OR_NONE = (TEXT, NOTHING)
_BACKBONE = {
    "name": TEXT,
    "class": TEXT,
    "pooling": TEXT,
    "targets": [TEXT],
    "weights": TEXT,
    "modality?": TEXT,
    "max_tokens?": (COUNT, NOTHING),
    "sample_rate_hz?": NUMBER,
    "max_seconds?": NUMBER,
}
EXTRACTED = {  # the plan of a store that `extract` made
    "recipe": {"seed": INTEGER},
    "resolved": {"backbone": _BACKBONE, "dtype": TEXT, "device": TEXT},
    "source": {
        "kind": TEXT,
        "name?": TEXT,
        "digest": TEXT,
        "columns": {...: _TEXT_OR_NONE},
        "limit": (SIZE, NOTHING),
        "ignored_files?": COUNT,
        "modality?": TEXT,
        "sample?": SIZE,
        "sample_seed?": INTEGER,
    },
    "fit": {"from": TEXT},
}
FITTED = "fungi.json"  # the state that tells such a store
LOCK = ".lock"
# A plan holds these for people only: the weights say which backbone it is, the rows' digest which data.
NOT_COMPARED = ("resolved.backbone.name", "resolved.backbone.class", "source.ignored_files")


def make_header(plan: Mapping[str, Any], dtype: str, shard_rows: int) -> dict[str, Any]:
    """The contents of plan.json: the caller's plan as JSON reads it back, and the layout."""
    return {"format": FORMAT, "dtype": dtype, "shard_rows": shard_rows, "plan": json.loads(canonical(dict(plan)))}


def check_plan(folder: Path, header: dict[str, Any], locked: bool) -> dict[str, Any] | None:
    """This gives the header in `folder`, if its plan is the given one; None for a folder to begin in. Touches nothing.

    A folder to begin in is new, or holds another plan and no shard. locked: no other run can be at work on its first.
    Raises StoreMismatch with every difference, DamagedStore, StoreError for a folder that holds something else.
    """
    path = plan_path(folder)
    if not path.exists() and (manifest_path(folder).exists() or any((folder / "shards").glob("[0-9]*.json"))):
        read_plan(folder)  # says that it is gone
    if not path.exists():
        refuse_no_store(folder)
        return None
    stored = read_plan(folder)
    differing = differences(_flat(stored), _flat(header))
    if differing and locked and not has_rows(folder):
        return None
    if differing:
        raise StoreMismatch(
            f"'{folder}' was made by another run:\n  "
            + "\n  ".join(differing)
            + "\nGive another folder, or the options that made it.",
            plans=(_flat(stored), _flat(header)),
        )
    return stored


def refuse_no_store(folder: Path) -> None:
    """Raises StoreError for what is neither a store, begun or not, nor an empty folder, nor absent."""
    begun = plan_path(folder).exists() or manifest_path(folder).exists()
    if begun or any((folder / "shards").glob("[0-9]*.json")):
        return
    if os.path.lexists(folder) and not folder.is_dir():
        raise StoreError(f"'{folder}' is a file; a store is a folder: give another name")
    known = {LOCK, plan_path(folder).name + TEMPORARY}
    others = sorted(set(os.listdir(folder)) - known) if folder.exists() else []
    if others:
        raise StoreError(f"'{folder}' is not empty and not a store (it holds {others[0]!r}); give a new folder")


def has_rows(folder: Path) -> bool:
    """This says whether anything of a shard or a manifest is there, damaged or not."""
    shards = folder / "shards"
    return manifest_path(folder).exists() or any(path.suffix != TEMPORARY for path in shards.glob("[0-9]*"))


def begin(folder: Path, header: dict[str, Any]) -> None:
    """Write plan.json. The states of another plan are removed before: at no moment do they lie next to this plan."""
    if plan_path(folder).exists():
        states = sorted((folder / "state").glob("*"), key=lambda path: path.suffix != ".record")
        for path in states:
            path.unlink()
        if states:
            sync_folder(folder / "state")
        log.info("'%s' was begun by another run, which stored no row; this one takes its place", folder)
    write_file(plan_path(folder), seal("plan", header))


def read_plan(folder: Path) -> dict[str, Any]:
    """Read the header in plan.json. Raises DamagedStore, StoreMismatch for another version's format."""
    path = plan_path(folder)
    try:
        header = unseal("plan", path)
    except DamagedStore:
        damage = "is not what was written" if path.exists() else "is missing"
        raise DamagedStore(
            f"'{path}' {damage}, so nothing says what this store holds; move '{folder}' away and run the command that "
            "made it again"
        ) from None
    check_format(path, header)
    check_shape(path, header, HEADER)
    return header


def check_format(path: Path, header: dict[str, Any]) -> None:
    """Raises StoreMismatch where another version wrote `path`, in another format."""
    if header.get("format") != FORMAT:
        raise StoreMismatch(
            f"'{path}' is written in format {header.get('format')}; this version reads {FORMAT}: use the other version"
        )


def differences(stored: Any, given: Any, names: tuple[str, str] = ("store", "this run"), at: str = "") -> list[str]:
    """List the key paths at which two JSON values differ, with both values; those of `NOT_COMPARED` are left out.

    names: what the first and the second value are called.
    """
    if at in NOT_COMPARED:
        return []
    if isinstance(stored, dict) and isinstance(given, dict):
        keys = sorted({*stored, *given})
        return [
            line
            for key in keys
            for line in differences(stored.get(key, ...), given.get(key, ...), names, f"{at}.{key}" if at else key)
        ]
    if isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        pairs = enumerate(zip(stored, given, strict=True))
        return [line for number, pair in pairs for line in differences(*pair, names, f"{at}[{number}]")]
    if stored is not ... and given is not ... and canonical(stored) == canonical(given):
        return []
    seen = _short(stored), _short(given)
    if seen[0] == seen[1]:  # they differ beyond what is shown
        seen = _kinds(stored), _kinds(given)
    return [f"{at}: {names[0]} has {seen[0]}, {names[1]} has {seen[1]}"]


def _short(value: Any) -> str:
    text = "nothing" if value is ... else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _kinds(value: Any) -> str:
    """A list of objects by their kinds, as objectives are; another value in full."""
    if isinstance(value, list) and all(isinstance(part, dict) and "kind" in part for part in value):
        return ", ".join(str(part["kind"]) for part in value) or "none"
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    return {"store.dtype": header["dtype"], "store.shard_rows": header["shard_rows"], **header["plan"]}
