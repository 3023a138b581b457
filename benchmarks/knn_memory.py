"""How much memory and time does exact kNN take on many synthetic rows, memory-mapped and never read whole?

    python benchmarks/knn_memory.py [--queries 50000] [--rows 1280000] [--dim 384] [--k 20] [--metric euclidean]

The training rows (1.97 GB by default) are written to a temporary file, clouds around 1,000 centres, and mapped; the
queries, from the same clouds, and the labels are in memory. Peak is the memory of `knn_predict` itself: the process's
anonymous resident memory (Linux, sampled every 10 ms) less that just before, so that neither the arrays nor the mapped
file's pages, which the system reclaims when needed, are counted. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from sporeprint.predictors.knn import knn_predict
from sporeprint.search.neighbours import METRICS

CLASSES, CHUNK = 1000, 20_000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--queries", 50_000), ("--rows", 1_280_000), ("--dim", 384), ("--k", 20)):
        arguments.add_argument(name, type=int, default=default)
    arguments.add_argument("--metric", choices=METRICS, default="euclidean")
    given = arguments.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, given.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        train = np.memmap(Path(folder) / "rows", np.float32, "w+", shape=(given.rows, given.dim))
        labels = np.empty(given.rows, np.int64)
        for at in range(0, given.rows, CHUNK):
            labels[at : at + CHUNK], train[at : at + CHUNK] = clouds(centres, min(CHUNK, given.rows - at), rng)
        train.flush()
        truth, queries = clouds(centres, given.queries, rng)
        with Peak() as peak:
            start = time.perf_counter()
            predicted = knn_predict(train, labels, queries, given.k, given.metric)
            seconds = time.perf_counter() - start
    print("| metric | training rows | dimensions | k | queries | seconds | peak beyond the arrays, MiB | top-1 |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {given.metric} | {given.rows:,} | {given.dim} | {given.k} | {given.queries:,} | {seconds:.1f} "
        f"| {peak.bytes / 2**20:.0f} | {(predicted == truth).mean():.1%} |"
    )


def clouds(
    centres: np.ndarray, rows: int, rng: np.random.Generator, noise: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels [rows] and rows [rows, D] around their centres, with enough noise for some errors."""
    labels = rng.integers(0, len(centres), rows)
    return labels, centres[labels] + np.float32(noise) * rng.standard_normal((rows, centres.shape[1]), dtype=np.float32)


class Peak:
    """Peak measures `bytes`, the growth of anonymous resident memory within a `with` block."""

    def __enter__(self) -> Peak:
        self.before, self.most, self.done = anonymous(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.done.wait(0.01):
            self.most = max(self.most, anonymous())

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.bytes = max(0, self.most - self.before)


def anonymous() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
