"""Make prompts from two stores of texts and the sources that they were made of, which hold the texts themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from sporeprint.errors import RecipeError, StoreError
from sporeprint.evaluate.demonstrations import CHOICES, ORDERS, demonstrations
from sporeprint.evaluate.template import Template
from sporeprint.features.combine import named
from sporeprint.run.combination_flags import Wanted, candidates
from sporeprint.run.store_pair import are_lists, labelled, open_pair
from sporeprint.run.store_source import Rows, samples_of, store_modality
from sporeprint.store.reader import Store


@dataclass(frozen=True)
class Prompts:
    """Prompts for a test store. lines: one JSON object for each row. notes: what was left out, a sentence each."""

    lines: list[dict[str, Any]]
    notes: list[str]
    blocks: tuple[str, ...]


def make_prompts(
    train: Rows,
    test: Rows,
    template: Path | None = None,
    k: int = 8,
    choose: str = "nearest",
    order: str = "nearest_last",
    what: Wanted | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Prompts:
    """Make a prompt for each row of the test store, of the k labelled training rows that are nearest.

    what: how features are made, fitted on the labelled training rows; where no way is named, the paper's.
    progress: called with each step as it begins.
    A line has "id", "query", "prompt", "answer" (the row's own label, or null; it is not in the prompt), and of the
    examples in the order of the prompt "ids", "labels" and "distances"; "left_out" counts training rows that are not
    shown since their text is the query's.
    Raises RecipeError, StoreError, and SourceError where a source is not the one that its store was made of.
    """
    for name, value, allowed in (("--choose", choose, CHOICES), ("--order", order, ORDERS)):
        if value not in allowed:
            raise RecipeError(f"{name} {value!r}; expected one of: {', '.join(allowed)}")
    parts = None if template is None else Template.from_file(template)
    stores = open_pair(train.store, test.store)
    train_texts, test_texts = (_texts(store, rows) for store, rows in zip(stores, (train, test), strict=True))
    trained, tested = stores
    if what is None or what.table:
        what = Wanted(named("paper", None if what is None else what.size), name="paper")
    known, labels, has_label = labelled(trained, train, what.reads(trained))
    if are_lists(labels):
        raise StoreError(f"{train.store} has lists of labels; an example shows one: extract it with one label a row")
    (candidate,), _ = candidates(what, known, labels, progress=progress)
    progress(f"neighbours of {len(tested)} texts")
    combiner = candidate.combination.fit(known)
    names = None if trained.label_names is None else dict(zip(trained.label_names, trained.label_names, strict=True))
    examples = np.flatnonzero(has_label).tolist()
    prompts = demonstrations(
        combiner.transform(known),
        [train_texts[at] for at in examples],
        labels.astype(str) if labels.dtype == object else labels,
        combiner.transform(tested.blocks(combiner.names)),
        test_texts,
        k=k,
        choose=cast(Literal["nearest", "balanced"], choose),
        order=cast(Literal["nearest_last", "nearest_first"], order),
        template=parts,
        label_names=names,
    )
    answers = [None] * len(tested) if tested.labels is None else tested.labels.tolist()
    lines = [
        {
            "id": row_id,
            "query": shown.query,
            "prompt": shown.prompt,
            "answer": None if answer is None else str(answer),
            "ids": [trained.ids[examples[row]] for row in shown.rows],
            "labels": list(shown.labels),
            "distances": list(shown.distances),
            "left_out": shown.left_out,
        }
        for row_id, answer, shown in zip(tested.ids, answers, prompts, strict=True)
    ]
    same = sum(shown.left_out > 0 for shown in prompts)
    return Prompts(lines, list(_notes(stores, int((~has_label).sum()), same)), combiner.names)


def _texts(store: Store, rows: Rows) -> list[Any]:
    if (modality := store_modality(store)) != "text":
        raise StoreError(f"{rows.store} was made by a backbone for {modality}; give a store of texts")
    if store.plan["source"]["kind"] == "list":
        raise StoreError(f"{rows.store} was made of a list in memory; use sporeprint.demonstrations with that list")
    return samples_of(store, rows)


def _notes(stores: Sequence[Store], unlabelled: int, same: int) -> list[str]:
    failed = [len(store.failures) for store in stores]
    notes = [f"left out, not read: {failed[0]} training rows, {failed[1]} test rows"] if any(failed) else []
    if unlabelled:
        notes.append(f"left out, having no label: {unlabelled} training rows")
    if same:
        notes.append(f"{same} queries are also training rows, character by character; those rows are not shown")
    return notes
