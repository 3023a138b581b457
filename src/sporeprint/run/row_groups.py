"""Groups of a store's rows, from a column of its source: frames of one video, clips of one speaker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sporeprint.errors import StoreError
from sporeprint.run.store_source import Rows, labels_of
from sporeprint.store.reader import Store

GROUP_FLAG = "--group-column"


def read_groups(store: Store, rows: Rows, column: str, has: np.ndarray, several: bool = True) -> np.ndarray:
    """Read the groups of a store's rows, those of `has` [rows], in its order, as texts; None for a row without one.

    Raises StoreError for a column that names no group and, where there have to be several, only one; SourceError as
    `labels_of`.
    """
    values = labels_of(store, rows, column, GROUP_FLAG)
    if values is None:
        raise StoreError(f"column {column!r} of '{rows.source}' has no group for any row of {rows.store}")
    groups = np.empty(len(values), object)
    for at, value in enumerate(values.tolist()):
        if isinstance(value, (list, bool)) or (isinstance(value, float) and not value.is_integer()):
            raise StoreError(
                f"column {column!r} of '{rows.source}' has a value {value!r}; a group is a text or an integer: give "
                f"another {GROUP_FLAG}"
            )
        groups[at] = None if value in (None, "") else f"{value:.0f}" if isinstance(value, float) else str(value)
    groups = groups[has]
    if several and len(groups) > 1 and groups[0] is not None and len(set(groups.tolist())) == 1:
        raise StoreError(
            f"all {len(groups)} rows of {rows.store} are of one group of {column!r}, {groups[0]!r}; whole groups are "
            f"left out, so at least two are needed: give another {GROUP_FLAG}"
        )
    return groups


def group_notes(
    column: str,
    groups: np.ndarray,
    labels: np.ndarray | None = None,
    test_groups: np.ndarray | None = None,
    roles: Sequence[str] = ("training row", "test row"),
) -> list[str]:
    """What must be said of the groups of rows [N] and of test rows [M], a sentence each. labels: [N], of classes."""
    both = [(f"{role}s", part) for role, part in zip(roles, (groups, test_groups), strict=True) if part is not None]
    numbers = [(rows, len(set(part.tolist()) - {None})) for rows, part in both]
    sizes = ", ".join(f"{number} group{'' if number == 1 else 's'} of {rows}" for rows, number in numbers)
    notes = [f"rows of one {column!r} stay together where rows are left out, split or drawn: {sizes}"]
    for rows, part in both:
        if missing := sum(group is None for group in part):
            notes.append(f"without a group, each a group of its own: {missing} of {len(part)} {rows}")
    if labels is not None and (alone := _of_one_group(groups, labels)):
        notes.append(
            f"classes that one group holds alone: {alone}; with it left out no row has their label, so its rows count "
            "as wrong"
        )
    known = set(groups.tolist()) - {None}
    if test_groups is not None and (shared := sum(group in known for group in test_groups)):
        notes.append(
            f"{shared} of {len(test_groups)} {roles[1]}s {'is' if shared == 1 else 'are'} of a group that {roles[0]}s "
            "are of too: the figures are higher than on new groups; keep each group in one store"
        )
    return notes


def _of_one_group(groups: np.ndarray, labels: np.ndarray) -> int:
    seen: dict[Any, set[Any]] = {}
    for at, (label, group) in enumerate(zip(labels.tolist(), groups.tolist(), strict=True)):
        seen.setdefault(label, set()).add(at if group is None else group)
    rows = {label: int((labels == label).sum()) for label in seen}
    return sum(len(of) == 1 and rows[label] > 1 for label, of in seen.items())
