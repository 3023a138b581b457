"""What the evaluation commands do: read the stores, make the features of every candidate, judge each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.candidates import Candidate, family_table, short_table
from sporeprint.evaluate.choice.select import Selection
from sporeprint.evaluate.cluster import cluster
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.evaluate.multilabel import multilabel
from sporeprint.evaluate.probe import probe
from sporeprint.evaluate.regress import best_of, regress
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.table import Costs, Entry, Features, Judge, entries_of
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import Combination
from sporeprint.run.combination_flags import NO_LABELS, Wanted, candidates
from sporeprint.run.duplicate_notes import duplicate_notes
from sporeprint.run.early_checks import count_of
from sporeprint.run.paper_assembly import mark_paper
from sporeprint.run.store_pair import Pair, fewer_than_shots, read_pair, read_store
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store

LINEAR = ("LDA", "ridge")  # by which the features of a linear probe are chosen
MOST_PCA = 512  # the paper's, for wide backbones
_PLAIN = ("auto", "euclidean", "uniform")  # how neighbours are counted, found and weighed where nothing is said
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Scores:
    """The table of an evaluation command.

    entries: in the order of the table. note: what was compared. loo: what leave-one-out chose, where it did. best:
    the entry that did best by leave-one-out on the training rows, where that chooses among those of the table alone.
    several: the labels are lists of labels.
    """

    entries: Sequence[Entry]
    note: str
    loo: Selection | None = None
    several: bool = False
    best: Entry | None = None

    @property
    def chosen(self) -> Entry | None:
        """The entry that leave-one-out chose: its own, or the earlier one that is the same; None where it did not."""
        if self.loo is None:
            return self.best
        key = _joined(self.loo.combination, self.loo.combination.blocks or ())
        same = [entry for entry in self.entries if _joined(entry.combination, entry.blocks) == key]
        return next((entry for entry in self.entries if entry.role == "chosen"), same[0] if same else None)

    def to_json(self) -> dict[str, Any]:
        chosen: dict[str, Any] = {} if self.loo is None else {"loo": self.loo.to_json()}
        chosen |= {} if self.best is None else {"chosen": self.best.name}
        return {"note": self.note, **chosen, "entries": [entry.to_json() for entry in self.entries]}


def _joined(how: Combination, blocks: Sequence[str]) -> Any:
    return how.members(blocks), how.whiten, how.exponent if how.whiten is not None else None


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
    group_column: str | None = None,
    **way: Any,
) -> Scores:
    """The table of families, or one row where features are named; for lists of labels mAP. way: metric, vote, ..."""
    counts = [count_of(word) for word in ks.split(",")]
    few: dict[str, Any] = few_shot(shots, draws, seed)
    pair = read_pair(train, test, what.reads, label_column, group_column=group_column)
    notes = (*notes_of_few_rows(pair, counts, shots), *duplicate_notes(pair))
    pair = replace(pair, notes=(*pair.notes, *notes))
    judge_of: Callable[..., Result] = multilabel if pair.several else knn
    no_shots_of_lists(pair, shots)
    if not pair.several:
        few["groups"] = pair.groups

    def judge(of: Features) -> Mapping[str, Result]:
        sets = (of.rows, pair.labels, of.others, pair.test_labels)
        return {str(k): judge_of(*sets, k=k, **way, **few) for k in counts}

    size = what.size or min(MOST_PCA, pair.store.blocks_info["embedding"]["dim"], len(pair.labels) - 1) or None

    def table(names: Sequence[str]) -> list[Candidate]:
        return family_table(names, size)

    if what.table:
        what = Wanted()  # the size is of the paper's PCA alone
    loo = loo_labels(pair, shots)
    entries, selection = scores_of(
        pair.store,
        pair.blocks,
        pair.test_blocks,
        what,
        judge,
        progress,
        *loo,
        seed,
        table=table,
        groups=pair.groups,
    )
    return Scores(entries, pair.note, selection, pair.several)


def notes_of_few_rows(pair: Pair, counts: Sequence[Any], shots: int | None) -> list[str]:
    """What must be said where there are fewer rows than neighbours, or fewer of a class than shots."""
    rows = len(pair.labels)
    notes: list[str] = []
    if shots is not None and not pair.several:
        notes += fewer_than_shots(pair.labels, shots)
        rows = sum(min(size, shots) for size in Counter(pair.labels.tolist()).values())
    if large := [k for k in counts if k != "auto" and k > rows]:
        notes.append(f"k={large[0]} is more than the {rows} training rows: all of them vote")
    return notes


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
    group_column: str | None = None,
) -> Scores:
    """A linear probe on each of the features; for lists of labels one probe a label, and mAP."""
    few: dict[str, Any] = few_shot(shots, draws, seed)
    pair = read_pair(train, test, what.reads, label_column, group_column=group_column)
    pair = replace(pair, notes=(*pair.notes, *notes_of_few_rows(pair, (), shots)))
    no_shots_of_lists(pair, shots)

    def judge(of: Features) -> Mapping[str, Result]:
        sets = (of.rows, pair.labels, of.others, pair.test_labels)
        if pair.several:
            return {"probe": multilabel(*sets, method="probe", seed=seed, standardise=standardise)}
        return {"probe": probe(*sets, standardise=standardise, groups=pair.groups, **{"seed": seed, **few})}

    loo = loo_labels(pair, shots)
    entries, selection = scores_of(
        pair.store,
        pair.blocks,
        pair.test_blocks,
        what,
        judge,
        progress,
        *loo,
        seed,
        predictors=LINEAR,
        groups=pair.groups,
    )
    return Scores(entries, pair.note, selection, pair.several)


def regress_scores(
    train: Rows,
    test: Rows,
    what: Wanted,
    label_column: str | None = None,
    progress: Progress = lambda _: None,
    group_column: str | None = None,
    **way: Any,
) -> Scores:
    """Real-valued labels, predicted from each of the features. way: method, k, metric, vote, ...

    Of several features the one with the best leave-one-out R^2 on the training rows is the choice.
    """
    pair = read_pair(train, test, what.reads, label_column, targets=True, group_column=group_column)

    def judge(of: Features) -> Mapping[str, Result]:
        return {"regress": regress(of.rows, pair.labels, of.others, pair.test_labels, groups=pair.groups, **way)}

    why = f"it chooses by classes, and these labels are numbers to predict; {NO_LABELS}"
    entries, _ = scores_of(pair.store, pair.blocks, pair.test_blocks, what, judge, progress, None, why)
    best = best_of({at: entry.result.leave_one_out_value for at, entry in enumerate(entries)})
    return Scores(entries, pair.note, best=entries[best] if len(entries) > 1 else None)


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
    single = read_store(rows, what.reads, label_column, "cluster")

    def judge(of: Features) -> Mapping[str, Result]:
        return {"cluster": cluster(of.rows, single.labels, clusters, starts, seed)}

    why = f"it would choose by the labels that judge; {NO_LABELS}"
    entries, _ = scores_of(single.store, single.blocks, None, what, judge, progress, None, why)
    return Scores(entries, single.note)


def scores_of(
    store: Store,
    blocks: Blocks,
    others: Blocks | None,
    what: Wanted,
    judge: Judge,
    progress: Progress,
    labels: Any,
    unlabelled: str,
    seed: int = 0,
    table: Callable[[Sequence[str]], list[Candidate]] = short_table,
    predictors: Sequence[str] = ("kNN",),
    groups: Any = None,
) -> tuple[list[Entry], Selection | None]:
    """Each of the features that are wanted, judged.

    labels, unlabelled, table, predictors: as of `combination_flags.candidates`.
    """
    listed, selection = candidates(what, blocks, labels, unlabelled, seed, table, progress, predictors, groups)
    costs = Costs(store.blocks_info, store.cost.get("seconds"), store.cost.get("rows", 0))
    entries = entries_of(listed, blocks, others, costs, judge, progress)
    return mark_paper(entries, store.plan), selection


def loo_labels(pair: Pair, shots: int | None) -> tuple[Any, str]:
    """The training labels, if loo may see them, and else why not and what to take instead."""
    if pair.several:
        return None, f"its labels are lists, and it chooses by one class a row; {NO_LABELS}"
    if shots is None:
        return pair.labels, ""
    return None, (
        "with --shots it would see labels that no draw has; `sporeprint compare --shots` chooses in each draw from its "
        "own rows; or name features here: --features embedding"
    )


def few_shot(shots: int | None, draws: int | None, seed: int) -> dict[str, int]:
    """The options of few-shot draws. Raises RecipeError."""
    if shots is None and draws is not None:
        raise RecipeError("--draws goes with --shots: how many rows of each class a draw takes")
    return {} if shots is None else {"shots": shots, "draws": 3 if draws is None else draws, "seed": seed}


def way_of(metric: str, vote: str, temperature: float | None) -> dict[str, Any]:
    """The options that say how neighbours are found and weighed. Raises RecipeError."""
    if temperature is None:
        return {"metric": metric, "vote": vote}
    if vote != "softmax":
        raise RecipeError(f"--temperature goes with --vote softmax; with --vote {vote} it changes nothing")
    if not 0 < temperature < float("inf"):
        raise RecipeError(f"--temperature {temperature:g}; expected a number above 0")
    return {"metric": metric, "vote": vote, "temperature": temperature}


def method_of(method: str, way: Mapping[str, Any], standardise: bool) -> str:
    """The method of a regression: options of one of them name it. Raises RecipeError for those of the other.

    way: of neighbours: k, metric, vote, temperature.
    """
    neighbours = [f"--{name}" for name, value in way.items() if value not in _PLAIN]
    if standardise and (neighbours or method == "knn"):
        given = neighbours[0] if neighbours else "--method knn"
        raise RecipeError(f"--standardise is for ridge, and {given} for the nearest neighbours; leave one of them out")
    if neighbours and method == "ridge":
        raise RecipeError(f"{neighbours[0]} is for the nearest neighbours; leave it out, or take --method knn")
    return "knn" if neighbours else "ridge" if standardise else method


def no_shots_of_lists(pair: Pair, shots: int | None) -> None:
    """Raises RecipeError where few-shot draws, or groups, are asked for and labels are lists."""
    if pair.several and pair.groups is not None:
        raise RecipeError("--group-column leaves out groups of rows with one label each; these labels are lists")
    if pair.several and shots is not None:
        raise RecipeError("--shots draws rows of each class; these labels are lists: leave it out")
