"""The frontier is drawn as SVG: accuracy, mean over the sets, against cost; points have numbers, names stand below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sporeprint.report.cost_plot import Box
from sporeprint.report.numbers import axis_start
from sporeprint.report.svg import BLACK, GREY, PALE, add, drawing, numbered_mark, round_ticks, text_of

WIDTH, HEIGHT, SIZE = 700, 380, 13  # pixels, without the names
_LINE = 20  # height of a name


@dataclass(frozen=True)
class Point:
    """A point is a candidate joined in one way. passes: by tokens; value: top-1, mean over the sets."""

    candidate: str
    way: str
    passes: float
    value: float
    values: tuple[float, ...]


def plot(points: Sequence[Point], sets: Sequence[str], show: Sequence[str]) -> str:
    """Draw the points of `show`, each "CANDIDATE:WAY:WORDS"; the way "paper" has the paper's mark."""
    by_name = {(point.candidate, point.way): point for point in points}
    shown = []
    for text in show:
        candidate, way, words = (*text.split(":", 2), "")[:3]
        shown.append((by_name[candidate, way], words or candidate))
    passes, values = [point.passes for point, _ in shown], [point.value for point, _ in shown]
    air = 0.12 * (max(values) - min(values))
    low, high = min(values) - air, max(values) + air
    area = Box(50, 34, WIDTH - 12, HEIGHT - 50)
    right = math.log(1.25 * max(passes))

    def x(cost: float) -> float:
        return area.left + 24 + (area.right - area.left - 24) * math.log(cost) / right

    def y(value: float) -> float:
        return area.bottom - (area.bottom - area.top) * (value - low) / (high - low)

    summary = ", ".join(f"{words} {100 * point.value:.1f} % at {point.passes:.1f}" for point, words in shown)
    whole = HEIGHT + _LINE * len(shown)
    svg = drawing(WIDTH, whole, f"Accuracy against cost. {summary}")
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("font-family", "system-ui, sans-serif")
    add(svg, "rect", x=0, y=0, width=WIDTH, height=whole, fill="#ffffff")
    words = {"font_size": SIZE, "fill": BLACK}
    add(svg, "text", f"kNN top-1, %, mean of {', '.join(sets)}{axis_start(low)}", x=8, y=18, **words)
    for tick in round_ticks(100 * low, 100 * high, 7):
        add(svg, "line", x1=area.left, x2=area.right, y1=y(tick / 100), y2=y(tick / 100), stroke=PALE, stroke_width=1)
        add(svg, "text", f"{tick:g}", x=area.left - 6, y=y(tick / 100) + 4, text_anchor="end", **words)
    add(svg, "line", x1=area.left, x2=area.right, y1=area.bottom, y2=area.bottom, stroke=BLACK, stroke_width=1)
    for count in (1, 2, 5, 10, 15, 30, 60):
        if count <= 1.25 * max(passes):
            add(svg, "line", x1=x(count), x2=x(count), y1=area.bottom, y2=area.bottom + 5, stroke=BLACK, stroke_width=1)
            add(svg, "text", str(count), x=x(count), y=area.bottom + 20, text_anchor="middle", **words)
    middle = (area.left + area.right) / 2
    axis = "cost in embeddings, by tokens, mean of the sets (log scale)"
    add(svg, "text", axis, x=middle, y=area.bottom + 40, text_anchor="middle", **words)
    front = [point for point, _ in shown if point.way != "paper"]
    front = [a for a in front if not any(b.passes <= a.passes and b.value > a.value for b in front)]
    line = " ".join(
        f"{x(point.passes):.1f},{y(point.value):.1f}" for point in sorted(front, key=lambda point: point.passes)
    )
    add(svg, "polyline", points=line, fill="none", stroke=GREY, stroke_width=1.2, stroke_dasharray="5 4")
    for number, (point, words_of) in enumerate(shown, 1):
        role = "paper" if point.way == "paper" else "embedding" if point.way == "embedding" else "chosen"
        group = add(svg, "g")
        each = ", ".join(f"{name} {100 * value:.1f}" for name, value in zip(sets, point.values, strict=True))
        add(group, "title", f"{words_of}: {100 * point.value:.1f} %, {point.passes:.1f} embeddings; {each}")
        numbered_mark(group, role, number, x(point.passes), y(point.value))
        down = HEIGHT + _LINE * (number - 0.5)
        numbered_mark(svg, role, number, area.left, down)
        add(svg, "text", words_of, x=area.left + 20, y=down + 0.36 * SIZE, **words)
    return text_of(svg)
