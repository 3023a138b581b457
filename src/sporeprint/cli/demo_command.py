"""The command that shows the shipped backbone at work, without network or data."""

from __future__ import annotations

from sporeprint.cli import options
from sporeprint.cli.plain_text import say


def demo(seed: options.Seed32 = 0, everything: options.All = False, json: options.Json = False) -> None:
    """The shipped backbone on digits that it has never seen: features, predictor, price. Needs no network."""
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_comparison import print_comparison
    from sporeprint.run.demo import demo

    say("comparing what the shipped backbone says of 400 digits: two minutes or so ...", err=True)
    result = demo(seed)
    if json:
        print_json(result.to_json())
    else:
        print_comparison(result, everything)
