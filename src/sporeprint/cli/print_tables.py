"""Tables on stdout: folded to what matters unless all is asked for, and never wider than the terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells

from sporeprint.cli.plain_text import line_of, say

_LONGEST_CELL = 300  # letters
_LEAST = 30  # columns; a narrower terminal breaks the lines itself
_NAME = 20  # columns that the first column keeps where there are too many others
_LEAST_NAME = 8  # columns that it keeps next to the widest figure
_GAP = "  "
_HANG = "  "  # before the later lines of a cell


@dataclass(frozen=True)
class Column:
    """A column of a table.

    meaning: what is printed under the table where the column is shown. extra: shown with --all only. words: of words,
    which are aligned left and folded, as the first column always is.
    """

    name: str
    meaning: str = ""
    extra: bool = False
    words: bool = False


def screen_width() -> int | None:
    """Columns that a line may take: $COLUMNS, else the terminal's; None for a pipe or a file, whose lines are whole."""
    given = os.environ.get("COLUMNS", "")
    if sys.stdout.isatty() or (given.isdecimal() and int(given)):
        return max(_LEAST, shutil.get_terminal_size().columns)
    return None


def fold(text: str, width: int, hang: str = "") -> list[str]:
    """`text` in lines of at most `width` cells, broken at blanks, and inside a word only where it is too long itself.

    hang: what the later lines begin with.
    """
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
            continue
        start = hang if lines else ""
        first = next(iter(chop_cells(word, width - cell_len(start))), "")
        others = chop_cells(word[len(first) :], width - cell_len(hang))
        lines += [start + first, *(hang + piece for piece in others)]
    return lines


def say_folded(text: object, hang: str = "") -> None:
    """Print a sentence on stdout, broken at blanks where a terminal is too narrow for it."""
    width, line = screen_width(), line_of(text)
    for part in [line] if width is None else fold(line, width, hang):
        say(part)


def say_note(note: str) -> None:
    """Print a note on stdout. A command at its end stands on lines of its own, which a shell takes as they are."""
    words, colon, command = note.partition(": sporeprint ")
    say_folded(f"note: {words}{':' if colon else ''}", "  ")
    if colon:
        for line in _shell_lines(f"sporeprint {command}", screen_width()):
            say(line)


def _shell_lines(command: str, width: int | None) -> list[str]:
    """A command in lines that end in a backslash, broken between its words alone."""
    lines: list[str] = []
    for word in map(shlex.quote, shlex.split(command)):
        if lines and (width is None or cell_len(f"{lines[-1]} {word} \\") <= width):
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def print_table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    title: str = "",
    main: Collection[int] | None = None,
    everything: bool = True,
    notes: Sequence[str] = (),
) -> None:
    """A table on stdout, what --all would add in a line, and what the columns mean.

    Names are folded and figures never are: where a terminal has no room for all columns, they stand in several tables,
    one below the other. main: numbers of the rows that are shown without `everything`, all by default. notes: what
    else is printed with the columns' meanings.
    """
    shown = [at for at, column in enumerate(columns) if everything or not column.extra]
    kept = [row for at, row in enumerate(rows) if everything or main is None or at in main]
    heads = [columns[at] for at in shown]
    if title:
        say_folded(title)
    for line in _lines(heads, [[line_of(row[at], _LONGEST_CELL) for at in shown] for row in kept], screen_width()):
        say(line)
    if hidden := _hidden(len(rows) - len(kept), len(columns) - len(shown)):
        say(hidden)
    print_meanings([*(column.meaning for column in heads if column.meaning), *notes])


def print_meanings(meanings: Sequence[str]) -> None:
    """Print what columns mean, on stdout."""
    if meanings:
        say_folded("; ".join(meanings) + ".")


def _hidden(rows: int, columns: int) -> str:
    counts = {"row": rows, "column": columns}
    parts = [f"{count} more {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count]
    return f"{' and '.join(parts)}: --all" if parts else ""


def _lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The lines of the table, or of the tables that it is split into."""
    heads = [Column(line_of(column.name), words=column.words or not at) for at, column in enumerate(columns)]
    wanted = [max(map(cell_len, (head.name, *(row[at] for row in rows)))) for at, head in enumerate(heads)]
    if width is None or _total(wanted) <= width:
        yield from _aligned(heads, rows, wanted)
        return
    least = [min(size, _NAME) if head.words else size for head, size in zip(heads, wanted, strict=True)]
    if _total(least) > width:  # the heads of figures are folded too
        least = [
            size if head.words else max(map(cell_len, (*head.name.split(" "), *(row[at] for row in rows))))
            for at, (head, size) in enumerate(zip(heads, least, strict=True))
        ]
    for number, group in enumerate(_groups(least, width)):
        if number:
            yield ""
        widths = {at: least[at] for at in group}
        words = sorted((at for at in group if heads[at].words), key=lambda at: wanted[at])
        room = width - _total([widths[at] for at in group if at not in words]) - len(_GAP) * len(words)
        for left, at in enumerate(words):
            widths[at] = min(wanted[at], max(_LEAST_NAME, room // (len(words) - left)))
            room -= widths[at]
        part = [[row[at] for at in group] for row in rows]
        yield from _aligned([heads[at] for at in group], part, list(widths.values()))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * max(0, len(widths) - 1)


def _groups(least: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns of each table: the first, which each repeats, and as many others as there is room for."""
    group = [0]
    for at in range(1, len(least)):
        if len(group) > 1 and _total([least[column] for column in (*group, at)]) > width:
            yield group
            group = [0]
        group.append(at)
    yield group


def _aligned(heads: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    def lines_of(cells: Sequence[str], hang: str) -> Iterator[str]:
        folded = [
            fold(cell, width, hang if head.words else "")
            for cell, width, head in zip(cells, widths, heads, strict=True)
        ]
        for line in range(max(map(len, folded))):
            parts = []
            for cell, width, head in zip(folded, widths, heads, strict=True):
                text = cell[line] if line < len(cell) else ""
                padding = " " * (width - cell_len(text))
                parts.append(text + padding if head.words else padding + text)
            yield _GAP.join(parts).rstrip()

    yield from lines_of([head.name for head in heads], "")
    yield "-" * _total(widths)
    for row in rows:
        yield from lines_of(row, _HANG)
