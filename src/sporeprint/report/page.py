"""The report of a comparison: one HTML file that needs nothing else, for a screen, a phone and a printer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sporeprint.evaluate.analyse import ClassChange
from sporeprint.evaluate.choice.judges import pair_of
from sporeprint.evaluate.choice.verdict import is_pair, pair
from sporeprint.evaluate.compare_backbones import BackboneComparison
from sporeprint.evaluate.comparison import Changed, Comparison, Neighbour
from sporeprint.report import numbers as formats
from sporeprint.report.accuracy_plot import accuracy_plot, costs_alike
from sporeprint.report.cost_plot import Numbered, cost_plot, named, numbered
from sporeprint.report.facts import facts_of
from sporeprint.report.judge_columns import TITLES, judges_of, main_of, steps, titles_of
from sporeprint.report.plots import cka_plot, class_plot, sorted_changes
from sporeprint.report.samples import Samples, Shown, thumbnail
from sporeprint.report.svg import MARKS, clean, drawing, mark, text_of
from sporeprint.store.atomic import write_file
from sporeprint.values import json_text

PAGE, DATA = "report.html", "comparison.json"

ROLE_NAMES = {
    "embedding": "the embedding",
    "block": "gradients alone",
    "control": "layers, views: no gradient",
    "paper": "the paper's assembly",
    "combined": "joined with gradients",
    "chosen": "chosen on the training rows",
}
_WIDE, _NARROW = 960, 345  # pixels; a phone of 375 less its margins
_MOST_BLOCKS = 40  # in the heat map
_MOST_CLASSES = 12  # that gain, and as many that lose
_OPENED = 4  # queries that are not folded away


def write_report(
    comparison: Comparison | BackboneComparison,
    folder: Path,
    samples: Samples | None = None,
    queries: int = 20,
    neighbours: int = 6,
) -> Path:
    """Write `report.html`, and the comparison as `comparison.json`, into `folder`; returns the page's path.

    Of several backbones both say which to use, and the rest is of the chosen one; the JSON has "backbones" too.
    samples: those of the rows in `comparison.changed`, to be shown; without them the page has ids and labels. queries,
    neighbours: the first ones are shown, at most this many. Equal comparisons and samples give equal bytes.
    The page loads nothing and runs nothing; names, labels and texts in it are escaped.
    Raises StoreError where the folder cannot be written.
    """
    page = render(comparison, samples, queries, neighbours)
    with contextlib.suppress(OSError, ValueError):  # write_file says what is wrong
        folder.mkdir(parents=True, exist_ok=True)
    data = shown_comparison(comparison).to_json()
    if isinstance(comparison, BackboneComparison):
        data |= {"backbones": comparison.to_json()["backbones"]}
    write_file(folder / DATA, json_text(data).encode() + b"\n")
    write_file(folder / PAGE, page.encode())
    return folder / PAGE


def shown_comparison(comparison: Comparison | BackboneComparison) -> Comparison:
    """The comparison that a page is of: of several backbones the chosen one's, under the verdict on all."""
    if isinstance(comparison, Comparison):
        return comparison
    return replace(comparison.comparison.noted(comparison.notes), verdict=comparison.verdict)


def render(
    comparison: Comparison | BackboneComparison,
    samples: Samples | None = None,
    queries: int = 20,
    neighbours: int = 6,
) -> str:
    """The page. See `write_report`."""
    backbones = comparison if isinstance(comparison, BackboneComparison) else None
    comparison = shown_comparison(comparison)
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sporeprint.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,  # Markup is ours, and clean already
    )
    environment.filters |= {
        name: getattr(formats, name) for name in ("percent", "points", "rate", "decimal", "between", "short", "times")
    }
    environment.filters |= {"setting": _setting, "gain": _gain}
    names = list(comparison.analysis.blocks)
    cka = [line[:_MOST_BLOCKS] for line in comparison.analysis.cka[:_MOST_BLOCKS]]
    *_, rest = sorted_changes(comparison.classes, _MOST_CLASSES)
    titles = titles_of(comparison)
    marks, alike = numbered(comparison), costs_alike(comparison)
    return environment.get_template("page.html").render(
        comparison=comparison,
        backbones=backbones,
        level=comparison.entries[0].value.level if comparison.entries else 0.95,
        title=_title(comparison.settings),
        facts=facts_of(comparison.settings),
        words=named(comparison),
        kinds=_kinds(comparison),
        pair=pair,
        pair_of=pair_of,
        judges={judge: TITLES[judge] for judge in judges_of(comparison)},
        chosen=comparison.entry(comparison.chosen),
        reference=comparison.entry(comparison.reference),
        is_reference=is_pair(comparison.entry(comparison.chosen), comparison.entry(comparison.reference)),
        main=[entry for at in main_of(comparison) if (entry := comparison.entries[at]).name in titles],
        titles=titles,
        steps=steps(comparison),
        marks=[(_mark(mark.entry.role), mark) for mark in marks if mark.number],
        numbers={} if alike else {name: mark.number for mark in marks if mark.number for name in mark.names},
        plots=_drawn(
            {"wide": accuracy_plot(comparison, _WIDE), "narrow": accuracy_plot(comparison, _NARROW)}
            if alike
            else {"wide": cost_plot(comparison, _WIDE, 440), "narrow": cost_plot(comparison, _NARROW, 380)}
        ),
        legend=_legend(marks),
        class_plots=_drawn(
            {
                "wide": class_plot(comparison.classes, _WIDE, _MOST_CLASSES),
                "narrow": class_plot(comparison.classes, _NARROW, _MOST_CLASSES),
            }
        ),
        undrawn=_undrawn(rest, len(comparison.classes)),
        cka_plots=_drawn(
            {name: cka_plot(names[:_MOST_BLOCKS], cka, width) for name, width in (("wide", _WIDE), ("narrow", _NARROW))}
        ),
        most_blocks=_MOST_BLOCKS,
        queries=[
            _query(comparison, changed, samples, neighbours) for changed in _in_turns(comparison.changed)[:queries]
        ],
        opened=_OPENED,
        unchanged=_unchanged(comparison),
        modality=samples.modality if samples else "",
    )


def _query(comparison: Comparison, changed: Changed, samples: Samples | None, most: int) -> dict[str, Any]:
    """A query and its two rows of neighbours, each with what stands for it."""
    return {
        "row": changed,
        "shown": _shown(changed.id, samples.test if samples else None, samples),
        "sides": [
            {
                "name": f"{name}, {accuracy.word}",
                "predicted": predicted,
                "right": predicted == changed.label,
                "neighbours": [_neighbour(neighbour, changed.label, samples) for neighbour in nearest[:most]],
            }
            for name, accuracy, predicted, nearest in (
                ("Reference", comparison.base, changed.before, changed.neighbours_before),
                ("The choice", comparison.best, changed.after, changed.neighbours_after),
            )
        ],
    }


def _neighbour(neighbour: Neighbour, label: str, samples: Samples | None) -> dict[str, Any]:
    return {
        "row": neighbour,
        "right": neighbour.label == label,
        "shown": _shown(neighbour.id, samples.train if samples else None, samples),
    }


def _shown(row_id: str, among: Mapping[str, Any] | None, samples: Samples | None) -> Shown:
    if samples is None or among is None or row_id not in among:
        return Shown()
    return thumbnail(among[row_id], samples.modality, samples.limits)


def _title(settings: Mapping[str, Any]) -> str:
    """The backbone and the data, as far as they are known; never a path."""
    names = [str(settings[key]) for key in ("backbone", "data") if settings.get(key)]
    return " on ".join(names) or "features compared"


def _in_turns(changed: Sequence[Changed]) -> list[Changed]:
    """Rows that gain and rows that lose in turns, as long as there are both."""
    gain = [row for row in changed if row.after == row.label]
    lose = [row for row in changed if row.after != row.label]
    return [row for pair in zip_longest(gain, lose) for row in pair if row is not None]


def _kinds(comparison: Comparison) -> dict[str, str]:
    """The classes of the rows that are coloured, by the entry's name."""
    reference, chosen = comparison.reference, comparison.chosen
    return {reference: "reference", chosen: "reference chosen" if chosen == reference else "chosen"}


def _unchanged(comparison: Comparison) -> str:
    """Why there are no queries to show."""
    if "splits" in comparison.settings:
        return "no test set was given, and in repeated splits a row has one answer in each split that tests it"
    if "shots" in comparison.settings:
        return "labelled rows were drawn, and a test row has one answer in each draw"
    both = (comparison.reference, comparison.chosen)
    used = {entry.combination for entry in comparison.entries if entry.name in both}
    if len(used) == 1:
        return "the chosen features are the reference's own"
    return "every test row that one of the two classifies rightly, the other does too"


def _gain(fraction: float | None) -> str:
    """A gain in points, nought as the verdict has it."""
    shown = formats.points(fraction)
    return "+0.0" if shown == "0.0" else shown


def _undrawn(rest: Sequence[ClassChange], total: int) -> str:
    """What the plot of the classes leaves out, in words; "" for nothing."""
    counts = {
        "with smaller gains": sum(change.change > 0 for change in rest),
        "with smaller losses": sum(change.change < 0 for change in rest),
        "without a change": sum(change.change == 0 for change in rest),
    }
    listed = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"Not drawn of {total:,} classes: {listed}." if listed else ""


def _legend(marks: Sequence[Numbered]) -> list[tuple[Any, str]]:
    """The mark and the name of each role that is drawn."""
    drawn = {mark.entry.role for mark in marks}
    return [(_mark(role), ROLE_NAMES[role]) for role in MARKS if role in drawn]


def _mark(role: str) -> Any:
    """A small drawing of a role's mark, which a screen reader passes over."""
    svg = drawing(18, 18, "")
    del svg.attrib["role"], svg.attrib["aria-label"]
    svg.set("aria-hidden", "true")
    mark(svg, role, 9, 9, 5)
    return _markup(text_of(svg))


def _drawn(plots: dict[str, str]) -> dict[str, Any]:
    return {name: _markup(svg) for name, svg in plots.items() if svg}


def _markup(svg: str) -> Any:
    """Our own SVG as markup: ElementTree has escaped it."""
    from markupsafe import Markup

    return Markup(svg)


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (str, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_setting, value)) or "none"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_setting(item)}" for key, item in value.items()) or "none"
    return str(value)
