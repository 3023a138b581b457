"""Principal coordinates: rows turned to the axes of their own variance, as few as hold it all; nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.features.unit import unit_float64
from sporeprint.search.best_rows import slices

_NUMBERS = 2**22  # of rows at a time: 32 MiB in float64
_MOST_HELD = 2**25  # coordinates of the fitted rows that are held: 256 MiB
_ROUNDING = 1e-12  # of the greatest sum of squares: axes below hold rounding alone
_CENTRED = 1e-24  # of the rows' own sum of squares: what is left of it, at most, of rows that are all alike
_CENTRED_GRAM = 1e-15  # the same, where inner products are centred instead of rows

Floats = NDArray[np.float64]


@dataclass
class Principal:
    """Coordinates of N rows along R axes. squares: [R], the sum of each coordinate's squares, falling.

    width: dimensions of the rows. held: the coordinates [N, R] themselves; None of very many rows, whose coordinates
    are computed as they are asked for. centre: [D]. axes: [D, R]; None where the axes are combinations of the rows.
    unit: rows are brought to length 1 before anything else. fitted: the rows [N, D], where nothing is held.
    """

    squares: Floats
    width: int
    held: Floats | None
    centre: Floats
    axes: Floats | None
    unit: bool = False
    fitted: NDArray[Any] | None = None

    @classmethod
    def fit(cls, rows: NDArray[Any], unit: bool = False) -> Principal:
        """Fit on rows [N, D], in float64; beyond the rows it takes the memory of the smaller of [N, N] and [D, D]."""
        count, width = rows.shape
        if width > count:
            numbers = _float64(rows, unit)
            centre = numbers.mean(axis=0)
            numbers -= centre
            return cls._of_centred(numbers @ numbers.T, width, centre, _CENTRED * count * (centre @ centre), unit)
        parts = list(slices(count, _NUMBERS, width))
        centre, scatter = np.zeros(width), np.zeros((width, width))
        for part in parts:
            centre += _float64(rows[part], unit).sum(axis=0) / count
        for part in parts:
            centred = _float64(rows[part], unit) - centre
            scatter += centred.T @ centred
        squares, axes = significant(*eigen(scatter), _CENTRED * count * (centre @ centre))
        principal = cls(squares, width, None, centre, axes, unit, rows)
        if count * len(squares) <= _MOST_HELD:
            principal.hold()
        return principal

    @classmethod
    def of_gram(cls, gram: Floats, width: int) -> Principal:
        """Coordinates from the rows' inner products [N, N] alone; width: the rows' dimensions."""
        means = gram.mean(axis=0)
        centred = gram - means - means[:, None] + means.mean()
        return cls._of_centred(centred, width, np.zeros(0), _CENTRED_GRAM * float(np.trace(gram)), False)

    @classmethod
    def _of_centred(cls, gram: Floats, width: int, centre: Floats, rounding: float, unit: bool) -> Principal:
        squares, turned = significant(*eigen(gram), rounding)
        return cls(squares, width, turned * np.sqrt(squares), centre, None, unit)

    def hold(self) -> Floats:
        """Return the coordinates [N, R] of all fitted rows, however many they are; they are held from now on."""
        if self.held is None:
            assert self.fitted is not None
            self.held = np.empty((len(self.fitted), len(self.squares)))
            for part in slices(len(self.fitted), _NUMBERS, self.width):
                self.held[part] = self._turn(self.fitted[part])
            self.fitted = None
        return self.held

    def points(self, rows: NDArray[Any] | None, which: NDArray[np.intp]) -> Floats:
        """Return the coordinates [n, R] of the fitted rows [N, D] of these numbers [n]."""
        if self.held is not None:
            return self.held[which]
        assert rows is not None
        return self._turn(rows[which])

    def centred(self, rows: NDArray[Any] | None, part: slice) -> Floats:
        """Return fitted rows around their mean: [n, R] coordinates where they are held, or [n, D], not turned."""
        if self.held is not None:
            return self.held[part]
        assert rows is not None
        return _float64(rows[part], self.unit) - self.centre

    def turn(self, centred: Floats) -> Floats:
        """Return coordinates [n, R] of what `centred` gave, or of sums of it."""
        return centred if self.held is not None or self.axes is None else centred @ self.axes

    def turned(self, axes: Floats) -> Principal:
        """Return the same rows along other axes [R, R] of length 1."""
        held = None if self.held is None else self.held @ axes
        return replace(self, held=held, axes=None if self.axes is None else self.axes @ axes)

    def line(self, rows: NDArray[Any], weights: Floats) -> Floats:
        """Return weights [T, R] on the coordinates as weights [T, D] on the rows. rows: the fitted ones."""
        if self.axes is not None:
            return weights @ self.axes.T
        assert self.held is not None
        shares = (weights / self.squares) @ self.held.T
        return shares @ (_float64(rows, self.unit) - self.centre)

    def _turn(self, rows: NDArray[Any]) -> Floats:
        assert self.axes is not None
        turned: Floats = (_float64(rows, self.unit) - self.centre) @ self.axes
        return turned


def sums_by_class(rows: Floats, codes: NDArray[np.intp], counts: Floats) -> Floats:
    """Return the sum [C, D] of the rows [n, D] of each class; counts [C] gives their number."""
    sums = np.zeros((len(counts), rows.shape[1]))
    order = np.argsort(codes, kind="stable")
    present, firsts = np.unique(codes[order], return_index=True)
    sums[present] = np.add.reduceat(rows[order], firsts, axis=0)
    return sums


def eigen(scatter: Floats) -> tuple[Floats, Floats]:
    """Return the eigenvalues [D], falling, and eigenvectors [D, D] of a symmetric matrix, which is overwritten."""
    from scipy.linalg import eigh

    if not scatter.size:
        return np.zeros(0), scatter
    values, vectors = eigh(scatter, driver="evd", overwrite_a=True, check_finite=False)
    return values[::-1], vectors[:, ::-1]


def significant(values: Floats, vectors: Floats, rounding: float = 0.0) -> tuple[Floats, Floats]:
    """Return the eigenvalues and eigenvectors that are not rounding alone."""
    keep = values > max(_ROUNDING * values[0], rounding, 1e-300)
    return values[keep], vectors[:, keep]


def _float64(rows: NDArray[Any], unit: bool) -> Floats:
    return unit_float64(rows) if unit else rows.astype(np.float64)
