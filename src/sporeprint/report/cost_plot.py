"""Accuracy against cost, as SVG: every entry is a mark at its passes (log axis) and its accuracy.

The entries that matter have numbers, and their names stand next to the plot, in `numbered`'s order: they never have to
find room between the marks. The others are small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from xml.etree.ElementTree import Element

from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.comparison import Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.judge_columns import main_of
from sporeprint.report.numbers import axis_start, between, percent, times, width_of
from sporeprint.report.svg import BLACK, GREY, MARKS, PALE, add, drawing, mark, numbered_mark, round_ticks, text_of

RADIUS, SMALL = 8.0, 4.0  # of a mark that holds a number of two digits, and of one that holds none
_AIR = 1.25  # two marks are this many times the sum of their radii from each other, across or down
_LINES = 3.0  # two intervals at the same passes are this far apart
_SIZE = 12  # of letters, in pixels where the drawing is not scaled
_SHIFTS = (0, *(sign * step for step in range(1, 121) for sign in (1, -1)))  # pixels


@dataclass(frozen=True)
class Numbered:
    """A mark of the plot. entry: what it is drawn as. names: of all entries that it stands for.

    number: 0 where the entry is none of those that matter.
    words: "the choice", "reference, one pass", ...; "" for an entry that none of these is.
    """

    number: int
    entry: Entry
    names: tuple[str, ...]
    words: str

    @property
    def value(self) -> Interval:
        value: Interval = self.entry.value
        return value

    @property
    def passes(self) -> float:
        return self.entry.passes

    @property
    def radius(self) -> float:
        return RADIUS if self.number else SMALL

    @property
    def title(self) -> str:
        """The number, the names and the figures."""
        names = "; ".join(self.names)
        return f"{self.number} {names}: {self.figures}" if self.number else f"{names}: {self.figures}"

    @property
    def figures(self) -> str:
        """The accuracy with its interval, the predictor, and the cost."""
        interval = between(self.value.low, self.value.high)
        sure = f" ({interval})" if interval else ""
        return f"{percent(self.value.value)} %{sure}, {self.entry.result.predictor}, {times(self.passes)}"


class Placed(Protocol):
    """What has a place on the plot: a mark, or an entry."""

    @property
    def value(self) -> Interval: ...
    @property
    def passes(self) -> float: ...


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
    marked = ((comparison.chosen, "the choice"), (comparison.reference, "reference"), (comparison.free, "one pass"))
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
    main = {comparison.entries[at].name for at in main_of(comparison)} | words.keys()
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in comparison.entries:
        if math.isfinite(entry.value.value):
            groups.setdefault((entry.combination, entry.passes, entry.value.value), []).append(entry)
    marks, count = [], 0
    for members in groups.values():
        members = sorted(members, key=lambda entry: entry.name not in words)
        names = tuple(entry.name for entry in members)
        count += (matters := not main.isdisjoint(names))
        said = ", ".join(words[name] for name in names if name in words)
        marks.append(Numbered(count if matters else 0, members[0], names, said))
    return marks


def cost_plot(comparison: Comparison, width: float, height: float) -> str:
    """The plot, of this width and height in pixels; "" where no entry has an accuracy."""
    marks = sorted(numbered(comparison), key=lambda mark: (not mark.words, not mark.number))  # who takes places first
    if not marks:
        return ""
    frame = frame_of(marks, width, height)
    area = frame.area
    figures = "; ".join(
        f"{mark.number} {'; '.join(mark.names)} ({mark.words}): {mark.figures}" for mark in marks if mark.words
    )
    svg = drawing(width, height, f"Accuracy of {len(marks)} entries against passes per input. {figures}")
    _axes(svg, frame, sorted({max(1, mark.passes) for mark in marks}))
    reference = comparison.base.value.value
    if math.isfinite(reference):
        y = frame.y(reference)
        dashed = {"stroke": BLACK, "stroke_width": 1, "stroke_dasharray": "5 4", "class_": "reference"}
        add(svg, "line", x1=area.left, y1=y, x2=area.right, y2=y, **dashed)
    spots = places(marks, frame, [mark.radius for mark in marks])
    for spot, (x, y) in reversed(list(zip(marks, spots, strict=True))):  # those with words are drawn last, so on top
        value, role = spot.value, spot.entry.role
        group = add(svg, "g", class_="entry")
        add(group, "title", spot.title)
        if not spot.number:
            mark(group, role, x, y, SMALL)
            continue
        if math.isfinite(value.low) and math.isfinite(value.high):
            strong = {"stroke": MARKS[role][0], "stroke_width": 1.8, "opacity": 1}
            weak = {"stroke": GREY, "stroke_width": 0.8, "opacity": 0.45}
            ends = {"y1": frame.y(value.low), "y2": frame.y(value.high)}
            add(group, "line", x1=x, x2=x, **ends, **(strong if spot.words else weak))
        numbered_mark(group, role, spot.number, x, y, RADIUS)
    return text_of(svg)


def frame_of(marks: Sequence[Placed], width: float, height: float) -> Frame:
    """Axes that hold every accuracy and every known interval, with a little air."""
    passes = [max(1, mark.passes) for mark in marks]
    area = Box(46, 30, width - 8, height - 46)
    return Frame(area, (min(passes), max(passes)), accuracy_range(marks))


def accuracy_range(marks: Sequence[Placed]) -> tuple[float, float]:
    """The ends of an axis, as fractions, that holds every accuracy and every known interval, with a little air.

    It starts at 0 where that is near.
    """
    known = [
        figure
        for mark in marks
        for figure in (mark.value.value, mark.value.low, mark.value.high)
        if math.isfinite(figure)
    ]
    air = max(0.06 * (max(known) - min(known)), 0.005)
    low = min(known) - air
    return (0.0 if 0 < low < air else low), max(known) + air


def places(marks: Sequence[Placed], frame: Frame, radii: Sequence[float] | None = None) -> list[tuple[float, float]]:
    """Where each mark lies: at its passes, or as little to the side as leaves marks and numbered ones' intervals free.

    Earlier marks take their places first. Where all room is taken a mark lies at its passes, on top of others.
    """
    taken: list[tuple[float, float, float, float, float]] = []  # x, y, radius, and the interval's upper and lower end
    for placed, radius in zip(marks, radii or [RADIUS] * len(marks), strict=True):
        x, y = frame.x(max(1, placed.passes)), frame.y(placed.value.value)
        ends = [frame.y(end) for end in (placed.value.high, placed.value.low)]
        top, bottom = ends if radius == RADIUS and all(map(math.isfinite, ends)) else (y, y)
        free = (
            x + shift
            for shift in _SHIFTS
            if frame.area.left + radius < x + shift < frame.area.right - radius
            and not any(
                (max(abs(x + shift - other_x), abs(y - other_y)) < _AIR * (radius + other_radius))
                or (abs(x + shift - other_x) < _LINES and top < other_bottom and other_top < bottom)
                for other_x, other_y, other_radius, other_top, other_bottom in taken
            )
        )
        taken.append((next(free, x), y, radius, top, bottom))
    return [(x, y) for x, y, *_ in taken]


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
