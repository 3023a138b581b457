"""Say which encoding text that is not UTF-8 is in, as far as its bytes show it, and how to convert it."""

from __future__ import annotations

import io
from pathlib import Path

START_BYTES = 64  # of a file that `wide_encoding` reads


def wide_encoding(start: bytes) -> str | None:
    """Return, for a message, that a file which begins with `start` is in UTF-16 or UTF-32; None where it is not.

    A byte order mark says so, or zeros in every second byte.
    """
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return _wide("UTF-32", "a byte order mark")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _wide("UTF-16", "a byte order mark")
    even, odd = start[::2], start[1::2]
    for encoding, letters, zeros in (("UTF-16LE", even, odd), ("UTF-16BE", odd, even)):
        if len(start) >= 4 and 2 * zeros.count(0) > len(zeros) and not letters.count(0):
            return _wide(encoding, "zeros in every second byte")
    return None


def not_utf8(error: UnicodeDecodeError) -> str:
    """Return, for a message, what in bytes could not be decoded, and what to do."""
    if wide := wide_encoding(error.object[:START_BYTES]):
        return wide
    byte = error.object[error.start]
    return f"not UTF-8 (byte {byte:#04x} at position {error.start}: {error.reason}); {ADVICE}"


def read_utf8(path: Path) -> str:
    """Return a small file's text. Raises OSError, and ValueError that says what to do where it is not UTF-8."""
    data = path.read_bytes()
    if wide := wide_encoding(data[:START_BYTES]):
        raise ValueError(wide)
    try:
        return io.StringIO(data.decode("utf-8-sig"), newline=None).read()
    except UnicodeDecodeError as error:
        raise ValueError(not_utf8(error)) from None


def _wide(encoding: str, sign: str) -> str:
    return f"its encoding is {encoding} (it has {sign}), not UTF-8: {_convert(encoding.lower())}"


def _convert(name: str) -> str:
    return f"convert it (iconv -f {name} -t utf-8 OLD > NEW)"


ADVICE = f"its encoding is not UTF-8, perhaps Latin-1 or Windows-1252: {_convert('cp1252')}"  # which has both
