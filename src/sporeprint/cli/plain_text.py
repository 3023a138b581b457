"""What goes out is text: no control characters or escape sequences reach a terminal, whatever a label or a path holds."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from sporeprint.values import printable

_LONGEST = 2_000  # letters of a line for people


class AnswerLost(Exception):
    """Stdout is full or closed."""


class PlainText(io.TextIOBase):
    """A stream that writes on to another whatever is text: of control characters only the ends of lines.

    The others are written as JSON escapes them, and so is what the stream's encoding does not have. On a terminal a
    carriage return may come first: lines of progress rewrite themselves. There is no `buffer` to go round this by.
    Where the other is full or closed, what is written is lost: AnswerLost is raised, unless `may_be_lost`.
    """

    def __init__(self, stream: TextIO | None, may_be_lost: bool = False):
        self.stream, self.may_be_lost = _Closed() if stream is None else stream, may_be_lost

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        rewrites = text.startswith("\r") and self.isatty()
        lines = text[rewrites:].split("\n")
        plain = "\r" * rewrites + self._encodable("\n".join(map(printable, lines)))
        with self._writing():
            self.stream.write(plain)
        return len(text)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: closed in this process
            with contextlib.suppress(OSError, ValueError):  # what Python writes at its end goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if not self.may_be_lost:
                why = getattr(error, "strerror", None) or error
                raise AnswerLost(f"stdout took no more ({why}): the answer is not complete") from None

    def _encodable(self, text: str) -> str:
        def fits(part: str) -> bool:
            try:
                return bool(part.encode(self.encoding)) or not part
            except UnicodeEncodeError:
                return False

        return text if fits(text) else "".join(part if fits(part) else json.dumps(part)[1:-1] for part in text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def flush(self) -> None:
        with self._writing():
            self.stream.flush()


class _Closed(io.TextIOBase):
    """A stream that was closed before Python began."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


@contextmanager
def plain_streams() -> Iterator[None]:
    """Everything that is written to stdout and stderr meanwhile is text, whoever writes it."""
    before = sys.stdout, sys.stderr
    ours = PlainText(sys.stdout), PlainText(sys.stderr, may_be_lost=True)
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        for name, stream, plain in zip(("stdout", "stderr"), before, ours, strict=True):
            if getattr(sys, name) is plain:  # typer puts others there where a pipe is closed
                setattr(sys, name, stream)


def say(text: object, err: bool = False) -> None:
    """Print one line, on stderr if it is not part of the answer."""
    stream = sys.stderr if err else sys.stdout
    stream.write(printable(str(text)) + "\n")
    stream.flush()


def say_lines(text: object) -> None:
    """Print a message on stderr. Its later lines are indented, so that none can be taken for a message of its own."""
    first, *others = str(text).split("\n")
    for line in (first, *(line if line.startswith("  ") else f"  {line}" for line in others if line.strip())):
        say(line_of(line), err=True)


def line_of(text: object, longest: int = _LONGEST) -> str:
    """`text` as one line for people: a long one is cut."""
    line = printable(str(text))
    return line if len(line) <= longest else line[: longest - 1] + "\u2026"
