"""The commands that evaluate stores, registered by cli.py. Commands only: what they do lives in run/ and evaluate/."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sporeprint.run.scores import Scores

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TrainStore = Annotated[Path, typer.Argument(help="Store of the labelled rows.")]
TestStore = Annotated[Path, typer.Argument(help="Store of the rows to ask about, made with --fit-from TRAIN_STORE.")]
Blocks = Annotated[str | None, typer.Option(help="Blocks or families (layers, views, gradients), comma-separated; without it, and without --combination, a table of several.")]  # fmt: skip
Whiten = Annotated[str | None, typer.Option(help="With --blocks: whiten each to so many dimensions, or auto.")]
Exponent = Annotated[float | None, typer.Option(min=0, max=1, help="With --whiten: how far to even out, 0 not at all, 1 in full.", show_default="1")]  # fmt: skip
Size = Annotated[int | None, typer.Option(min=1, help="PCA of what is joined to this size.")]
Combined = Annotated[str | None, typer.Option("--combination", help="In the place of --blocks: paper, decorrelated, or loo (chosen by leave-one-out on the training rows).")]  # fmt: skip
LabelColumn = Annotated[str | None, typer.Option(help="Other labels than the stores': a column of the sources that they were made of.")]  # fmt: skip
Train = Annotated[Path | None, typer.Option(help="With --label-column: the source that TRAIN_STORE was made of.")]
Test = Annotated[Path | None, typer.Option(help="With --label-column: the source that TEST_STORE was made of.")]
TrainSplit = Annotated[str | None, typer.Option(help="Which split, where --train holds several.")]
TestSplit = Annotated[str | None, typer.Option(help="Which split, where --test holds several.")]
Metric = Annotated[Literal["euclidean", "cosine"], typer.Option(help="Of distances.")]
Vote = Annotated[Literal["uniform", "distance", "softmax"], typer.Option(help="How neighbours are weighed.")]
Temperature = Annotated[float | None, typer.Option(help="With --vote softmax.", show_default="0.07")]
Shots = Annotated[int | None, typer.Option(min=1, help="Few-shot: so many training rows of each class, drawn several times.")]  # fmt: skip
Draws = Annotated[int | None, typer.Option(min=1, help="With --shots: how often.", show_default="3")]
Seed = Annotated[int, typer.Option(min=0, help="Of whatever is drawn.")]


def knn(
    train_store: TrainStore,
    test_store: TestStore,
    blocks: Blocks = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Annotated[int | None, typer.Option(min=1, help="PCA of the joined blocks to this size.", show_default="in the table: the embedding's width, at most 512, for the paper's")] = None,
    combination: Combined = None,
    k: Annotated[str, typer.Option(help="Comma-separated: numbers, or auto (leave-one-out on the training rows).")] = "20,auto",
    metric: Metric = "euclidean",
    vote: Vote = "uniform",
    temperature: Temperature = None,
    shots: Shots = None,
    draws: Draws = None,
    seed: Seed = 0,
    label_column: LabelColumn = None,
    train: Train = None,
    test: Test = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:  # fmt: skip
    """k nearest neighbours: does it help here? Embedding, gradients, the paper's assembly, and equal-cost controls.

    Where labels are lists (several a row), mean average precision over the labels.
    """
    from sporeprint.cli.console import print_entries
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.scores import knn_scores, way_of
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    with _working() as progress:
        found = knn_scores(
            Rows(train_store, train, train_split), Rows(test_store, test, test_split), what, k, label_column,
            shots, draws, seed, progress, **way_of(metric, vote, temperature),
        )  # fmt: skip
    title = "kNN mAP" if found.several else "kNN top-1"
    _show(found, json, lambda: print_entries(f"{title}: {found.note}", found.entries))


def probe(
    train_store: TrainStore,
    test_store: TestStore,
    blocks: Blocks = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Size = None,
    combination: Combined = None,
    shots: Shots = None,
    draws: Draws = None,
    seed: Seed = 0,
    standardise: Annotated[bool, typer.Option("--standardise", help="Give every dimension the same variance.")] = False,
    label_column: LabelColumn = None,
    train: Train = None,
    test: Test = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:
    """A linear probe: logistic regression, its penalty chosen on held-out training rows.

    Where labels are lists (several a row), one probe a label, and mean average precision.
    """
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.scores import probe_scores
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    with _working() as progress:
        found = probe_scores(
            Rows(train_store, train, train_split), Rows(test_store, test, test_split), what, label_column,
            shots, draws, seed, standardise, progress,
        )  # fmt: skip
    _show_scores(found, json, "probe", "several" if found.several else "probe")


def cluster(
    store: Annotated[Path, typer.Argument(help="A labelled store; its labels are looked at for scoring only.")],
    blocks: Blocks = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Size = None,
    combination: Annotated[str | None, typer.Option(help="In the place of --blocks: paper or decorrelated.")] = None,
    clusters: Annotated[int | None, typer.Option(min=1, help="How many.", show_default="as many as classes")] = None,
    starts: Annotated[int, typer.Option(min=1, help="Of k-means, each with its own figures.")] = 5,
    seed: Seed = 0,
    label_column: LabelColumn = None,
    source: Annotated[Path | None, typer.Option(help="With --label-column: the source that STORE was made of.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split, where --source holds several.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """k-means clusters against the labels: matched accuracy, NMI, ARI."""
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.scores import cluster_scores
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    with _working() as progress:
        found = cluster_scores(Rows(store, source, split), what, label_column, clusters, starts, seed, progress)
    _show_scores(found, json, "k-means", "cluster")


def retrieve(
    query_store: Annotated[Path, typer.Argument(help="Store of the queries; alone, each row queries all the others.")],
    database_store: Annotated[Path | None, typer.Argument(help="Store of the rows to rank, which the queries' was made with --fit-from.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="In the place of labels: gnd_roxford5k.pkl, gnd_rparis6k.pkl, or such a file as JSON; rows are known by their ids, which of a folder are its file names.")] = None,
    blocks: Blocks = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Size = None,
    combination: Annotated[str | None, typer.Option(help="In the place of --blocks: paper, decorrelated, or loo (chosen by leave-one-out on the database).")] = None,
    k: Annotated[str, typer.Option(help="Comma-separated: of mP@k and recall@k.")] = "1,5,10",
    metric: Metric = "euclidean",
    seed: Seed = 0,
    label_column: LabelColumn = None,
    query: Annotated[Path | None, typer.Option(help="With --label-column: the source that QUERY_STORE was made of.")] = None,
    database: Annotated[Path | None, typer.Option(help="With --label-column: the source that DATABASE_STORE was made of.")] = None,
    query_split: Annotated[str | None, typer.Option(help="Which split, where --query holds several.")] = None,
    database_split: Annotated[str | None, typer.Option(help="Which split, where --database holds several.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Retrieval: rows of a query's label are relevant; mAP, mP@k, recall@k. Or revisited Oxford and Paris."""
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.retrieval import retrieval_scores
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    held = None if database_store is None else Rows(database_store, database, database_split)
    with _working() as progress:
        found = retrieval_scores(
            Rows(query_store, query, query_split), held, what, label_column, ground_truth, k, metric, seed, progress
        )
    _show_scores(found, json, "retrieval", "retrieve" if ground_truth is None else "revisited", "database")
    if ground_truth is None and not json:
        typer.echo("mP@k is below 100 % where a query has fewer than k relevant rows, however good the features are.")


def regress(
    train_store: TrainStore,
    test_store: TestStore,
    blocks: Blocks = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Size = None,
    combination: Annotated[str | None, typer.Option(help="In the place of --blocks: paper or decorrelated.")] = None,
    method: Annotated[Literal["knn", "ridge"], typer.Option(help="Mean of the nearest neighbours, or ridge regression.")] = "knn",
    k: Annotated[str, typer.Option(help="Of knn: a number, or auto (leave-one-out on the training rows).")] = "auto",
    metric: Metric = "euclidean",
    vote: Vote = "uniform",
    temperature: Temperature = None,
    standardise: Annotated[bool, typer.Option("--standardise", help="Of ridge: give every dimension the same variance.")] = False,
    label_column: LabelColumn = None,
    train: Train = None,
    test: Test = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Predict labels that are numbers (or lists of numbers): R^2, MAE, RMSE, Spearman."""
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.scores import count_of, regress_scores, way_of
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    way = way_of(metric, vote, temperature)
    with _working() as progress:
        found = regress_scores(
            Rows(train_store, train, train_split), Rows(test_store, test, test_split), what, label_column,
            progress, method=method, k=count_of(k), standardise=standardise, **way,
        )  # fmt: skip
    _show_scores(found, json, "kNN regression" if method == "knn" else "ridge regression", "regress")


def analyse(
    store: Annotated[Path, typer.Argument(help="A store; with TEST_STORE, that of the labelled rows.")],
    test_store: Annotated[Path | None, typer.Argument(help="A labelled store made with --fit-from STORE: which of its classes gain and lose?")] = None,
    blocks: Annotated[str | None, typer.Option(help="Only these blocks or families, comma-separated; with TEST_STORE they are joined.")] = None,
    whiten: Whiten = None,
    exponent: Exponent = None,
    size: Size = None,
    combination: Annotated[str | None, typer.Option(help="With TEST_STORE: paper, decorrelated, or loo.", show_default="decorrelated")] = None,
    k: Annotated[str, typer.Option(help="With TEST_STORE: of the neighbours, or auto (leave-one-out on the training rows).")] = "auto",
    most_rows: Annotated[int, typer.Option(min=1, help="So many rows at most are looked at for the blocks' figures.")] = 10_000,
    seed: Seed = 0,
    label_column: LabelColumn = None,
    train: Annotated[Path | None, typer.Option(help="With --label-column: the source that STORE was made of.")] = None,
    test: Test = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:  # fmt: skip
    """What the blocks are like: effective rank, anisotropy, what they share (CKA); and which classes gain by them."""
    from sporeprint.cli.console import print_analysis, print_json
    from sporeprint.run.analysis import analysis
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.scores import count_of
    from sporeprint.run.store_source import Rows

    what = wanted(blocks, whiten, exponent, size, combination)
    asked = None if test_store is None else Rows(test_store, test, test_split)
    with _working() as progress:
        found, note = analysis(
            Rows(store, train, train_split), asked, what, label_column, count_of(k), most_rows, seed, progress
        )
    if json:
        print_json({"note": note, **found.to_json()})
        return
    print_analysis(f"Blocks: {note}", found)


COMMANDS = (knn, probe, cluster, retrieve, regress, analyse)


def _show_scores(found: Scores, json: bool, what: str, kind: str, rows: str = "training") -> None:
    from sporeprint.cli.console import print_scores

    _show(found, json, lambda: print_scores(f"{what}: {found.note}", found.entries, kind), rows)


def _show(found: Scores, json: bool, table: Callable[[], None], rows: str = "training") -> None:
    from sporeprint.cli.console import print_json

    if json:
        print_json(found.to_json())
        return
    table()
    if found.loo is not None:
        only = "; nothing beats it by two standard errors" if found.loo.name == "embedding" else ""
        typer.echo(f"loo chose, by the labels of the {rows} rows: {found.loo}{only}.")


@contextmanager
def _working() -> Iterator[Any]:
    from sporeprint.cli.console import Working

    working = Working()
    try:
        yield working
    finally:
        working.close()
