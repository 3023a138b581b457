"""The command that answers the user's question, registered by cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sporeprint.cli.evaluate_commands import Json, LabelColumn, TestSplit, TrainSplit


def compare(
    train_store: Annotated[Path, typer.Argument(help="Store of the labelled rows.")],
    test_store: Annotated[Path | None, typer.Argument(help="Store of the rows to measure on, made with --fit-from TRAIN_STORE; without it, repeated splits of TRAIN_STORE.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, one page that needs nothing else, and comparison.json.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Only these blocks or families, comma-separated, beside the embedding.")] = None,
    splits: Annotated[int | None, typer.Option(min=2, help="Without TEST_STORE: so many.", show_default="10")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, of the bootstrap, and of the rows that choose where there are many.")] = 0,
    label_column: LabelColumn = None,
    train: Annotated[Path | None, typer.Option(help="The source that TRAIN_STORE was made of: for --label-column, and for the samples in the report.")] = None,
    test: Annotated[Path | None, typer.Option(help="The source that TEST_STORE was made of.")] = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Does it help here, how much, at what cost? Every block, the controls, and what leave-one-out chooses."""
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_comparison import print_comparison
    from sporeprint.errors import RecipeError
    from sporeprint.run.compare_stores import check_samples, compare_stores, is_store, shown_samples
    from sporeprint.run.store_source import Rows

    def say(what: str) -> None:
        typer.echo(what, err=True)

    if test_store is None and (test is not None or test_split is not None):
        raise RecipeError("--test and --test-split are of TEST_STORE, which is not given; give it, or leave them out")
    if test_store is not None and splits is not None:
        raise RecipeError("--splits are of TRAIN_STORE alone, in the place of TEST_STORE; leave out one of the two")
    if report is None and label_column is None and (train is not None or test is not None):
        raise RecipeError(
            "--train and --test are for --label-column and for the samples in the report; "
            "add --label-column or --report, or leave them out"
        )
    if report is not None and is_store(report):
        raise RecipeError(f"--report '{report}' is a store, which nothing else is written into; name another folder")
    train_rows = Rows(train_store, train, train_split)
    test_rows = None if test_store is None else Rows(test_store, test, test_split)
    if report is not None:
        check_samples(train_rows, test_rows)  # before minutes are spent
    found = compare_stores(train_rows, test_rows, blocks, label_column, 10 if splits is None else splits, seed, say=say)
    if json:
        print_json(found.to_json())
    else:
        print_comparison(found)
        typer.echo(found.verdict)
    if report is not None:  # last: where it cannot be written, what was found has been told
        from sporeprint.report.page import write_report

        samples = shown_samples(found, train_rows, test_rows)
        if samples is None and (train is not None or test is not None):
            wants = "TEST_STORE, with --test" if test_store is None else "--train" if train is None else "--test"
            say(f"the report shows no samples: that needs {wants} too")
        say(f"report: {write_report(found, report, samples)}")
