"""A comparison of backbones, as `compare --with` prints it: the verdict, a row a backbone, what must be known."""

from __future__ import annotations

from sporeprint.cli.figures import NONE, between, number, percent, points, whole
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_tables import Column, print_table, say_folded, say_note
from sporeprint.evaluate.choice.verdict import pair
from sporeprint.evaluate.compare_backbones import BackboneComparison, BackboneEntry
from sporeprint.evaluate.table import Entry


def print_backbones(comparison: BackboneComparison, everything: bool = False) -> None:
    """Print which backbone to use, what each of them gives at what price, and what must be known about them."""
    say_folded(comparison.verdict)
    say("")
    entries = comparison.backbones
    passes = whole(entry.choice.passes for entry in entries)
    columns = [
        Column("backbone"),
        Column("embedding", "embedding: top-1 % of the best predictor on the embedding alone, [ ]: the reference"),
        Column("predictor", extra=True),
        Column("choice", "choice: top-1 % of what leave-one-out on the training rows chooses; *: what to use"),
        Column("features and predictor", words=True),
        Column("gain", "gain: points of the choice over the reference on the same test rows"),
        Column(f"{100 * entries[0].behind.level:g}% interval", extra=True),
        Column("passes", "passes: of the backbone, a row"),
        Column("* over it", "* over it: points of * over this backbone's choice"),
        Column("rows/s", "rows/s: as measured when its blocks were computed"),
        Column("bytes", "bytes: of a feature in float32", extra=True),
    ]

    def star(entry: Entry) -> str:
        return "*" if entry is comparison.advised else ""

    def row(entry: BackboneEntry) -> list[str]:
        base = percent(entry.base.value.value)
        base = f"[{base}]" if entry.name == comparison.reference else base
        return [
            entry.name,
            star(entry.base) + base,
            entry.base.result.predictor,
            star(entry.choice) + percent(entry.choice.value.value),
            pair(entry.choice),
            points(entry.choice.gain.value),
            between(entry.choice.gain, points),
            passes(entry.choice.passes),
            ""
            if entry.choice is comparison.advised
            else f"{points(entry.behind.value)} ({between(entry.behind, points)})",
            NONE if entry.choice.rows_per_second is None else number(entry.choice.rows_per_second, 1),
            f"{entry.choice.bytes_per_row:,}",
        ]

    settings = comparison.settings
    title = f"Compared: {len(entries)} backbones, {settings['train_rows']:,} training rows, {settings['test_rows']:,} "
    title += f"test rows, {settings['classes']:,} classes"
    print_table(columns, [row(entry) for entry in entries], title, everything=everything)
    for note in (*comparison.notes, *comparison.comparison.notes):
        say_note(note)
