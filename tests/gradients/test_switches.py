"""Settings made through torch's newer or frozen names are held in a new process, and are as they were afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

READ = "[owner.fp32_precision for owner in (b, b.cuda.matmul, b.mkldnn.matmul, b.mkldnn.conv, b.cudnn.conv)]"
PROGRAM = """
import torch
b = torch.backends
{setting}
before = {read}
import sporeprint.gradients.switches as switches
with switches.own_settings():
    inside = {read}
assert set(inside) <= {{"none", "ieee"}}, inside
assert {read} == before, ({read}, before)
{after}
"""


def run(setting: str, after: str = "") -> None:
    """Run in a new process: one call of an older name changes what torch allows."""
    program = PROGRAM.format(setting=setting, read=READ, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["b", "b.cuda.matmul", "b.mkldnn.matmul", "b.cudnn.conv"])
def test_a_precision_by_a_newer_name_is_held_and_put_back(name):
    run(f"{name}.fp32_precision = 'tf32'")


def test_what_inherits_the_precision_of_all_backends_still_does_afterwards():
    run(
        "b.fp32_precision = 'tf32'",
        f"b.fp32_precision = 'ieee'\nassert set({READ}) == {{'ieee'}}, {READ}",
    )


def test_a_precision_by_the_older_name_is_held_and_put_back():
    run("torch.set_float32_matmul_precision('high')", "assert torch.get_float32_matmul_precision() == 'high'")


def test_flags_that_were_frozen_are_held_and_stay_frozen():
    after = "assert b.cudnn.benchmark and b.flags_frozen()"
    run("b.cudnn.benchmark = True; b.cudnn.allow_tf32 = True; b.disable_global_flags()", after)
