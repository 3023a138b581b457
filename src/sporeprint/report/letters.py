"""Lines of text in a picture, in the one font that comes with Pillow."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from sporeprint.report.palette import RGB

if TYPE_CHECKING:
    from PIL import Image

_LONGEST = 300  # letters, more than a sheet has room for
_FINER = 4  # text is drawn this much larger, then reduced: the font rounds its spaces to whole pixels, too narrow


def height(size: float) -> int:
    """Height of a line of text, in pixels."""
    return round(1.35 * size)


def length(text: str, size: float) -> int:
    """Width of a line of text, in pixels."""
    from PIL import ImageFont

    return -int(-ImageFont.load_default(_FINER * size).getlength(drawable(text)) // _FINER)


def write(picture: Image.Image, at: tuple[int, int], text: str, size: float, room: int, ink: RGB) -> str:
    """Draw a line of text with its upper left corner at `at`, cut in the middle to `room` pixels; returns it."""
    from PIL import Image, ImageDraw, ImageFont

    shown = whole = drawable(text)
    kept = len(whole)
    while kept and length(shown, size) > room:
        kept -= 1
        shown = whole[: (kept + 1) // 2].rstrip() + "..." + whole[len(whole) - kept // 2 :].lstrip()
    if not kept:
        return ""
    wide, high = length(shown, size), height(size)
    ink_at = Image.new("L", (_FINER * wide, _FINER * high))
    pen, font = ImageDraw.Draw(ink_at), ImageFont.load_default(_FINER * size)
    pen.text((0, _FINER * high // 2), shown, font=font, fill=255, anchor="lm")
    picture.paste(ink, at, ink_at.resize((wide, high), Image.Resampling.BOX))
    return shown


def drawable(text: str) -> str:
    """The text on one line, in the letters of the font, ASCII: accents are dropped, other letters become "?".

    A text longer than any sheet has room for is cut in the middle.
    """
    decomposed = unicodedata.normalize("NFKD", " ".join(str(text).split()))
    letters = (letter for letter in decomposed if not unicodedata.combining(letter))
    line = "".join(letter if " " <= letter <= "~" else "?" for letter in letters)
    return line if len(line) <= _LONGEST else line[: _LONGEST // 2] + "..." + line[-_LONGEST // 2 :]
