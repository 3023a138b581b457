"""Settings made through torch's newer or frozen names are held in a new process, and are as they were afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

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


# Loads torch once; then each line on stdin is a program, run in a process of its own: one call of an older name changes
# what torch allows.
FORKS = """
import json, os, sys, traceback
import torch
for line in sys.stdin:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        said = ""
        try:
            exec(json.loads(line), {})
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    print(json.dumps(said or (f"ended with {status}" if status else "")), flush=True)
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., None]]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(setting: str, after: str = "") -> None:
            print(json.dumps(PROGRAM.format(setting=setting, read=READ, after=after)), file=process.stdin, flush=True)
            assert json.loads(process.stdout.readline()) == ""

        yield run


@pytest.mark.parametrize("name", ["b", "b.cuda.matmul", "b.mkldnn.matmul", "b.cudnn.conv"])
def test_a_precision_by_a_newer_name_is_held_and_put_back(run, name):
    run(f"{name}.fp32_precision = 'tf32'")


def test_what_inherits_the_precision_of_all_backends_still_does_afterwards(run):
    run(
        "b.fp32_precision = 'tf32'",
        f"b.fp32_precision = 'ieee'\nassert set({READ}) == {{'ieee'}}, {READ}",
    )


def test_a_precision_by_the_older_name_is_held_and_put_back(run):
    run("torch.set_float32_matmul_precision('high')", "assert torch.get_float32_matmul_precision() == 'high'")


def test_flags_that_were_frozen_are_held_and_stay_frozen(run):
    after = "assert b.cudnn.benchmark and b.flags_frozen()"
    run("b.cudnn.benchmark = True; b.cudnn.allow_tf32 = True; b.disable_global_flags()", after)
