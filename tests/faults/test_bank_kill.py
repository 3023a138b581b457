"""A memory bank whose writer is killed before any one of its lines is whole, or refused and then written again."""

import os
import subprocess
import sys

import numpy as np
import pytest

from sporeprint.errors import DamagedStore
from sporeprint.segment.bank import BankWriter, MemoryBank

# Writes the same bank again and again, each time in a process that ends, as by SIGKILL, one line later.
KILLED = """
import os, sys
import numpy as np
from sporeprint.segment import bank
from sporeprint.segment.bank import BankWriter

bank._ROWS = 3  # provenance goes out while patches still come
features, histograms = np.eye(4, dtype=np.float32)[:2], np.eye(3, dtype=np.float32)[:2]

def write(folder):
    writer = BankWriter(folder, 4, 3, 9)
    for image in "abc":
        writer.add(features, histograms, image, np.zeros((2, 2), int))
    writer.close()

def trace(frame, event, argument):
    global left
    if not frame.f_code.co_filename.endswith(("bank.py", "tensor_file.py", "atomic.py")):
        return None
    left -= event == "line"
    if left < 0:
        os._exit(9)
    return trace

for step in range(1000):
    child = os.fork()
    if not child:
        left = step
        sys.settrace(trace)
        write(f"{sys.argv[1]}/{step}")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(step)
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_bank_is_whole_or_refused_wherever_its_writer_is_killed(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=240)
    kills = int(done.stdout or -1)
    assert kills > 100, done.stderr
    refused = []
    for step in range(kills + 1):
        folder = tmp_path / str(step)
        try:
            bank = MemoryBank.open(folder)
        except DamagedStore:
            refused.append(step)
            continue
        bank.verify()
        assert bank.patches().column("image").to_pylist() == list("aabbcc")
        assert (bank.features == np.tile(np.eye(4, dtype=np.float16)[:2], (3, 1))).all()
    assert refused == list(range(len(refused))), "once whole, a bank stays whole"
    assert 0.8 * kills < len(refused) <= kills
    for step in refused[:: len(refused) // 5]:
        with BankWriter(tmp_path / str(step), 4, 3, 9) as writer:
            writer.add(np.ones((1, 4)), np.eye(3)[:1], "again", np.zeros((1, 2), int))
        MemoryBank.open(tmp_path / str(step)).verify()
