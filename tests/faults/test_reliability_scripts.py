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


# Each attack with its number of cases; one process, which loads torch once.
ATTACKS = {"damages": 5, "hand_edits": 5, "fuzz": 50, "bombs": 2, "kills": 1}
ALL = """
import os, runpy, sys
folder, *attacks = sys.argv[1:]
sys.path.insert(0, folder)
for attack in attacks:
    name, _, count = attack.partition("=")
    sys.argv = [name, "--seed", "5", "--count", count]
    try:
        runpy.run_path(os.path.join(folder, f"{name}.py"), run_name="__main__")
    except SystemExit as end:
        print(name, "ended with", end.code)
"""


def test_attacks_in_small_find_nothing():
    done = subprocess.run(
        [sys.executable, "-c", ALL, str(SCRIPTS), *(f"{name}={count}" for name, count in ATTACKS.items())],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    said = done.stdout + done.stderr[-2000:]
    assert re.findall(r"^(\w+) ended with 0$", done.stdout, re.MULTILINE) == list(ATTACKS), said
    *counts, kills = [int(number) for number in re.findall(r"seed 5: (\d+) cases, 0 failures", done.stdout)]
    assert counts == [ATTACKS[name] for name in ATTACKS if name != "kills"], said
    assert kills >= 4, "each writer is killed once"


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
