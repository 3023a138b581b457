"""Features and labels as every evaluation takes them: checked once, with the same errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.columns import as_list
from sporeprint.errors import SampleError
from sporeprint.search.best_rows import slices
from sporeprint.values import is_number

# For scikit-learn's `validate_data`: whether numbers are finite is checked by `features_of`, which counts rows.
CHECKS: dict[str, Any] = {"dtype": (np.float64, np.float32), "ensure_all_finite": False}
_NUMBERS = 2**22  # of rows at a time
_CLASSES = 20  # different numbers that may be those of classes, at most


@contextmanager
def as_sample_errors() -> Iterator[None]:
    """A context in which the ValueErrors of scikit-learn are SampleErrors of one line."""
    try:
        yield
    except SampleError:
        raise
    except ValueError as error:
        raise SampleError(" ".join(str(error).split())) from error


def features_of(rows: ArrayLike, which: str) -> NDArray[np.float32]:
    """The rows [N, D] as they are, not copied: at least one of each, numbers, all finite; checked part by part.

    Raises SampleError.
    """
    array = np.asarray(rows.detach().cpu() if hasattr(rows, "detach") else rows)
    if array.ndim != 2 or not array.size:
        raise SampleError(f"{which} features have shape {array.shape}; expected [rows, width], at least 1 of each")
    if array.dtype.kind not in "fiub":
        raise SampleError(f"{which} features are of type {array.dtype}; expected numbers")
    width = array.shape[1]
    if bad := sum(int((~np.isfinite(array[part]).all(axis=1)).sum()) for part in slices(len(array), _NUMBERS, width)):
        raise SampleError(f"{bad} of {len(array)} {which} rows are NaN or infinite (unreadable samples?); drop them")
    return array


def label_array(labels: Any) -> NDArray[Any]:
    """Labels of any library as an array; None for a missing one. [N, 1] is one label a row, [N]. Raises SampleError."""
    if type(labels) is np.ndarray and labels.dtype.kind in "biufUS" and labels.shape[1:] != (1,):
        return labels
    if isinstance(labels, (list, tuple)) and labels and all(isinstance(label, Number) for label in labels):
        return np.asarray(labels)
    values = as_list(labels, "labels")
    if all(isinstance(value, str) for value in values) or all(isinstance(value, Number) for value in values):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # lists of one length would become a second axis
        array[row] = value
    return array


def as_given(labels: Any) -> Any:
    """A list as an array that keeps the kind of each label, where NumPy turns 1 into "1"; anything else as it is."""
    return label_array(labels) if isinstance(labels, (list, tuple)) and len(labels) else labels


def labels_of(labels: ArrayLike, rows: int, which: str) -> NDArray[Any]:
    """One label a row, all texts or all numbers: [rows]. Raises SampleError."""
    array = label_array(labels)
    if array.shape != (rows,):
        raise SampleError(f"{which} labels have shape {array.shape} for {rows} rows; expected one label a row")
    if array.dtype.kind == "S" or (array.dtype.kind == "O" and any(isinstance(label, bytes) for label in array)):
        raise SampleError(f"{which} labels are bytes; expected texts or numbers: label.decode() makes a text of one")
    if array.dtype.kind == "f" and (missing := int(np.isnan(array).sum())):
        raise SampleError(f"{missing} of {rows} {which} labels are NaN (missing); drop those rows")
    if array.dtype.kind != "O":
        return array
    if missing := sum(label is None for label in array):
        raise SampleError(f"{missing} of {rows} {which} labels are missing; drop those rows")
    if len({isinstance(label, str) for label in array}) > 1 or any(
        isinstance(label, (list, tuple, np.ndarray)) for label in array
    ):
        raise SampleError(f"{which} labels are of different kinds, or lists; expected one string or number a row")
    return np.asarray(array.tolist())


def number_of(label: Any) -> float | None:
    """A label as a finite number, also where it is a text; None for anything else, booleans among it."""
    if isinstance(label, str) and "_" not in label:  # which Python takes between digits
        with suppress(ValueError):
            label = float(label)
    return float(label) if is_number(label) else None


def numbers_of(labels: Iterable[Any]) -> NDArray[np.float64] | None:
    """Labels [N] as numbers, also where they are texts, as a CSV has them; None where one of them is no number."""
    values = []
    for label in labels:
        if (value := number_of(label)) is None:
            return None
        values.append(value)
    return np.array(values)


def are_few(numbers: NDArray[np.float64]) -> bool:
    """Whether numbers [N] repeat as those of classes do: at most 20 different ones, each twice on average."""
    different = len(np.unique(numbers))
    return different <= _CLASSES and 2 * different <= len(numbers)


def broken_numbers(labels: ArrayLike) -> tuple[float, int, int] | None:
    """Of labels that are numbers, not all whole: one that is not, how many differ, how many rows there are."""
    array = np.asarray(labels)
    if array.dtype.kind in "iub" or (numbers := numbers_of(array.tolist())) is None:
        return None
    broken = numbers[numbers != np.round(numbers)]
    return (float(broken[0]), len(set(array.tolist())), len(array)) if len(broken) else None  # 250.1 is not 250.10


def amounts_hint(labels: ArrayLike) -> str:
    """What to do about labels that are amounts: broken numbers that hardly repeat; "" of classes."""
    if (found := broken_numbers(labels)) is None or 2 * found[1] <= found[2]:
        return ""
    such, different, rows = found
    return (
        f"these labels are numbers such as {such:g} ({different} different ones in {rows} rows), not classes; "
        "`sporeprint regress` predicts numbers. If they are classes, put a letter before each"
    )


def check_classes(labels: NDArray[Any]) -> None:
    """Raises SampleError where labels [N] are amounts, not classes, or not finite; texts are classes."""
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise SampleError("Input y contains NaN or infinity; expected a class a row")
    if not are_strings(labels) and (hint := amounts_hint(labels)):
        raise SampleError(f"Unknown label type: {hint}")  # the words that scikit-learn's check_estimator expects


def check_directions(rows: NDArray[Any], which: str) -> None:
    """Raises SampleError where rows [N, D] are all 0, which have no direction for a cosine."""
    if zero := int((~rows.any(axis=1)).sum()):
        raise SampleError(f"{zero} of {len(rows)} {which} rows are all 0, which have no cosine; drop them")


def are_strings(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind in "US"


def check_same_width(train: NDArray[Any], test: NDArray[Any]) -> None:
    """Raises SampleError where [N, D] and [M, D] differ in D."""
    if train.shape[1] != test.shape[1]:
        raise SampleError(f"train features are {train.shape[1]} wide, test features {test.shape[1]}; expected the same")


def check_same_kind(labels: NDArray[Any], test_labels: NDArray[Any]) -> None:
    """Raises SampleError where one side's labels are texts and the other's numbers, which never match."""
    if are_strings(labels) != are_strings(test_labels):
        raise SampleError(
            f"train labels are {'strings' if are_strings(labels) else 'numbers'}, test labels are not; "
            "expected the same names in both"
        )
