"""The command that says what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sporeprint.cli import options
from sporeprint.cli.plain_text import say

_FAILURES = 3  # rows that were not read, which are named


def info(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store, complete or not.")],
    verify: Annotated[bool, typer.Option(help="Read every file and check it.")] = False,
    everything: options.All = False,
    json: options.Json = False,
) -> None:
    """What a store holds: rows, blocks, recipe, backbone, failures, cost."""
    from sporeprint.store.reader import Store

    opened = Store.open(store)  # what is no store is said before torch is imported
    from sporeprint.cli.console import print_json
    from sporeprint.cli.figures import whole
    from sporeprint.cli.print_tables import Column, print_table, say_folded
    from sporeprint.run.store_info import cost_lines, family_rows, store_answer, store_lines, store_summary

    if verify:
        opened.verify()
    if json:
        print_json({**store_summary(opened), **({"verified": True} if verify else {})})
        return
    say_folded(store_answer(opened))
    say("")
    for line in store_lines(opened, verify, everything):
        say_folded(line, "  ")
    say("")
    blocks = opened.blocks_info
    passes = whole(block["passes"] for block in blocks.values())
    if everything:
        rows = [
            [name, f"{block['dim']:,}", passes(block["passes"]), block["family"], block["views"]]
            for name, block in blocks.items()
        ]
        heads = [
            Column("block"),
            Column("width"),
            Column("passes"),
            Column("family", words=True),
            Column("views", words=True),
        ]
    else:
        rows = [[name, f"{width:,}", passes(count)] for name, width, count in family_rows(opened)]
        heads = [Column("blocks"), Column("numbers a row"), Column("passes")]
    print_table(heads, rows)
    for line in cost_lines(opened, everything):
        say_folded(line, "  ")
    for failure in opened.failures if everything else opened.failures[:_FAILURES]:
        say_folded(f"not read: {failure.id}: {failure.reason}", "  ")
    if not everything:
        more = len(opened.failures) - _FAILURES
        say("every block, its views and times" + (f", and {more:,} more rows not read" if more > 0 else "") + ": --all")
