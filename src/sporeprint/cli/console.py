"""What every command prints: progress on stderr, JSON on stdout."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from sporeprint.cli.plain_text import line_of, say
from sporeprint.evaluate.result import plain
from sporeprint.values import json_text


def print_json(value: Any) -> None:
    """Indented JSON on stdout; NaN is null."""
    sys.stdout.write(json_text(plain(value)) + "\n")


class ProgressLine:
    """Shows what is done, its rate and time left on stderr: one rewritten line on a terminal, else a line at times."""

    def __init__(self, every_s: float = 10.0):
        self.line = _Line()
        self.live = sys.stderr.isatty()
        self.every_s = 0.2 if self.live else every_s
        self.what = ""
        self.first = 0
        self.started = self.last = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """what: "negatives" or "rows"; the first call for each sets the start of its clock."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.first, self.started, self.last = what, done, now, now
            if done and what == "rows":
                self._show(f"going on after {done} of {total} rows", True)
            return
        if now - self.last < self.every_s and done < total:
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = _clock((total - done) / rate) if rate else "?"
        self._show(f"{done} of {total} {what}, {rate:.1f}/s, {left} left", done >= total)

    def _show(self, text: str, finish: bool) -> None:
        if self.live:
            self.line.rewrite(text)
            if finish:
                self.line.end()
        else:
            say(text, err=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Working:
    """Shows what is being done, and for how long, on stderr, in a `with` block: called with what begins now.

    On a terminal it is one line, which is cleared at the end; elsewhere a line at least every `every_s` seconds, also
    where nothing new begins.
    """

    def __init__(self, every_s: float = 10.0):
        self.line = _Line()
        self.live = sys.stderr.isatty()
        self.every_s = 1.0 if self.live else every_s
        self.started = self.last = time.monotonic()
        self.what = "reading"
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Working:
        self.clock.start()
        return self

    def __call__(self, what: str) -> None:
        with self.lock:
            self.what = what
            if self.live or time.monotonic() - self.last >= self.every_s:
                self._show()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.clock.join()
        if self.live:
            self.line.rewrite("")

    def _tick(self) -> None:
        while not self.done.wait(max(0.01, self.last + self.every_s - time.monotonic())):
            with self.lock:
                if time.monotonic() - self.last >= self.every_s:
                    self._show()

    def _show(self) -> None:
        self.last = time.monotonic()
        text = f"{self.what} ... {_clock(self.last - self.started)}"
        if self.live:
            self.line.rewrite(text)
        else:
            say(text, err=True)


class _Line:
    """A line of stderr, on a terminal, that is written again and again."""

    def __init__(self) -> None:
        self.width = 0  # columns that the last text took

    def rewrite(self, text: str) -> None:
        shown = set_cell_size(line_of(text), min(cell_len(line_of(text)), Console(stderr=True).width - 1))
        sys.stderr.write(f"\r{shown}{' ' * (self.width - cell_len(shown))}")
        sys.stderr.write(f"\r{shown}")  # where a message that is printed next begins
        sys.stderr.flush()
        self.width = cell_len(shown)

    def end(self) -> None:
        sys.stderr.write("\n")
        self.width = 0
