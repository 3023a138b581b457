"""Numbers and names as a page shows them."""

from __future__ import annotations

import math
import re
import unicodedata

_ISOLATES = re.compile("[\u2066-\u2069]")
NONE = "\u2013"  # an en dash, where there is no figure


def percent(fraction: float | None) -> str:
    """0.8764 is "87.6"; the unit stands in the table's head."""
    return NONE if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f}"


def points(fraction: float | None) -> str:
    """A difference of two fractions: 0.031 is "+3.1", with a true minus sign, and no sign on nought."""
    if fraction is None or not math.isfinite(fraction):
        return NONE
    shown = f"{100 * fraction:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "\u2212")


def between(low: float, high: float, signed: bool = False) -> str:
    """An interval of percentages, or signed of points; "" where it is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    show = points if signed else percent
    return f"{show(low)} to {show(high)}"


def rate(per_second: float | None) -> str:
    """Two or three digits that matter: 0.042, 0.83, 9.3, 41, 1,240."""
    if per_second is None or not math.isfinite(per_second):
        return NONE
    if per_second >= 10:
        return f"{per_second:,.0f}"
    return f"{per_second:.1f}" if per_second >= 1 else f"{per_second:.2g}"


def times(passes: float) -> str:
    """ "1 pass", "12 passes"."""
    return f"{passes:,} pass" if passes == 1 else f"{passes:,} passes"


def decimal(value: float | None, digits: int) -> str:
    """A figure without unit, an en dash for NaN; a true minus sign."""
    if value is None or not math.isfinite(value):
        return NONE
    shown = f"{value:,.{digits}f}"
    return shown.lstrip("-") if not float(shown.replace(",", "")) else shown.replace("-", "\u2212")


def axis_start(fraction: float) -> str:
    """What an axis of percentages says after its name where it does not start at 0, so that no reader is misled."""
    return f"; the axis starts at {percent(fraction)}" if fraction > 0 else ""


def width_of(text: str, size: float) -> float:
    """The rough width of a sans-serif line of `size`; that of DejaVu Sans, a wide font, to be on the safe side."""
    return size * sum(map(_advance, text))


def cut(text: str, room: float, size: float) -> str:
    """`text` on one line, shortened with an ellipsis to about `room`."""
    text = " ".join(text.split())
    if width_of(text, size) <= room:
        return text
    kept, used = [], width_of("\u2026", size)
    for letter in text:
        used += size * _advance(letter)
        if used > room:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "\u2026"


def short(text: str, longest: int = 200) -> str:
    """`text` without what is beyond this many letters: labels may be pages long."""
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def isolated(text: str) -> str:
    """`text`, so that its right-to-left letters do not draw what follows it to their side. HTML has <bdi> for that."""
    text = _ISOLATES.sub("", text)  # its own might end ours
    turns = any(unicodedata.bidirectional(letter) in ("R", "AL", "RLO", "RLE", "RLI") for letter in text)
    return f"\u2068{text}\u2069" if turns else text


def _advance(letter: str) -> float:
    if unicodedata.combining(letter) or unicodedata.category(letter) == "Cf":
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in "fijlrt.,:;'|!()[]/- ":
        return 0.4
    return 1.0 if letter in "mwMW@%<>=+" else 0.76 if letter.isupper() else 0.64
