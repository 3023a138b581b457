"""What the commands print: progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sporeprint.evaluate.table import Entry


def print_json(value: Any) -> None:
    """Indented JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True, group: bool = False
) -> None:
    """A table on stdout. numbers: all columns but the first are. group: a first cell like the one above is left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(columns):
        number = bool(at) and numbers  # numbers are never cut: on a narrow terminal the text is folded
        widest = max([len(column), *(len(row[at]) for row in rows)])
        table.add_column(column, justify="right" if number else "left", min_width=widest if number else None)
    above = None
    for first, *rest in rows:
        table.add_row("" if group and first == above else first, *rest)
        above = first
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(Text(title, style="italic"), soft_wrap=True)  # a table's own title is folded at the table's width
    console.print(table)


def print_entries(title: str, entries: Sequence[Entry], rows_per_second: Mapping[str, float] | None = None) -> None:
    """A kNN table: accuracies in percent, with the k that was chosen, and what the columns mean."""
    columns = ["features", "width", "passes"]
    for k in entries[0].results:
        columns += [f"k={k}"] if k != "auto" else ["k auto", "its k", "class"]
    if rows_per_second:
        columns.append("rows/s")
    rows = []
    for entry in entries:
        row = [entry.name, str(entry.width), str(entry.passes)]
        for k, result in entry.results.items():
            row.append(f"{result.value:.1%}")
            if k == "auto":
                row += [str(result.k), f"{result.mean_per_class:.1%}"]
        rows.append([*row, f"{rows_per_second[entry.name]:,.0f}"] if rows_per_second else row)
    print_table(title, columns, rows)
    meanings = ["passes: backbone passes a row", "white: each block whitened (PCA) by itself"]
    if "auto" in entries[0].results:
        meanings.append("k auto: its k is chosen by leave-one-out on the training rows")
        meanings.append("class: mean per-class accuracy at that k")
    if rows_per_second:
        meanings.append("rows/s: rows a second here, decoding left out")
    sys.stdout.write(textwrap.fill("; ".join(meanings) + ".", 100) + "\n")


class ProgressLine:
    """What is done, its rate and time left, on stderr: one rewritten line on a terminal, elsewhere a line at times."""

    def __init__(self, every_s: float = 10.0):
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.every_s = 0.2 if self.live else every_s
        self.what = ""
        self.first = 0
        self.started = self.last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """what: "negatives" or "rows"; the first call for each sets the start of its clock."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.first, self.started, self.last = what, done, now, now
            if done and what == "rows":
                self._show(f"going on after {done} of {total} rows", True)
            return
        if now - self.last < self.every_s and done < total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = _clock((total - done) / rate) if rate else "?"
        self._show(f"{done} of {total} {what}, {rate:.1f}/s, {left} left", done >= total)

    def _show(self, text: str, finish: bool) -> None:
        if self.live:
            self.console.file.write(f"\r\x1b[2K{text}" + ("\n" if finish else ""))
            self.console.file.flush()
        else:
            sys.stderr.write(text + "\n")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
