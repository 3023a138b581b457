"""What the evaluation commands do: read the stores, make features of every combination, judge each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.joined_features import Features, features, passes_of
from sporeprint.evaluate.choice.select import Selection
from sporeprint.evaluate.choice.standard_table import Candidate, Entry, evaluate, standard_candidates
from sporeprint.evaluate.cluster import cluster
from sporeprint.evaluate.knn import knn
from sporeprint.evaluate.multilabel import multilabel
from sporeprint.evaluate.probe import probe
from sporeprint.evaluate.regress import regress
from sporeprint.evaluate.result import Result
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import NAMED
from sporeprint.features.whiten import Axes
from sporeprint.run.combination_flags import NO_LABELS, Wanted, combinations
from sporeprint.run.store_pair import Pair, check_sources, labelled, one_label, read_pair
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store

MOST_PCA = 512  # the paper's, for wide backbones
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """Features, their price and what they are worth. whitened: {block: dimensions}."""

    name: str
    blocks: tuple[str, ...]
    width: int
    passes: int
    result: Result
    whitened: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "blocks": list(self.blocks), "result": self.result.to_json()}


@dataclass(frozen=True)
class Scores:
    """entries: in the order of the table. note: what was compared. loo: what leave-one-out chose, where it did.

    several: the labels are lists of labels.
    """

    entries: Sequence[Score | Entry]
    note: str
    loo: Selection | None = None
    several: bool = False

    def to_json(self) -> dict[str, Any]:
        chosen = {} if self.loo is None else {"loo": self.loo.to_json()}
        return {"note": self.note, **chosen, "entries": [entry.to_json() for entry in self.entries]}


def knn_scores(
    train: Rows,
    test: Rows,
    what: Wanted,
    ks: str = "20,auto",
    label_column: str | None = None,
    shots: int | None = None,
    draws: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _: None,
    **way: Any,
) -> Scores:
    """The standard table, or one row where features are named; of lists of labels mAP. way: metric, vote, ..."""
    counts = [count_of(one) for one in ks.split(",")]
    few: dict[str, Any] = few_shot(shots, draws, seed)
    pair = read_pair(train, test, what.reads, label_column)
    judge = multilabel if pair.several else knn
    no_shots_of_lists(pair, shots)
    progress("choosing by leave-one-out")
    names = tuple(pair.blocks)
    standard: list[Candidate] = []
    if what.table:
        size = what.size or min(MOST_PCA, pair.store.blocks_info["embedding"]["dim"], len(pair.labels) - 1) or None
        standard = standard_candidates(names, len(pair.labels), size)
        what = Wanted()  # the size is of the paper's PCA alone
    table = {one.name: one.combination for one in standard} | {"decorrelated": NAMED["decorrelated"]}
    made, selection = combinations(what, pair.blocks, *loo_labels(pair, shots), seed, table)
    known = {one.name for one in standard}
    found = [*standard, *(Candidate(name, one) for name, one in made.items() if name not in known)]
    whiteners: dict[tuple[str, Any], Axes] = {}
    entries: list[Entry] = []
    for one in found:
        progress(f"{one.name} ({len(entries) + 1} of {len(found)})")
        entry = evaluate(
            one, pair.blocks, pair.labels, pair.test_blocks, pair.test_labels, pair.store.blocks_info, counts, judge,
            whiteners, **way, **few,
        )  # fmt: skip
        entries.append(entry)
    return Scores(entries, pair.note, selection, pair.several)


def probe_scores(
    train: Rows,
    test: Rows,
    what: Wanted,
    label_column: str | None = None,
    shots: int | None = None,
    draws: int | None = None,
    seed: int = 0,
    standardise: bool = False,
    progress: Progress = lambda _: None,
) -> Scores:
    """A linear probe on each of the features; of lists of labels one probe a label, and mAP."""
    few: dict[str, Any] = few_shot(shots, draws, seed)
    pair = read_pair(train, test, what.reads, label_column)
    no_shots_of_lists(pair, shots)

    def judge(made: Features) -> Result:
        sets = (made.rows, pair.labels, made.others, pair.test_labels)
        if pair.several:
            return multilabel(*sets, method="probe", seed=seed, standardise=standardise)
        return probe(*sets, standardise=standardise, **{"seed": seed, **few})

    loo = loo_labels(pair, shots)
    entries, selection = scores_of(pair.store, pair.blocks, pair.test_blocks, what, judge, progress, *loo, seed)
    return Scores(entries, pair.note, selection, pair.several)


def regress_scores(
    train: Rows,
    test: Rows,
    what: Wanted,
    label_column: str | None = None,
    progress: Progress = lambda _: None,
    **way: Any,
) -> Scores:
    """Real-valued labels, predicted from each of the features. way: method, k, metric, vote, ..."""
    pair = read_pair(train, test, what.reads, label_column, targets=True)

    def judge(made: Features) -> Result:
        return regress(made.rows, pair.labels, made.others, pair.test_labels, **way)

    why = f"it chooses by classes, and these labels are numbers to predict; {NO_LABELS}"
    entries, _ = scores_of(pair.store, pair.blocks, pair.test_blocks, what, judge, progress, None, why)
    return Scores(entries, pair.note)


def cluster_scores(
    rows: Rows,
    what: Wanted,
    label_column: str | None = None,
    clusters: int | None = None,
    starts: int = 5,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Scores:
    """k-means on each of the features of one store, scored by its labels."""
    store, blocks, labels, note = one_store(rows, what, label_column, "cluster")

    def judge(made: Features) -> Result:
        return cluster(made.rows, labels, clusters, starts, seed)

    why = f"it would choose by the labels that judge; {NO_LABELS}"
    entries, _ = scores_of(store, blocks, None, what, judge, progress, None, why)
    return Scores(entries, note)


def scores_of(
    store: Store,
    blocks: Blocks,
    others: Blocks | None,
    what: Wanted,
    judge: Callable[[Features], Result],
    progress: Progress,
    labels: Any,
    unlabelled: str,
    seed: int = 0,
) -> tuple[list[Score], Selection | None]:
    """Each of the features that are wanted, judged. labels, unlabelled: as of `combinations`."""
    progress("choosing by leave-one-out" if labels is not None else "reading")
    made, selection = combinations(what, blocks, labels, unlabelled, seed)
    names, entries = list(made), []
    progress(f"{names[0]} (1 of {len(names)})")
    for at, one in enumerate(features(blocks, others, made.values())):
        whitened = {name: len(axes.variance) for name, axes in one.combiner.whiteners.items()}
        passes = passes_of(one.combiner.names, store.blocks_info)
        entries.append(Score(names[at], one.combiner.names, one.combiner.width, passes, judge(one), whitened))
        if at + 1 < len(names):
            progress(f"{names[at + 1]} ({at + 2} of {len(names)})")
    return entries, selection


def one_store(rows: Rows, what: Wanted, label_column: str | None, who: str) -> tuple[Store, Blocks, Any, str]:
    """A store, its blocks and labels, and what they are. Raises StoreError, RecipeError, SourceError."""
    check_sources((rows,), label_column, ("--source",))
    store = Store.open(rows.store)
    blocks, labels, has = labelled(store, rows, what.reads(store), label_column)
    labels = one_label(labels, rows.store, who)
    classes = len(set(labels.tolist()))
    note = f"{store.plan['resolved']['backbone']['name']}, {len(labels)} rows, {classes} classes"
    note += " (nothing to tell apart)" if classes == 1 else ""
    note += " (every row a class of its own: nothing to group)" if 1 < classes == len(labels) else ""
    note += "" if label_column is None else f" of {label_column!r}"
    return store, blocks, labels, note + ("" if has.all() else f"; left out, having no label: {int((~has).sum())} rows")


def loo_labels(pair: Pair, shots: int | None) -> tuple[Any, str]:
    """The training labels, if loo may see them, and else why not and what to take instead."""
    if pair.several:
        return None, f"its labels are lists, and it chooses by one class a row; {NO_LABELS}"
    if shots is None:
        return pair.labels, ""
    return None, (
        "with --shots it would see labels that no draw has; take --blocks embedding: decorrelated needs no labels "
        "either, but with 5 a class it was worse than the embedding alone on most of our data sets"
    )


def few_shot(shots: int | None, draws: int | None, seed: int) -> dict[str, int]:
    """The options of few-shot draws. Raises RecipeError."""
    if shots is None and draws is not None:
        raise RecipeError("--draws goes with --shots: how many rows of each class a draw takes")
    return {} if shots is None else {"shots": shots, "draws": 3 if draws is None else draws, "seed": seed}


def way_of(metric: str, vote: str, temperature: float | None) -> dict[str, Any]:
    """How neighbours are found and weighed. Raises RecipeError."""
    if temperature is None:
        return {"metric": metric, "vote": vote}
    if vote != "softmax":
        raise RecipeError(f"--temperature goes with --vote softmax; with --vote {vote} it changes nothing")
    if not 0 < temperature < float("inf"):
        raise RecipeError(f"--temperature {temperature:g}; expected a number above 0")
    return {"metric": metric, "vote": vote, "temperature": temperature}


def no_shots_of_lists(pair: Pair, shots: int | None) -> None:
    """Raises RecipeError."""
    if pair.several and shots is not None:
        raise RecipeError("--shots draws rows of each class; these labels are lists: leave it out")


def count_of(word: str, flag: str = "--k", auto: bool = True) -> Any:
    """A positive integer, or "auto" where it may be. Raises RecipeError."""
    word = word.strip()
    if auto and word == "auto":
        return "auto"
    if not word.isdecimal() or int(word) < 1:
        more = " or auto" if auto else ""
        raise RecipeError(f"{flag} {word!r}; expected positive integers{more}, comma-separated")
    return int(word)
