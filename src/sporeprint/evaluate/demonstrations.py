"""Prompts for a language model: for each query, the training examples that are nearest in feature space.

This is the paper's in-context use. No language model is called.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError
from sporeprint.evaluate.checks import features_of, labels_of
from sporeprint.evaluate.knn import METRICS
from sporeprint.evaluate.template import Template
from sporeprint.store.atomic import write_file
from sporeprint.values import check_choice, is_count

CHOICES = ("nearest", "balanced")
ORDERS = ("nearest_last", "nearest_first")

_MATRIX_MIB = 64  # distances held at a time
_EXACT_ROWS = 4096  # rows whose exact distance is taken at a time
_SLACK = 1e-6  # of the norms; fast distances are off by up to 3e-8 of them where two rows are nearly equal

# What ends a line for some readers, though JSON lets it stand in a string.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


@dataclass(frozen=True)
class Demonstration:
    """The prompt of one query, and the training rows that it shows: all in the order of the prompt.

    labels: as the prompt shows them. left_out: training rows not considered, since their text is the query's.
    """

    query: str
    prompt: str
    rows: tuple[int, ...]
    labels: tuple[str, ...]
    distances: tuple[float, ...]
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def demonstrations(
    train_features: ArrayLike,
    train_texts: Sequence[Any],
    train_labels: ArrayLike,
    features: ArrayLike,
    texts: Sequence[Any],
    k: int = 8,
    choose: Literal["nearest", "balanced"] = "nearest",
    order: Literal["nearest_last", "nearest_first"] = "nearest_last",
    metric: Literal["euclidean", "cosine"] = "euclidean",
    template: Template | None = None,
    label_names: Sequence[str] | Mapping[Any, str] | None = None,
    exclude_identical: bool = True,
) -> list[Demonstration]:
    """For each query [M, D] a prompt that shows k of the training examples [N, D]; exact search, no query sees another.

    choose: "nearest", whatever their class; or "balanced": the nearest of every class, then the second nearest of
    every class, and so on. In the last round, where not all classes fit, those whose example is nearest come in; a
    class that has no more is passed over. Either way equal distances go by the order of the training rows, and all
    rows are shown where there are fewer than k. order: of the examples in the prompt; "nearest_last" puts the nearest
    beside the query. label_names: by number, or a mapping from labels; without it labels are shown as they are.
    exclude_identical: training rows whose text is the query's, character by character, are not shown: they would give
    its label away. Texts are read by `load_text`.
    Raises SampleError for rows with NaN, texts that cannot be read, and counts or labels that do not match.
    """
    for name, value, allowed in (("choose", choose, CHOICES), ("order", order, ORDERS), ("metric", metric, METRICS)):
        check_choice(name, value, allowed, SampleError)
    if not is_count(k):
        raise SampleError(f"k={k!r}; expected a positive integer")
    train, test = features_of(train_features, "train"), features_of(features, "query")
    if train.shape[1] != test.shape[1]:
        raise SampleError(
            f"train features are {train.shape[1]} wide, query features {test.shape[1]}; expected the same"
        )
    labels = labels_of(train_labels, len(train), "train")
    shown, queries = _texts(train_texts, len(train), "train"), _texts(texts, len(test), "query")
    names, classes = _names(labels, label_names)
    template = Template() if template is None else template
    identical: dict[str, list[int]] = defaultdict(list)
    if exclude_identical:
        for row, text in enumerate(shown):
            identical[text].append(row)
    left_out = [identical.get(text, []) for text in queries]
    codes = np.unique(names, return_inverse=True)[1] if choose == "balanced" else np.zeros(len(train), np.intp)
    if metric == "cosine":
        train, test = _unit(train, "train"), _unit(test, "query")
    made = []
    for text, gone, (rows, distances) in zip(queries, left_out, _chosen(train, codes, test, left_out, k), strict=True):
        if metric == "cosine":
            distances = distances**2 / 2  # of unit vectors: 1 - cosine
        if order == "nearest_last":
            rows, distances = rows[::-1], distances[::-1]
        listed = rows.tolist()
        prompt = template.prompt([(shown[row], names[row]) for row in listed], text, classes)
        tags = tuple(names[row] for row in listed)
        made.append(Demonstration(text, prompt, tuple(listed), tags, tuple(distances.tolist()), len(gone)))
    return made


def write_jsonl(shown: Iterable[Demonstration | Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """One JSON object a line, UTF-8, in order; the file is complete or as it was before. Raises StoreError."""
    found = (one.to_json() if isinstance(one, Demonstration) else dict(one) for one in shown)
    lines = [json.dumps(one, ensure_ascii=False, allow_nan=False).translate(_LINE_ENDS) for one in found]
    write_file(Path(path), "".join(f"{line}\n" for line in lines).encode())


def _chosen(
    train: NDArray[Any], codes: NDArray[np.intp], test: NDArray[Any], left_out: Sequence[Sequence[int]], k: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """For each query the rows chosen and their distances, nearest first. Classes are told by codes [N]."""
    from sklearn.metrics import pairwise_distances_chunked

    groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    scale = max(float(np.abs(rows).max()) for rows in (train, test)) * train.shape[1] ** 0.5  # no norm is larger
    query = 0
    for block in pairwise_distances_chunked(test, train, metric="euclidean", working_memory=_MATRIX_MIB):
        if not np.isfinite(block).all():
            raise SampleError(f"features of up to {scale:.0e} are too large for distances; scale them")
        for near in block:
            near[list(left_out[query])] = np.inf
            rows = _candidates(near, groups, k, scale)
            distances = _exact(train, rows, test[query])
            by_class = np.lexsort((rows, distances, codes[rows]))
            starts = np.searchsorted(codes[rows][by_class], np.arange(len(groups)))
            rank = np.empty(len(rows), np.intp)  # 0 for the nearest of its class
            rank[by_class] = np.arange(len(rows)) - starts[codes[rows][by_class]]
            taken = np.lexsort((rows, distances, rank))[:k]
            taken = taken[np.lexsort((rows[taken], distances[taken]))]
            yield rows[taken], distances[taken]
            query += 1


def _candidates(near: NDArray[Any], groups: Sequence[NDArray[np.intp]], k: int, scale: float) -> NDArray[np.intp]:
    """Rows among which those to be chosen are. near: [N], fast distances, infinite where a row is left out."""
    counts = np.array([np.isfinite(near[group]).sum() for group in groups])
    wanted = min(k, int(counts.sum()))
    rounds = bisect_left(range(k + 1), wanted, key=lambda each: int(np.minimum(counts, each).sum()))
    found = [np.empty(0, np.intp)]
    for group, count in zip(groups, counts.tolist(), strict=True):
        if count and rounds:
            some = near[group]
            last = np.partition(some, min(rounds, count) - 1)[min(rounds, count) - 1]
            found.append(group[(some <= last + _SLACK * (last + scale)) & np.isfinite(some)])
    return np.concatenate(found)


def _exact(train: NDArray[Any], rows: NDArray[np.intp], query: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean distances [n] by differences, which are 0 for equal rows and the same for rows that are the same."""
    distances = np.empty(len(rows))
    for at in range(0, len(rows), _EXACT_ROWS):
        apart = train[rows[at : at + _EXACT_ROWS]].astype(np.float64) - query.astype(np.float64)
        distances[at : at + _EXACT_ROWS] = np.sqrt((apart**2).sum(axis=1))
    return distances


def _unit(rows: NDArray[Any], which: str) -> NDArray[Any]:
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))  # squares of tiny numbers are 0 in float32
    if zero := int((norms == 0).sum()):
        raise SampleError(f"{zero} of {len(rows)} {which} rows are all 0, which have no cosine; drop them")
    return rows / norms[:, None]


def _texts(texts: Sequence[Any], rows: int, which: str) -> list[str]:
    if isinstance(texts, (str, bytes)) or not hasattr(texts, "__iter__"):
        raise SampleError(f"{which} texts is a {type(texts).__name__}; expected a list of texts, one a row")
    samples = list(texts)
    if len(samples) != rows:
        raise SampleError(f"{len(samples)} {which} texts for {rows} rows of features; expected one text a row")
    loaded = []
    for at, sample in enumerate(samples):
        try:
            loaded.append(load_text(sample))
        except SampleError as error:
            raise SampleError(f"{which} text {at}: {error}") from None
    return loaded


def _names(labels: NDArray[Any], label_names: Sequence[str] | Mapping[Any, str] | None) -> tuple[list[str], list[str]]:
    """The name of every row's label, and all names in order."""
    if labels.dtype.kind == "f" and (missing := int(np.isnan(labels).sum())):
        raise SampleError(f"{missing} of {len(labels)} train labels are NaN (missing); drop those rows")
    values = labels.tolist()
    if label_names is None:
        return [str(value) for value in values], [str(value) for value in np.unique(labels).tolist()]
    if isinstance(label_names, (str, bytes)):
        raise SampleError(f"label_names={label_names!r}; expected a list of names by number, or a mapping from labels")
    known = dict(label_names if isinstance(label_names, Mapping) else enumerate(label_names))
    if unknown := sorted(set(values) - set(known)):
        raise SampleError(
            f"label {unknown[0]!r} has no name; label_names has {len(known)}, for {str(list(known)[:10])[1:-1]}; "
            "add it, or leave label_names out to show labels as they are"
        )
    return [str(known[value]) for value in values], [str(name) for name in known.values()]
