"""From blocks to features: L2 parts, optionally whitened, concatenated, reduced. Fitted on the training rows only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError
from sporeprint.recipe import kind

Blocks = Mapping[str, NDArray[np.float32]]
LAYER_KINDS = ("cls", "last", "patches", "tokens", "max")  # what a block of the layers family is of, before "-N"
MOST_FITTING_ROWS = 100_000  # PCA beyond this sees evenly spaced rows: bounded memory, the same result to 3 digits


@kind("combination")
@dataclass(frozen=True)
class Combination:
    """Which blocks, and how they are joined.

    blocks: names, in order; None takes the paper's: the embedding and every gradient block.
    whiten: each block is centred, turned to its first so many principal axes, scaled to unit variance there and
    L2-normalised again; None leaves blocks as they are. size: of the PCA over the whole (no whitening), None for none.
    """

    blocks: tuple[str, ...] | None = None
    whiten: int | None = None
    size: int | None = None

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
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
                raise RecipeError(f"Combination {name}={value!r}; expected an integer of at least 1, or None")

    def fit(self, blocks: Blocks) -> Combiner:
        """Fit on the training rows' blocks, each [N, D]. Raises RecipeError for an unknown block."""
        names = self.blocks if self.blocks is not None else paper_blocks(blocks)
        widths = {name: _get(blocks, name).shape[1] for name in names}
        rows = int(np.all([np.isfinite(blocks[name]).all(axis=1) for name in names], axis=0).sum())
        if rows == 0:
            raise RecipeError("no rows to fit the combination on; expected at least one without NaN")
        combiner = Combiner(self, names, widths)
        if self.whiten is not None:
            for name in names:
                combiner.whiteners[name] = _fit_pca(blocks[name], self.whiten, f"whiten of {name!r}")
        joined = combiner.join(blocks)
        if self.size is not None and self.size < joined.shape[1]:
            combiner.pca = _fit_pca(joined, self.size, "size")
        combiner.rows = rows
        return combiner


@dataclass
class Axes:
    """A fitted PCA: mean [D], components [R, D], variance [R] along them."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float32]

    def __call__(self, rows: NDArray[np.float32], whiten: bool = False) -> NDArray[np.float32]:
        """rows [N, D] to [N, R]."""
        turned = (rows - self.mean) @ self.components.T
        if not whiten:
            return turned
        # Axes without variance stay at zero, not at noise: float32's rounding gives unit rows a variance below 1e-15.
        floor = max(float(self.variance[0]) * 1e-7, 1e-15)
        scale = np.where(self.variance > floor, 1 / np.sqrt(np.maximum(self.variance, 1e-30)), 0)
        return turned * scale.astype(np.float32)


@dataclass
class Combiner:
    """A fitted combination: `transform` takes blocks of any rows to features."""

    combination: Combination
    names: tuple[str, ...]
    widths: dict[str, int]
    whiteners: dict[str, Axes] = field(default_factory=dict)
    pca: Axes | None = None
    rows: int = 0  # it was fitted on so many, NaN ones not counted

    def join(self, blocks: Blocks) -> NDArray[np.float32]:
        """The parts, L2-normalised and concatenated, before the PCA: [N, sum of widths]."""
        parts = []
        for name in self.names:
            part = _get(blocks, name)
            if part.shape[1] != self.widths[name]:
                raise RecipeError(f"block {name!r} is {part.shape[1]} wide; it was fitted at {self.widths[name]}")
            if name in self.whiteners:
                part = self.whiteners[name](_unit(part), whiten=True)
            parts.append(_unit(part))
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
        """What was fitted, by name, for safetensors."""
        fitted = {f"whiten.{name}": axes for name, axes in self.whiteners.items()}
        if self.pca is not None:
            fitted["pca"] = self.pca
        return {f"{key}/{part}": getattr(axes, part) for key, axes in fitted.items() for part in _PARTS}

    def describe(self) -> dict[str, Any]:
        """Order and sizes, as JSON."""
        return {"names": list(self.names), "widths": self.widths, "width": self.width, "rows": self.rows}

    @classmethod
    def restore(
        cls, combination: Combination, description: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]]
    ) -> Combiner:
        """The combiner whose `describe` and `arrays` these are."""
        combiner = cls(combination, tuple(description["names"]), dict(description["widths"]), rows=description["rows"])
        for key in sorted({key.rpartition("/")[0] for key in arrays}):
            axes = Axes(*(arrays[f"{key}/{part}"] for part in _PARTS))
            if key == "pca":
                combiner.pca = axes
            else:
                combiner.whiteners[key.removeprefix("whiten.")] = axes
        return combiner


_PARTS = ("mean", "components", "variance")


def named(combination: Combination | str, size: int | None = None) -> Combination:
    """A combination given by name ("paper") or as a value; `size` fills in a size that it does not set."""
    if isinstance(combination, str):
        if combination != "paper":
            raise RecipeError(f"combination={combination!r}; known by name: 'paper'. Or give a Combination(...)")
        combination = Combination()
    if not isinstance(combination, Combination):
        raise RecipeError(f"combination is a {type(combination).__name__}; expected 'paper' or a Combination(...)")
    if size is None or combination.size is not None:
        return combination
    return Combination(combination.blocks, combination.whiten, size)


def paper_blocks(names: Mapping[str, Any]) -> tuple[str, ...]:
    """The paper's assembly: the embedding, then the gradient blocks in their order."""
    return tuple(name for name in names if family(name) in ("embedding", "gradients"))


def family(name: str) -> str:
    """Of a block, told by its name: "embedding", "layers", "views" or "gradients"."""
    if name == "embedding":
        return "embedding"
    if name.endswith((".views", ".spread")):
        return "views"
    stem, _, number = name.rpartition("-")
    return "layers" if stem in LAYER_KINDS and number.isdigit() else "gradients"


def _get(blocks: Blocks, name: str) -> NDArray[np.float32]:
    if name not in blocks:
        raise RecipeError(f"no block {name!r}; there are: {', '.join(blocks)}")
    return blocks[name]


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, np.float32(1), norms)  # zeros stay zeros, NaN stays NaN


def _fit_pca(rows: NDArray[np.float32], size: int, what: str) -> Axes:
    from sklearn.decomposition import PCA

    rows = _unit(rows) if what != "size" else rows
    rows = rows[np.isfinite(rows).all(axis=1)]
    most = min(rows.shape[0], rows.shape[1])
    if size > most:
        warnings.warn(
            f"{what}: {size} dimensions wanted, {most} used ({rows.shape[0]} rows of {rows.shape[1]})", stacklevel=3
        )
        size = most
    if len(rows) > MOST_FITTING_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_FITTING_ROWS).astype(int)]
    solver = "covariance_eigh" if len(rows) >= rows.shape[1] else "full"
    with np.errstate(divide="ignore", invalid="ignore"):  # one row, or rows that are all alike
        pca = PCA(size, svd_solver=solver).fit(rows.astype(np.float64))
    parts = pca.mean_, pca.components_, np.nan_to_num(pca.explained_variance_)
    return Axes(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))


__all__ = ["Axes", "Combination", "Combiner", "family", "named", "paper_blocks"]
