"""A column of samples, labels or ids becomes a list, whichever library holds it: none of them is imported for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Number
from typing import Any

import numpy as np

from sporeprint.errors import SampleError, first_line, is_out_of_memory

_LEAST_RATE_HZ = 1_000  # a dataset's (waveform, 16000) has a rate, (waveform, 7) a label
_MOST_NAMED = 6  # columns in a message
_NO_VALUE = {"pandas.NAType", "pandas.NaTType", "numpy.MaskedConstant"}


@dataclass(frozen=True)
class Item:
    """A sample that a dataset gives when it is asked for it, so that a dataset may be larger than memory."""

    dataset: Any
    number: int

    def read(self, modality: str = "") -> object:
        """Return the sample, without the label that a dataset may give with it. Raises SampleError."""
        try:
            item = self.dataset[self.number]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise SampleError(f"the dataset cannot give item {self.number}: {first_line(error)}") from error
        return _without_label(item, modality)


def given(sample: object, modality: str = "") -> object:
    """Return a sample as it was given; one that a dataset holds is asked for. Raises a SampleError that is in place."""
    if isinstance(sample, SampleError):
        raise sample
    return sample.read(modality) if isinstance(sample, Item) else sample


def as_list(values: Any, what: str = "samples", modality: str | None = None) -> list[Any]:
    """Return one value a row, in order; None for what pandas, NumPy or Arrow call missing.

    values: a list, an iterator; a column of pandas, polars, Arrow or Hugging Face `datasets`; a table or dataset with
    one column that can be meant; an array [N, ...], where texts and labels may be [N, 1]; for samples also a torch
    `Dataset` of samples or (sample, label) pairs. what: "samples", "labels" or "ids", for messages.
    modality: of the samples, where it is known. Raises SampleError for anything else, which says what to give.
    """
    kinds = _kinds(values)
    if refusal := _refusal(values, kinds, what):
        raise SampleError(f"{what} is {_a(values)}{refusal}")
    if any(kind in kinds for kind in ("datasets.Dataset", "datasets.IterableDataset")):
        return _dataset_column(values, what, modality)
    if "datasets.Column" in kinds and what == "samples":
        return _column_items(values)
    if "torch.IterableDataset" in kinds and what == "samples":
        return [_without_label(item, modality or "") for item in values]
    if "torch.Dataset" not in kinds and (names := _column_names(values)) is not None:
        return as_list(values[_only_name(values, names, what)], what, modality)
    if what == "samples" and _is_map_style(values, kinds):
        return [Item(values, number) for number in range(len(values))]
    if not hasattr(values, "__iter__"):
        raise SampleError(f"{what} is {_a(values)}; expected a list of {what}{_for_one(what)}")
    if hasattr(values, "__array__") and hasattr(values, "shape") and not kinds & {"pandas.Series", "polars.Series"}:
        values = _array_rows(values, kinds, what, modality)
    for method in ("to_pylist", "to_list"):  # of Arrow; of pandas and polars
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    return [None if _is_missing(value) else value for value in values]


def _kinds(value: Any) -> set[str]:
    """Return the classes of a value as "package.Class"."""
    return {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(value).__mro__}


def _refusal(values: Any, kinds: set[str], what: str) -> str:
    """Return what to give instead of a value that is no column, or "" where it may be one."""
    if isinstance(values, (str, bytes, bytearray, memoryview, os.PathLike)):
        folder = isinstance(values, (str, os.PathLike)) and os.path.isdir(values)
        files = "; for a folder's files, open_source(folder)" if folder and what == "samples" else ""
        return f"; expected a list of {what}{_for_one(what)}{files}"
    if "datasets.DatasetDict" in kinds or "datasets.IterableDatasetDict" in kinds:
        return f"; expected a column of one split: give dataset[{next(iter(values), 'train')!r}][column]"
    if isinstance(values, Mapping):
        first = next(iter(values), None)
        return f"; expected a list of {what}: give one of its values, such as {what}[{first!r}]{_for_one(what)}"
    if isinstance(values, (set, frozenset)):
        return f"; expected a list of {what}: a set has no order; give sorted(...) or list(...) of it"
    if "torch.DataLoader" in kinds:
        return ", which gives batches, perhaps shuffled; give its dataset: loader.dataset"
    if "polars.LazyFrame" in kinds:
        return f"; expected a list of {what}: give one column of lazy.collect()"
    return ""


def _for_one(what: str) -> str:
    return f" (for one, give [{what.removesuffix('s')}])"


def _a(value: Any) -> str:
    name = "array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _is_map_style(values: Any, kinds: set[str]) -> bool:
    """Return whether these are items by number, as torch's datasets of a known length are."""
    by_number = hasattr(values, "__getitem__") and hasattr(values, "__len__")
    return by_number and ("torch.Dataset" in kinds or not hasattr(values, "__iter__"))


def _column_names(values: Any) -> list[Any] | None:
    """Return the names of a table's columns, or of an array's fields; None for what has no columns."""
    names = getattr(values, "column_names", None)  # Arrow's, whose `columns` are arrays
    if names is None:
        names = getattr(values, "columns", None)
    if names is None:
        names = getattr(getattr(values, "dtype", None), "names", None)
    if names is None or callable(names) or isinstance(names, str):
        return None
    return list(names)


def _only_name(values: Any, names: Sequence[Any], what: str) -> Any:
    if len(names) == 1:
        return names[0]
    listed = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = ", ..." if len(names) > _MOST_NAMED else ""
    if not names:
        raise SampleError(f"{what} is {_a(values)} without columns; expected one column of {what}")
    word = {"DataFrame": "df", "Dataset": "dataset"}.get(type(values).__name__, "table")
    raise SampleError(
        f"{what} is {_a(values)} with {len(names)} columns ({listed}{more}); expected one column: give the one that "
        f"holds the {what}, such as {word}[{names[0]!r}]"
    )


def _dataset_column(dataset: Any, what: str, modality: str | None) -> list[Any]:
    """Return the one column of a Hugging Face dataset that can be meant."""
    features = dataset.features or dict.fromkeys(next(iter(dataset), {}))
    names = list(features)
    if len(names) > 1 and what == "samples":
        held = {name: _held(feature) for name, feature in features.items()}
        kinds = ("image", "text", "audio") if modality is None else (modality,)
        names = [name for name in names if held[name] in kinds] or [name for name in names if held[name] == "text"]
    if len(names) != 1:
        names = list(features)
    return as_list(dataset[_only_name(dataset, names, what)], what, modality)


def _held(feature: Any) -> str:
    """Return the modality of what a column of a Hugging Face dataset holds, or ""."""
    word = {"Image": "image", "Audio": "audio"}.get(type(feature).__name__, "")
    return word or ("text" if getattr(feature, "dtype", "") in ("string", "large_string") else "")


def _column_items(column: Any) -> list[Any]:
    """Return texts of a Hugging Face column at once, and others to be asked for; images and sound as their files."""
    feature, dataset = column.features, column.source
    if _held(feature) == "text":
        return list(column[:])
    whole = "datasets.Dataset" in _kinds(dataset) and dataset.format["type"] is None
    if whole and getattr(feature, "decode", False):
        column = dataset.cast_column(column.column_name, replace(feature, decode=False))[column.column_name]
    return [Item(column, number) for number in range(len(column))]


def _array_rows(values: Any, kinds: set[str], what: str, modality: str | None) -> Any:
    """Return the rows of an array; of [N, 1] texts or labels the column. Raises SampleError for one sample alone."""
    tensor = "torch.Tensor" in kinds
    if not tensor:
        values = values if isinstance(values, np.ndarray) else np.asarray(values)
    elif what != "samples":
        values = values.detach().cpu().numpy()
    shape, numbers = list(values.shape), tensor or values.dtype.kind in "biufc"
    if not shape:
        raise SampleError(f"{what} is one value; expected a list of {what}{_for_one(what)}")
    if len(shape) == 2 and shape[1] == 1 and (what != "samples" or not numbers):
        return values[:, 0]
    if len(shape) > 1 and not numbers and what == "samples":
        raise SampleError(f"samples is an array of shape {shape}; expected [N] or [N, 1]: give one column, array[:, 0]")
    colours = shape[-1] in (1, 3, 4) or (tensor and shape[0] in (3, 4))
    if what == "samples" and numbers and modality == "image" and (len(shape) == 2 or (len(shape) == 3 and colours)):
        raise SampleError(
            f"samples is an array of shape {shape}, which is one image; expected images [N, height, width, 3]: "
            "for one, give [image], for others list(images)"
        )
    if what == "samples" and numbers and modality == "audio" and len(shape) == 1:
        raise SampleError(f"samples is an array of shape {shape}, which is one waveform: give [waveform]")
    return values


def _without_label(item: Any, modality: str) -> Any:
    """Return the sample of what a dataset gives: itself, or the first of a pair with a label.

    Sound and its rate belong together. Raises SampleError for other tuples.
    """
    if not isinstance(item, (tuple, list)):
        return item
    rated = modality == "audio" and len(item) > 1 and isinstance(item[1], int) and item[1] >= _LEAST_RATE_HZ
    if rated and hasattr(item[0], "shape"):
        return tuple(item[:2])
    if len(item) == 1 or (len(item) == 2 and _is_label(item[1], item[0])):
        return item[0]
    inside = ", ".join(type(part).__name__ for part in islice(item, 4))
    raise SampleError(
        f"the dataset gives a {type(item).__name__} of {len(item)} ({inside}); expected a sample, or a pair of a "
        "sample and its label; give the samples alone: [item[0] for item in dataset]"
    )


def _is_label(value: Any, sample: Any) -> bool:
    text = isinstance(value, str) and not isinstance(sample, str)  # two texts may be a pair to compare
    return value is None or text or isinstance(value, Number) or getattr(value, "shape", None) == ()


def _is_missing(value: Any) -> bool:
    if isinstance(value, (float, np.floating)):
        return bool(value != value)
    return value is None or not _kinds(value).isdisjoint(_NO_VALUE)


def is_source(values: Any) -> bool:
    """Return whether these are rows that `open_source` opened."""
    return all(hasattr(values, name) for name in ("rows", "digest", "describe", "label_names"))
