"""Decode one sample, whatever a table, a folder or a list holds, to a text, or raise a `SampleError`."""

from __future__ import annotations

import os
from hashlib import blake2b
from numbers import Number

from sporeprint.data.columns import given
from sporeprint.data.encodings import ADVICE, START_BYTES, not_utf8, wide_encoding
from sporeprint.data.files import opened
from sporeprint.errors import SampleError

MAX_BYTES = 64 * 2**20  # as UTF-8: about ten million words, which no encoder reads; larger is not one text

SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})  # of the files that a folder of texts consists of


def load_text(sample: object) -> str:
    """Return `sample` as a text, unchanged: nothing is stripped but a byte order mark.

    sample: a str (the text itself, never a path), a path object (of a UTF-8 text file), or UTF-8 bytes; a SampleError,
    which a source gives in place of a cell that it cannot read, is raised.
    Raises SampleError, with a reason of one line, for anything that is not Unicode text of at least one character
    other than whitespace, and of at most `MAX_BYTES`.
    """
    sample = given(sample, "text")
    if isinstance(sample, str):
        return _from_str(str.__str__(sample))  # np.str_ and other subclasses become plain
    if isinstance(sample, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(sample), "these bytes")
    if isinstance(sample, os.PathLike):
        return _from_path(sample)
    if sample is None:
        raise SampleError("no text: got null (an empty cell); drop the row or fill it in")
    if isinstance(sample, Number) and sample != sample:
        raise SampleError("no text: got NaN (an empty cell, as pandas reads it); drop the row or fill it in")
    if isinstance(sample, Number):
        raise SampleError(
            f"no text: got a number of type {type(sample).__name__}; check which column holds the texts, "
            "or convert it: str(number)"
        )
    raise SampleError(
        f"no text: got a value of type {type(sample).__name__}; expected a str, UTF-8 bytes, or the path object of a "
        "UTF-8 file, one text a sample; check which column holds the texts"
    )


def text_digest(text: str) -> str:
    """Return a hex digest (16 bytes) of a text's UTF-8: the id of a sample that has no other."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def not_unicode(text: str) -> str | None:
    """Return what in a text is not Unicode, or None: a lone surrogate, which surrogateescape makes of a byte."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        byte = 0xDC80 <= ord(text[error.start]) <= 0xDCFF
        return f"{'a byte that is not UTF-8' if byte else 'a lone surrogate'} at character {error.start}"
    return None


def unicode_advice(text: str) -> str | None:
    """Return, for a message, that a text is not Unicode, why, and what to do; None where it is."""
    wrong = not_unicode(text)
    if wrong is None:
        return None
    half = "half of a character is escaped: write it whole, or leave it out"
    return f"not Unicode text ({wrong}); {ADVICE if wrong.startswith('a byte') else half}"


def _from_str(text: str) -> str:
    if not text or text.isspace():
        raise _empty("this text", len(text), "characters")
    if wrong := unicode_advice(text):
        raise SampleError(f"this text is {wrong}")
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_BYTES:
        raise _large("this text", f"is {size:,} bytes as UTF-8")
    return text


def _from_path(path: os.PathLike[str] | os.PathLike[bytes]) -> str:
    with opened(path, "a text file", _check_size) as (file, name):
        return _from_bytes(file.read(MAX_BYTES + 1), name)


def _from_bytes(data: bytes, name: str) -> str:
    _check_size(name, len(data))
    if wide := wide_encoding(data[:START_BYTES]):
        raise SampleError(f"{name}: {wide}")
    if (at := data.find(b"\0")) >= 0:
        raise SampleError(f"{name}: not text but binary (a zero byte at {at}); expected UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(f"{name}: {not_utf8(error)}") from None
    if not text or text.isspace():
        raise _empty(name, len(data), "bytes")
    return text


def _empty(name: str, size: int, unit: str) -> SampleError:
    problem = f"nothing but whitespace ({size} {unit})" if size else f"empty (0 {unit})"
    return SampleError(f"{name}: {problem}; expected a text; drop the row or fill it in")


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise _large(name, f"has {size:,} bytes")


def _large(name: str, problem: str) -> SampleError:
    return SampleError(f"{name} {problem}; a text has at most {MAX_BYTES:,}: split it into documents")
