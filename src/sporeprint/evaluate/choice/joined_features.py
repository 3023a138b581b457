"""Features of several combinations of the same blocks, one after another, each block whitened once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import NAMED, Combination, Combiner
from sporeprint.features.whiten import Axes


class Features(NamedTuple):
    """rows [N, width] that the combiner was fitted on, others [M, width] or None."""

    combiner: Combiner
    rows: NDArray[np.float32]
    others: Any


def features(blocks: Blocks, others: Blocks | None, combinations: Iterable[Combination]) -> Iterator[Features]:
    """Each combination fitted on `blocks` [N, D], as `Combination.fit` does; made when asked for, and not kept."""
    finite = all(np.isfinite(block).all() for block in blocks.values())
    whiteners: dict[tuple[str, Any], Axes] | None = {} if finite else None  # NaN leaves other rows to each combination
    for combination in combinations:
        combiner = combination.fit(blocks, whiteners)
        yield Features(combiner, combiner.transform(blocks), None if others is None else combiner.transform(others))


def short_table() -> dict[str, Combination]:
    """What is compared where a full table would take too long: the embedding, raw and white, and what has a name."""
    embedding = ("embedding",)
    return {"embedding": Combination(embedding), "embedding, white": Combination(embedding, whiten="auto"), **NAMED}


def distinct(combinations: Mapping[str, Combination], names: Sequence[str]) -> dict[str, Combination]:
    """Those that differ for these blocks, the first of equals; a store without gradients makes "paper" the embedding.

    Raises RecipeError for a combination of none of these blocks.
    """
    found: dict[Any, str] = {}
    for name, one in combinations.items():
        how = (one.whiten, one.exponent if one.whiten is not None else None, one.size)
        found.setdefault((frozenset(one.members(names).items()), how), name)
    return {name: combinations[name] for name in found.values()}


def passes_of(names: Iterable[str], info: Mapping[str, Mapping[str, Any]]) -> int:
    """Backbone passes a row for these blocks: each set of views once. info: as of a store's blocks."""
    return sum({info[name]["views"]: int(info[name]["passes"]) for name in names}.values())
