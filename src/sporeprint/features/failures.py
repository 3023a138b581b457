"""Count the rows that cannot be read against the number that may fail, and name them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sporeprint.errors import RowFailure, TooManyFailures


class Failures:
    """Counts the rows that cannot be read, of `total`, and raises where they are more than the fraction `limit`.

    At least one row may fail, unless the limit is 0. rows: failures known before, which count at the next one.
    """

    def __init__(self, limit: float, total: int, rows: Iterable[RowFailure] = ()):
        self.limit, self.total, self.rows = limit, total, list(rows)

    @property
    def allowed(self) -> int:
        """The number of rows that may fail."""
        return max(1, math.floor(self.limit * self.total)) if self.limit > 0 else 0

    def add(self, row_id: str, reason: object) -> None:
        """Count one row. Raises TooManyFailures."""
        self.extend([RowFailure(row_id, str(reason))])

    def extend(self, rows: Iterable[RowFailure]) -> None:
        """Count all of these rows. Raises TooManyFailures, which names every row that failed."""
        self.rows += rows
        if len(self.rows) > self.allowed:
            raise TooManyFailures(
                f"{len(self.rows)} of {self.total} rows cannot be read; at most {self.allowed} may fail "
                f"({first_reasons(self.rows, 5)}). Fix or remove them, or allow "
                f"more with max_failures (--max-failures), a fraction of the rows: it is {self.limit:g}"
                + (", and one row always may fail" if self.limit > 0 else ""),
                self.rows,
            )


def first_reasons(rows: Sequence[RowFailure], most: int) -> str:
    """Return the ids and reasons of the first `most` rows, and how many there are more, for a message."""
    more = [f"and {len(rows) - most} more"] if len(rows) > most else []
    return "; ".join([f"{row.id}: {row.reason}" for row in rows[:most]] + more)
