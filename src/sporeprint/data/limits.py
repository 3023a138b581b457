"""How large one sample may be: what bounds the memory that decoding it takes."""

from __future__ import annotations

from dataclasses import dataclass

from sporeprint.errors import RecipeError, SampleError
from sporeprint.values import check_count, is_number, short_repr

VALUES_A_SECOND = 48_000  # of sound, frames x channels: mono at 48 kHz
_SHORTER = "cut it into shorter clips, or raise max_seconds (--max-seconds)"
_SIDE = 65_535  # a JPEG's longest
# Decoders that hold several copies of the image, about 16 to 24 bytes a pixel where others take 4 to 12.
_HEAVY = {"WEBP": 2, "AVIF": 2, "JPEG2000": 2}


@dataclass(frozen=True)
class Limits:
    """The largest sample that is decoded; a larger one is a failed row. No number of a row that is read depends on it.

    max_pixels: of an image or a mask; of WebP, AVIF and JPEG 2000, whose decoders take twice as much, half as many.
    No side is longer than max_pixels / 64, or 65,535. Decoding takes at most 13 bytes a pixel, 0.9 GB by default.
    max_seconds: of a sound, before a backbone cuts it; at most 48,000 values (frames x channels) for each of them.
    Decoding takes at most 10 bytes a value, 0.9 GB by default. Raises RecipeError.

    Examples
    --------
    >>> from sporeprint import Fungi, Limits, Recipe
    >>> limits = Limits(max_pixels=10_000, max_seconds=60)
    >>> fungi = Fungi(Recipe(backbone="tiny"), limits=limits)  # a larger image is a failed row
    >>> limits.check_image(200, 300, "photo.png")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sporeprint.errors.SampleError: photo.png: 200 x 300 is over 10,000 pixels...
    """

    max_pixels: int = 2**26
    max_seconds: float = 1800.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_count("max_pixels", self.max_pixels)
        if not (is_number(self.max_seconds) and self.max_seconds > 0):
            raise RecipeError(f"max_seconds={self.max_seconds!r}; expected a number above 0")

    @property
    def max_values(self) -> int:
        """The number of values (frames x channels) that a sound may have."""
        return int(self.max_seconds * VALUES_A_SECOND)

    def check_image(self, width: int, height: int, name: str, kind: str | None = None) -> None:
        """Raise SampleError where an image has no pixel or is too large. kind: its format as Pillow calls it."""
        if width < 1 or height < 1:
            raise SampleError(f"{name}: {width} x {height}, without a pixel; expected at least 1 x 1")
        advice = "as a decompression bomb is; resize it, or raise max_pixels (--max-pixels)"
        most = self.max_pixels // _HEAVY.get(kind or "", 1)
        if width * height > most:
            of_kind = f" of {kind}" if kind in _HEAVY else ""
            raise SampleError(f"{name}: {width} x {height} is over {most:,} pixels{of_kind}, {advice}")
        side = max(_SIDE, self.max_pixels // 64)
        if max(width, height) > side:
            raise SampleError(f"{name}: {width} x {height} has a side over {side:,} pixels, {advice}")

    def check_sound_file(self, name: str, size: int) -> None:
        """Raise SampleError where a file of sound has more bytes than its values may need."""
        most = 4 * self.max_values + 2**20  # with its header and tags
        if size > most:
            raise SampleError(f"{name}: {size:,} bytes, over {most:,}; {_SHORTER}")

    def check_sound(self, frames: int, channels: int, rate_hz: int | None, name: str) -> None:
        """Raise SampleError where a sound is too long, or has too many channels for its length."""
        if rate_hz and frames > self.max_seconds * rate_hz:
            raise SampleError(f"{name}: {frames / rate_hz:,.0f} s of sound, over {self.max_seconds:g}; {_SHORTER}")
        if frames * channels > self.max_values:
            raise SampleError(
                f"{name}: {frames:,} frames of {channels} channels, over {self.max_values:,} values "
                f"({self.max_seconds:g} s of mono at 48 kHz); {_SHORTER}"
            )
