"""The tables of `knn`, `probe` and their like: the answer in a sentence, then a row for each of the features."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sporeprint.cli.figures import KINDS, METHODS, WHITE_MEANS, Figure, Kind, leave_one_out, whole
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_tables import Column, print_table, say_folded
from sporeprint.evaluate.choice.candidates import DECORRELATED, PAPER, RAW
from sporeprint.evaluate.table import Entry
from sporeprint.report.main_rows import main_rows

PASSES = "passes: backbone passes a row"


def print_scores(
    title: str, entries: Sequence[Entry], kind: str, chosen: Entry | None = None, everything: bool = False
) -> None:
    """The answer in a sentence, and the table, on stdout.

    kind: a key of KINDS. chosen: the entry that leave-one-out on the training rows chose, where it did.
    """
    how = KINDS[kind]
    say_folded(answer(entries, how, chosen))
    say("")
    notes = few_shot_draws(entries[0].result.settings)
    named = _named(entries, chosen)
    main = [at for at, entry in enumerate(entries) if entry is named or at in main_rows(entries, leave_one_out)]

    def name(entry: Entry) -> str:
        return f"{entry.title} (chosen)" if entry is chosen and entry.role != "chosen" else entry.title

    print_entries(title, entries, _with_gain(how, entries), main, everything, notes, name)


def print_entries(
    title: str,
    entries: Sequence[Entry],
    figures: Sequence[Figure],
    main: Sequence[int],
    everything: bool,
    notes: Sequence[str] = (),
    name: Callable[[Entry], str] = lambda entry: entry.title,
) -> None:
    """A table of entries on stdout: their names, passes, these figures, and what is to be known of them."""
    passes, shown = (
        whole(entry.passes for entry in entries),
        [entry for at, entry in enumerate(entries) if everything or at in main],
    )
    columns = [
        Figure(Column("features"), name),
        Figure(Column("passes", PASSES), lambda entry: passes(entry.passes)),
        *figures,
    ]
    words = {
        "control:": "control: without gradients",
        "white": WHITE_MEANS,
        PAPER: "paper: the embedding and all gradients, as they are",
        DECORRELATED: "decorrelated: all blocks, white 0.5",
    }
    known = [
        meaning for word, meaning in words.items() if any(word in f"{name(entry)} {entry.features}" for entry in shown)
    ]
    rows = [[column.text(entry) for column in columns] for entry in entries]
    print_table([column.column for column in columns], rows, title, main, everything, [*known, *notes])
    for entry in shown:
        if entry.note:
            say_folded(f"{entry.name}: {entry.note}", "  ")


def answer(entries: Sequence[Entry], how: Kind, chosen: Entry | None = None) -> str:
    """What the table says, in a sentence of at most 25 words, with figures of the table alone."""
    base = _base(entries)
    if base is not None and math.isnan(base.value):
        return f"The embedding has no {how.headline} on these rows."
    if chosen is not None and base is not None:
        if chosen is base:
            figure = f"{how.headline} {how.value(base.value)}{_by(base)}"
            return f"The embedding alone has {figure}; leave-one-out on the training rows {how.keeps}."
        words = f"{_capital(chosen)}{_by(chosen)}, chosen on the training rows"
        return f"{words}: {_against(how, chosen, base)}, for {_passes(chosen)} a row."
    if base is None:
        first = chosen or entries[0]
        return f"{_capital(first)}{_by(first)}: {how.headline} {how.value(first.value)}, for {_passes(first)} a row."
    best = _named(entries, chosen)
    if best is base or not best.value > base.value:
        return f"None of {len(entries) - 1} others has more than the embedding: {how.headline} {how.value(base.value)}."
    return f"Best of {len(entries)} on the tested rows, not a choice: {_words(best)}, {_against(how, best, base)}."


def _named(entries: Sequence[Entry], chosen: Entry | None) -> Entry:
    """The entry that the answer is about: what was chosen, else the highest."""
    if chosen is not None:
        return chosen
    return max(entries, key=lambda entry: -math.inf if math.isnan(entry.value) else entry.value)


def few_shot_draws(settings: Mapping[str, Any]) -> list[str]:
    """What few-shot figures are taken over, in words."""
    if "shots" not in settings:
        return []
    draws = settings["draws"]
    many = f"mean and standard deviation of {draws} draws" if draws > 1 else "one draw"
    shots = settings["shots"]
    return [f"{many} of {shots} row{'s' if shots > 1 else ''} a class"]


def _with_gain(how: Kind, entries: Sequence[Entry]) -> list[Figure]:
    """The figures of a kind, with the gain over the embedding behind the headline."""
    base = _base(entries)
    figures = how.figures(entries)
    until = how.first + 1
    width = Figure(Column("width", "width: numbers of a feature", extra=True), lambda entry: f"{entry.width:,}")
    gain = [] if base is None else [_gain_figure(how, base)]
    return [*figures[:until], *gain, *figures[until:], width]


def _gain_figure(how: Kind, base: Entry) -> Figure:
    column = Column("gain", f"gain:{how.unit} over the embedding")
    return Figure(column, lambda entry: "" if entry is base else _gain(how, entry, base))


def _base(entries: Sequence[Entry]) -> Entry | None:
    """The plain embedding, where there is something to compare it with."""
    return next((entry for entry in entries if entry.name == RAW), None) if len(entries) > 1 else None


def _gain(how: Kind, entry: Entry, base: Entry) -> str:
    return how.gain(entry.value - base.value)


def _against(how: Kind, entry: Entry, base: Entry) -> str:
    gain = f"{_gain(how, entry, base)}{how.unit} over the embedding's {how.value(base.value)}"
    return f"{how.headline} {how.value(entry.value)}, {gain}"


def _words(entry: Entry) -> str:
    return entry.features.removeprefix("loo: ")


def _capital(entry: Entry) -> str:
    """The words of an entry at the beginning of a sentence; the name of a block stays as it is."""
    words = _words(entry)
    named = words.split()[0].rstrip(",") in {*entry.blocks} - {RAW}
    return words if named else words[0].upper() + words[1:]


def _by(entry: Entry) -> str:
    """What predicts from the features, where a command has several methods."""
    method = getattr(entry.result, "method", None)
    return "" if method is None else f" with {METHODS[method]}"


def _passes(entry: Entry) -> str:
    return "one pass" if entry.passes == 1 else f"{whole([entry.passes])(entry.passes)} passes"
