"""A combination turns blocks into features: whiten, L2-normalise, weight, concatenate, reduce; no labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import RecipeError, warn
from sporeprint.features.blocks import FAMILIES, Blocks, check_blocks, family, paper_blocks
from sporeprint.features.unit import unit
from sporeprint.features.whiten import Axes, fit_axes, fit_shrunk_axes
from sporeprint.values import is_count, is_number, is_positive, kind, short_repr


@kind("combination")
@dataclass(frozen=True)
class Combination:
    """A combination names the blocks of a feature and says how they are joined.

    blocks: names, in order, of blocks or of families ("layers", "views", "gradients": every block of that family); None
    takes the paper's: the embedding and every gradient block.
    whiten: number of principal axes that each block, once centred, is projected on and whitened along, before it is
    L2-normalised again. "auto" takes all axes and shrinks their variances (Ledoit and Wolf). None leaves blocks as they
    are. exponent: strength of whitening: each axis' variance is divided by itself to this power; 1 whitens fully, 0 not
    at all. weights: one for each name in `blocks`; None weights every block equally. A family's weight is shared by its
    members, whose squared weights add up to its square; members also named in `blocks` keep their own weight.
    size: dimensions of the final PCA (without whitening); None skips it. Raises RecipeError.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import Combination
    >>> rng = np.random.default_rng(0)
    >>> train, test = ({"embedding": rng.normal(size=(n, 8)), "kl": rng.normal(size=(n, 6))} for n in (20, 5))
    >>> combiner = Combination(("embedding", "gradients"), whiten="auto", size=4).fit(train)
    >>> combiner.names
    ('embedding', 'kl')
    >>> combiner.transform(test).shape
    (5, 4)
    """

    blocks: tuple[str, ...] | None = None
    whiten: int | str | None = None
    size: int | None = None
    exponent: float = 1.0
    weights: tuple[float, ...] | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if isinstance(self.blocks, str):
            object.__setattr__(self, "blocks", (self.blocks,))
        if self.blocks is not None:
            if not isinstance(self.blocks, Iterable) or not all(isinstance(name, str) for name in self.blocks):
                raise RecipeError(f"blocks={self.blocks!r}; expected names of blocks")
            object.__setattr__(self, "blocks", tuple(self.blocks))
            if not self.blocks:
                raise RecipeError("the combination has no blocks; name at least one")
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
        """Return {block: weight} for those of `names` that this joins. Raises RecipeError where there are none.

        Examples
        --------
        >>> from sporeprint import Combination
        >>> Combination(("embedding", "gradients")).members(["embedding", "cls-12", "kl", "dino"])
        {'embedding': 1.0, 'kl': 1.0, 'dino': 1.0}
        """
        available = list(names)
        given = self.blocks if self.blocks is not None else paper_blocks(available)
        own = dict(zip(given[::-1], (self.weights or (1.0,) * len(given))[::-1], strict=True))
        weights: dict[str, float] = {}
        for name in given:
            members = [block for block in available if family(block) == name] if name in FAMILIES else [name]
            sharing = [block for block in members if block not in own]
            share = 1.0 if self.weights is None else own[name] / math.sqrt(max(1, len(sharing)))
            for block in members:
                weights.setdefault(block, own.get(block, share))
        if not weights:
            raise RecipeError(f"no block of {', '.join(given)}; there are: {', '.join(available)}")
        return weights

    def over(self, names: Iterable[str]) -> Combination:
        """Return this with each family replaced by its blocks among `names`, so that later blocks do not change it.

        Examples
        --------
        >>> from sporeprint import Combination
        >>> Combination(("layers",)).over(["embedding", "cls-11", "cls-12"]).blocks
        ('cls-11', 'cls-12')
        """
        weights = self.members(names)
        return replace(self, blocks=tuple(weights), weights=None if self.weights is None else tuple(weights.values()))

    @quiet_floats
    def fit(self, blocks: Blocks, whiteners: dict[tuple[str, Any], Axes] | None = None) -> Combiner:
        """Fit on the training rows' blocks, each [N, D]; rows with NaN are left out.

        whiteners: a cache by block and `whiten`, read and filled, for many combinations of the same rows without NaN.

        Any number of rows works: axes without variance (constant blocks, every block of a single row) whiten to zeros
        and add nothing to a distance. Raises RecipeError for an unknown block and for no rows.
        """
        check_blocks(blocks)
        weights = self.members(blocks)
        names = tuple(weights)
        widths = {name: _get(blocks, name).shape[1] for name in names}
        good = np.all([np.isfinite(blocks[name]).all(axis=1) for name in names], axis=0)
        if not good.any():
            raise RecipeError("no rows to fit the combination on; expected at least one without NaN")
        combiner = Combiner(self, names, widths, weights=None if self.weights is None else weights)
        fitted = {} if whiteners is None else whiteners
        for name in names if self.whiten is not None else ():
            if (name, self.whiten) not in fitted:
                rows = unit(blocks[name][good])
                fitted[name, self.whiten] = (
                    fit_shrunk_axes(rows)
                    if isinstance(self.whiten, str)
                    else fit_axes(rows, self.whiten or 0, f"whiten of {name!r}")
                )
            combiner.whiteners[name] = fitted[name, self.whiten]
        if self.size is not None and self.size < combiner.width:
            joined = combiner.join({name: blocks[name][good] for name in names})
            combiner.pca = fit_axes(joined, self.size, "size")
        elif self.size is not None and self.size > combiner.width:
            warn(f"PCA size: {self.size} dimensions wanted, {combiner.width} used: what is joined has no more")
        combiner.rows = int(good.sum())
        return combiner


@dataclass
class Combiner:
    """A combiner is a fitted combination: `transform` turns the blocks of any rows into features."""

    combination: Combination
    names: tuple[str, ...]
    widths: dict[str, int]
    whiteners: dict[str, Axes] = field(default_factory=dict)
    pca: Axes | None = None
    rows: int = 0  # that it was fitted on, without those with NaN
    weights: dict[str, float] | None = None

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {width}" for name, width in self.part_widths().items())
        size = "" if self.pca is None else f", size {self.width}"
        return f"Combiner({parts}{size}; fitted on {self.rows} rows)"

    @quiet_floats
    def join(self, blocks: Blocks) -> NDArray[np.float32]:
        """Concatenate the L2-normalised, weighted parts, before the PCA: [N, sum of widths]."""
        check_blocks(blocks)
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

    @quiet_floats
    def transform(self, blocks: Blocks) -> NDArray[np.float32]:
        """Return features [N, width] of blocks {name: [N, D]}; a row with NaN stays NaN."""
        joined = self.join(blocks)
        return joined if self.pca is None else self.pca(joined)

    @property
    def width(self) -> int:
        """Number of dimensions of a feature."""
        if self.pca is not None:
            return len(self.pca.components)
        return sum(self.part_widths().values())

    def part_widths(self) -> dict[str, int]:
        """Return the dimensions of each block's part of a feature, in order, before the PCA."""
        return {n: len(self.whiteners[n].components) if n in self.whiteners else self.widths[n] for n in self.names}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return the fitted arrays by name, for `restore`."""
        fitted = {f"whiten.{name}": axes for name, axes in self.whiteners.items()}
        if self.pca is not None:
            fitted["pca"] = self.pca
        return {f"{key}/{part}": getattr(axes, part) for key, axes in fitted.items() for part in _PARTS}

    def describe(self) -> dict[str, Any]:
        """Return names in order, widths and weights as JSON, for `restore`."""
        weights = {} if self.weights is None else {"weights": self.weights}
        return {"names": list(self.names), "widths": self.widths, "width": self.width, "rows": self.rows, **weights}

    @classmethod
    def restore(
        cls, combination: Combination, description: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
    ) -> Combiner:
        """Rebuild the combiner whose `describe` and `arrays` these are. Raises ValueError where they do not agree."""
        names, widths = tuple(description["names"]), dict(description["widths"])
        weights = description.get("weights")
        combiner = cls(named(combination), names, widths, rows=description["rows"], weights=weights)
        for key in sorted({key.rpartition("/")[0] for key in arrays}):
            axes = Axes(*(arrays[f"{key}/{part}"] for part in _PARTS))
            if key == "pca":
                combiner.pca = axes
            else:
                combiner.whiteners[key.removeprefix("whiten.")] = axes
        combiner._check(description.get("width"))
        return combiner

    def _check(self, width: Any) -> None:
        """Raise ValueError where the fitted arrays do not fit the names, widths and weights."""
        names = set(self.names)
        whitened = names if self.combination.whiten is not None else set()
        if len(names) < len(self.names) or names != set(self.widths) or set(self.whiteners) != whitened:
            raise ValueError(f"the combination of {', '.join(map(repr, self.names))} has other widths or axes")
        if not all(map(is_count, self.widths.values())) or not is_count(self.rows, 0):
            raise ValueError("the widths of the combination are no counts")
        if self.weights is not None and (
            set(self.weights) != names or not all(map(is_positive, self.weights.values()))
        ):
            raise ValueError("the weights of the combination are not one for each of its blocks")
        parts = {name: len(self.whiteners[name].components) for name in self.whiteners}
        fitted = [(self.whiteners[name], self.widths[name]) for name in self.whiteners]
        if self.pca is not None:
            fitted.append((self.pca, sum(parts.get(name, self.widths[name]) for name in self.names)))
        for axes, wide in fitted:
            rows = len(axes.components)
            shapes = [part.shape for part in (axes.mean, axes.components, axes.variance)]
            if not rows or shapes != [(wide,), (rows, wide), (rows,)] or axes.components.dtype != np.float32:
                raise ValueError(f"axes of shapes {shapes}; expected those of {wide} numbers")
        if width not in (None, self.width):
            raise ValueError(f"features of {self.width} numbers; {width} were saved")


_PARTS = ("mean", "components", "variance")


NAMED = {
    "paper": Combination(),
    "decorrelated": Combination(("embedding", *FAMILIES), whiten="auto", exponent=0.5),
}


def named(combination: Combination | str, size: int | None = None) -> Combination:
    """Return a combination given by name or as a value; `size` fills in a size that it leaves open.

    Raises RecipeError.
    """
    if isinstance(combination, str):
        if combination not in NAMED:
            known = ", ".join(map(repr, NAMED))
            raise RecipeError(f"combination={combination!r}; expected {known}, or a Combination(...)")
        combination = NAMED[combination]
    if not isinstance(combination, Combination):
        known = ", ".join(map(repr, NAMED))
        raise RecipeError(f"combination is a {type(combination).__name__}; expected {known}, or a Combination(...)")
    if size is None or combination.size is not None:
        return combination
    return replace(combination, size=size)


def _get(blocks: Blocks, name: str) -> NDArray[np.float32]:
    if name not in blocks:
        raise RecipeError(f"no block {name!r}; there are: {', '.join(blocks)}")
    return blocks[name]
