"""Retrieval from stores: on labels, and by the revisited Oxford and Paris protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sporeprint.backbones.description import caveats_text
from sporeprint.errors import RecipeError
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.retrieve import retrieve
from sporeprint.evaluate.revisited import revisited
from sporeprint.evaluate.table import Features
from sporeprint.run.combination_flags import NO_LABELS, Wanted
from sporeprint.run.scores import Progress, Scores, count_of, loo_labels, scores_of
from sporeprint.run.store_pair import check_sources, open_pair, read_pair, read_store
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store


def retrieval_scores(
    query: Rows,
    database: Rows | None,
    what: Wanted,
    label_column: str | None = None,
    ground_truth: Path | None = None,
    ks: str = "1,5,10",
    metric: Any = "euclidean",
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Scores:
    """The database ranked for every query, fitted on the database; of one store every row queries the others.

    ground_truth: of the revisited Oxford and Paris protocol, instead of labels. ks: comma-separated.
    """
    counts = [count_of(word, auto=False) for word in ks.split(",")]
    if ground_truth is None:
        return _labelled(query, database, what, label_column, counts, metric, seed, progress)
    if database is None:
        raise RecipeError(
            "--ground-truth needs two stores: of the query images, cropped to their boxes, and the database"
        )
    if label_column is not None:
        raise RecipeError("--ground-truth is read instead of labels; leave out --label-column")
    check_sources((query, database), None, ("--query", "--database"))
    return _revisited(query, database, what, ground_truth, counts, metric, progress)


def _labelled(
    query: Rows,
    database: Rows | None,
    what: Wanted,
    label_column: str | None,
    ks: Sequence[int],
    metric: Any,
    seed: int,
    progress: Progress,
) -> Scores:
    if database is None:
        single = read_store(query, what.reads, label_column, "retrieve")

        def judge(of: Features) -> Mapping[str, Result]:
            return {"retrieve": retrieve(of.rows, single.labels, ks=ks, metric=metric)}

        why = f"of one store it would choose by the labels that judge; {NO_LABELS}"
        entries, _ = scores_of(single.store, single.blocks, None, what, judge, progress, None, why)
        return Scores(entries, f"{single.note}; each row is a query among the others")
    pair = read_pair(
        database, query, what.reads, label_column, who="retrieve", flags=("--database", "--query"),
        roles=("database row", "query"), unknown="left out",
    )  # fmt: skip

    def rank(of: Features) -> Mapping[str, Result]:
        return {"retrieve": retrieve(of.others, pair.test_labels, of.rows, pair.labels, ks, metric)}

    entries, selection = scores_of(
        pair.store, pair.blocks, pair.test_blocks, what, rank, progress, *loo_labels(pair, None), seed
    )
    return Scores(entries, pair.note, selection)


def _revisited(
    query: Rows, database: Rows, what: Wanted, ground_truth: Path, ks: Sequence[int], metric: Any, progress: Progress
) -> Scores:
    store, queries = open_pair(database.store, query.store)
    names = what.reads(store)
    blocks, query_blocks = store.blocks(names), queries.blocks(names)
    known = _image_names(queries), _image_names(store)

    def judge(of: Features) -> Mapping[str, Result]:
        return {"revisited": revisited(of.others, of.rows, ground_truth, *known, ks=ks, metric=metric)}

    why = f"there are no labels to choose by; {NO_LABELS}"
    entries, _ = scores_of(store, blocks, query_blocks, what, judge, progress, None, why)
    backbone = store.plan["resolved"]["backbone"]
    note = "; ".join([f"{backbone['name']}, {ground_truth.name}", *caveats_text(backbone)])
    ordered = [role for role, ids in zip(("queries", "database"), known, strict=True) if ids is None]
    note += f"; without ids, so taken in the order of the ground truth: {' and '.join(ordered)}" if ordered else ""
    return Scores(entries, note)


def _image_names(store: Store) -> list[str] | None:
    """The rows' ids, which of a folder are file names; None of a table whose ids are row numbers."""
    columns = store.plan.get("source", {}).get("columns", {})
    return None if columns.get("id", "") is None else store.ids
