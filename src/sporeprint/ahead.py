"""Work a few items ahead in threads, in order, with a bound on what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")


def ahead(function: Callable[[_A], _B], items: Iterable[_A], workers: int) -> Iterator[_B]:
    """`map` in order, computed a few items ahead by threads; at most `workers` + 1 results wait."""
    if workers < 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(items)
        waiting = [pool.submit(function, item) for item in islice(remaining, workers + 1)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(function, item) for item in islice(remaining, 1)]
                yield result
        finally:
            for future in waiting:
                future.cancel()
