"""The commands that write predictions: classify for stores, predict for new files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import GroupedPairSources, RowFeatures, grouped
from sporeprint.cli.plain_text import say

if TYPE_CHECKING:
    from sporeprint.errors import RowFailure

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

    if test_store is None and save is None:
        raise RecipeError("give TEST_STORE and --out FILE for predictions, or --save FOLDER for a model")
    if (test_store is None) != (out is None):
        raise RecipeError("TEST_STORE and --out go together: the rows to label, and the file to write; give both")
    if test_store is None and (sources.test is not None or sources.test_split is not None):
        raise RecipeError("--test and --test-split belong to TEST_STORE, which is not given; leave them out")
    test_rows = None if test_store is None else sources.test_rows(test_store)
    with Working() as progress:
        found = classify_stores(
            sources.train_rows(train_store), test_rows, features.wanted(), predictor, sources.label_column,
            sources.group_column, abstain, probabilities, seed, progress,
        )  # fmt: skip
        if out is not None and found.columns is not None:
            with PredictionsFile(out) as file:
                file.write(found.columns)
    if json:
        print_json({"out": None if out is None else str(out), **found.to_json()})
        return
    say_folded(found.verdict(out))
    if found.sets:
        say_folded(f"{found.sets[0].upper()}{found.sets[1:]}.")
    for note in found.notes:
        say(note, err=True)
    say_failures(found.failures)


def say_failures(failures: list[RowFailure]) -> None:
    """Name rows that were left out, on stderr."""
    for failure in failures[:_FAILURES]:
        say(f"left out: {failure.id}: {failure.reason}", err=True)
    if len(failures) > _FAILURES:
        say(f"left out: {len(failures) - _FAILURES:,} more rows", err=True)
