"""A memory bank may be larger than RAM: seconds and memory to write, open and search one.

python benchmarks/bank_scale.py --patches 1000000 [--width 768] [--classes 21] [--queries 300] [--index exact ivf]

The features are random directions around random centres, seeded. Memory is the growth of
the process's own (anonymous) memory; pages of the mapped bank belong to the system, which reclaims them when needed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from machine import machine_class

from sporeprint.search.indexes import make_index
from sporeprint.segment.bank import BankWriter, MemoryBank

_PART = 20_000  # patches written at a time


def anonymous() -> float:
    """Return the MiB of this process that belong to no file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


class Peak:
    """Peak measures a `with` block: its seconds, and the growth of anonymous memory, sampled every 0.05 s."""

    def __enter__(self) -> Peak:
        self.before = self.most = anonymous()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.started = time.perf_counter()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.started
        self.stop.set()
        self.thread.join()

    @property
    def above(self) -> float:
        return self.most - self.before

    def _watch(self) -> None:
        while not self.stop.wait(0.05):
            self.most = max(self.most, anonymous())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--queries", type=int, default=300, help="patches of one image, in one call")
    parser.add_argument("--index", nargs="*", default=["exact"])
    parser.add_argument("--folder", type=Path, help="where the bank is written, and removed again")
    options = parser.parse_args()
    print("\n".join(machine_class("cpu")))
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1024, options.width), dtype=np.float32)

    def features(count: int) -> np.ndarray:
        noise = rng.standard_normal((count, options.width), dtype=np.float32)
        return centres[rng.integers(0, len(centres), count)] + noise

    try:
        with (
            Peak() as peak,
            BankWriter(folder / "bank", options.width, options.classes, options.patches) as writer,
        ):
            for at in range(0, options.patches, _PART):
                count = min(_PART, options.patches - at)
                histograms = np.eye(options.classes, dtype=np.float32)[rng.integers(0, options.classes, count)]
                places = np.stack([np.arange(count) // 100, np.arange(count) % 100], axis=1)
                writer.add(features(count), histograms, f"image {at}", places)
        size = sum(file.stat().st_size for file in (folder / "bank").rglob("*") if file.is_file()) / 2**30
        print(f"\n{options.patches:,} patches x {options.width}: {size:.2f} GiB on disk\n")
        print("| step | seconds | memory, MiB |\n|---|---:|---:|")
        print(f"| written, {_PART:,} patches at a time | {peak.seconds:.1f} | {peak.above:.0f} |", flush=True)
        with Peak() as peak:
            bank = MemoryBank.open(folder / "bank", verify=False)
        print(f"| opened, checksums left out | {peak.seconds:.2f} | {peak.above:.0f} |", flush=True)
        queries = features(options.queries)
        for name in options.index:
            with Peak() as peak:
                index = make_index(name, bank.features, 0)
            print(f"| {name}: index made | {peak.seconds:.1f} | {peak.above:.0f} |", flush=True)
            for which in ("first", "second"):
                with Peak() as peak:
                    bank.predict(queries, index=index)
                what = f"{name}: {options.queries} patches labelled, {which} time, recall {index.recall:.3f}"
                print(f"| {what} | {peak.seconds:.1f} | {peak.above:.0f} |", flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
