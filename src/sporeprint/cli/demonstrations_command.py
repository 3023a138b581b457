"""The command that writes prompts with the nearest labelled texts as examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import PromptFeatures, grouped
from sporeprint.cli.plain_text import say


@grouped
def demonstrations(
    train_store: Annotated[Path, typer.Argument(metavar="TRAIN_STORE", help="Store of the labelled texts, which become examples.")],
    test_store: Annotated[Path, typer.Argument(metavar="TEST_STORE", help="Store of the texts to ask about.")],
    train: options.Train,
    test: options.Test,
    out: Annotated[Path, typer.Option(help="JSON lines file to write: a prompt a line.")],
    joined: PromptFeatures,
    template: Annotated[Path | None, typer.Option(help="Text file: example and query, or header, example and query, with a line --- between; fields {text}, {label}, {labels}.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of nearest training texts in a prompt.")] = 8,
    choose: Annotated[Literal["nearest", "balanced"], typer.Option(help="nearest, or balanced: the nearest of every class in turn.")] = "nearest",
    order: Annotated[Literal["nearest_last", "nearest_first"], typer.Option(help="nearest_last (next to the query) or nearest_first.")] = "nearest_last",
    train_split: options.TrainSplit = None,
    test_split: options.TestSplit = None,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Prompts for a language model: for each test text the nearest training texts with their labels. None is called."""
    from sporeprint.cli.console import Working, print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.evaluate.demonstrations import write_jsonl
    from sporeprint.run.prompts import make_prompts
    from sporeprint.run.store_info import blocks_text
    from sporeprint.run.store_source import Rows

    wanted = joined.wanted()
    sources = Rows(train_store, train, train_split), Rows(test_store, test, test_split)
    with Working() as progress:
        prompts = make_prompts(*sources, template, k, choose, order, wanted, progress)
    write_jsonl(prompts.lines, out)
    for note in prompts.notes:
        say(note, err=True)
    if json:
        print_json(
            {"out": str(out), "prompts": len(prompts.lines), "blocks": list(prompts.blocks), "notes": prompts.notes}
        )
        return
    say_folded(f"{out}: {len(prompts.lines)} prompts, neighbours by {blocks_text(prompts.blocks, everything)}", "  ")
