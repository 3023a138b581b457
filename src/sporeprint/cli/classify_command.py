"""The commands that write predictions: classify for stores, predict for new files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import GroupedPairSources, RowFeatures, SampleLimits, SourceWords, grouped
from sporeprint.cli.plain_text import say

if TYPE_CHECKING:
    from sporeprint.errors import RowFailure
    from sporeprint.run.combination_flags import Wanted
    from sporeprint.run.store_source import Rows

_FAILURES = 10  # rows without features, which are named


@grouped
def classify(
    train_store: options.TrainStore,
    features: RowFeatures,
    sources: GroupedPairSources,
    test_store: Annotated[Path | None, typer.Argument(metavar="TEST_STORE", help="Store of the rows to label, made with --fit-from TRAIN_STORE; it needs no labels.", show_default=False)] = None,
    out: options.Predictions = None,
    save: Annotated[Path | None, typer.Option(help="Folder for a model, which `sporeprint predict` applies to new files.")] = None,
    predictor: Annotated[Literal["knn", "class-means", "lda", "ridge", "probe"] | None, typer.Option(help="What answers from features.", show_default="chosen by leave-one-out")] = None,
    abstain: options.Abstain = None,
    probabilities: options.Probabilities = False,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Let the rows of TEST_STORE take part (EM from LDA), unless hidden training labels show that it harms. For 5 to 50 labels a class.")] = False,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Label the rows of a store: label, calibrated probability, and the three nearest training rows of each.

    Features and predictor are chosen together on the training rows, as far as no option names them.
    """
    from sporeprint.cli.console import Working, print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.errors import RecipeError
    from sporeprint.run.classify import classify_stores
    from sporeprint.run.predictions_file import PredictionsFile
    from sporeprint.run.saved_classifier import folder_size, save_classifier

    if test_store is None and save is None:
        raise RecipeError("give TEST_STORE and --out FILE for predictions, or --save FOLDER for a model")
    if (test_store is None) != (out is None):
        raise RecipeError("TEST_STORE and --out go together: the rows to label, and the file to write; give both")
    if test_store is None and (sources.test is not None or sources.test_split is not None):
        raise RecipeError("--test and --test-split belong to TEST_STORE, which is not given; leave them out")
    if unlabelled and (test_store is None or sources.group_column is not None):
        raise RecipeError(
            "--unlabelled learns from the rows of TEST_STORE, without groups; give TEST_STORE and --out, and leave out "
            "--group-column"
        )
    test_rows = None if test_store is None else sources.test_rows(test_store)
    with Working() as progress:
        found = classify_stores(
            sources.train_rows(train_store), test_rows, features.wanted(), predictor, sources.label_column,
            sources.group_column, abstain, probabilities, unlabelled, seed,
            progress,
        )  # fmt: skip
        if out is not None and found.columns is not None:
            with PredictionsFile(out) as file:
                file.write(found.columns)
        if save is not None:
            progress("saving")
            save_classifier(save, found.store, found.classifier, sources.label_column)
    if json:
        files = {"out": None if out is None else str(out), "model": None if save is None else str(save)}
        print_json({**files, **found.to_json()})
        return
    say_folded(found.verdict(out))
    if found.unlabelled:
        say_folded(found.unlabelled)
    if found.sets:
        say_folded(f"{found.sets[0].upper()}{found.sets[1:]}.")
    if save is not None:
        say_folded(
            f"{save}: a model of {folder_size(save) / 2**20:.1f} MiB; `sporeprint predict {save} SOURCE` applies it."
        )
    say_notes(found)


def write_numbers(out: Path, json: bool, train: Rows, test: Rows, what: Wanted, **options: Any) -> None:
    """What `regress --out` does. options: of `regress_rows`."""
    from sporeprint.cli.console import Working, print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.run.predictions_file import PredictionsFile
    from sporeprint.run.regress_rows import regress_rows

    with Working() as progress:
        found = regress_rows(train, test, what, progress=progress, **options)
        with PredictionsFile(out) as file:
            file.write(found.columns)
    if json:
        print_json({"out": str(out), **found.to_json()})
        return
    say_folded(found.verdict(out))
    say_notes(found)


def say_notes(found: Any) -> None:
    """Say on stderr what must be known about predictions, and name rows that were left out."""
    for note in found.notes:
        say(note, err=True)
    failures: list[RowFailure] = found.failures
    for failure in failures[:_FAILURES]:
        say(f"left out: {failure.id}: {failure.reason}", err=True)
    if len(failures) > _FAILURES:
        say(f"left out: {len(failures) - _FAILURES:,} more rows", err=True)


@grouped
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `sporeprint classify --save` wrote.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Files to label: a folder, a Parquet / CSV / JSONL table, or a datasets folder; labels are not needed.")],
    out: Annotated[Path, typer.Option(help="File of predictions to write: .parquet, .csv or .jsonl.", show_default=False)],
    rows: SourceWords,
    limits: SampleLimits,
    abstain: options.Abstain = None,
    probabilities: options.Probabilities = False,
    backbone: options.OptionalBackbone = None,
    max_failures: options.MaxFailures = 0.01,
    device: options.Device = None,
    batch_size: options.BatchSize = 32,
    workers: options.Workers = 1,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_random: options.AllowRandom = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Label new files by a saved model, without a store: the same columns as `classify`.

    Rows that cannot be read are named and left out; more of them than --max-failures allows stop the command. --backbone
    says where the model's network is now, if it was moved.
    """
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.data.sources import open_source
    from sporeprint.features.progress import ProgressLine
    from sporeprint.run.predict import predict_rows
    from sporeprint.run.saved_classifier import load_classifier
    from sporeprint.run.store_info import source_lines

    loaded = load_classifier(
        model, backbone, device=device, batch_size=batch_size, workers=workers, limits=limits.limits(),
        trust_remote_code=trust_remote_code, allow_random=allow_random, max_failures=max_failures,
    )  # fmt: skip
    opened = open_source(source, **asdict(rows), modality=loaded.fungi.network.modality, like=loaded.columns)
    for line in source_lines(opened.describe(), opened.notes()):
        say(line, err=True)
    found = predict_rows(loaded, opened, out, abstain, probabilities, ProgressLine())
    if json:
        print_json({"out": str(out), **found.to_json()})
        return
    say_folded(found.verdict(out))
    say_notes(found)
