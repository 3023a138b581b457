"""The SVG that the plots need, through ElementTree, which escapes every text and closes every element.

Plots are drawn by hand, not by matplotlib: a page is then some tens of kilobytes, equal for equal data, its text is
text (it can be searched, selected and scaled), each point shows its figures when touched, and a plot can be laid out
again for the width of a phone, where a picture that shrinks has letters too small to read.
"""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

# Okabe and Ito's colours, which differ for people of all colour vision
BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
YELLOW, BLUE, VERMILLION, PURPLE = "#f0e442", "#0072b2", "#d55e00", "#cc79a7"
GREY, PALE = "#6b6b6b", "#d9d9d9"

_NOT_XML = re.compile(
    "[^\t\n\r\u0020-\x7e\xa0-\u2029\u202f-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # as XML 1.0 has it: no NUL, no lone surrogate; and no DEL, C1 or override of the direction of letters

# role: (colour, corners of its mark around (0, 0), () for a disc); shapes differ, so that a grey print will do
MARKS: dict[str, tuple[str, tuple[tuple[float, float], ...]]] = {
    "embedding": (BLACK, ()),
    "block": (SKY, ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85))),
    "control": (ORANGE, ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0))),
    "paper": (VERMILLION, ((0, -1.15), (1.1, 0.8), (-1.1, 0.8))),
    "combined": (GREEN, ((0, 1.15), (1.1, -0.8), (-1.1, -0.8))),
    "chosen": (
        PURPLE,
        tuple(
            (math.sin(math.pi * at / 5) * far, -math.cos(math.pi * at / 5) * far)
            for at, far in enumerate((1.6, 0.7) * 5)
        ),
    ),
}


def clean(text: object) -> str:
    """`text` without what is not text: control characters, overrides of direction, lone surrogates become U+FFFD."""
    return _NOT_XML.sub("\ufffd", str(text))


def drawing(width: float, height: float, label: str) -> Element:
    """An empty drawing, in pixels; a screen reader reads out `label` instead."""
    svg = Element(
        "svg", {"viewBox": f"0 0 {number(width)} {number(height)}", "role": "img", "aria-label": clean(label)}
    )
    svg.set("width", number(width))
    svg.set("height", number(height))
    return svg


def add(parent: Element, tag: str, text: object = None, **attributes: object) -> Element:
    """A new last child; `stroke_width=1.5` is written stroke-width="1.5", `class_` class."""
    child = SubElement(
        parent,
        tag,
        {
            name.rstrip("_").replace("_", "-"): number(value) if isinstance(value, (int, float)) else clean(value)
            for name, value in attributes.items()
        },
    )
    child.text = None if text is None else clean(text)
    return child


def mark(parent: Element, role: str, x: float, y: float, radius: float = 5) -> Element:
    """The mark of a role around (x, y), in its colour and shape."""
    colour, corners = MARKS[role]
    attributes: dict[str, Any] = {"class_": f"mark {role}", "fill": colour, "stroke": "#ffffff", "stroke_width": 0.8}
    if not corners:
        return add(parent, "circle", cx=x, cy=y, r=radius, **attributes)
    spots = " ".join(f"{number(x + radius * dx)},{number(y + radius * dy)}" for dx, dy in corners)
    return add(parent, "polygon", points=spots, **attributes)


def numbered_mark(parent: Element, role: str, figure: int, x: float, y: float, radius: float = 8) -> None:
    """The mark of a role with a number in it."""
    mark(parent, role, x, y, _SIZES.get(role, 1) * radius)
    size = (1.4 if figure < 100 else 1.1) * radius
    at = {"x": x, "y": y + 0.36 * size + _LOWER.get(role, 0) * radius, "text_anchor": "middle", "class_": "number"}
    on_black = {"fill": "#ffffff"}
    on_colour = {"fill": BLACK, "stroke": "#ffffff", "stroke_width": 1.6, "paint_order": "stroke"}
    ink = on_black if MARKS[role][0] == BLACK else on_colour
    add(parent, "text", str(figure), font_size=size, font_weight="bold", stroke_linejoin="round", **at, **ink)


_SIZES = {
    "block": 1.2,
    "control": 1.2,
    "paper": 1.3,
    "combined": 1.3,
    "chosen": 1.15,
}  # so that two digits leave some colour around
_LOWER = {"paper": 0.2, "combined": -0.25, "chosen": 0.1}  # where in the mark there is most room, in radii


def text_of(svg: Element) -> str:
    """The drawing as a page has it."""
    return ElementTree.tostring(svg, encoding="unicode")


def number(value: float) -> str:
    """At most two decimals, no trailing noughts, no "-0"."""
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, at most `most` of them, at least one where any fits: steps of 1, 2, 2.5 or 5."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [round(at * step, 12) for at in range(first, last + 1)]
    return [low]
