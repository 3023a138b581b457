"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from torchvision_schemas import define_missing_schemas

define_missing_schemas()
os.environ.setdefault("SPOREPRINT_AUTO_DTYPE", "float32")  # the reference, on whatever machine


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real weights and data beside the checkout; tests that use it are marked `real`."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared here")
    return folder


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Ten different RGB pictures of different sizes, smooth enough for crops to differ little from their whole."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(10):
        coarse = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
        made.append(coarse.resize((40 + 3 * number, 60 - 2 * number), Image.Resampling.BICUBIC))
    return made
