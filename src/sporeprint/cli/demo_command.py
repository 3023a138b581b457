"""The command that shows the shipped backbone at work, without network or data."""

from __future__ import annotations

from sporeprint.cli import options
from sporeprint.cli.plain_text import say


def demo(seed: options.Seed32 = 0, everything: options.All = False, json: options.Json = False) -> None:
    """The shipped backbone on digits that it has never seen: accuracy and cost of each block. Needs no network."""
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_scores import print_demo
    from sporeprint.run.demo import demo

    say("computing the blocks of 600 digits with the shipped backbone: a minute or so ...", err=True)
    result = demo(seed)
    if json:
        print_json(result.to_json())
    else:
        print_demo(result, everything)
