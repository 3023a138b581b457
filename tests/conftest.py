"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch is imported, and for every process that a test starts. Tests compute tiny tensors: teams of threads that
# wait for each other took 17 minutes of CPU time for what one thread does in seconds on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

from sporeprint.cli import main
from torchvision_schemas import define_missing_schemas

torch.set_num_threads(1)
define_missing_schemas()
os.environ.setdefault("SPOREPRINT_AUTO_DTYPE", "float32")  # the reference, on whatever machine


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk():
    """A test ends processes, never the machine: thousands of waits for the disk, in this process, show nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a closed file too
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and data next to the checkout; tests that use it are marked `real`."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared here")
    return folder


@pytest.fixture(scope="module")
def few_penalties():
    """Probes choose among 3 strong penalties, not 13: most of the time of a comparison of few rows is theirs."""
    from sporeprint.predictors.logistic import PENALTIES, Probe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe.__init__, "__defaults__", (PENALTIES[:5:2], *Probe.__init__.__defaults__[1:]))
        yield


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Ten different RGB pictures of different sizes, smooth enough for crops to differ little from their whole."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(10):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        made.append(coarse.resize((40 + 3 * number, 60 - 2 * number), Image.Resampling.BICUBIC))
    return made


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in this process; gives (exit status, stdout, stderr)."""

    def run(*words, columns=200):
        monkeypatch.setattr(sys, "argv", ["sporeprint", *map(str, words)])
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run
