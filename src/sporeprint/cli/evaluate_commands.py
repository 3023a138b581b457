"""The commands that evaluate stores: knn, probe, cluster, retrieve, regress, analyse. What they do lives in run/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import (
    AnalysedFeatures,
    GroupedPairSources,
    JoinedFeatures,
    PairSources,
    UnlabelledFeatures,
    grouped,
)

if TYPE_CHECKING:
    from sporeprint.run.scores import Scores


@grouped
def knn(
    train_store: options.TrainStore,
    test_store: options.TestStore,
    joined: JoinedFeatures,
    sources: GroupedPairSources,
    k: Annotated[str, typer.Option(help="Numbers of nearest neighbours, comma-separated; auto: chosen by leave-one-out on the training rows.")] = "20,auto",
    metric: options.Metric = "euclidean",
    vote: options.Vote = "uniform",
    temperature: options.VoteTemperature = None,
    shots: options.Shots = None,
    draws: options.Draws = None,
    seed: options.Seed = 0,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """k nearest neighbours: does it help here? Embedding, gradients, the paper's assembly, and equal-cost controls.

    Where labels are lists (several a row), mean average precision over the labels. In the table --pca is of the
    paper's assembly alone: by default to the embedding's width, at most 512.
    """
    from sporeprint.cli.console import Working
    from sporeprint.run.scores import knn_scores, way_of

    wanted = joined.wanted()
    with Working() as progress:
        scores = knn_scores(
            sources.train_rows(train_store), sources.test_rows(test_store), wanted, k, sources.label_column,
            shots, draws, seed, progress, sources.group_column, **way_of(metric, vote, temperature),
        )  # fmt: skip
    _show(scores, json, everything, "kNN", "knn of several" if scores.several else "knn")


@grouped
def probe(
    train_store: options.TrainStore,
    test_store: options.TestStore,
    joined: JoinedFeatures,
    sources: GroupedPairSources,
    shots: options.Shots = None,
    draws: options.Draws = None,
    seed: options.Seed = 0,
    standardise: options.Standardise = False,
    everything: options.All = False,
    json: options.Json = False,
) -> None:
    """A linear probe: logistic regression, its penalty chosen on held-out training rows.

    Where labels are lists (several a row), one probe a label, and mean average precision.
    """
    from sporeprint.cli.console import Working
    from sporeprint.run.scores import probe_scores

    wanted = joined.wanted()
    with Working() as progress:
        scores = probe_scores(
            sources.train_rows(train_store), sources.test_rows(test_store), wanted, sources.label_column,
            shots, draws, seed, standardise, progress, sources.group_column,
        )  # fmt: skip
    _show(scores, json, everything, "probe", "several" if scores.several else "probe")


@grouped
def cluster(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A labelled store; its labels are looked at for scoring only.")],
    joined: UnlabelledFeatures,
    clusters: Annotated[int | None, typer.Option(min=1, help="Number of clusters.", show_default="as many as classes")] = None,
    starts: Annotated[int, typer.Option(min=1, help="Starts of k-means, each with its own figures.")] = 5,
    seed: options.Seed = 0,
    label_column: options.OtherLabels = None,
    source: Annotated[Path | None, typer.Option(help="With --label-column: the source that STORE was made from.")] = None,
    split: options.Split = None,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """k-means clusters against the labels: matched accuracy, NMI, ARI."""
    from sporeprint.cli.console import Working
    from sporeprint.run.scores import cluster_scores
    from sporeprint.run.store_source import Rows

    wanted = joined.wanted()
    with Working() as progress:
        scores = cluster_scores(Rows(store, source, split), wanted, label_column, clusters, starts, seed, progress)
    _show(scores, json, everything, "k-means", "cluster")


@grouped
def retrieve(
    query_store: Annotated[Path, typer.Argument(metavar="QUERY_STORE", help="Store of the queries; alone, each row queries all the others.")],
    joined: JoinedFeatures,
    database_store: Annotated[Path | None, typer.Argument(metavar="DATABASE_STORE", help="Store of the rows to rank; the queries' store was made with --fit-from DATABASE_STORE.")] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="Instead of labels: the ground truth of revisited Oxford or Paris as JSON, which benchmarks/convert_ground_truth.py makes from the official pickles; it names rows by their ids, which for a folder are file names.")] = None,
    k: Annotated[str, typer.Option(help="Numbers of nearest rows for mP@k and recall@k, comma-separated.")] = "1,5,10",
    metric: options.Metric = "euclidean",
    seed: options.Seed = 0,
    label_column: options.OtherLabels = None,
    query: Annotated[Path | None, typer.Option(help="With --label-column: the source that QUERY_STORE was made from.")] = None,
    database: Annotated[Path | None, typer.Option(help="With --label-column: the source that DATABASE_STORE was made from.")] = None,
    query_split: Annotated[str | None, typer.Option(help="Split of --query, where it holds several.")] = None,
    database_split: Annotated[str | None, typer.Option(help="Split of --database, where it holds several.")] = None,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Retrieval: rows of a query's label are relevant; mAP, mP@k, recall@k. Or revisited Oxford and Paris."""
    from sporeprint.cli.console import Working
    from sporeprint.run.retrieval import retrieval_scores
    from sporeprint.run.store_source import Rows

    wanted = joined.wanted()
    queries = Rows(query_store, query, query_split)
    ranked = None if database_store is None else Rows(database_store, database, database_split)
    with Working() as progress:
        scores = retrieval_scores(queries, ranked, wanted, label_column, ground_truth, k, metric, seed, progress)
    _show(scores, json, everything, "retrieval", "retrieve" if ground_truth is None else "revisited")


@grouped
def regress(
    train_store: options.TrainStore,
    test_store: options.TestStore,
    joined: UnlabelledFeatures,
    sources: GroupedPairSources,
    method: Annotated[Literal["auto", "knn", "ridge"], typer.Option(help="Mean of the nearest neighbours, or ridge regression; auto: the better by leave-one-out. --k, --metric and --vote mean knn, --standardise ridge.")] = "auto",
    k: options.K = "auto",
    metric: options.Metric = "euclidean",
    vote: options.Vote = "uniform",
    temperature: options.VoteTemperature = None,
    standardise: options.Standardise = False,
    out: options.Predictions = None,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Predict labels that are numbers (or lists of numbers): R^2, MAE, RMSE, Spearman.

    Features and method are chosen by leave-one-out on the training rows, as far as no option names them.

    With --out a number for each row of TEST_STORE, which needs no labels, and its three nearest training rows.
    """
    from sporeprint.cli.console import Working
    from sporeprint.run.scores import count_of, method_of, regress_scores, way_of

    wanted = joined.wanted()
    train, test = sources.train_rows(train_store), sources.test_rows(test_store)
    way: dict[str, Any] = {"k": count_of(k), **way_of(metric, vote, temperature)}
    way |= {"method": method_of(method, way, standardise), "standardise": standardise}
    if out is not None:
        from sporeprint.cli.classify_command import write_numbers

        write_numbers(
            out, json, train, test, wanted, label_column=sources.label_column, group_column=sources.group_column, **way
        )
        return
    with Working() as progress:
        scores = regress_scores(train, test, wanted, sources.label_column, progress, sources.group_column, **way)
    title = {"auto": "regression", "knn": "kNN regression", "ridge": "ridge regression"}[way["method"]]
    _show(scores, json, everything, title, "regress")


@grouped
def analyse(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store; with TEST_STORE, that of the labelled rows.")],
    joined: AnalysedFeatures,
    sources: PairSources,
    test_store: Annotated[Path | None, typer.Argument(metavar="TEST_STORE", help="A labelled store made with --fit-from STORE: which of its classes gain and lose?")] = None,
    k: options.K = "auto",
    most_rows: Annotated[int, typer.Option(min=1, help="Largest number of rows that the blocks' figures are computed on.")] = 10_000,
    seed: options.Seed = 0,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """What the blocks are like: effective rank, anisotropy, what they share (CKA); and which classes gain by them.

    With TEST_STORE the blocks are joined, by default decorrelated, and k nearest neighbours label its rows.
    """
    from sporeprint.cli.console import Working, print_json
    from sporeprint.cli.print_analysis import print_analysis
    from sporeprint.run.analysis import analysis
    from sporeprint.run.scores import count_of

    wanted = joined.wanted()
    test_rows = None if test_store is None else sources.test_rows(test_store)
    with Working() as progress:
        blocks, note = analysis(
            sources.train_rows(store), test_rows, wanted, sources.label_column, count_of(k), most_rows, seed, progress
        )
    if json:
        print_json({"note": note, **blocks.to_json()})
        return
    print_analysis(f"Blocks: {note}", blocks, everything)


def _show(scores: Scores, json: bool, everything: bool, title: str, kind: str) -> None:
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_scores import print_scores

    if json:
        print_json(scores.to_json())
    else:
        print_scores(f"{title}: {scores.note}", scores.entries, kind, scores.chosen, everything)
