"""Two plots of a comparison, as SVG: changes of the classes, and what the blocks share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sporeprint.evaluate.analyse import ClassChange
from sporeprint.report.numbers import cut, isolated, points, short, width_of
from sporeprint.report.svg import BLACK, BLUE, GREY, PALE, VERMILLION, add, drawing, text_of

_SIZE = 12  # of letters, in pixels where the drawing is not scaled
_ROW = 24  # height of a class


def class_plot(classes: Sequence[ClassChange], width: float, most: int = 20) -> str:
    """A bar for each class that gained (up to `most`, the largest first) and that lost (the largest loss last).

    classes: the largest gain first, as `Comparison.classes`. width: in pixels. "" where no class changed.
    """
    gains, losses, rest = sorted_changes(classes, most)
    if not gains and not losses:
        return ""
    shown = [*gains, *([None] if rest else []), *losses]
    counts = [f" ({change.count:,})" if change else "" for change in shown]
    labels = [f"{short(str(change.label))}{count}" for change, count in zip(shown, counts, strict=True) if change]
    longest = max(width_of(label, _SIZE) for label in labels)
    top, names = 8, min(0.4 * width, max(longest + 1, 60))
    room = max(width_of(points(change.change), _SIZE) for change in (*gains, *losses))  # next to a bar
    high = max([gain.change for gain in gains], default=0.0)
    low = min([loss.change for loss in losses], default=0.0)
    left, right = names + 8 + (room + 4 if losses else 0), width - 4 - (room if gains else 0)
    zero = left + (right - left) * -low / (high - low)
    scale = (right - left) / (high - low)
    listed = ", ".join(f"{short(str(change.label))} {points(change.change)}" for change in (*gains[:3], *losses[-3:]))
    svg = drawing(width, 2 * top + _ROW * len(shown), f"Change of accuracy of each class, in points. {listed}")
    for at, (change, count) in enumerate(zip(shown, counts, strict=True)):
        y = top + _ROW * at
        baseline = y + _ROW / 2 + 0.36 * _SIZE
        if change is None:
            middle = {"font_size": _SIZE, "fill": GREY, "text_anchor": "end", "font_style": "italic"}
            add(svg, "text", f"{len(rest):,} more", x=names, y=baseline, **middle)
            continue
        group = add(svg, "g", class_="class")
        detail = f"{change.count:,} rows, {change.before:.1%} before, {change.after:.1%} after"
        add(group, "title", f"{short(str(change.label))}: {detail}")
        name = cut(str(change.label), names - width_of(count, _SIZE), _SIZE)
        add(group, "text", isolated(name) + count, x=names, y=baseline, font_size=_SIZE, fill=BLACK, text_anchor="end")
        end = zero + scale * change.change
        colour = BLUE if change.change > 0 else VERMILLION
        add(group, "rect", x=min(zero, end), y=y + 4, width=abs(end - zero), height=_ROW - 8, fill=colour)
        anchor, shift = ("start", 4) if change.change > 0 else ("end", -4)
        value = {"font_size": _SIZE, "fill": BLACK, "text_anchor": anchor}
        add(group, "text", points(change.change), x=end + shift, y=baseline, **value)
    add(svg, "line", x1=zero, y1=top, x2=zero, y2=top + _ROW * len(shown), stroke=BLACK, stroke_width=1)
    return text_of(svg)


def sorted_changes(
    classes: Sequence[ClassChange], most: int
) -> tuple[list[ClassChange], list[ClassChange], list[ClassChange]]:
    """The largest gains, first the largest; the largest losses, the largest last; and the classes that are left."""
    gains = [change for change in classes if change.change > 0]
    losses = [change for change in classes if change.change < 0]
    same = [change for change in classes if not (change.change > 0 or change.change < 0)]
    kept = len(losses) - most if len(losses) > most else 0
    return gains[:most], losses[kept:], [*gains[most:], *same, *losses[:kept]]


def cka_plot(names: Sequence[str], cka: Sequence[Sequence[float]], width: float = 960) -> str:
    """A heat map [B, B] of similarity, white 0 to dark blue 1, with the numbers where the cells are large enough.

    A debiased CKA may fall below 0: it is coloured as 0 and written as it is. NaN is a crossed cell. width: in pixels,
    at most. "" for no blocks.
    """
    if not names:
        return ""
    count = len(names)
    widest = width / (count + 4)  # with room for the labels
    cell = next((side for side in (36, 24, 18) if side <= widest), widest)
    size = max(6, min(_SIZE, 0.62 * cell))
    labels = [cut(name, min(150, 0.3 * width), size) for name in names]
    margin = max(width_of(label, size) for label in labels) + 8
    rise = margin * 0.78  # the labels above stand at 45 degrees; the last one leans over the right edge
    cell = min(cell, (width - margin - rise) / count)
    side = cell * count
    svg = drawing(margin + side + rise, rise + side + 2, f"CKA, from 0 to 1, of every two of {count} blocks")
    for at, (name, label) in enumerate(zip(names, labels, strict=True)):
        y = rise + cell * (at + 0.5) + 0.36 * size
        row = add(svg, "text", label, x=margin - 6, y=y, font_size=size, text_anchor="end", fill=BLACK)
        add(row, "title", name)
        x = margin + cell * (at + 0.5)
        turned = f"rotate(-45 {x:.2f} {rise - 5:.2f})"
        column = add(svg, "text", label, x=x, y=rise - 5, font_size=size, transform=turned, fill=BLACK)
        add(column, "title", name)
    for row_at, line in enumerate(cka):
        for column_at, value in enumerate(line):
            x, y = margin + cell * column_at, rise + cell * row_at
            known = math.isfinite(value)
            group = add(svg, "g", class_="cell")
            shown = f"{value:.2f}" if known else "not defined"
            add(group, "title", f"{names[row_at]} and {names[column_at]}: {shown}")
            fill = shade(value) if known else "#ffffff"
            add(group, "rect", x=x, y=y, width=cell, height=cell, fill=fill, stroke=PALE, stroke_width=0.5)
            if not known:
                add(group, "path", d=f"M{x:.1f} {y:.1f}l{cell:g} {cell:g}m{-cell:g} 0l{cell:g} {-cell:g}", stroke=GREY)
            elif cell >= 24:
                digits = f"{value:.2f}" if cell >= 36 else f"{value:.1f}"
                dark = value > 0.68  # there white and black are equally legible
                text = {"font_size": 11, "text_anchor": "middle", "fill": "#ffffff" if dark else BLACK}
                add(group, "text", digits.replace("-", "\u2212"), x=x + cell / 2, y=y + cell / 2 + 4, **text)
    return text_of(svg)


def shade(value: float) -> str:
    """White at 0 and below to dark blue at 1 and above."""
    part = min(1.0, max(0.0, value))
    return "#" + "".join(f"{round(255 + part * (dark - 255)):02x}" for dark in (0x00, 0x3C, 0x72))
