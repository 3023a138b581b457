"""Prompts for a language model: for each query, the training examples that are nearest in feature space.

This is the paper's in-context use. No language model is called.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError
from sporeprint.evaluate.template import Template
from sporeprint.predictors.checks import check_directions, features_of, labels_of
from sporeprint.search.best_rows import slices
from sporeprint.search.neighbours import METRICS, Nearest, neighbours
from sporeprint.store.atomic import write_file
from sporeprint.values import check_choice, is_count, json_text

CHOICES = ("nearest", "balanced")
ORDERS = ("nearest_last", "nearest_first")

_NEIGHBOURS = 2**20  # held at a time, of several queries: 16 MiB


@dataclass(frozen=True)
class Demonstration:
    """The prompt of one query, and the training rows that it shows: all in the order of the prompt.

    query: its text. rows: of the training features. labels: as the prompt shows them. distances: from the query's
    features. left_out: training rows not considered, since their text is the query's.
    """

    query: str
    prompt: str
    rows: tuple[int, ...]
    labels: tuple[str, ...]
    distances: tuple[float, ...]
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@quiet_floats
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
    class that has no more is passed over. Either way equal distances go by the text, then by the label, and all
    rows are shown where there are fewer than k. order: of the examples in the prompt; "nearest_last" puts the nearest
    next to the query. label_names: by number, or a mapping from labels; without it labels are shown as they are.
    exclude_identical: training rows whose text is the query's, character by character, are not shown: they would give
    its label away. Texts are read by `load_text`.
    Raises SampleError for rows with NaN, texts that cannot be read, and counts or labels that do not match.

    Examples
    --------
    >>> from sporeprint import demonstrations
    >>> texts, topics = ["Who wrote Faust?", "How far is the moon?"], ["person", "number"]
    >>> (shown,) = demonstrations([[1.0, 0.0], [0.0, 1.0]], texts, topics, [[0.1, 0.9]], ["How deep is the sea?"], k=1)
    >>> print(shown.prompt)
    Text: How far is the moon?
    Label: number
    <BLANKLINE>
    Text: How deep is the sea?
    Label:
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
    places = np.array(sorted(range(len(train)), key=lambda row: (shown[row], names[row])))  # ties go by this order
    train, shown, names = train[places], [shown[row] for row in places], [names[row] for row in places]
    template = Template() if template is None else template
    if not isinstance(template, Template):
        raise SampleError(f"template is a {type(template).__name__}; expected a Template(example=..., query=...)")
    identical: dict[str, list[int]] = defaultdict(list)
    if exclude_identical:
        for row, text in enumerate(shown):
            identical[text].append(row)
    left_out = [identical.get(text, []) for text in queries]
    codes = np.unique(names, return_inverse=True)[1] if choose == "balanced" else np.zeros(len(train), np.intp)
    if metric == "cosine":
        check_directions(train, "train")
        check_directions(test, "query")
    prompts: dict[int, Demonstration] = {}
    for query, (rows, distances) in _chosen(train, codes, test, left_out, k, metric):
        text = queries[query]
        if order == "nearest_last":
            rows, distances = rows[::-1], distances[::-1]
        listed = rows.tolist()
        prompt = template.prompt([(shown[row], names[row]) for row in listed], text, classes)
        tags = tuple(names[row] for row in listed)
        gone = len(left_out[query])
        prompts[query] = Demonstration(
            text, prompt, tuple(places[rows].tolist()), tags, tuple(distances.tolist()), gone
        )
    return [prompts[query] for query in range(len(queries))]


def write_jsonl(shown: Iterable[Demonstration | Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """One JSON object a line, UTF-8, in order; the file is complete or as it was before. Raises StoreError."""
    values = (prompt.to_json() if isinstance(prompt, Demonstration) else dict(prompt) for prompt in shown)
    write_file(Path(path), "".join(f"{json_text(value, indent=None)}\n" for value in values).encode())


def _chosen(
    train: NDArray[Any],
    codes: NDArray[np.intp],
    queries: NDArray[Any],
    left_out: Sequence[Sequence[int]],
    k: int,
    metric: str,
) -> Iterator[tuple[int, Nearest]]:
    """Each query's number with the rows chosen and their distances, nearest first; codes [N] are the rows' classes.

    A query with rows to leave out is searched for as many neighbours more, up to twice as many.
    """
    classes = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    more = np.array([len(rows) and 2 ** (len(rows) - 1).bit_length() for rows in left_out])
    for spare in np.unique(more).tolist():
        count = min(k, _most_of_a_class([len(rows) for rows in classes], k + spare)) + spare
        members = np.flatnonzero(more == spare)
        for part in slices(len(members), _NEIGHBOURS, sum(min(count, len(rows)) for rows in classes)):
            asking = members[part]
            rows, distances = _nearest_of_classes(train, classes, queries[asking], count, metric)
            for query, near, apart in zip(asking.tolist(), rows, distances, strict=True):
                stays = ~np.isin(near, left_out[query])
                near, apart = near[stays], apart[stays]
                taken = _round_by_round(near, apart, codes[near])[:k]
                taken = taken[np.lexsort((near[taken], apart[taken]))]
                yield query, (near[taken], apart[taken])


def _most_of_a_class(counts: Sequence[int], k: int) -> int:
    """How many rows of a class are shown at most: the rounds over classes of these sizes until k rows are shown."""
    wanted = min(k, sum(counts))
    return bisect_left(range(k + 1), wanted, key=lambda rounds: sum(min(count, rounds) for count in counts))


def _nearest_of_classes(
    train: NDArray[Any], classes: Sequence[NDArray[np.intp]], queries: NDArray[Any], count: int, metric: str
) -> Nearest:
    """Rows and distances [n, K] of each query's nearest rows, up to `count` of each class."""
    rows, distances = [], []
    for members in classes:
        chunks = list(neighbours(train[members] if len(classes) > 1 else train, queries, count, metric))
        rows.append(members[np.concatenate([numbers for numbers, _ in chunks])])
        distances.append(np.concatenate([apart for _, apart in chunks]))
    return np.concatenate(rows, axis=1), np.concatenate(distances, axis=1)


def _round_by_round(
    rows: NDArray[np.intp], distances: NDArray[np.float64], codes: NDArray[np.intp]
) -> NDArray[np.intp]:
    """An order of rows [n]: the nearest of every class, then the second of every class; nearest first in a round."""
    by_class = np.lexsort((rows, distances, codes))
    rank = np.empty(len(rows), np.intp)  # 0 for the nearest of its class
    rank[by_class] = np.arange(len(rows)) - np.searchsorted(codes[by_class], codes[by_class])
    return np.lexsort((rows, distances, rank))


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
