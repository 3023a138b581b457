"""The command that says what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sporeprint.cli import options
from sporeprint.cli.plain_text import say


def info(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store, complete or not.")],
    verify: Annotated[bool, typer.Option(help="Read every file and check it.")] = False,
    json: options.Json = False,
) -> None:
    """What a store holds: rows, blocks, recipe, backbone, failures, cost."""
    from sporeprint.store.reader import Store

    opened = Store.open(store)  # what is no store is said before torch is imported
    from sporeprint.cli.console import print_json
    from sporeprint.run.store_info import store_lines, store_summary

    if verify:
        opened.verify()
    if json:
        print_json({**store_summary(opened), **({"verified": True} if verify else {})})
        return
    for line in store_lines(opened, verify):
        say(line)
