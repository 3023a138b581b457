"""A comparison, as the command prints it."""

from __future__ import annotations

import typer

from sporeprint.cli.console import print_meanings, print_table
from sporeprint.evaluate.comparison import Comparison


def print_comparison(found: Comparison) -> None:
    """The table of entries, what was compared, and what must be known about it; the verdict is the caller's."""
    columns = ["features", "passes", "rows/s", "bytes", "k", "leave-one-out", "top-1", "class", "gain"]
    rows = []
    for one in found.entries:
        mark = {found.reference: " (reference)"}.get(one.name, "")
        rows.append(
            [
                one.name + mark,
                str(one.passes),
                "" if one.rows_per_second is None else f"{one.rows_per_second:,.3g}",
                f"{one.bytes_per_row:,}",
                str(one.k),
                f"{one.leave_one_out:.1%}",
                str(one.value),
                f"{one.mean_per_class:.1%}",
                "" if one.name == found.reference else str(one.gain).replace(" points", ""),
            ]
        )
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.settings.items())
    print_table(f"Compared: {told}", columns, rows)
    print_meanings(
        [
            "passes: backbone passes a row, that of the embedding among them",
            "bytes: of a joined feature in float32",
            "leave-one-out: accuracy on the training rows, where k and all that is chosen were chosen",
            "top-1, class: accuracy on the test rows, and the mean of the classes' accuracies",
            "gain: points over the reference on the same test rows, with its confidence interval",
        ]
    )
    for name in (one.name for one in found.entries if one.role == "chosen"):
        typer.echo(f"{name}: {found.entry(name).joins}")
    for note in found.notes:
        typer.echo(f"note: {note}")
