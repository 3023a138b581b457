"""The frontier as SVG: accuracy, mean over the sets, against cost; points by number, their names below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sporeprint.report.cost_plot import Box
from sporeprint.report.svg import BLACK, GREY, PALE, add, drawing, numbered_mark, round_ticks, text_of

WIDTH, HEIGHT, SIZE = 700, 380, 13  # pixels, without the names
_LINE = 20  # height of a name


@dataclass(frozen=True)
class Point:
    """One candidate joined in one way. passes: by tokens; value: top-1, mean over the sets."""

    candidate: str
    way: str
    passes: float
    value: float
    values: tuple[float, ...]


def plot(points: Sequence[Point], sets: Sequence[str], show: Sequence[str]) -> str:
    """show: "CANDIDATE:WAY:WORDS" of each point that is drawn; its mark is the paper's where the way is "paper"."""
    found = {(one.candidate, one.way): one for one in points}
    shown = []
    for text in show:
        candidate, way, words = (*text.split(":", 2), "")[:3]
        shown.append((found[candidate, way], words or candidate))
    passes, values = [one.passes for one, _ in shown], [one.value for one, _ in shown]
    air = 0.12 * (max(values) - min(values))
    low, high = min(values) - air, max(values) + air
    area = Box(50, 34, WIDTH - 12, HEIGHT - 50)
    right = math.log(1.25 * max(passes))

    def x(cost: float) -> float:
        return area.left + 24 + (area.right - area.left - 24) * math.log(cost) / right

    def y(value: float) -> float:
        return area.bottom - (area.bottom - area.top) * (value - low) / (high - low)

    told = ", ".join(f"{words} {100 * one.value:.1f} % at {one.passes:.1f}" for one, words in shown)
    whole = HEIGHT + _LINE * len(shown)
    svg = drawing(WIDTH, whole, f"Accuracy against cost. {told}")
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("font-family", "system-ui, sans-serif")
    add(svg, "rect", x=0, y=0, width=WIDTH, height=whole, fill="#ffffff")
    words = {"font_size": SIZE, "fill": BLACK}
    add(svg, "text", f"kNN top-1, %, mean of {', '.join(sets)}", x=8, y=18, **words)
    for tick in round_ticks(100 * low, 100 * high, 7):
        add(svg, "line", x1=area.left, x2=area.right, y1=y(tick / 100), y2=y(tick / 100), stroke=PALE, stroke_width=1)
        add(svg, "text", f"{tick:g}", x=area.left - 6, y=y(tick / 100) + 4, text_anchor="end", **words)
    add(svg, "line", x1=area.left, x2=area.right, y1=area.bottom, y2=area.bottom, stroke=BLACK, stroke_width=1)
    for many in (1, 2, 5, 10, 15, 30, 60):
        if many <= 1.25 * max(passes):
            add(svg, "line", x1=x(many), x2=x(many), y1=area.bottom, y2=area.bottom + 5, stroke=BLACK, stroke_width=1)
            add(svg, "text", str(many), x=x(many), y=area.bottom + 20, text_anchor="middle", **words)
    middle = (area.left + area.right) / 2
    axis = "cost in embeddings, by tokens, mean of the sets (log scale)"
    add(svg, "text", axis, x=middle, y=area.bottom + 40, text_anchor="middle", **words)
    front = [one for one, _ in shown if one.way != "paper"]
    front = [a for a in front if not any(b.passes <= a.passes and b.value > a.value for b in front)]
    line = " ".join(f"{x(one.passes):.1f},{y(one.value):.1f}" for one in sorted(front, key=lambda one: one.passes))
    add(svg, "polyline", points=line, fill="none", stroke=GREY, stroke_width=1.2, stroke_dasharray="5 4")
    for number, (one, words_of) in enumerate(shown, 1):
        role = "paper" if one.way == "paper" else "embedding" if one.way == "embedding" else "chosen"
        group = add(svg, "g")
        each = ", ".join(f"{name} {100 * value:.1f}" for name, value in zip(sets, one.values, strict=True))
        add(group, "title", f"{words_of}: {100 * one.value:.1f} %, {one.passes:.1f} embeddings; {each}")
        numbered_mark(group, role, number, x(one.passes), y(one.value))
        down = HEIGHT + _LINE * (number - 0.5)
        numbered_mark(svg, role, number, area.left, down)
        add(svg, "text", words_of, x=area.left + 20, y=down + 0.36 * SIZE, **words)
    return text_of(svg)
