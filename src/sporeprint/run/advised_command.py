"""The `classify` command that answers with what a comparison advises, where its own choice is another."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sporeprint.evaluate.choice.candidates import ALL, by_family
from sporeprint.evaluate.choice.verdict import is_pair, pair
from sporeprint.evaluate.comparison import Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.features.combine import Combination
from sporeprint.run.answer_choice import WORDS
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store


def classify_note(
    comparison: Comparison,
    advised: Entry,
    train: Rows,
    test: Rows | None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> list[str]:
    """How to have the advised features and predictor answer, where `classify` alone would choose others.

    `classify` takes what the training rows choose among all blocks of the store, and knows no test figures.
    """
    blocks = Store.open(train.store).block_names
    own = comparison.entry(ALL)
    limited = not set(blocks) <= set(comparison.analysis.blocks)
    if is_pair(own, advised) and not limited:
        return []
    chooses = "chooses among all blocks of the store" if limited else f"takes the training rows' choice, {pair(own)}"
    flags = [*_flags(advised.combination, blocks), "--predictor", _typed(advised)]
    columns = _columns(train, test, label_column, group_column)
    command = shlex.join(["sporeprint", "classify", *_stores(train, test), *columns, *flags])
    return [f"`sporeprint classify` alone {chooses}; for {pair(advised)}: {command}"]


def _typed(entry: Entry) -> str:
    return next(typed for typed, word in WORDS.items() if word == entry.result.word)


def _flags(combination: Combination, blocks: Sequence[str]) -> list[str]:
    named = by_family(combination, blocks).blocks or ()
    flags = ["--features", ",".join(named)]
    if combination.whiten is not None:
        flags += ["--whiten", str(combination.whiten)]
        flags += [] if combination.exponent == 1 else ["--exponent", f"{combination.exponent:g}"]
    return flags


def _stores(train: Rows, test: Rows | None) -> list[str]:
    if test is None:
        return [str(train.store), "--save", "model"]
    return [str(train.store), str(test.store), "--out", "predictions.csv"]


def _columns(train: Rows, test: Rows | None, label_column: str | None, group_column: str | None) -> list[str]:
    """The sources and their columns, which `classify` takes under the same flags."""
    if label_column is None and group_column is None:
        return []
    sources: list[tuple[str, Path | str | None]] = [("--train", train.source), ("--train-split", train.split)]
    if test is not None:
        sources += [("--test", test.source), ("--test-split", test.split)]
    sources += [("--label-column", label_column), ("--group-column", group_column)]
    return [word for flag, value in sources if value is not None for word in (flag, str(value))]
