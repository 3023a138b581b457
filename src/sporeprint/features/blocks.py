"""Blocks: named parts of a feature, each of one family, which its name tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

Blocks = Mapping[str, NDArray[np.float32]]  # {name: [N, D]}

FAMILIES = ("layers", "views", "gradients")
LAYER_KINDS = ("cls", "last", "patches", "tokens", "max")  # what a block of the layers family is of, before "-N"
TAKEN = ("embedding", "whole", *FAMILIES)  # names that no objective may have

_NAME = re.compile(rf"(?!({'|'.join(LAYER_KINDS)})-\d+$)[A-Za-z][A-Za-z0-9_-]*")


def family(name: str) -> str:
    """The family of a block, from its name: "embedding", "layers", "views" or "gradients"."""
    if name == "embedding":
        return "embedding"
    if name.endswith((".views", ".spread")):  # the second: of stores of earlier versions
        return "views"
    stem, _, number = name.rpartition("-")
    return "layers" if stem in LAYER_KINDS and number.isdigit() else "gradients"


def is_block_name(name: str) -> bool:
    """Whether an objective, and its block, may have this name: no other block or family has it."""
    return bool(_NAME.fullmatch(name)) and name not in TAKEN


def paper_blocks(names: Iterable[str]) -> tuple[str, ...]:
    """The blocks of the paper's assembly: the embedding, then the gradient blocks in their order."""
    return tuple(name for name in names if family(name) in ("embedding", "gradients"))
