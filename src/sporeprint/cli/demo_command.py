"""The command that shows the shipped backbone at work, without network or data."""

from __future__ import annotations

from sporeprint.cli import options
from sporeprint.cli.plain_text import say


def demo(seed: options.Seed32 = 0, json: options.Json = False) -> None:
    """The shipped backbone on digits that it has never seen: accuracy and cost of each block. Needs no network."""
    from sporeprint.cli.console import print_entries, print_json
    from sporeprint.run.demo import demo

    say("computing the blocks of 600 digits with the shipped backbone: a minute or so ...", err=True)
    result = demo(seed)
    if json:
        print_json(result.to_json())
        return
    note = f"scikit-learn digits, {result.train_rows} training rows, {result.test_rows} test rows, shipped backbone"
    print_entries(note, result.entries, rates=True)
    for line in result.verdict().split("\n"):
        say(line)
