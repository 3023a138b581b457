"""Accuracy of entries of few different costs, as SVG: a line for each, with its name, its interval and its figure.

Entries of equal cost are a group, the best first; the cheapest group stands above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.etree.ElementTree import Element

from sporeprint.evaluate.comparison import Comparison
from sporeprint.report.cost_plot import Numbered, accuracy_range, numbered
from sporeprint.report.numbers import axis_start, cut, isolated, percent, times, width_of
from sporeprint.report.svg import BLACK, GREY, MARKS, PALE, add, drawing, mark, round_ticks, text_of

_SIZE = 12  # of letters, in pixels where the drawing is not scaled
_ROW, _TALL_ROW = 24, 38  # height of an entry, and of one whose name stands above its line
_NARROW = 500  # pixels of width; a narrower plot has names above the lines
_OVER_LINES = {"stroke": "#ffffff", "stroke_width": 4, "paint_order": "stroke", "stroke_linejoin": "round"}
_FEW = 2  # different costs


def costs_alike(comparison: Comparison) -> bool:
    """Whether the entries have so few different costs that a plot against cost would be a column or two of dots."""
    return len({mark.passes for mark in numbered(comparison)}) <= _FEW


def accuracy_plot(comparison: Comparison, width: float, most: int = 14) -> str:
    """The plot, `width` pixels wide; "" where no entry has an accuracy.

    most: entries that are drawn: those with words first ("the choice", ...), then those that matter, then the best.
    """
    marks = numbered(comparison)
    if not marks:
        return ""
    best = sorted(marks, key=lambda mark: -mark.value.value)
    kept = sorted(best, key=lambda mark: (not mark.words, not mark.number))[:most]
    groups = {
        cost: [mark for mark in best if mark in kept and mark.passes == cost]
        for cost in sorted({mark.passes for mark in kept})
    }
    lines: list[Numbered | str] = []
    for cost, members in groups.items():
        lines += [*([times(cost)] if len(groups) > 1 else []), *members]
    if len(kept) < len(marks):
        lines.append(f"{len(marks) - len(kept):,} more in the table of all entries")
    above = width < _NARROW
    longest = 1.1 * max(width_of(_label(mark), _SIZE) for mark in kept)  # bold letters are wider
    names = 0 if above else min(0.42 * width, longest)
    top, row, figures = 26, _TALL_ROW if above else _ROW, width_of("100.0", _SIZE) + 4
    bottom = top + row * len(lines)
    low, high = accuracy_range(kept)
    left, right = names + 12, width - figures - 6

    def x(accuracy: float) -> float:
        return left + (accuracy - low) / (high - low) * (right - left)

    listed = "; ".join(f"{'; '.join(mark.names)} ({mark.words}): {mark.figures}" for mark in best if mark.words)
    svg = drawing(width, bottom + 28, f"Accuracy of {len(kept)} entries, the best first. {listed}")
    small = {"font_size": _SIZE, "fill": BLACK}
    add(svg, "text", f"top-1, %{axis_start(low)}", x=width - 2, y=14, text_anchor="end", **small)
    for tick in round_ticks(100 * low, 100 * high, max(2, int((right - left) / 60))):
        if 0 <= tick <= 100:
            at = x(tick / 100)
            add(svg, "line", x1=at, x2=at, y1=top, y2=bottom, stroke=PALE, stroke_width=1)
            add(svg, "text", f"{tick:g}", x=at, y=bottom + 18, text_anchor="middle", **small)
    reference = comparison.base.value.value
    if math.isfinite(reference):
        dashed = {"stroke": BLACK, "stroke_width": 1, "stroke_dasharray": "5 4", "class_": "reference"}
        add(svg, "line", x1=x(reference), x2=x(reference), y1=top, y2=bottom, **dashed)
    for at, line in enumerate(lines):
        y = top + row * at + row - _ROW / 2  # of what is drawn
        if isinstance(line, str):
            add(svg, "text", line, x=2, y=y + 0.36 * _SIZE, font_size=_SIZE, fill=GREY, font_style="italic")
            continue
        group = add(svg, "g", class_="entry")
        add(group, "title", f"{'; '.join(line.names)}: {line.figures}")
        text = {"font_size": _SIZE, "fill": BLACK, "font_weight": "bold" if line.words else "normal"}
        room = (width - 4 if above else names) / 1.1
        name = isolated(cut(_label(line), room, _SIZE))
        place = (
            {"x": 2, "y": y - _ROW / 2, "text_anchor": "start", **_OVER_LINES}
            if above
            else {"x": names, "y": y + 0.36 * _SIZE, "text_anchor": "end"}
        )
        add(group, "text", name, **place, **text)
        _interval(group, line, x, y)
        mark(group, line.entry.role, x(line.value.value), y, 5)
        figure = percent(line.value.value)
        add(group, "text", figure, x=width - 2, y=y + 0.36 * _SIZE, text_anchor="end", **text)
    return text_of(svg)


def _interval(group: Element, line: Numbered, x: Callable[[float], float], y: float) -> None:
    value = line.value
    if math.isfinite(value.low) and math.isfinite(value.high):
        colour = {"stroke": MARKS[line.entry.role][0], "stroke_width": 2} if line.words else {"stroke": GREY}
        add(group, "line", x1=x(value.low), x2=x(value.high), y1=y, y2=y, **colour)


def _label(line: Numbered) -> str:
    """A choice goes by what it is: "the choice, one pass"; other entries by their names. Both name their predictor."""
    names = "; ".join(line.names)
    if not line.words:
        return names
    role = names if line.words == names else line.words if line.entry.role == "chosen" else f"{names} ({line.words})"
    return f"{role}: {line.entry.result.word}"
