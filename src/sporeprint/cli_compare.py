"""The command that answers the user's question, registered by cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sporeprint.cli_evaluate import Json, LabelColumn, TestSplit, TrainSplit


def compare(
    train_store: Annotated[Path, typer.Argument(help="Store of the labelled rows.")],
    test_store: Annotated[Path | None, typer.Argument(help="Store of the rows to measure on, made with --fit-from TRAIN_STORE; without it, repeated splits of TRAIN_STORE.", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, one page that needs nothing else, and comparison.json.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Only these blocks or families, comma-separated, beside the embedding.")] = None,
    splits: Annotated[int, typer.Option(min=2, help="Without TEST_STORE: so many.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, of the bootstrap, and of the rows that choose where there are many.")] = 0,
    label_column: LabelColumn = None,
    train: Annotated[Path | None, typer.Option(help="The source that TRAIN_STORE was made of: for --label-column, and for the samples in the report.")] = None,
    test: Annotated[Path | None, typer.Option(help="The source that TEST_STORE was made of.")] = None,
    train_split: TrainSplit = None,
    test_split: TestSplit = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Does it help here, how much, at what cost? Every block, the controls, and what leave-one-out chooses."""
    from sporeprint.errors import RecipeError
    from sporeprint.run.compare import compare_stores, shown_samples
    from sporeprint.run.comparison import print_comparison
    from sporeprint.run.console import print_json
    from sporeprint.run.origin import Rows

    if test_store is None and (test is not None or test_split is not None):
        raise RecipeError("--test and --test-split are of TEST_STORE, which is not given; give it, or leave them out")
    train_rows = Rows(train_store, train, train_split)
    test_rows = None if test_store is None else Rows(test_store, test, test_split)
    typer.echo("comparing: this takes some minutes for thousands of rows ...", err=True)
    found = compare_stores(train_rows, test_rows, blocks, label_column, splits, seed)
    if report is not None:
        from sporeprint.report.page import write_report

        samples = shown_samples(found, train_rows, test_rows)
        typer.echo(f"report: {write_report(found, report, samples)}", err=True)
    if json:
        print_json(found.to_json())
        return
    print_comparison(found)
    typer.echo(found.verdict)
