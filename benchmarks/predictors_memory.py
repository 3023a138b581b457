"""How much time and memory do LDA, ridge and class means take on many synthetic rows, memory-mapped?

    python benchmarks/predictors_memory.py [--rows 100000] [--dim 2500] [--classes 100] [--predictors lda ridge means]

The rows (1 GB by default) are written to a temporary file, clouds around one centre a class, and mapped. Peak is as in
`knn_memory.py`: anonymous resident memory beyond what there was before, so neither the arrays nor the file's pages
count. Prints a Markdown table: `fit`, then `leave_one_out`, which fits too, and the accuracy that the latter gives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from knn_memory import CHUNK, Peak, clouds
from machine import machine_class

from sporeprint import ClassMeans, Ridge, ShrunkLDA

PREDICTORS = {"lda": ("LDA", ShrunkLDA), "ridge": ("ridge", Ridge), "means": ("class means", ClassMeans)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--rows", 100_000), ("--dim", 2500), ("--classes", 100)):
        arguments.add_argument(name, type=int, default=default)
    arguments.add_argument("--predictors", nargs="+", choices=PREDICTORS, default=list(PREDICTORS))
    given = arguments.parse_args()
    print(*machine_class("cpu"), sep="\n", file=sys.stderr)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((given.classes, given.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        rows = np.memmap(Path(folder) / "rows", np.float32, "w+", shape=(given.rows, given.dim))
        labels = np.empty(given.rows, np.int64)
        for at in range(0, given.rows, CHUNK):
            part = slice(at, at + CHUNK)
            labels[part], rows[part] = clouds(centres, len(labels[part]), rng, noise=3.0)
        rows.flush()
        print(
            "| predictor | rows | dimensions | classes | call | seconds | peak beyond the rows, MiB | left out, top-1 |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for name in given.predictors:
            title, predictor = PREDICTORS[name]
            shape = f"{given.rows:,} | {given.dim:,} | {given.classes}"
            for call in ("fit", "leave_one_out"):
                answer, seconds, peak = measured(getattr(predictor(), call), rows, labels)
                right = f"{answer.right.mean():.1%}" if call == "leave_one_out" else ""
                print(f"| {title} | {shape} | `{call}` | {seconds:.1f} | {peak:.0f} | {right} |", flush=True)


def measured(call: Any, *arguments: Any) -> tuple[Any, float, float]:
    """Return a call's answer, its seconds and its peak in MiB."""
    with Peak() as peak:
        start = time.perf_counter()
        answer = call(*arguments)
        seconds = time.perf_counter() - start
    return answer, seconds, peak.bytes / 2**20


if __name__ == "__main__":
    main()
