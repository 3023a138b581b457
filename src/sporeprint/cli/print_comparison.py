"""A comparison, as the command prints it: the verdict, the rows that matter, and what must be known about them."""

from __future__ import annotations

from collections.abc import Callable

from sporeprint.cli.figures import NONE, Figure, between, leave_one_out, number, percent, points
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_scores import main_rows, print_entries
from sporeprint.cli.print_tables import Column, say_folded
from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN, RAW
from sporeprint.evaluate.comparison import Comparison
from sporeprint.evaluate.table import Entry

_CHOSEN = (FREE, PLAIN, ALL)
_COUNTS = {"train_rows": "training rows", "test_rows": "test rows", "splits": "splits", "classes": "classes"}


def print_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Print the verdict, the entries that matter or all of them, and what must be known about them."""
    say_folded(comparison.verdict)
    say("")
    reference, entries = comparison.reference, comparison.entries
    level = f"{100 * entries[0].value.level:g}%"

    def name(entry: Entry) -> str:
        return f"{entry.title} (reference)" if entry.name == reference else entry.title

    def over(show: Callable[[Entry], str]) -> Callable[[Entry], str]:
        return lambda entry: "" if entry.name == reference else show(entry)

    meaning = "gain: points over the reference on the same test rows"
    figures = [
        Figure(Column("top-1 %", "top-1: accuracy on the test rows"), lambda entry: percent(entry.value.value)),
        Figure(Column("gain", meaning), over(lambda entry: points(entry.gain.value))),
        Figure(Column(f"{level} interval"), over(lambda entry: between(entry.gain, points))),
        Figure(Column("top-1 interval %", extra=True), lambda entry: between(entry.value, percent)),
        Figure(
            Column("class %", "class: mean of the classes' accuracies", extra=True),
            lambda entry: percent(entry.result.mean_per_class),
        ),
        Figure(Column("k", extra=True), lambda entry: str(entry.result.k)),
        Figure(
            Column(
                "leave-one-out %",
                "leave-one-out: accuracy on the training rows, where k and all that is chosen were chosen",
                extra=True,
            ),
            lambda entry: percent(entry.result.leave_one_out),
        ),
        Figure(
            Column(
                "rows/s",
                "rows/s: reading and decoding left out; views are timed with their gradients, where these were computed",
                extra=True,
            ),
            lambda entry: NONE if entry.rows_per_second is None else number(entry.rows_per_second, 1),
        ),
        Figure(
            Column("bytes", "bytes: of a joined feature in float32", extra=True),
            lambda entry: f"{entry.bytes_per_row:,}",
        ),
    ]
    main = main_rows(entries, leave_one_out, (RAW, reference, PLAIN))
    print_entries(_compared(comparison, everything), entries, figures, main, everything, name=name)
    for entry in entries:
        if entry.name in _CHOSEN and entry.name != comparison.chosen:
            say_folded(f"{entry.name}: {entry.joins}", "  ")
    for note in comparison.notes:
        say_folded(f"note: {note}", "  ")


def _compared(comparison: Comparison, everything: bool) -> str:
    """What was compared: the backbone, rows and classes, or every setting."""
    settings = comparison.settings
    if everything:
        listed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
        return f"Compared: {listed}"
    parts = [f"{settings[name]:,} {words}" for name, words in _COUNTS.items() if name in settings]
    return f"Compared: {', '.join([str(settings.get('backbone', 'blocks')), *parts])}"
