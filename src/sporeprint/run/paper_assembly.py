"""A row called "paper" joins the paper's blocks; where a store's blocks were made otherwise, the row says how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sporeprint.evaluate.table import Entry
from sporeprint.features.blocks import family
from sporeprint.objectives import paper
from sporeprint.objectives.view_sets import view_sets
from sporeprint.values import canonical, to_json


def mark_paper(entries: Iterable[Entry], plan: Mapping[str, Any]) -> list[Entry]:
    """The entries, those of the paper's assembly with what is not the paper's in them. plan: of their store."""
    return [replace(entry, note=departure(entry, plan)) if entry.role == "paper" else entry for entry in entries]


def departure(entry: Entry, plan: Mapping[str, Any]) -> str:
    """How the objectives and views behind an entry's gradients differ from the paper's, in words; "" if they do not."""
    theirs = paper(plan["resolved"]["backbone"].get("modality", "image"))
    stored = plan["recipe"].get("objectives")
    if stored is None:  # of a store made by hand
        return ""
    ours = {objective.get("name"): objective for objective in stored}
    present = dict.fromkeys(name.partition("@")[0] for name in entry.blocks if family(name) == "gradients")
    expected = {objective.name: to_json(objective) for objective in theirs}
    missing = [name for name in expected if name not in present]
    more = [name for name in present if name not in expected]
    changed = [
        words for name in expected if name in present for words in _changed(name, ours.get(name, {}), expected[name])
    ]
    views = sum(view_set.views for view_set in view_sets(theirs))
    parts = [f"without {', '.join(missing)}"] if missing else []
    parts += [f"with {', '.join(more)}"] if more else []
    if (missing or more or "" in changed) and entry.passes != views:
        parts.append(f"{entry.passes} pass{'' if entry.passes == 1 else 'es'} instead of {views}")
    elif "" in changed:
        parts.append("other views")
    return ", ".join([*parts, *filter(None, changed)])


def _changed(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The fields in which an objective differs, in words; "" for its views."""
    differing = [key for key in theirs if canonical(ours.get(key)) != canonical(theirs[key])]
    return [
        "" if key == "augmentation" else f"{name}'s {key} {ours.get(key)} instead of {theirs[key]}" for key in differing
    ]
