"""A block is a named part of a feature; its name gives its family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError, SporeprintError
from sporeprint.values import check_mapping

Blocks = Mapping[str, NDArray[np.float32]]  # {name: [N, D]}

FAMILIES = ("layers", "views", "gradients")
LAYER_PREFIXES = ("cls", "last", "patches", "tokens", "max", "attention")  # prefixes of layer blocks, as in "cls-9"
TAKEN = ("embedding", "whole", *FAMILIES)  # reserved: no objective may have these names

_NAME = re.compile(rf"(?!({'|'.join(LAYER_PREFIXES)})-\d+$)[A-Za-z][A-Za-z0-9_-]*")


def family(name: str) -> str:
    """Return the family of a block, from its name: "embedding", "layers", "views" or "gradients"."""
    if name == "embedding":
        return "embedding"
    if name.endswith((".views", ".spread")):  # the second: of stores of earlier versions
        return "views"
    stem, _, number = name.rpartition("-")
    return "layers" if stem in LAYER_PREFIXES and number.isdigit() else "gradients"


def is_block_name(name: str) -> bool:
    """Return whether an objective and its block may have this name, which no other block or family may have."""
    return bool(_NAME.fullmatch(name)) and name not in TAKEN


def check_blocks(blocks: Any, error: type[SporeprintError] = RecipeError, name: str = "blocks") -> None:
    """Raise `error` for all but {name: array}."""
    check_mapping(name, blocks, "arrays by name, {'embedding': [N, E], ...}, as `Fungi.blocks` gives them", error)


def paper_blocks(names: Iterable[str]) -> tuple[str, ...]:
    """Select the blocks of the paper's assembly: the embedding, then the gradient blocks in their order."""
    return tuple(name for name in names if family(name) in ("embedding", "gradients"))
