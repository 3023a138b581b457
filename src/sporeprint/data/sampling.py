"""A random sample of a source: sources are often sorted by class, so their first rows are not representative."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from sporeprint.data.rows import Row, Source
from sporeprint.errors import SourceError


class Sampled:
    """`count` rows of a source, drawn by a digest of (seed, position), in the source's order; all if it has fewer."""

    def __init__(self, source: Source, count: int, seed: int = 0):
        if count < 1:
            raise SourceError(f"a sample of {count} rows; expected at least 1")
        self.source, self.count, self.seed = source, count, seed
        self.label_names = source.label_names
        drawn = sorted(range(len(source)), key=lambda at: blake2b(f"{seed} {at}".encode(), digest_size=8).digest())
        self._positions = sorted(drawn[:count])

    def __len__(self) -> int:
        return len(self._positions)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the drawn rows from the `start`-th on."""
        positions = self._positions[start:]
        if not positions:
            return
        following = iter(positions)
        position = next(following)
        for at, row in enumerate(self.source.rows(positions[0]), start=positions[0]):
            if at == position:
                yield row
                position = next(following, -1)
                if position < 0:
                    return

    def digest(self) -> str:
        """Return a hex digest of the source and of the draw."""
        return self._digest_of(self.source.digest())

    def earlier_digest(self) -> str:
        """Return the digest as earlier versions took it, of the source's."""
        return self._digest_of(getattr(self.source, "earlier_digest", self.source.digest)())

    def _digest_of(self, digest: str) -> str:
        return blake2b(f"{digest} {self.count} {self.seed}".encode(), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the source's description, with the sample."""
        return {**self.source.describe(), "sample": self.count, "sample_seed": self.seed}

    def notes(self) -> list[str]:
        """Return the source's notes."""
        return self.source.notes()
