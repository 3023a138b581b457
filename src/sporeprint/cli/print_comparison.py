"""A comparison, as the command prints it: the verdict, the rows that matter, and what must be known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from sporeprint.cli.figures import NONE, Figure, between, number, percent, points, whole
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_scores import print_entries
from sporeprint.cli.print_tables import Column, print_table, say_folded, say_note
from sporeprint.evaluate.choice.candidates import CHOICES
from sporeprint.evaluate.choice.verdict import pair
from sporeprint.evaluate.comparison import Accuracy, Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.facts import facts_of
from sporeprint.report.judge_columns import TITLES, accuracy_of, judges_of, main_of, settings_of, steps, titles_of

_MEANINGS = {
    "closed": "closed form: the LDA, ridge or class means that leave-one-out chooses",
    "probe": "probe: logistic, trained by gradients",
}
_SHORT = {"class means": "means"}  # a table of three judges has to fit 80 columns
_PREDICTORS = {
    "LDA": "LDA: linear discriminant analysis, its covariance shrunk",
    "ridge": "ridge: ridge regression on the classes",
    "class means": "means: the nearest class mean",
}


def print_comparison(comparison: Comparison, everything: bool = False) -> None:
    """Print the verdict, the entries that matter or all of them, and what must be known about them."""
    say_folded(comparison.verdict)
    say("")
    titles = titles_of(comparison)
    entries = [entry for entry in comparison.entries if entry.name in titles]
    names = [comparison.entries[at].name for at in main_of(comparison)]
    main = [at for at, entry in enumerate(entries) if entry.name in names]
    figures = [*_judges(comparison), *_gains(comparison), *_extras()]
    shown = entries if everything else [entries[at] for at in main]
    name = partial(_name, comparison, titles)
    print_entries(_compared(comparison, everything), entries, figures, main, everything, _notes(shown), name)
    for entry in entries:
        if entry.name in CHOICES:
            say_folded(f"{titles[entry.name]}: {pair(entry)}", "  ")
    _print_steps(comparison)
    for note in comparison.notes:
        say_note(note)


def _notes(shown: Sequence[Entry]) -> list[str]:
    """What the cells of these rows mean."""
    words = {accuracy.word for entry in shown if (accuracy := accuracy_of(entry, "closed"))}
    judges = {judge for entry in shown for judge in entry.results}
    missing = any(judges - entry.results.keys() for entry in shown)
    return [
        *(meaning for word, meaning in _PREDICTORS.items() if word in words),
        "*: the predictor that leave-one-out chooses in the row; [ ]: the reference",
        *(["-: not run"] if missing else []),
    ]


def _name(comparison: Comparison, titles: Mapping[str, str], entry: Entry) -> str:
    words = {comparison.reference: "reference"} | {comparison.chosen: "the choice"}
    if comparison.reference == comparison.chosen:
        words = {comparison.chosen: "reference and choice"}
    title = titles[entry.name]
    return f"{title} ({words[entry.name]})" if entry.name in words else title


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
    return _SHORT.get(accuracy.word, accuracy.word)


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
