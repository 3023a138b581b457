"""What every command prints: progress on stderr, JSON on stdout."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from sporeprint.cli.plain_text import line_of, say
from sporeprint.evaluate.result import plain
from sporeprint.features.progress import RewrittenLine, clock
from sporeprint.values import json_text


def print_json(value: Any) -> None:
    """Indented JSON on stdout; NaN is null."""
    sys.stdout.write(json_text(plain(value)) + "\n")


class Working:
    """Shows what is being done, and for how long, on stderr, in a `with` block: called with what begins now.

    On a terminal it is one line, which is cleared at the end; elsewhere a line at least every `every_s` seconds, also
    where nothing new begins.
    """

    def __init__(self, every_s: float = 10.0):
        self.line = RewrittenLine()
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
        text = f"{self.what} ... {clock(self.last - self.started)}"
        if self.live:
            self.line.rewrite(line_of(text))
        else:
            say(text, err=True)
