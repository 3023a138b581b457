"""Lets a torchvision be imported whose compiled part does not load, as on a machine with torch's CPU build only.

Its Python part registers fake kernels for two operators, and fails where nobody has defined them. No test calls them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[Any] = []  # a library's definitions go when it does


def define_missing_schemas() -> None:
    """Before anything imports torchvision. Does nothing where there is none, or where it is whole."""
    found = find_spec("torchvision")
    if found is None or _kept:
        return
    import torch

    for compiled in Path(str(found.origin)).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(compiled))
            return
        except OSError:
            continue
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _kept.append(library)
