"""The command that says whether it helps here, how much, and at what cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import GroupedPairSources, ImageLimits, grouped
from sporeprint.cli.plain_text import say


@grouped
def compare(
    train_store: options.TrainStore,
    sources: GroupedPairSources,
    limits: ImageLimits,
    test_store: Annotated[Path | None, typer.Argument(metavar="TEST_STORE", help="Store of the rows to measure on, made with --fit-from TRAIN_STORE; without it, repeated splits of TRAIN_STORE.", show_default=False)] = None,
    others: Annotated[list[Path] | None, typer.Option("--with", metavar="TRAIN_STORE TEST_STORE", help="Two stores of the same rows by another backbone; may be given several times: which backbone to use?", show_default=False)] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, one page that needs nothing else, and comparison.json.")] = None,
    features: options.AllFeatures = None,
    blocks: options.OldBlocks = None,
    splits: Annotated[int | None, typer.Option(min=2, help="Without TEST_STORE: number of splits.", show_default="10")] = None,
    shots: options.Shots = None,
    draws: options.ChoosingDraws = None,
    seed: options.Seed = 0,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Does it help here, how much, at what cost? Every block, the controls, and what leave-one-out chooses.

    With --with, which backbone to use: each makes its choice, and one reference is the best embedding of all.
    The embedding, which others are compared with, is always there. Samples in the report need --train and --test.
    """
    from sporeprint.cli.console import Working, print_json
    from sporeprint.cli.print_backbones import print_backbones
    from sporeprint.cli.print_comparison import print_comparison
    from sporeprint.errors import RecipeError
    from sporeprint.run.backbone_stores import compare_backbone_stores, pairs_of
    from sporeprint.run.compare_stores import check_samples, compare_stores, shown_samples

    features = options.renamed("features", features, "blocks", blocks)
    train, test = sources.train, sources.test
    if test_store is None and (test is not None or sources.test_split is not None):
        raise RecipeError(
            "--test and --test-split belong to TEST_STORE, which is not given; give it, or leave them out"
        )
    if test_store is not None and splits is not None:
        raise RecipeError("--splits splits TRAIN_STORE where there is no TEST_STORE; leave out one of the two")
    if test_store is None and shots is not None:
        raise RecipeError("--shots draws labelled rows to choose from, and needs TEST_STORE to measure on; give it")
    if shots is None and draws is not None:
        raise RecipeError("--draws goes with --shots: how many rows of each class a draw takes")
    if others and (test_store is None or shots is not None):
        raise RecipeError(
            "--with compares backbones on the rows of TEST_STORE, with all labels; give TEST_STORE, and leave out --shots"
        )
    columns = (sources.label_column, sources.group_column)
    if report is None and columns == (None, None) and (train is not None or test is not None):
        raise RecipeError(
            "--train and --test are for --label-column, --group-column and the samples in the report; "
            "add one of these, or leave them out"
        )
    train_rows = sources.train_rows(train_store)
    test_rows = None if test_store is None else sources.test_rows(test_store)
    if report is not None:  # before minutes are spent
        check_samples(train_rows, test_rows)
        if None in (test_store, train, test) and (train is not None or test is not None):
            wants = "TEST_STORE, with --test" if test_store is None else "--train" if train is None else "--test"
            say(f"the report will show no samples: that needs {wants} too", err=True)
    with Working() as progress:
        if others and test_rows is not None:
            pairs = pairs_of(others, train_rows, test_rows)
            answer: Any = compare_backbone_stores(pairs, features, *columns, seed, progress)
            comparison = answer.comparison
            train_rows, test_rows = pairs[[entry.name for entry in answer.backbones].index(answer.chosen)]
        else:
            comparison = answer = compare_stores(
                train_rows, test_rows, features, *columns, 10 if splits is None else splits, seed, progress,
                shots=shots, draws=5 if draws is None else draws,
            )  # fmt: skip
    try:
        if json:
            print_json(answer.to_json())
        elif others:
            print_backbones(answer, everything)
        else:
            print_comparison(comparison, everything)
        sys.stdout.flush()
    finally:  # last: where it cannot be written, the answer is on the screen already; written also if that is lost
        if report is not None:
            from sporeprint.report.page import write_report

            samples = shown_samples(comparison, train_rows, test_rows, limits.limits())
            say(f"report: {write_report(answer, report, samples)}", err=True)
