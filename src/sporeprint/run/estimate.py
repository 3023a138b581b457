"""Estimate how long work takes from its own first rows: nothing is computed twice, and no number changes."""

from __future__ import annotations

import time
from collections.abc import Callable

SHORT_S = 10.0  # shorter work needs no estimate
_FIRST_S, _MEASURED_S = 5.0, 1.0


class Estimate:
    """Says once how long the work takes, as soon as enough of it is measured; nothing where that is short.

    Called with the number of rows done: before the first, then after each batch. The first batch, which warms up, is
    left out of the measurement unless it takes seconds itself.
    what: the rows and what each costs, in words. noun: of the rows.
    """

    def __init__(
        self,
        noun: str,
        total: int,
        say: Callable[[str], None],
        what: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.noun, self.total, self.say, self.what, self.clock = noun, total, say, what, clock
        self.marks: list[tuple[float, int]] = []
        self.before = 0
        self.said = False

    def __call__(self, done: int) -> None:
        if self.said:
            return
        now = self.clock()
        if not self.marks:
            self.before = done
        if len(self.marks) < 2:
            self.marks.append((now, done))
        started, first = self.marks[-1] if len(self.marks) == 2 and self.marks[-1][1] < done else self.marks[0]
        measured, rows = now - started, done - first
        if rows > 0 and measured >= (_FIRST_S if first == self.before else _MEASURED_S):
            self.said = True
            if (seconds := (self.total - self.before) * measured / rows) >= SHORT_S:
                left = f"{self.total - self.before:,} of " if self.before else ""
                self.say(f"{left}{self.total:,} {self.noun}{self.what}: about {duration(seconds)}")


def duration(seconds: float) -> str:
    """Seconds in words, rounded: "40 s", "9 min", "2 h 10 min"."""
    if seconds < 100:
        return f"{10 * max(1, round(seconds / 10))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(10 * round(minutes / 10), 60)
    return f"{hours} h{f' {minutes} min' if minutes else ''}"
