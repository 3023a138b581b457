"""What the commands print: progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import math
import sys
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sporeprint.cli.figures import FIGURES, MEANINGS, number, percent
from sporeprint.cli.plain_text import line_of, say
from sporeprint.evaluate.analyse import Analysis
from sporeprint.evaluate.multilabel import MultiLabelResult
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.table import Entry
from sporeprint.features.progress import RewrittenLine, clock
from sporeprint.values import json_text

_LONGEST_CELL = 100  # letters


def print_json(value: Any) -> None:
    """Indented JSON on stdout; NaN is null."""
    sys.stdout.write(json_text(plain(value)) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True, group: bool = False
) -> None:
    """A table on stdout. numbers: all columns but the first are. group: a first cell like the one above is left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells = [[line_of(cell, _LONGEST_CELL) for cell in row] for row in rows]
    for at, column in enumerate(columns):
        number = bool(at) and numbers  # numbers are never cut: on a narrow terminal the text is folded
        widest = max([cell_len(column), *(cell_len(row[at]) for row in cells)])
        table.add_column(
            Text(line_of(column)), justify="right" if number else "left", min_width=widest if number else None
        )
    above = None
    for first, *rest in cells:
        table.add_row(*map(Text, ["" if group and first == above else first, *rest]))  # a str would be read as markup
        above = first
    console = Console(color_system=None)
    if not console.is_terminal:
        console = Console(color_system=None, width=160)
    console.print(Text(line_of(title)), soft_wrap=True)  # a table's own title is folded at the table's width
    console.print(table)


def print_entries(title: str, entries: Sequence[Entry], rates: bool = False) -> None:
    """A kNN table on stdout: accuracies in percent, with the k that was chosen, and what the columns mean.

    For lists of labels mAP, and micro average precision instead of classes. rates: rows a second too.
    """
    several = isinstance(entries[0].result, MultiLabelResult)
    columns = ["features", "width", "passes"]
    for k in entries[0].results:
        columns += [f"k={k}"] if k != "auto" else ["k auto", "its k", "micro" if several else "class"]
    if rates:
        columns.append("rows/s")
    rows = []
    for entry in entries:
        row = [entry.title, str(entry.width), str(entry.passes)]
        for k, result in entry.results.items():
            row.append(percent(result.value, result.spread))
            if k == "auto" and several:
                row += [str(result.k), percent(result.micro)]
            elif k == "auto":
                ks = ", ".join(map(str, sorted(set(result.ks)) or [result.k]))
                row += [ks, percent(result.mean_per_class, result.mean_per_class_spread)]
        rows.append([*row, "-" if entry.rows_per_second is None else f"{entry.rows_per_second:,.0f}"] if rates else row)
    print_table(title, columns, rows)
    meanings = [*MEANINGS]
    if "auto" in entries[0].results:
        meanings.append("k auto: its k is chosen by leave-one-out on the training rows")
        if several:
            meanings.append("micro: average precision of all pairs of a row and a label, at that k")
        else:
            meanings.append("class: mean per-class accuracy at that k")
    if rates:
        meanings.append("rows/s: rows a second here and now, whatever else runs, decoding left out")
    print_meanings([*meanings, *_draws(entries[0].result.settings)])


def print_scores(title: str, entries: Sequence[Entry], kind: str) -> None:
    """A table on stdout of entries with one result each, of one kind, a key of FIGURES; and what its columns mean."""
    figures, meanings = FIGURES[kind]
    shown = [
        {"features": entry.title, "width": str(entry.width), "passes": str(entry.passes), **figures(entry.result)}
        for entry in entries
    ]
    print_table(title, list(shown[0]), [list(row.values()) for row in shown])
    print_meanings([*MEANINGS, *meanings, *_draws(entries[0].result.settings)])


def print_analysis(title: str, analysis: Analysis) -> None:
    """The blocks with their CKA, under numbers, and the classes that changed most, on stdout."""
    names = [f"{at + 1} {name}" for at, name in enumerate(analysis.blocks)]
    rows = [
        [name, str(block.width), number(block.effective_rank, digits=1), number(block.anisotropy)]
        for name, block in zip(names, analysis.blocks.values(), strict=True)
    ]
    print_table(title, ["block", "width", "effective rank", "anisotropy"], rows)
    shared = [
        [name, *("-" if math.isnan(value) else f"{100 * value:.0f}" for value in row)]
        for name, row in zip(names, analysis.cka, strict=True)
    ]
    print_table("CKA with block n, %: what two blocks share", ["", *map(str, range(1, len(names) + 1))], shared)
    meanings = ["effective rank: how many of the dimensions are in use", "anisotropy: mean cosine of two rows"]
    meanings.append("CKA: 0 where nothing is shared, 100 where blocks differ by a rotation and a scale at most")
    if analysis.used < analysis.rows:
        meanings.append(f"of {analysis.used:,} rows, drawn from {analysis.rows:,}")
    print_meanings(meanings)
    if not analysis.classes:
        return
    most = (
        analysis.classes
        if len(analysis.classes) <= 2 * _SHOWN
        else analysis.classes[:_SHOWN] + analysis.classes[-_SHOWN:]
    )
    changes = [
        [str(of.label), str(of.count), percent(of.before), percent(of.after), f"{100 * of.change:+.1f}"] for of in most
    ]
    title = f"Classes that gain and lose most, {len(most)} of {len(analysis.classes)}"
    say("")
    print_table(title, ["class", "test rows", "embedding", "joined", "points"], changes)


def _draws(settings: Mapping[str, Any]) -> list[str]:
    """What few-shot figures are taken over, in words."""
    if "shots" not in settings:
        return []
    draws = settings["draws"]
    many = f"mean and standard deviation of {draws} draws" if draws > 1 else "one draw"
    return [f"{many} of {settings['shots']} rows a class"]


_SHOWN = 5  # classes that gain most, and as many that lose most


def print_meanings(meanings: Sequence[str]) -> None:
    """Print what a table's columns mean, on stdout."""
    sys.stdout.write(textwrap.fill("; ".join(meanings) + ".", 100) + "\n")


class Working:
    """Shows what is being done, and for how long, on stderr, in a `with` block: called with what begins now.

    On a terminal it is one line, which is cleared at the end; elsewhere a line at least every `every_s` seconds, also
    where nothing new begins.
    """

    def __init__(self, every_s: float = 10.0):
        self.line = RewrittenLine()
        self.live = sys.stderr.isatty()
        self.every_s = 1.0 if self.live else every_s
        self.started = self.last = time.monotonic()
        self.what = "reading"
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Working:
        self.clock.start()
        return self

    def __call__(self, what: str) -> None:
        with self.lock:
            self.what = what
            if self.live or time.monotonic() - self.last >= self.every_s:
                self._show()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.clock.join()
        if self.live:
            self.line.rewrite("")

    def _tick(self) -> None:
        while not self.done.wait(max(0.01, self.last + self.every_s - time.monotonic())):
            with self.lock:
                if time.monotonic() - self.last >= self.every_s:
                    self._show()

    def _show(self) -> None:
        self.last = time.monotonic()
        text = f"{self.what} ... {clock(self.last - self.started)}"
        if self.live:
            self.line.rewrite(line_of(text))
        else:
            say(text, err=True)
