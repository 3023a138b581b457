"""From blocks to features: L2 parts, optionally whitened, weighed, concatenated, reduced. Fitted without labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError
from sporeprint.features.blocks import FAMILIES, Blocks, family, paper_blocks
from sporeprint.features.unit import unit
from sporeprint.features.whiten import Axes, fit_axes, fit_shrunk_axes
from sporeprint.values import is_count, is_number, is_positive, kind


@kind("combination")
@dataclass(frozen=True)
class Combination:
    """Which blocks, and how they are joined.

    blocks: names in order, of blocks or of families ("layers", "views", "gradients": all that there are of it); None
    takes the paper's: the embedding and every gradient block.
    whiten: each block is centred, turned to its first so many principal axes, evened out there and L2-normalised again.
    "auto" takes all axes, and draws their variances together as far as the number of rows asks for (Ledoit and Wolf).
    None leaves blocks as they are. exponent: how far axes are evened out: their variances are divided by themselves to
    this power, 1 in full, 0 not at all. weights: one for each name in `blocks`, None weighs every block alike; the
    squared weights of a family's members add up to the square of its own; members that are also named by themselves
    have their own weight and no part in that.
    size: of the PCA over the whole (no whitening), None for none.
    """

    blocks: tuple[str, ...] | None = None
    whiten: int | str | None = None
    size: int | None = None
    exponent: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str):
            object.__setattr__(self, "blocks", (self.blocks,))
        if self.blocks is not None:
            if not all(isinstance(name, str) for name in self.blocks):
                raise RecipeError(f"blocks={self.blocks!r}; expected names of blocks")
            object.__setattr__(self, "blocks", tuple(self.blocks))
            if not self.blocks:
                raise RecipeError("a combination of no blocks; name at least one")
        for name in ("whiten", "size"):
            value = getattr(self, name)
            if value is None or (name == "whiten" and value == "auto"):
                continue
            if not is_count(value):
                more = ", 'auto'" if name == "whiten" else ""
                raise RecipeError(f"Combination {name}={value!r}; expected an integer of at least 1{more}, or None")
        if not is_number(self.exponent) or not 0 <= self.exponent <= 1:
            raise RecipeError(f"Combination exponent={self.exponent!r}; expected a number from 0 to 1")
        if self.exponent != 1 and self.whiten is None:
            raise RecipeError(f"Combination exponent={self.exponent!r} without whiten; give whiten='auto', or a number")
        self._check_weights()

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if isinstance(self.weights, list):
            object.__setattr__(self, "weights", tuple(self.weights))
        count = None if self.blocks is None else len(self.blocks)
        if not isinstance(self.weights, tuple) or count != len(self.weights):
            raise RecipeError(f"Combination weights={self.weights!r}; expected one for each of blocks={self.blocks!r}")
        if not all(map(is_positive, self.weights)):
            raise RecipeError(f"Combination weights={self.weights!r}; expected positive numbers")

    def members(self, names: Iterable[str]) -> dict[str, float]:
        """The blocks that this joins, of those there are, and the weight of each. Raises RecipeError for none."""
        there = list(names)
        given = self.blocks if self.blocks is not None else paper_blocks(there)
        own = dict(zip(given[::-1], (self.weights or (1.0,) * len(given))[::-1], strict=True))
        weights: dict[str, float] = {}
        for name in given:
            found = [one for one in there if family(one) == name] if name in FAMILIES else [name]
            others = [one for one in found if one not in own]
            share = 1.0 if self.weights is None else own[name] / math.sqrt(max(1, len(others)))
            for one in found:
                weights.setdefault(one, own.get(one, share))
        if not weights:
            raise RecipeError(f"no block of {', '.join(given)}; there are: {', '.join(there)}")
        return weights

    def over(self, names: Iterable[str]) -> Combination:
        """The same with families replaced by their blocks among `names`; so it stays where there are more blocks."""
        weights = self.members(names)
        return replace(self, blocks=tuple(weights), weights=None if self.weights is None else tuple(weights.values()))

    def fit(self, blocks: Blocks, whiteners: dict[tuple[str, Any], Axes] | None = None) -> Combiner:
        """Fit on the training rows' blocks, each [N, D]; rows with NaN are left out.

        whiteners: a cache by block and `whiten`, used and filled, for many combinations of the same rows, none NaN.

        Any number of rows will do: axes without variance, and so blocks that are constant and all blocks of a single
        row, whiten to zeros and add nothing to a distance. Raises RecipeError for an unknown block and for no rows.
        """
        weights = self.members(blocks)
        names = tuple(weights)
        widths = {name: _get(blocks, name).shape[1] for name in names}
        good = np.all([np.isfinite(blocks[name]).all(axis=1) for name in names], axis=0)
        if not good.any():
            raise RecipeError("no rows to fit the combination on; expected at least one without NaN")
        combiner = Combiner(self, names, widths, weights=None if self.weights is None else weights)
        known = {} if whiteners is None else whiteners
        for name in names if self.whiten is not None else ():
            if (name, self.whiten) not in known:
                rows = unit(blocks[name][good])
                known[name, self.whiten] = (
                    fit_shrunk_axes(rows)
                    if isinstance(self.whiten, str)
                    else fit_axes(rows, self.whiten or 0, f"whiten of {name!r}")
                )
            combiner.whiteners[name] = known[name, self.whiten]
        if self.size is not None and self.size < combiner.width:
            joined = combiner.join({name: blocks[name][good] for name in names})
            combiner.pca = fit_axes(joined, self.size, "size")
        combiner.rows = int(good.sum())
        return combiner


@dataclass
class Combiner:
    """A fitted combination: `transform` takes blocks of any rows to features."""

    combination: Combination
    names: tuple[str, ...]
    widths: dict[str, int]
    whiteners: dict[str, Axes] = field(default_factory=dict)
    pca: Axes | None = None
    rows: int = 0  # it was fitted on so many, NaN ones not counted
    weights: dict[str, float] | None = None

    def join(self, blocks: Blocks) -> NDArray[np.float32]:
        """The parts, L2-normalised, weighed and concatenated, before the PCA: [N, sum of widths]."""
        parts = []
        for name in self.names:
            part = _get(blocks, name)
            if part.shape[1] != self.widths[name]:
                raise RecipeError(f"block {name!r} is {part.shape[1]} wide; it was fitted at {self.widths[name]}")
            if name in self.whiteners:
                part = self.whiteners[name](unit(part), self.combination.exponent)
            part = unit(part)
            parts.append(part if self.weights is None else part * np.float32(self.weights[name]))
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def transform(self, blocks: Blocks) -> NDArray[np.float32]:
        """blocks: {name: [N, D]}. Returns [N, width]; a row with NaN stays NaN."""
        joined = self.join(blocks)
        return joined if self.pca is None else self.pca(joined)

    @property
    def width(self) -> int:
        """Numbers in a feature."""
        if self.pca is not None:
            return len(self.pca.components)
        return sum(len(self.whiteners[n].components) if n in self.whiteners else self.widths[n] for n in self.names)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What was fitted, by name; `restore` takes it back."""
        fitted = {f"whiten.{name}": axes for name, axes in self.whiteners.items()}
        if self.pca is not None:
            fitted["pca"] = self.pca
        return {f"{key}/{part}": getattr(axes, part) for key, axes in fitted.items() for part in _PARTS}

    def describe(self) -> dict[str, Any]:
        """Order and sizes, as JSON."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"names": list(self.names), "widths": self.widths, "width": self.width, "rows": self.rows, **weights}

    @classmethod
    def restore(
        cls, combination: Combination, description: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
    ) -> Combiner:
        """The combiner whose `describe` and `arrays` these are."""
        names, widths = tuple(description["names"]), dict(description["widths"])
        combiner = cls(combination, names, widths, rows=description["rows"], weights=description.get("weights"))
        for key in sorted({key.rpartition("/")[0] for key in arrays}):
            axes = Axes(*(arrays[f"{key}/{part}"] for part in _PARTS))
            if key == "pca":
                combiner.pca = axes
            else:
                combiner.whiteners[key.removeprefix("whiten.")] = axes
        return combiner


_PARTS = ("mean", "components", "variance")


NAMED = {
    "paper": Combination(),
    "decorrelated": Combination(("embedding", *FAMILIES), whiten="auto", exponent=0.5),
}


def named(combination: Combination | str, size: int | None = None) -> Combination:
    """A combination given by name or as a value; `size` fills in a size that it does not set. Raises RecipeError."""
    if isinstance(combination, str):
        if combination not in NAMED:
            known = ", ".join(map(repr, NAMED))
            raise RecipeError(f"combination={combination!r}; known by name: {known}. Or give a Combination(...)")
        combination = NAMED[combination]
    if not isinstance(combination, Combination):
        known = ", ".join(map(repr, NAMED))
        raise RecipeError(f"combination is a {type(combination).__name__}; expected {known} or a Combination(...)")
    if size is None or combination.size is not None:
        return combination
    return replace(combination, size=size)


def _get(blocks: Blocks, name: str) -> NDArray[np.float32]:
    if name not in blocks:
        raise RecipeError(f"no block {name!r}; there are: {', '.join(blocks)}")
    return blocks[name]
