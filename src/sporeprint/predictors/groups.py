"""Groups of rows that are left out together: clips of one source, frames of one video, tiles of one slide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.predictors.checks import label_array
from sporeprint.search.best_rows import slices

_NUMBERS = 2**22  # of rows that are taken together

Groups = list[NDArray[np.intp]]  # the rows of each


def groups_of(groups: ArrayLike | None, rows: int) -> Groups:
    """Return the rows of each group; every row is one where groups is None. Raises SampleError."""
    if groups is None:
        return np.split(np.arange(rows), rows)
    codes = group_codes(groups, rows)
    if not codes.any():
        raise SampleError(f"all {rows} rows are of one group, '{label_array(groups)[0]}'; expected at least two groups")
    parts: Groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    return parts


def group_codes(groups: ArrayLike, rows: int) -> NDArray[np.intp]:
    """Number the groups [rows], texts or numbers, from 0; None and NaN are a group of their own. Raises SampleError."""
    names = label_array(groups)
    if names.shape != (rows,):
        raise SampleError(f"groups have shape {names.shape} for {rows} rows; expected one group a row")
    if any(isinstance(name, (list, tuple, np.ndarray)) for name in names):
        raise SampleError("groups hold lists; expected one text or number a row")
    missing = np.array([name is None or name != name for name in names], bool)
    known = names[~missing]
    codes = np.empty(rows, np.intp)
    if known.dtype == object:
        known = np.array([f"{isinstance(name, str)} {name}" for name in known])  # 1 is not "1"
    first, codes[~missing] = np.unique(known, return_inverse=True)
    codes[missing] = len(first) + np.arange(missing.sum())
    return codes


def check_two_groups(groups: Groups) -> None:
    """Raise SampleError for one row, without which nothing is left."""
    if len(groups) < 2:
        raise SampleError("1 row; leaving one out takes at least 2")


def parts_of(groups: Groups, width: int) -> Iterator[tuple[NDArray[np.intp], bool]]:
    """Yield rows to leave out and whether together: groups of one row, many at a time, then each other group."""
    singles, greater = by_size(groups)
    for part in slices(len(singles), _NUMBERS, width):
        yield singles[part], False
    for group in greater:
        yield group, True


def by_size(groups: Groups) -> tuple[NDArray[np.intp], Groups]:
    """Return the rows that are groups of their own, and the other groups."""
    singles = np.array([group[0] for group in groups if len(group) == 1], np.intp)
    return singles, [group for group in groups if len(group) > 1]


def rows_in(groups: Groups) -> NDArray[np.intp]:
    """Return the numbers of all rows of the groups, rising."""
    return np.sort(np.concatenate(groups))


def absent_classes(
    codes: NDArray[np.intp], groups: Groups, classes: int, asked: NDArray[np.intp] | None = None
) -> NDArray[np.bool_]:
    """Return the classes [M, C] that no row outside a row's group has. asked: row numbers [M], rising; None: all."""
    asked = np.arange(len(codes)) if asked is None else asked
    counts = np.bincount(codes, minlength=classes)
    absent = np.zeros((len(asked), classes), bool)
    rare = np.flatnonzero(counts <= max(map(len, groups)))
    if not len(rare):
        return absent
    group_of_row, place = np.full(len(codes), -1), np.full(len(codes), -1)
    place[asked] = np.arange(len(asked))
    for number, group in enumerate(groups):
        group_of_row[group] = number
    for code in rare:
        owners = np.unique(group_of_row[codes == code])
        if len(owners) == 1 and owners[0] >= 0:
            owned = place[groups[owners[0]]]
            absent[owned[owned >= 0], code] = True
    return absent
