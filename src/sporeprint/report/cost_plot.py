"""Accuracy against cost, as SVG: every entry is a numbered mark at its passes (log axis) and its accuracy.

The names stand next to the plot, in `numbered`'s order: they never have to find room between the marks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sporeprint.evaluate.comparison import Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.numbers import axis_start, between, percent, times, width_of
from sporeprint.report.svg import BLACK, GREY, MARKS, PALE, add, drawing, numbered_mark, round_ticks, text_of

RADIUS = 8.0  # of a mark, which holds a number of two digits
_APART = 2.5 * RADIUS  # two marks are this far from each other, across or down
_LINES = 3.0  # two intervals at the same passes are this far apart
_SIZE = 12  # of letters, in pixels where the drawing is not scaled
_SHIFTS = (0, *(sign * step for step in range(1, 121) for sign in (1, -1)))  # pixels


@dataclass(frozen=True)
class Numbered:
    """A mark of the plot. entry: what it is drawn as. names: of all entries that it stands for.

    words: "chosen", "reference, one pass", ...; "" for an entry that none of these is.
    """

    number: int
    entry: Entry
    names: tuple[str, ...]
    words: str

    @property
    def figures(self) -> str:
        """The accuracy with its interval, and the cost."""
        value = self.entry.value
        interval = between(value.low, value.high)
        sure = f" ({interval})" if interval else ""
        return f"{percent(value.value)} %{sure}, {times(self.entry.passes)}"


class Box(NamedTuple):
    """A rectangle on the drawing, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Frame:
    """Where passes and accuracies (fractions) lie on the drawing. area: inside the axes."""

    area: Box
    passes: tuple[float, float]
    accuracy: tuple[float, float]

    def x(self, passes: float) -> float:
        """On a log axis, the fewest and the most passes an eighth of the width away from the edges."""
        first, last = map(math.log, self.passes)
        left, right = self.area.left, self.area.right
        part = 0.5 if last == first else 0.125 + 0.75 * (math.log(passes) - first) / (last - first)
        return left + part * (right - left)

    def y(self, accuracy: float) -> float:
        low, high = self.accuracy
        return self.area.bottom - (accuracy - low) / (high - low) * (self.area.bottom - self.area.top)


def named(comparison: Comparison) -> dict[str, str]:
    """{entry: the words for it in the report}, for the entries that matter most."""
    words: dict[str, list[str]] = {}
    marked = ((comparison.chosen, "chosen"), (comparison.reference, "reference"), (comparison.free, "one pass"))
    for name, word in marked:
        words.setdefault(name, []).append(word)
    for entry in comparison.entries:
        if entry.role == "paper":
            words.setdefault(entry.name, []).append("paper")
    return {name: ", ".join(of_entry) for name, of_entry in words.items()}


def numbered(comparison: Comparison) -> list[Numbered]:
    """The marks of the plot, in the order of the entries; entries whose accuracy is not a number have none.

    Entries of equal combination, passes and accuracy share a mark, as choices often do: that of the first with words.
    """
    words = named(comparison)
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in comparison.entries:
        if math.isfinite(entry.value.value):
            groups.setdefault((entry.combination, entry.passes, entry.value.value), []).append(entry)
    marks = []
    for number, members in enumerate(groups.values(), 1):
        members = sorted(members, key=lambda entry: entry.name not in words)
        names = tuple(entry.name for entry in members)
        marks.append(Numbered(number, members[0], names, ", ".join(words[name] for name in names if name in words)))
    return marks


def cost_plot(comparison: Comparison, width: float, height: float) -> str:
    """The plot, of this width and height in pixels; "" where no entry has an accuracy."""
    marks = sorted(numbered(comparison), key=lambda mark: not mark.words)  # those with words take their places first
    if not marks:
        return ""
    entries = [entry for entry in comparison.entries if math.isfinite(entry.value.value)]
    frame = frame_of(entries, width, height)
    area = frame.area
    figures = "; ".join(
        f"{mark.number} {'; '.join(mark.names)} ({mark.words}): {percent(mark.entry.value.value)} % "
        f"at {times(mark.entry.passes)}"
        for mark in marks
        if mark.words
    )
    svg = drawing(width, height, f"Accuracy of {len(entries)} entries against passes per input. {figures}")
    _axes(svg, frame, sorted({max(1, entry.passes) for entry in entries}))
    reference = comparison.entry(comparison.reference).value.value
    if math.isfinite(reference):
        y = frame.y(reference)
        dashed = {"stroke": BLACK, "stroke_width": 1, "stroke_dasharray": "5 4", "class_": "reference"}
        add(svg, "line", x1=area.left, y1=y, x2=area.right, y2=y, **dashed)
    spots = places([mark.entry for mark in marks], frame)
    for mark, (x, y) in reversed(list(zip(marks, spots, strict=True))):  # those with words are drawn last, so on top
        value, role = mark.entry.value, mark.entry.role
        group = add(svg, "g", class_="entry")
        add(group, "title", f"{mark.number} {'; '.join(mark.names)}: {mark.figures}")
        if math.isfinite(value.low) and math.isfinite(value.high):
            strong = {"stroke": MARKS[role][0], "stroke_width": 1.8, "opacity": 1}
            weak = {"stroke": GREY, "stroke_width": 0.8, "opacity": 0.45}
            ends = {"y1": frame.y(value.low), "y2": frame.y(value.high)}
            add(group, "line", x1=x, x2=x, **ends, **(strong if mark.words else weak))
        numbered_mark(group, role, mark.number, x, y, RADIUS)
    return text_of(svg)


def frame_of(entries: Sequence[Entry], width: float, height: float) -> Frame:
    """Axes that hold every accuracy and every known interval, with a little air."""
    passes = [max(1, entry.passes) for entry in entries]
    area = Box(46, 30, width - 8, height - 46)
    return Frame(area, (min(passes), max(passes)), accuracy_range(entries))


def accuracy_range(entries: Sequence[Entry]) -> tuple[float, float]:
    """The ends of an axis, as fractions, that holds every accuracy and every known interval, with a little air.

    It starts at 0 where that is near.
    """
    known = [
        figure
        for entry in entries
        for figure in (entry.value.value, entry.value.low, entry.value.high)
        if math.isfinite(figure)
    ]
    air = max(0.06 * (max(known) - min(known)), 0.005)
    low = min(known) - air
    return (0.0 if 0 < low < air else low), max(known) + air


def places(entries: Sequence[Entry], frame: Frame) -> list[tuple[float, float]]:
    """Where each entry's mark lies: at its passes, or as little to the side as leaves marks and intervals free.

    Earlier entries take their places first. Where all room is taken an entry lies at its passes, on top of others.
    """
    taken: list[tuple[float, float, float, float]] = []  # x, y, and the interval's upper and lower end
    for entry in entries:
        x, y = frame.x(max(1, entry.passes)), frame.y(entry.value.value)
        ends = [frame.y(end) for end in (entry.value.high, entry.value.low)]
        top, bottom = ends if all(map(math.isfinite, ends)) else (y, y)
        free = (
            x + shift
            for shift in _SHIFTS
            if frame.area.left + RADIUS < x + shift < frame.area.right - RADIUS
            and not any(
                (abs(x + shift - other_x) < _APART and abs(y - other_y) < _APART)
                or (abs(x + shift - other_x) < _LINES and top < other_bottom and other_top < bottom)
                for other_x, other_y, other_top, other_bottom in taken
            )
        )
        taken.append((next(free, x), y, top, bottom))
    return [(x, y) for x, y, _, _ in taken]


def _axes(svg: Element, frame: Frame, passes: Sequence[float]) -> None:
    area, small = frame.area, {"font_size": _SIZE, "fill": BLACK}
    add(svg, "text", f"right of the test rows (top-1, %){axis_start(frame.accuracy[0])}", x=4, y=14, **small)
    for tick in round_ticks(
        100 * frame.accuracy[0], 100 * frame.accuracy[1], max(2, int((area.bottom - area.top) / 40))
    ):
        if not 0 <= tick <= 100:  # the axis has some air beyond
            continue
        y = frame.y(tick / 100)
        add(svg, "line", x1=area.left, y1=y, x2=area.right, y2=y, stroke=PALE, stroke_width=1)
        add(svg, "text", f"{tick:g}", x=area.left - 6, y=y + 0.36 * _SIZE, text_anchor="end", **small)
    add(svg, "line", x1=area.left, y1=area.bottom, x2=area.right, y2=area.bottom, stroke=BLACK, stroke_width=1)
    written: list[tuple[float, float]] = []  # middle and half the width
    for many in sorted(passes, key=lambda count: count not in (passes[0], passes[-1])):  # the ends, then what fits
        x, half = frame.x(many), width_of(f"{many:,}", _SIZE) / 2 + 4
        add(svg, "line", x1=x, y1=area.bottom, x2=x, y2=area.bottom + 5, stroke=BLACK, stroke_width=1)
        if all(abs(x - other_x) >= half + other_half for other_x, other_half in written):
            written.append((x, half))
            add(svg, "text", f"{many:,}", x=x, y=area.bottom + 18, text_anchor="middle", **small)
    middle = (area.left + area.right) / 2
    axis = "passes of the backbone per input (log scale)"
    add(svg, "text", axis, x=middle, y=area.bottom + 38, text_anchor="middle", **small)
