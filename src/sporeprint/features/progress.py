"""One line on stderr that says what is done, how fast, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.cells import cell_len, set_cell_size
from rich.console import Console

Progress = Callable[[str, int, int], None]  # what, done, in all


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def is_live() -> bool:
    """Return whether stderr shows a line that is written again: a terminal, or a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


def shown(progress: bool | None) -> ProgressLine:
    """Return the line that `Fungi(progress=...)` asks for: None shows it where it is live, and the work takes seconds.

    Use it in a `with` block.
    """
    return ProgressLine(after_s=1.0 if progress is None else 0.0, on=is_live() if progress is None else progress)


class ProgressLine:
    """Shows what is done, its rate and time left: one rewritten line where it is live, elsewhere a line at times.

    every_s: seconds between lines where it is not live. after_s: what takes no longer is not shown. on: whether it is.
    """

    def __init__(self, every_s: float = 10.0, after_s: float = 0.0, on: bool = True):
        self.line = RewrittenLine()
        self.live = is_live()
        self.every_s = 0.2 if self.live else every_s
        self.after_s, self.on = after_s, on
        self.what = ""
        self.first = 0
        self.started = self.last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show the state. what: "negatives" or "rows"; the first call for each sets the start of its clock."""
        if not self.on:
            return
        now = time.monotonic()
        if what != self.what:
            self.what, self.first, self.started, self.last = what, done, now, now
            if done and what == "rows":
                self._show(f"going on after {done} of {total} rows", True)
            return
        if now - self.started < self.after_s or (now - self.last < self.every_s and done < total):
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = clock((total - done) / rate) if rate else "?"
        self._show(f"{done} of {total} {what}, {rate:.1f}/s, {left} left", done >= total)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.line.width:  # what is printed next gets a line of its own
            self.line.end()

    def _show(self, text: str, finish: bool) -> None:
        if self.live:
            self.line.rewrite(text)
            if finish:
                self.line.end()
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


def clock(seconds: float) -> str:
    """Return minutes and seconds, 1:05; from an hour on 1:00:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class RewrittenLine:
    """A line of stderr, on a terminal, that is written again and again. Its text has no control characters."""

    def __init__(self) -> None:
        self.width = 0  # columns that the last text took

    def rewrite(self, text: str) -> None:
        """Write `text` over the last one."""
        cut = set_cell_size(text, min(cell_len(text), Console(stderr=True).width - 1))
        sys.stderr.write(f"\r{cut}{' ' * (self.width - cell_len(cut))}")
        sys.stderr.write(f"\r{cut}")  # where a message that is printed next begins
        sys.stderr.flush()
        self.width = cell_len(cut)

    def end(self) -> None:
        """Go to the next line."""
        sys.stderr.write("\n")
        self.width = 0
