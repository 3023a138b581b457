"""Work a few items ahead in threads, in order, with a bound on what waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

_A = TypeVar("_A")
_B = TypeVar("_B")


def ahead(function: Callable[[_A], _B], items: Iterable[_A], workers: int) -> Iterator[_B]:
    """Run `map` in order, a few items ahead in threads; at most `workers` + 1 results wait.

    In each of them torch computes with one thread: teams of threads that wait for each other's cores were slower.
    """
    if workers < 1:
        yield from map(function, items)
        return
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
            torch.set_num_threads(threads)  # for later threads: each new one takes the number that was set last
