"""A comparison, as the command prints it: the verdict, the rows that matter, and what must be known about them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sporeprint.cli.figures import NONE, Figure, between, number, percent, points, whole
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_scores import print_entries
from sporeprint.cli.print_tables import Column, print_table, say_folded
from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN
from sporeprint.evaluate.comparison import Accuracy, Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.facts import facts_of
from sporeprint.report.judge_columns import TITLES, accuracy_of, judges_of, main_of, settings_of, solver, steps

_CHOSEN = (FREE, PLAIN, ALL)
_MEANINGS = {
    "closed": "closed form: the LDA, ridge or class means that leave-one-out chooses",
    "probe": "probe: logistic, trained by gradients",
}
_SHORT = {"class means": "means"}  # a table of three judges has to fit 80 columns


def print_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Print the verdict, the entries that matter or all of them, and what must be known about them."""
    say_folded(comparison.verdict)
    say("")
    entries = comparison.entries
    figures = [*_judges(comparison), *_gains(comparison), *_extras()]
    notes = ["*: the predictor that leave-one-out chooses in the row; [ ]: the reference"]
    name = partial(_name, comparison)
    print_entries(_compared(comparison, everything), entries, figures, main_of(comparison), everything, notes, name)
    for entry in entries:
        if entry.name in _CHOSEN and entry.name != comparison.chosen:
            same = entry.combination == comparison.combination
            say_folded(f"{entry.name}: {'the same features' if same else entry.joins}", "  ")
    _print_steps(comparison)
    for note in comparison.notes:
        say_folded(f"note: {note}", "  ")


def _name(comparison: Comparison, entry: Entry) -> str:
    words = {comparison.reference: "reference"} | {comparison.chosen: "the choice"}
    if comparison.reference == comparison.chosen:
        words = {comparison.chosen: "reference and choice"}
    return f"{entry.name} ({words[entry.name]})" if entry.name in words else entry.name


def _judges(comparison: Comparison) -> list[Figure]:
    """A column for each judge; what leave-one-out chooses in a row, and the reference, are marked."""
    closed = [accuracy for entry in comparison.entries if (accuracy := accuracy_of(entry, "closed"))]
    widest = max((len(_solver(accuracy)) for accuracy in closed), default=0)

    def cell(judge: str, entry: Entry) -> str:
        accuracy = accuracy_of(entry, judge)
        if accuracy is None:
            return NONE
        shown = percent(accuracy.value.value)
        if accuracy is comparison.base:
            shown = f"[{shown}]"
        elif accuracy is entry.result:
            shown = f"*{shown}"
        return f"{shown} {_solver(accuracy):<{widest}}" if judge == "closed" else shown  # figures stay aligned

    judges = judges_of(comparison)
    meanings = {judges[0]: f"{', '.join(TITLES[judge] for judge in judges)}: top-1 % on the test rows by each"}
    meanings |= {judge: _MEANINGS[judge] for judge in judges[1:]}
    return [Figure(Column(TITLES[judge], meanings[judge]), partial(cell, judge)) for judge in judges]


def _solver(accuracy: Accuracy) -> str:
    return _SHORT.get(solver(accuracy), solver(accuracy))


def _gains(comparison: Comparison) -> list[Figure]:
    """Of a row's own judge over the reference; nothing for the reference itself."""

    def over(show: Callable[[Entry], str]) -> Callable[[Entry], str]:
        return lambda entry: "" if entry.result is comparison.base else show(entry)

    level = f"{100 * comparison.base.value.level:g}%"
    return [
        Figure(
            Column("gain", "gain: points of * over [ ] on the same test rows"),
            over(lambda entry: points(entry.gain.value)),
        ),
        Figure(Column(f"{level} interval"), over(lambda entry: between(entry.gain, points))),
    ]


def _extras() -> list[Figure]:
    """What --all adds: of a row's own judge, and the price."""
    return [
        Figure(Column("top-1 interval %", "top-1 interval to loss: of *", extra=True), lambda entry: between(entry.value, percent)),
        Figure(Column("class %", "class: mean of the classes' accuracies", extra=True), lambda entry: percent(entry.result.mean_per_class)),
        Figure(Column("leave-one-out %", "leave-one-out: accuracy on the training rows", extra=True), lambda entry: percent(entry.result.leave_one_out)),
        Figure(Column("loss", "loss: squared error of the probabilities there, 0 to 2, by which all is chosen", extra=True), lambda entry: number(entry.result.loss, 3)),
        Figure(Column("k", "k: of kNN", extra=True), _k),
        Figure(Column("rows/s", "rows/s: reading and decoding left out; views are timed with their gradients, where these were computed", extra=True), lambda entry: NONE if entry.rows_per_second is None else number(entry.rows_per_second, 1)),
        Figure(Column("bytes", "bytes: of a joined feature in float32", extra=True), lambda entry: f"{entry.bytes_per_row:,}"),
    ]  # fmt: skip


def _k(entry: Entry) -> str:
    accuracy = accuracy_of(entry, "knn")
    return NONE if accuracy is None else settings_of(accuracy).removeprefix("k = ") or NONE


def _print_steps(comparison: Comparison) -> None:
    """What one pass, more passes and gradients add, for each judge at the passes that they take."""
    listed = steps(comparison)
    if not listed:
        return
    passes = whole(entry.passes for step in listed for entry in (step.before, step.after))
    judges = judges_of(comparison)
    rows = [
        [
            step.words,
            f"{passes(step.before.passes)} to {passes(step.after.passes)}",
            *(points(step.gains[judge]) if judge in step.gains else NONE for judge in judges),
        ]
        for step in listed
    ]
    say("")
    heads = [Column("added points"), Column("passes"), *(Column(TITLES[judge]) for judge in judges)]
    print_table(heads, rows)


def _compared(comparison: Comparison, everything: bool) -> str:
    """What was compared: the backbone, rows and classes, or every setting."""
    settings = comparison.settings
    if everything:
        listed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
        return f"Compared: {listed}"
    return f"Compared: {', '.join(filter(None, [str(settings.get('backbone', 'blocks')), facts_of(settings)]))}"
