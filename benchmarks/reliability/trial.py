"""Run many seeded cases in worker processes with a limit on time and memory, and count how each ends."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("COLUMNS", "120")

from sporeprint.errors import SporeprintError  # after the environment is set

MEBIBYTE = 2**20
_PATIENCE = 6  # times that a process which hardly ran is waited for again
Case = Callable[[np.random.Generator], tuple[str, str]]


class Wrong(Exception):
    """An outcome that is promised never to happen, such as other numbers."""


@dataclass
class Tally:
    """counts: {(kind, outcome): cases}. failures: [(case, kind, what was seen)]."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, case: int, kind: str, outcome: str, failure: str | None = None) -> None:
        self.counts[kind, "FAILED" if failure else outcome] += 1
        if failure:
            self.failures.append((case, kind, failure))

    def update(self, other: Tally) -> None:
        self.counts += other.counts
        self.failures += other.failures

    def show(self, title: str, seed: int, most: int = 40) -> int:
        """Print a table, and the failures with their numbers; the exit status."""
        outcomes = sorted({outcome for _, outcome in self.counts}, key=lambda name: (name == "FAILED", name))
        kinds = sorted({kind for kind, _ in self.counts})
        print(f"{title}, seed {seed}: {sum(self.counts.values()):,} cases, {len(self.failures)} failures")
        print("| " + " | ".join(["", *outcomes]) + " |")
        print("|---" * (len(outcomes) + 1) + "|")
        for kind in kinds:
            print("| " + " | ".join([kind, *(f"{self.counts[kind, outcome]:,}" for outcome in outcomes)]) + " |")
        if len(kinds) > 1:
            sums = (sum(self.counts[kind, outcome] for kind in kinds) for outcome in outcomes)
            print("| " + " | ".join(["all", *(f"{total:,}" for total in sums)]) + " |")
        for case, kind, failure in self.failures[:most]:
            print(f"FAILED: --seed {seed} --only {case}: {kind}: {failure}")
        if len(self.failures) > most:
            print(f"... and {len(self.failures) - most} more")
        return int(bool(self.failures))


def arguments(count: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--only", type=int, help="the number of one case, to see it fail again")
    return parser.parse_args()


def numbers(options: argparse.Namespace) -> list[int]:
    return list(range(options.count)) if options.only is None else [options.only]


def run(case: Case, cases: list[int], seed: int, seconds: float = 20, mebibytes: int = 1024) -> Tally:
    """Run case(generator) for each number; it gives (kind, outcome). A worker that ends or hangs is replaced.

    mebibytes: what a worker may take beyond what it has when it is forked.
    """
    tally, left = Tally(), list(cases)
    while left:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _work(case, left, seed, writer, mebibytes)
        os.close(writer)
        left = left[_watch(reader, child, left, tally, seconds) :]
    return tally


def _work(case: Case, cases: list[int], seed: int, writer: int, mebibytes: int) -> None:
    limit_memory(mebibytes)
    out = os.fdopen(writer, "w")

    def say(*words: object) -> None:
        print(json.dumps(words), file=out, flush=True)

    try:
        for number in cases:
            say("begin")
            try:
                with quiet():
                    kind, outcome = case(np.random.default_rng([seed, number]))
                say(kind, outcome, None)
            except SporeprintError as error:
                say(kind_of(error), f"named error: {type(error).__name__}", None)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    os._exit(130)
                say(kind_of(error), "FAILED", described(error))
    finally:
        os._exit(0)


def _watch(reader: int, child: int, cases: list[int], tally: Tally, seconds: float) -> int:
    """Read a worker's reports until it ends or takes too long for a case; how many cases are over."""
    over, begun, pending, ending = 0, False, b"", ""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while over < len(cases):
            data, ready = b"", False
            for _ in range(_PATIENCE):
                busy = _cpu_seconds(child)
                if ready := bool(select.select([pipe], [], [], seconds)[0]):
                    data = pipe.read(65536)
                    break
                if _cpu_seconds(child) - busy > seconds / 2:  # else the machine was busy with something else
                    break
            if not data:
                ending = "" if ready else f"more than {seconds:g} s"
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                words = json.loads(line)
                begun = words == ["begin"]
                if not begun:
                    tally.add(cases[over], *words)
                    over += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if over < len(cases) and begun:
        tally.add(cases[over], "(worker)", "FAILED", ending or f"the process ended with {status}")
        over += 1
    return over


def _cpu_seconds(process: int) -> float:
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def limit_memory(mebibytes: int) -> None:
    """Let this process take so much more than it has."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + mebibytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def quiet():
    """Nothing is printed, also not by libraries in C."""
    saved = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stdout.flush()
        os.dup2(null, 1)
        os.dup2(null, 2)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for descriptor, old in zip((1, 2), saved, strict=True):
            os.dup2(old, descriptor)
            os.close(old)
        os.close(null)


def command(*words: object) -> tuple[int, str]:
    """Run a command line in this process: its exit status and what it wrote to stdout."""
    from sporeprint.cli import main

    out, before = io.StringIO(), sys.argv
    sys.argv = ["sporeprint", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out):
            main()
        status: object = 0
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.argv = before
    return status if isinstance(status, int) else 1, out.getvalue()


def attempt(kind: str, action: Callable[[], str]) -> tuple[str, str]:
    """(kind, what the action gives), with the kind noted on what it raises."""
    try:
        return kind, action()
    except BaseException as error:
        error.kind = kind  # type: ignore[attr-defined]
        raise


def kind_of(error: BaseException) -> str:
    return getattr(error, "kind", "?")


def described(error: BaseException) -> str:
    """The error in a line, with the place in sporeprint where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}sporeprint{os.sep}" in frame.filename] or list(frames)
    place = f"{ours[-1].filename.rpartition('sporeprint' + os.sep)[2]}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__}: {str(error)[:200]!r} at {place}"


def timed(title: str, case: Case, count: int, seconds: float = 20, mebibytes: int = 1024) -> None:
    """The whole of a script: options, cases, table, time, exit status."""
    options, begin = arguments(count), time.monotonic()
    tally = run(case, numbers(options), options.seed, seconds, mebibytes)
    status = tally.show(title, options.seed)
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)
