"""The speed scripts share these: the machine's class, memory of a separate process, times measured in turns."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FLAGS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
_STATUS, _STAT = Path("/proc/self/status"), Path("/proc/stat")
_LEAST = 0.2  # seconds that a measurement takes at least: faster calls are repeated


def machine_class(device: str) -> list[str]:
    """Describe what decides speed, in lines: cores and their bfloat16, GPU and driver, versions, threads, load."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    features = [name for flag, name in _FLAGS.items() if flag in flags] or ["no AVX found"]
    lines = [f"{usable_cores()} cores, {platform.machine()}, {', '.join(features)}"]
    if device == "cuda":
        lines.append(f"{torch.cuda.get_device_name()}, driver {_driver()}, CUDA {torch.version.cuda}")
    lines.append(
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"load before the run {os.getloadavg()[0]:.1f}"
    )
    return lines


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


class Others:
    """Others measures what other processes have used since it was made, so that a disturbed table says so."""

    def __init__(self) -> None:
        self.start = self._now()

    def __str__(self) -> str:
        wall, busy, ours = (now - then for now, then in zip(self._now(), self.start, strict=True))
        if not _STAT.exists():
            return "unknown what other processes took meanwhile"
        return f"other processes took {max(0.0, busy - ours) / max(wall, 1e-9):.1f} cores meanwhile"

    def _now(self) -> tuple[float, float, float]:
        """Return seconds of the clock, of all busy cores, and of this process and its children."""
        busy = 0.0
        if _STAT.exists():
            ticks = [int(number) for number in _STAT.read_text().split("\n")[0].split()[1:9]]
            busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks
        return time.perf_counter(), busy, sum(os.times()[:4])


def settle(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def side_by_side(calls: Mapping[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of each call in each round. Calls take turns, so that a disturbed round disturbs all of them.

    Every call first runs uncounted; every other round goes backwards. A call that fails is printed on stderr and left
    out.
    """
    repeats = {}
    for name, call in calls.items():
        try:
            first = _seconds(call, 1, device)
            typical = _seconds(call, 1, device) if first < 1 else first  # the first call compiles and packs
            repeats[name] = math.ceil(_LEAST / typical)
        except (RuntimeError, MemoryError) as error:
            print(f"{name} failed: {str(error).splitlines()[0]}", file=sys.stderr)
    times: dict[str, list[float]] = {name: [] for name in repeats}
    for turn in range(rounds):
        for name in list(repeats)[:: -1 if turn % 2 else 1]:
            times[name].append(_seconds(calls[name], repeats[name], device))
    return times


def _seconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    settle(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    settle(device)
    return (time.perf_counter() - start) / repeats


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median over the rounds of times / reference, each taken within its round."""
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


def growth(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit the exponent p of values ~ sizes ** p by least squares on the logarithms: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def memory(name: str) -> int:
    """Return bytes of this process: "VmRSS", resident now, or "VmHWM", the most that was resident; -1 if not Linux."""
    if not _STATUS.exists():
        return -1
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measured(call: Callable[[], Any], device: str) -> dict[str, float]:
    """Measure a call in this process: bytes resident before it, the peak, its seconds, and on a GPU its peak there."""
    gc.collect()
    before = memory("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = _seconds(call, 1, device)
    on_device = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"before": before, "peak": memory("VmHWM"), "seconds": seconds, "device": on_device}


def in_own_process(script: str, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what `script --child JOB` prints last, as JSON; None where it fails, which is printed on stderr."""
    done = subprocess.run([sys.executable, script, "--child", json.dumps(job)], capture_output=True, text=True)
    if done.returncode:
        messages = done.stderr.strip().splitlines() or [f"exit status {done.returncode} (-9: out of memory)"]
        print(f"{job} failed: {messages[-1]}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; every column but the first two is right-aligned."""
    rule = ["---" if at < 2 else "---:" for at in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f}" if size >= 0 else "?"
