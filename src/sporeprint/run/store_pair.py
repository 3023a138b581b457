"""One store with its labels, or two that go together: to fit on, and to ask about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.data.look_alikes import strangers_note
from sporeprint.errors import RecipeError, StoreError
from sporeprint.features.blocks import FAMILIES, Blocks, family
from sporeprint.predictors.checks import amounts_hint, are_few, broken_numbers, number_of, numbers_of
from sporeprint.run.plan_differences import open_alike
from sporeprint.run.row_groups import GROUP_FLAG, group_notes, read_groups
from sporeprint.run.store_source import Rows, labels_of
from sporeprint.store.reader import Store

_FEW_ROWS = 20  # so few may well be one of each class
ONE_CLASS = "one class only: nothing to tell apart"
SAME = "both stores are the same one: every row is its own nearest, and the figures say nothing"
KINDS = {str: "texts", bool: "booleans", int: "integers", float: "numbers"}


def open_pair(train_path: Path, test_path: Path) -> tuple[Store, Store]:
    """Two stores whose rows can be compared. Raises StoreError where they were made or fitted otherwise."""
    train, test = open_alike(train_path, test_path)
    if not _same_fit(train, test):
        raise StoreError(
            f"{test_path} was not fitted with {train_path}'s heads and negatives, so its gradients are not comparable. "
            f"Make it with: sporeprint extract ... --fit-from {train_path}"
        )
    return train, test


@dataclass(frozen=True)
class Single:
    """The rows of one store that have a label: [N].

    headline: what they are, in a line. notes: what a reader must know about them. groups: of the rows [N], texts, None
    for a row without one; None where no column of them was named.
    """

    store: Store
    blocks: Blocks
    labels: np.ndarray
    ids: list[str]
    headline: str
    notes: tuple[str, ...]
    groups: np.ndarray | None = field(default=None, kw_only=True)

    @property
    def note(self) -> str:
        return "; ".join((self.headline, *self.notes))


@dataclass(frozen=True)
class Pair(Single):
    """Rows to fit on [N] and rows to ask about [M], of stores that go together: their blocks and labels.

    Only rows that have a label. several: a label is a list of them.
    """

    test_blocks: Blocks
    test_labels: np.ndarray
    test_ids: list[str]
    several: bool
    test_groups: np.ndarray | None = None


Reads = Callable[[Store], Sequence[str]]


def read_store(
    rows: Rows,
    reads: Reads,
    label_column: str | None,
    who: str,
    flag: str = "--source",
    samples: bool = False,
    group_column: str | None = None,
) -> Single:
    """A store's blocks and labels, one label a row. who: the command, which needs one. Others: as of `read_pair`."""
    check_sources((rows,), label_column, (flag,), samples, group_column)
    store = Store.open(rows.store)
    blocks, labels, has = labelled(store, rows, reads(store), label_column)
    labels = one_label(labels, rows.store, who)
    check_amounts(labels, rows.store)
    classes = len(set(labels.tolist()))
    headline = f"{store.plan['resolved']['backbone']['name']}, {count(len(labels), 'row')}, {count(classes, 'class')}"
    headline += "" if label_column is None else f" of {label_column!r}"
    notes = [*_caveats(store.plan["resolved"]["backbone"]), *([ONE_CLASS] if classes == 1 else [])]
    notes += ["every row a class of its own: nothing to group"] if 1 < classes == len(labels) else []
    notes += [] if has.all() else [f"left out, having no label: {count(int((~has).sum()), 'row')}"]
    groups = None
    if group_column is not None:
        groups = read_groups(store, rows, group_column, has)
        notes += group_notes(group_column, groups, labels)
    ids = np.array(store.ids)[has].tolist()
    return Single(store, blocks, labels, ids, headline, tuple(notes), groups=groups)


def read_pair(
    train_rows: Rows,
    test_rows: Rows,
    reads: Reads,
    label_column: str | None = None,
    *,
    targets: bool = False,
    who: str | None = None,
    flags: tuple[str, str] = ("--train", "--test"),
    roles: tuple[str, str] = ("training row", "test row"),
    unknown: str = "counted as wrong",
    samples: bool = False,
    group_column: str | None = None,
) -> Pair:
    """Both stores' blocks and labels.

    reads: the blocks to read, of the first store. label_column: of the stores' sources, instead of the labels that
    the stores hold. targets: labels are numbers to predict, [rows] or [rows, targets], as float64. who: the command
    that needs one label a row, None where lists of labels will do. flags: of the sources. roles: what a row is, in
    each store. unknown: what becomes of test rows whose label no training row has. samples: the sources may be given
    for their samples too, without a label column.
    Raises StoreError, RecipeError, and SourceError where a source is not the one that its store was made of.
    """
    check_sources((train_rows, test_rows), label_column, flags, samples, group_column)
    train, test = open_pair(train_rows.store, test_rows.store)
    names = reads(train)
    blocks, labels, has = labelled(train, train_rows, names, label_column)
    test_blocks, test_labels, test_has = labelled(test, test_rows, names, label_column)
    if who is not None:
        labels, test_labels = (
            one_label(array, rows.store, who) for array, rows in ((labels, train_rows), (test_labels, test_rows))
        )
    counts = f"{count(len(labels), roles[0])}, {count(len(test_labels), roles[1])}"
    notes, several, strange = _caveats(train.plan["resolved"]["backbone"]), False, 0
    if targets:
        texts = any(isinstance(label, str) for label in (*labels, *test_labels))
        labels, test_labels = targets_of(labels, train_rows.store), targets_of(test_labels, test_rows.store)
        kinds = count(1 if labels.ndim == 1 else labels.shape[1], "target")
        kinds += ", its texts read as numbers" if texts else ""
        notes += [hint] if (hint := classes_hint(labels)) else []
    else:
        several = are_lists(labels)
        if several != are_lists(test_labels):
            other, lists = (test_rows, train_rows) if several else (train_rows, test_rows)
            raise StoreError(f"the labels of {lists.store} are lists, those of {other.store} are not")
        check_amounts(labels, train_rows.store)
        strange = 0 if several else strangers(labels, test_labels, (train_rows.store, test_rows.store))
        classes = len({label for row in labels for label in row} if several else set(labels.tolist()))
        kinds = f"{count(classes, 'label')}, several a row" if several else count(classes, "class")
        notes += [ONE_CLASS] if classes == 1 and not several else []
    if label_column is not None:
        kinds += f" of {label_column!r}"
    left_out, test_left_out = int((~has).sum()), int((~test_has).sum())
    if left_out or test_left_out:
        notes.append(f"left out, having no label: {count(left_out, roles[0])}, {count(test_left_out, roles[1])}")
    notes += [] if targets else own_classes_note(labels)
    if strange:
        notes.append(f"{unknown}, since no {roles[0]} has their label: {count(strange, roles[1])}")
    if not targets and (alike := strangers_note(test_labels.tolist(), labels.tolist())):
        notes.append(f"labels of {plural(roles[1])} and {plural(roles[0])} are {alike}")
    if train.folder.resolve() == test.folder.resolve():
        notes.append(SAME)
    elif shared := shared_rows(train, test, has, test_has):
        also = f"is also a {roles[0]}" if shared == 1 else f"are also {plural(roles[0])}"
        notes.append(f"{count(shared, roles[1])} {also}")
    groups = test_groups = None
    if group_column is not None:
        groups = read_groups(train, train_rows, group_column, has)
        test_groups = read_groups(test, test_rows, group_column, test_has, several=False)
        notes += group_notes(group_column, groups, None if targets or several else labels, test_groups, roles)
    return Pair(
        store=train,
        blocks=blocks,
        labels=labels,
        ids=np.array(train.ids)[has].tolist(),
        headline=f"{train.plan['resolved']['backbone']['name']}, {counts}, {kinds}",
        notes=tuple(notes),
        test_blocks=test_blocks,
        test_labels=test_labels,
        test_ids=np.array(test.ids)[test_has].tolist(),
        several=several,
        groups=groups,
        test_groups=test_groups,
    )


def fewer_than_shots(labels: np.ndarray, shots: int | None) -> list[str]:
    """What must be said where classes have fewer rows than are drawn of each."""
    sizes = np.unique(labels, return_counts=True)[1]
    if shots is not None and (sizes <= shots).all():
        return ["every draw has all labelled rows: leave out --shots, or take fewer"]
    fewer = 0 if shots is None else int((sizes < shots).sum())
    if not fewer:
        return []
    return [f"{count(fewer, 'class')} of {len(sizes)} with fewer than {shots} rows, of which all are drawn"]


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 row, 2 rows."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """More than one of these."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def check_sources(
    rows: Sequence[Rows],
    label_column: str | None,
    flags: Sequence[str],
    samples: bool = False,
    group_column: str | None = None,
) -> None:
    """Raises RecipeError where a column comes without the sources that have it, or they without it.

    samples: the sources may be given without a column, for their samples.
    """
    sources, names = [store.source for store in rows], " and ".join(flags)
    if any(store.split is not None and store.source is None for store in rows):
        raise RecipeError(f"a split goes with the source that it is of; give {names} too, or leave it out")
    for flag, column in (("--label-column", label_column), (GROUP_FLAG, group_column)):
        if column is not None and None in sources:
            raise RecipeError(f"{flag} needs {names}: the source that each store was made of")
    if not samples and label_column is None and group_column is None and any(source is not None for source in sources):
        verb = "are" if len(flags) > 1 else "is"
        raise RecipeError(f"{names} {verb} for --label-column, other labels than the stores'")


def are_lists(labels: np.ndarray) -> bool:
    """Whether a row has a list of labels."""
    return any(isinstance(label, list) for label in labels)


def one_label(labels: np.ndarray, store: Path, what: str) -> np.ndarray:
    """labels, where none is a list. Raises StoreError."""
    if are_lists(labels):
        raise StoreError(f"{store} has lists of labels; {what} needs one a row: give another --label-column")
    return labels


def targets_of(labels: np.ndarray, store: Path) -> np.ndarray:
    """The labels as numbers, float64: [N] or, of lists of numbers, [N, T].

    Texts, as a CSV has them, are read where all are finite numbers.
    Raises StoreError for other texts and for lists of several lengths.
    """
    values = labels.tolist()
    if all(isinstance(value, str) for value in values):
        values = [text if (value := number_of(text)) is None else value for text in values]
    flat = values
    if are_lists(labels):
        if len({len(row) if isinstance(row, list) else 0 for row in values}) > 1 or not values[0]:
            raise StoreError(
                f"{store} has lists of different lengths as labels; regress needs a number for every target"
            )
        flat = [value for row in values for value in row]
    if wrong := [value for value in flat if isinstance(value, bool) or not isinstance(value, (int, float))]:
        seen = KINDS.get(type(wrong[0]), "not all numbers")
        raise StoreError(
            f"the labels of {store} are {seen}, such as {wrong[0]!r}; regress needs "
            "numbers: name a column of numbers with --label-column, or store the labels as numbers in the source"
        )
    return np.asarray(values, dtype=np.float64)


def check_amounts(labels: np.ndarray, store: Path) -> None:
    """Raises StoreError where labels are amounts, which no command that knows classes can use."""
    if hint := amounts_hint(labels):
        raise StoreError(f"{store}: {hint}")


def own_classes_note(labels: np.ndarray) -> list[str]:
    """What must be said where numbers may be amounts: most rows have their own, or they are many and not whole."""
    numbers = numbers_of(labels.tolist())
    if numbers is None or are_few(numbers) or len(numbers) <= _FEW_ROWS:
        return []
    if 2 * len(np.unique(numbers)) > len(numbers):
        seen = f"most rows have a number of their own as label, such as {numbers[0]:g}"
    elif found := broken_numbers(labels):
        seen = f"the labels are {found[1]} different numbers, such as {found[0]:g}"
    else:
        return []
    return [f"{seen}: if these are amounts and not classes, `sporeprint regress` predicts them"]


def classes_hint(targets: np.ndarray) -> str:
    """What to do about targets that may be numbers of classes: a few whole ones, or one; "" of any others."""
    values = np.unique(targets)
    if targets.ndim == 1 and len(values) == 1 < len(targets):
        return f"all targets are {values[0]:g}, so there is nothing to predict"
    if targets.ndim != 1 or not are_few(targets) or not (values == np.round(values)).all():
        return ""
    seen = ", ".join(f"{value:g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")
    numbers = count(len(values), "whole number")
    return f"the targets are {numbers} only, {seen}: if they are classes, use classify, knn or probe"


def strangers(labels: np.ndarray, test_labels: np.ndarray, stores: tuple[Path, Path]) -> int:
    """The number of test rows whose label no training row has. Raises StoreError where that is all of them."""
    known = set(labels.tolist())
    strange = sum(label not in known for label in test_labels.tolist())
    if strange == len(test_labels):
        hint = strangers_note(test_labels.tolist(), labels.tolist())
        there, here = examples_of(test_labels), examples_of(labels)
        raise StoreError(
            f"no label of {stores[1]} is a label of {stores[0]}: {there} there, {here} here; "
            + (hint or "were both made with the same --label-column?")
        )
    return strange


def examples_of(labels: np.ndarray) -> str:
    """The labels' kind and the first three: 1 and "1" are not the same label."""
    names = sorted(set(labels.tolist()))
    return f"{KINDS[type(names[0])]} {', '.join(map(repr, names[:3]))}{', ...' if len(names) > 3 else ''}"


def shared_rows(train: Store, test: Store, has: np.ndarray, test_has: np.ndarray) -> int:
    """The number of test rows that are also training rows: of one source, under one id."""
    ours, theirs = (store.plan.get("source", {}).get("digest") for store in (train, test))
    if ours is None or ours != theirs:
        return 0
    known = set(np.array(train.ids)[has].tolist())
    return sum(row_id in known for row_id in np.array(test.ids)[test_has].tolist())


def _same_fit(train: Store, test: Store) -> bool:
    """Whether two stores have the same heads, negatives and projections; a fitted combination does not count."""
    if train.manifest["states"] == test.manifest["states"]:
        return True
    from sporeprint.features import saved  # torch takes seconds to import

    def fitted(store: Store) -> dict[str, Any]:
        tensors = saved.unpack_parts(store.read_state, str(store.folder))[1]
        return {name: value for name, value in tensors.items() if not name.startswith("combiner/")}

    ours, theirs = fitted(train), fitted(test)
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def labelled(
    store: Store, rows: Rows, names: Sequence[str], column: str | None = None
) -> tuple[Blocks, np.ndarray, np.ndarray]:
    """Blocks and labels of the rows that have a label, and which have one: [rows], booleans.

    column: of the store's source; without it, the labels that the store holds.
    """
    blocks = store.blocks(names)  # before the labels, which it reads along
    labels = store.labels if column is None else labels_of(store, rows, column)
    if labels is None and column is not None:
        raise StoreError(f"column {column!r} of '{rows.source}' has no label for any row of {rows.store}")
    if labels is None:
        raise StoreError(f"{rows.store} has no labels; extract it from a labelled source (--label-column NAME)")
    if labels.dtype != object:
        return blocks, labels, np.ones(len(labels), dtype=bool)
    has = np.array([label is not None for label in labels])
    return {name: block[has] for name, block in blocks.items()}, labels[has], has


def _caveats(backbone: dict[str, Any]) -> list[str]:
    from sporeprint.backbones.description import caveats_text  # torch takes seconds to import

    return caveats_text(backbone)


def block_list(words: str) -> tuple[str, ...]:
    """Comma-separated names, each once. Raises RecipeError for an empty one."""
    names = tuple(dict.fromkeys(name.strip() for name in words.split(",")))
    if not all(names):
        raise RecipeError(f"--features {words!r} has an empty name; give names of blocks or families, comma-separated")
    return names


def check_block_names(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    """Raises RecipeError for a block, or a family, that is not there."""
    for name in wanted:
        if name in FAMILIES and not any(family(block) == name for block in there):
            raise RecipeError(f"'{where}' has no block of the family {name!r}; there are: {', '.join(there)}")
        if name not in FAMILIES and name not in there:
            raise RecipeError(
                f"'{where}' has no block {name!r}; there are: {', '.join(there)}; and families: {', '.join(FAMILIES)}"
            )
