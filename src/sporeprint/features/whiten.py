"""Principal axes of a block, fitted without labels: to turn it, to even out its variances, to reduce it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_FITTING_ROWS = 100_000  # PCA beyond this sees evenly spaced rows: bounded memory, the same result to 3 digits


@dataclass
class Axes:
    """A fitted PCA: mean [D], components [R, D], variance [R] along them."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float32]

    def __call__(self, rows: NDArray[np.float32], exponent: float = 0.0) -> NDArray[np.float32]:
        """rows [N, D] to [N, R], divided by each axis' variance to the power exponent / 2: 0 turns, 1 whitens."""
        turned = (rows - self.mean) @ self.components.T
        if exponent == 0:
            return turned
        # Axes without variance stay at zero, not at noise: float32's rounding gives unit rows a variance below 1e-15.
        floor = max(float(self.variance[0]) * 1e-7, 1e-15)
        scale = np.where(self.variance > floor, np.maximum(self.variance, 1e-30) ** (-exponent / 2), 0)
        return turned * scale.astype(np.float32)


def fit_axes(rows: NDArray[np.float32], size: int, what: str) -> Axes:
    """The first `size` principal axes of rows [N, D] without NaN; fewer, with a warning, where there are fewer."""
    most = min(rows.shape)
    if size > most:
        warnings.warn(
            f"{what}: {size} dimensions wanted, {most} used ({rows.shape[0]} rows of {rows.shape[1]})", stacklevel=4
        )
    return _pca(_some(rows), min(size, most))


def fit_shrunk_axes(rows: NDArray[np.float32]) -> Axes:
    """Every principal axis, with variances drawn towards their mean as far as so few rows ask for.

    By Ledoit and Wolf 2004, which needs no labels: with many rows to a dimension hardly at all, with fewer rows than
    dimensions by most of the way, so that rows of which whitening would keep nothing but noise are hardly changed.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    rows = _some(rows)
    axes = _pca(rows, min(rows.shape))
    if len(rows) < 2:
        return axes
    wide = rows.astype(np.float64)
    wide -= wide.mean(axis=0)
    total = float((wide**2).sum()) / len(wide)
    if total < 1e-15 * rows.shape[1]:  # constant, up to rounding
        return axes
    shrinkage = float(ledoit_wolf_shrinkage(wide, assume_centered=True))
    floor = axes.variance[0] * 1e-7
    own = axes.variance * (len(rows) - 1) / len(rows)  # their estimator divides by the rows
    shrunk = (1 - shrinkage) * own + shrinkage * total / rows.shape[1]
    axes.variance = np.where(axes.variance > floor, shrunk, 0).astype(np.float32)
    return axes


def _some(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) <= MOST_FITTING_ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_FITTING_ROWS).astype(int)]


def _pca(rows: NDArray[np.float32], size: int) -> Axes:
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if len(rows) >= rows.shape[1] else "full"
    with np.errstate(divide="ignore", invalid="ignore"):  # one row, or rows that are all alike
        pca = PCA(size, svd_solver=solver).fit(rows.astype(np.float64))
    parts = pca.mean_, pca.components_, np.nan_to_num(pca.explained_variance_)
    return Axes(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))
