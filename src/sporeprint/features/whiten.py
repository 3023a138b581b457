"""Principal axes of a block, fitted without labels: they rotate it, even out its variances, or reduce it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import warn

MOST_FITTING_ROWS = 100_000  # beyond this PCA takes evenly spaced rows: bounded memory, the same result to 3 digits


@dataclass
class Axes:
    """A fitted PCA: mean [D], components [R, D], variance [R] along them."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    variance: NDArray[np.float32]

    def __call__(self, rows: NDArray[np.float32], exponent: float = 0.0) -> NDArray[np.float32]:
        """Project rows [N, D] to [N, R], divided by each axis' variance ** (exponent / 2): 0 rotates, 1 whitens."""
        rotated = (rows - self.mean) @ self.components.T
        if exponent == 0:
            return rotated
        # Axes without variance stay at zero: float32 rounding alone gives unit rows a variance below 1e-15.
        floor = max(float(self.variance[0]) * 1e-7, 1e-15)
        scale = np.where(self.variance > floor, np.maximum(self.variance, 1e-30) ** (-exponent / 2), 0)
        return rotated * scale.astype(np.float32)


def fit_axes(rows: NDArray[np.float32], size: int, what: str) -> Axes:
    """Fit the first `size` principal axes of rows [N, D] without NaN; warn and return fewer where there are fewer."""
    most = min(rows.shape)
    if size > most:
        warn(f"{what}: {size} dimensions wanted, {most} used ({rows.shape[0]} rows of {rows.shape[1]})")
    return _pca(_fitting_rows(rows), min(size, most))


def fit_shrunk_axes(rows: NDArray[np.float32]) -> Axes:
    """Fit every principal axis, with variances shrunk towards their mean (Ledoit and Wolf 2004, without labels).

    With many rows per dimension the shrinkage is near 0. With fewer rows than dimensions, where whitening would amplify
    noise, it is near 1 and whitening hardly changes the rows.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    rows = _fitting_rows(rows)
    axes = _pca(rows, min(rows.shape))
    if len(rows) < 2:
        return axes
    centred = rows.astype(np.float64)
    centred -= centred.mean(axis=0)
    total = float((centred**2).sum()) / len(centred)
    if total < 1e-15 * rows.shape[1]:  # constant, up to rounding
        return axes
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    floor = axes.variance[0] * 1e-7
    population = axes.variance * (len(rows) - 1) / len(rows)  # their estimator divides by N, PCA's by N - 1
    shrunk = (1 - shrinkage) * population + shrinkage * total / rows.shape[1]
    axes.variance = np.where(axes.variance > floor, shrunk, 0).astype(np.float32)
    return axes


def _fitting_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) <= MOST_FITTING_ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_FITTING_ROWS).astype(int)]


def _pca(rows: NDArray[np.float32], size: int) -> Axes:
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if len(rows) >= rows.shape[1] else "full"
    with np.errstate(divide="ignore", invalid="ignore"):  # one row, or identical rows
        pca = PCA(size, svd_solver=solver).fit(rows.astype(np.float64))
    parts = pca.mean_, pca.components_, np.nan_to_num(pca.explained_variance_)
    return Axes(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))
