"""Accuracy against cost, as SVG: every entry at its passes (log axis) and its accuracy, the important ones named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element

from sporeprint.evaluate.comparison import Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.numbers import between, percent, times, width_of
from sporeprint.report.svg import BLACK, GREY, MARKS, PALE, add, drawing, mark, round_ticks, text_of

RADIUS = 5.0  # of a mark
_SIZE = 12  # of letters, in pixels where the drawing is not scaled
_LINES = 3.0  # two intervals at the same passes stand so far apart


class Box(NamedTuple):
    """A rectangle on the drawing, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


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
    """{entry: what it is called in the plot and marked with in the table}, for those that matter most."""
    words: dict[str, list[str]] = {}
    marked = ((comparison.chosen, "chosen"), (comparison.reference, "reference"), (comparison.free, "one pass"))
    for name, word in marked:
        words.setdefault(name, []).append(word)
    for entry in comparison.entries:
        if entry.role == "paper":
            words.setdefault(entry.name, []).append("paper")
    return {name: ", ".join(found) for name, found in words.items()}


def merged(entries: Sequence[Entry], words: Mapping[str, str]) -> list[tuple[Entry, str, str]]:
    """(entry, its names, its words), those with words first; equal combinations are one, as choices often are.

    Two are equal by combination, passes and accuracy; the mark is that of the first.
    """
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for one in sorted(entries, key=lambda one: one.name not in words):
        groups.setdefault((one.combination, one.passes, one.value.value), []).append(one)
    return [
        (
            found[0],
            "; ".join(one.name for one in found),
            ", ".join(words[one.name] for one in found if one.name in words),
        )
        for found in groups.values()
    ]


def cost_plot(comparison: Comparison, width: float, height: float) -> str:
    """The plot, of so many pixels. Entries whose accuracy is not a number are left out; "" where none is left."""
    entries = [one for one in comparison.entries if math.isfinite(one.value.value)]
    if not entries:
        return ""
    frame = frame_of(entries, width, height)
    area = frame.area
    words = named(comparison)
    told = "; ".join(
        f"{words[one.name]}: {percent(one.value.value)} % at {times(one.passes)}"
        for one in entries
        if one.name in words
    )
    svg = drawing(width, height, f"Accuracy of {len(entries)} entries against passes per input. {told}")
    _axes(svg, frame, sorted({max(1, one.passes) for one in entries}))
    reference = comparison.entry(comparison.reference).value.value
    if math.isfinite(reference):
        y = frame.y(reference)
        dashed = {"stroke": BLACK, "stroke_width": 1, "stroke_dasharray": "5 4", "class_": "reference"}
        add(svg, "line", x1=area.left, y1=y, x2=area.right, y2=y, **dashed)
    points = merged(entries, words)
    spots = places([one for one, _, _ in points], frame)  # with words first, so at their very passes
    for (one, names, word), (x, y) in reversed(list(zip(points, spots, strict=True))):  # drawn last, so on top
        group = add(svg, "g", class_="entry")
        interval = between(one.value.low, one.value.high)
        sure = f" ({interval})" if interval else ""
        add(group, "title", f"{names}: {percent(one.value.value)} %{sure}, {times(one.passes)}")
        if interval:
            line = {"stroke": MARKS[one.role][0] if word else GREY, "stroke_width": 1.8 if word else 0.8}
            ends = {"y1": frame.y(one.value.low), "y2": frame.y(one.value.high)}
            add(group, "line", x1=x, x2=x, opacity=1 if word else 0.45, **ends, **line)
        mark(group, one.role, x, y, 1.25 * RADIUS if word else RADIUS)
    strong = [(one, word, spot) for (one, _, word), spot in zip(points, spots, strict=True) if word]
    taken = _taken(spots, [(one, x) for one, _, (x, _) in strong], reference, frame)
    _labels(svg, area, taken, [(word, *spot) for _, word, spot in strong])
    return text_of(svg)


def frame_of(entries: Sequence[Entry], width: float, height: float) -> Frame:
    """Axes that hold every accuracy and every known interval, with a little air."""
    known = [
        figure
        for one in entries
        for figure in (one.value.value, one.value.low, one.value.high)
        if math.isfinite(figure)
    ]
    air = max(0.06 * (max(known) - min(known)), 0.005)
    passes = [max(1, one.passes) for one in entries]
    area = Box(46, 30, width - 8, height - 46)
    return Frame(area, (min(passes), max(passes)), (min(known) - air, max(known) + air))


def places(entries: Sequence[Entry], frame: Frame) -> list[tuple[float, float]]:
    """Where each entry's mark lies: at its passes, or as little beside them as leaves marks and intervals free.

    Earlier entries take their places first. Where all room is taken an entry lies at its passes, on top of others.
    """
    taken: list[tuple[float, float, float, float]] = []  # x, y, and the interval's upper and lower end
    for one in entries:
        x, y = frame.x(max(1, one.passes)), frame.y(one.value.value)
        ends = [frame.y(end) for end in (one.value.high, one.value.low)]
        top, bottom = ends if all(map(math.isfinite, ends)) else (y, y)
        spots = (x + shift for shift in _SHIFTS)
        free = (at for at in spots if _is_free(at, y, top, bottom, taken, frame.area))
        taken.append((next(free, x), y, top, bottom))
    return [(x, y) for x, y, _, _ in taken]


_SHIFTS = (0, *(sign * step for step in range(1, 121) for sign in (1, -1)))  # pixels


def _is_free(x: float, y: float, top: float, bottom: float, taken: Sequence[tuple[float, ...]], area: Box) -> bool:
    if not area.left + RADIUS < x < area.right - RADIUS:
        return False
    return not any(
        math.hypot(x - other_x, y - other_y) < 2.2 * RADIUS
        or (abs(x - other_x) < _LINES and top < other_bottom and other_top < bottom)
        for other_x, other_y, other_top, other_bottom in taken
    )


def _axes(svg: Element, frame: Frame, passes: Sequence[int]) -> None:
    area, small = frame.area, {"font_size": _SIZE, "fill": BLACK}
    add(svg, "text", "right of the test rows (top-1, %)", x=4, y=14, **small)
    for tick in round_ticks(
        100 * frame.accuracy[0], 100 * frame.accuracy[1], max(2, int((area.bottom - area.top) / 40))
    ):
        if not 0 <= tick <= 100:  # the axis has some air beyond
            continue
        y = frame.y(tick / 100)
        add(svg, "line", x1=area.left, y1=y, x2=area.right, y2=y, stroke=PALE, stroke_width=1)
        add(svg, "text", f"{tick:g}", x=area.left - 6, y=y + 0.36 * _SIZE, text_anchor="end", **small)
    add(svg, "line", x1=area.left, y1=area.bottom, x2=area.right, y2=area.bottom, stroke=BLACK, stroke_width=1)
    written: list[Box] = []
    for many in sorted(passes, key=lambda one: one not in (passes[0], passes[-1])):  # the ends first, then what fits
        x, half = frame.x(many), width_of(f"{many:,}", _SIZE) / 2
        add(svg, "line", x1=x, y1=area.bottom, x2=x, y2=area.bottom + 5, stroke=BLACK, stroke_width=1)
        box = Box(x - half - 4, 0, x + half + 4, 1)
        if not any(box.meets(other) for other in written):
            written.append(box)
            add(svg, "text", f"{many:,}", x=x, y=area.bottom + 18, text_anchor="middle", **small)
    middle = (area.left + area.right) / 2
    axis = "passes of the backbone per input (log scale)"
    add(svg, "text", axis, x=middle, y=area.bottom + 38, text_anchor="middle", **small)


def _taken(
    spots: Sequence[tuple[float, float]], strong: Sequence[tuple[Entry, float]], reference: float, frame: Frame
) -> list[Box]:
    """What no word may cover: the marks, the intervals of the entries that have a word, the reference's line."""
    far = 1.5 * RADIUS
    boxes = [Box(x - far, y - far, x + far, y + far) for x, y in spots]
    for one, x in strong:
        if math.isfinite(one.value.low + one.value.high):
            boxes.append(Box(x - 2, frame.y(one.value.high), x + 2, frame.y(one.value.low)))
    if math.isfinite(reference):
        y = frame.y(reference)
        boxes.append(Box(frame.area.left, y - 1, frame.area.right, y + 1))
    return boxes


def _labels(svg: Element, area: Box, taken: list[Box], words: Sequence[tuple[str, float, float]]) -> None:
    """Each word beside its mark, clear of all that is `taken`; a thin line leads to it where it had to go far."""
    for word, x, y in words:
        box = place_label(word, x, y, taken, area)
        taken.append(box)
        near = (min(max(x, box.left), box.right), min(max(y, box.top), box.bottom))
        if math.hypot(near[0] - x, near[1] - y) > 3 * RADIUS:
            add(svg, "line", x1=x, y1=y, x2=near[0], y2=near[1], stroke=BLACK, stroke_width=0.7)
        halo = {"stroke": "#ffffff", "stroke_width": 3, "stroke_linejoin": "round", "paint_order": "stroke"}
        at = {"x": (box.left + box.right) / 2, "y": box.bottom - 0.25 * _SIZE, "text_anchor": "middle"}
        add(svg, "text", word, class_="word", font_size=_SIZE, font_weight="bold", fill=BLACK, **at, **halo)


def place_label(word: str, x: float, y: float, taken: Sequence[Box], area: Box) -> Box:
    """The nearest free place for a word beside (x, y); the nearest of all where none is free."""
    width, height = 1.12 * width_of(word, _SIZE) + 4, 1.25 * _SIZE  # bold is wider
    found = []
    for distance in range(8, 160, 6):
        for part in range(16):  # right, left, then round the mark
            angle = math.pi * _TURNS[part] / 8
            middle_x = x + math.cos(angle) * (distance + width / 2)
            middle_y = y + math.sin(angle) * (distance + height / 2)
            left, top = middle_x - width / 2, middle_y - height / 2
            box = Box(left, top, left + width, top + height)
            if box.left < area.left or box.right > area.right or box.top < area.top or box.bottom > area.bottom:
                continue
            if not any(box.meets(other) for other in taken):
                return box
            found.append(box)
    left = min(max(x - width / 2, area.left), area.right - width)
    return found[0] if found else Box(left, y - 2 * height, left + width, y - height)


_TURNS = (0, 8, 12, 4, 14, 10, 2, 6, 15, 9, 1, 7, 13, 11, 3, 5)  # sixteenths of a turn
