"""A comparison, as the command prints it."""

from __future__ import annotations

from sporeprint.cli.console import print_meanings, print_table
from sporeprint.cli.figures import WHITE_MEANS
from sporeprint.cli.plain_text import say
from sporeprint.evaluate.comparison import Comparison


def print_comparison(comparison: Comparison) -> None:
    """Print the entries, what was compared, and what must be known about it; the verdict is the caller's."""
    columns = ["features", "passes", "rows/s", "bytes", "k", "leave-one-out", "top-1", "class", "gain"]
    rows = []
    for entry in comparison.entries:
        is_reference, accuracy = entry.name == comparison.reference, entry.result
        rows.append(
            [
                entry.title + (" (reference)" if is_reference else ""),
                str(entry.passes),
                "" if entry.rows_per_second is None else f"{entry.rows_per_second:,.3g}",
                f"{entry.bytes_per_row:,}",
                str(accuracy.k),
                f"{accuracy.leave_one_out:.1%}",
                str(accuracy.value),
                f"{accuracy.mean_per_class:.1%}",
                "" if is_reference else str(accuracy.gain).replace(" points", ""),
            ]
        )
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in comparison.settings.items())
    print_table(f"Compared: {settings}", columns, rows)
    print_meanings(
        [
            "passes: backbone passes a row for what is joined; a view of fewer tokens is a fraction of one",
            "rows/s: reading and decoding left out; views are timed with their gradients, where these were computed",
            WHITE_MEANS,
            "bytes: of a joined feature in float32",
            "leave-one-out: accuracy on the training rows, where k and all that is chosen were chosen",
            "top-1, class: accuracy on the test rows, and the mean of the classes' accuracies",
            "gain: points over the reference on the same test rows, with its confidence interval",
        ]
    )
    for entry in comparison.entries:
        if entry.role == "chosen":
            say(f"{entry.name}: {entry.joins}")
    for note in comparison.notes:
        say(f"note: {note}")
