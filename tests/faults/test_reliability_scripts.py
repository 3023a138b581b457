"""The attack of benchmarks/reliability in small: it runs, counts every case, and finds nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "reliability"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limits are Linux's")


def attack(name, count):
    done = subprocess.run(
        [sys.executable, SCRIPTS / f"{name}.py", "--seed", "5", "--count", str(count)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return int(re.search(r"seed 5: (\d+) cases, 0 failures", done.stdout)[1])


@pytest.mark.parametrize(("name", "count"), [("damages", 5), ("hand_edits", 5), ("fuzz", 50), ("bombs", 2)])
def test_an_attack_in_small_finds_nothing(name, count):
    assert attack(name, count) == count


def test_kills_of_each_writer_find_nothing():
    assert attack("kills", 1) >= 4


def test_other_numbers_an_exception_a_crash_and_a_hang_are_failures(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    trial = __import__("trial")

    def case(rng):
        number = int(rng.bit_generator.seed_seq.entropy[1])
        if number == 1:
            raise trial.Wrong("other numbers")
        if number == 2:
            raise KeyError("sha256")
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            while True:
                pass
        if number == 5:
            bytearray(2**31)
        if number == 6:
            raise trial.SporeprintError("named")
        return "reader", "same numbers"

    tally = trial.run(case, list(range(8)), seed=0, seconds=0.5, mebibytes=1024)
    assert [number for number, *_ in tally.failures] == [1, 2, 3, 4, 5]
    assert sum(tally.counts.values()) == 8
    assert tally.counts["reader", "same numbers"] == 2
    assert tally.counts["?", "named error: SporeprintError"] == 1
