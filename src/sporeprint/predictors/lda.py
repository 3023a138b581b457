"""Linear discriminant analysis: class means and one covariance of all classes, shrunk by Ledoit and Wolf."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.groups import Groups, absent_classes, by_size, rows_in
from sporeprint.predictors.predictor import LinearPredictor
from sporeprint.predictors.principal import Floats, Principal, eigen, sums_by_class
from sporeprint.search.best_rows import slices

Numbers = NDArray[np.intp]
Rows = NDArray[Any] | None  # None where their coordinates are held

_NUMBERS = 2**22  # of coordinates at a time
_LEAST = 1e-12  # variance, relative to the mean variance
_ROUNDING = 1e-13  # of all variance: within classes, less than that is rounding alone


class ShrunkLDA(LinearPredictor):
    """Linear discriminant analysis on rows of length 1: class means, and one covariance of the class-centred rows.

    The covariance is shrunk towards a multiple of the identity by as much as Ledoit and Wolf (2004) estimate for the
    class-centred rows, so it works with more dimensions than rows. A class counts as often as it occurs in training.
    Leave-one-out takes a row out of its class mean, the covariance, the shrinkage and the class's frequency.
    Where no class varies (one row each) the nearest class mean decides.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import ShrunkLDA
    >>> features, labels = load_iris(return_X_y=True)
    >>> round(float(ShrunkLDA().leave_one_out(features, labels).right.mean()), 2)
    0.95
    >>> ShrunkLDA().fit(features, labels).predict(features[:1]).tolist()
    [0]
    """

    _unit = True
    _working = ("_counts", "_squares", "_total", "_turn", "_means", "_within", "_lengths")

    def _fit(self, rows: NDArray[Any], codes: Numbers, groups: Groups) -> None:
        principal = Principal.fit(rows, unit=True)
        self._solve(principal, rows, codes, groups)
        scale, floor = self._shrink(
            self._squares.sum(), (self._squares**2).sum(), (self._lengths**2).sum(), float(len(rows))
        )
        weights = self._means / (scale * self._squares + floor)
        offsets = np.log(self._counts / len(rows)) - (weights * self._means).sum(axis=1) / 2
        self.coef_ = principal.line(rows, weights @ self._turn.T)
        self.intercept_ = offsets - self.coef_ @ principal.centre

    def _solve(self, principal: Principal, rows: Rows, codes: Numbers, groups: Groups) -> None:
        self._counts = np.bincount(codes, minlength=len(self.classes_)).astype(float)
        parts = list(slices(len(codes), _NUMBERS, principal.width))
        sums: Floats = np.zeros(())
        for part in parts:
            sums = sums + sums_by_class(principal.centred(rows, part), codes[part], self._counts)
        means = sums / self._counts[:, None]
        self._lengths = np.empty(len(codes))  # squared, of the class-centred rows
        for part in parts:
            self._lengths[part] = ((principal.centred(rows, part) - means[codes[part]]) ** 2).sum(axis=1)
        means = principal.turn(means)
        self._total = principal.squares.sum()
        squares, self._turn = eigen(np.diag(principal.squares) - (means.T * self._counts) @ means)
        self._squares, self._means = np.maximum(squares, 0), means @ self._turn
        self._within = principal.turned(self._turn)  # along the axes of the variance within classes

    def _shrink(self, trace: Any, squared: Any, fourth: Any, count: Any) -> tuple[Any, Any]:
        """Ledoit and Wolf's shrinkage of the scatter within classes; see `ledoit_wolf`."""
        return ledoit_wolf(trace, squared, fourth, count, self._within.width, _ROUNDING * self._total)

    def _left_out(self, rows: Rows, codes: Numbers, groups: Groups) -> Floats:
        asked = rows_in(groups)
        scores = np.empty((len(asked), len(self.classes_)))
        members = [np.flatnonzero(codes == code) for code in range(len(self.classes_))]
        singles, greater = by_size(groups)
        for code in np.unique(codes[singles]):
            own = singles[codes[singles] == code]
            scores[np.searchsorted(asked, own)] = self._of_rows(rows, own, code, members[code])
        for group in greater:
            scores[np.searchsorted(asked, group)] = self._of_group(rows, group, codes, members)
        scores[absent_classes(codes, groups, len(self.classes_), asked)] = -np.inf
        return scores

    def _of_rows(self, rows: Rows, own: Numbers, code: int, members: Numbers) -> Floats:
        """Scores [n, C] of rows of one class, each left out by itself: the scatter loses one direction."""
        mean, lengths = self._means[code], self._lengths[members]
        parts = list(slices(len(members), _NUMBERS, 4 * self._within.width))
        few = len(members) <= len(mean)  # then the class is held, otherwise its scatter: the smaller of the two
        held, scatter, drift = np.empty((len(members) if few else 0, len(mean))), np.zeros(()), np.zeros(len(mean))
        for part in parts:
            apart = self._within.points(rows, members[part]) - mean
            drift += lengths[part] @ apart
            if few:
                held[part] = apart
            else:
                scatter = scatter + apart.T @ apart
        scores = np.empty((len(own), len(self._counts)))
        for part in slices(len(own), _NUMBERS, 4 * self._within.width):
            at = np.searchsorted(members, own[part])
            apart = held[at] if few else self._within.points(rows, own[part]) - mean
            products = ((apart @ held.T) ** 2).sum(axis=1) if few else ((apart @ scatter) * apart).sum(axis=1)
            scores[part] = self._without(apart, lengths[at], code, lengths.sum(), apart @ drift, products)
        return scores

    def _without(
        self, apart: Floats, length: Floats, code: int, lengths: float, along_drift: Floats, products: Floats
    ) -> Floats:
        """Scores [n, C] of rows, `apart` [n, R] from their class mean, each by a fit without it.

        length: squared, of each; lengths: their sum over the class. along_drift: each row times the sum of the class's
        rows times their squared lengths. products: sum of the squared products of each row with its class.
        """
        points, count, rest = apart + self._means[code], self._counts[code], len(self._lengths) - 1.0
        # Without a row its class mean moves by -move * apart, and the scatter loses lost * apart apart'.
        move, lost = (1 / (count - 1), count / (count - 1)) if count > 1 else (0.0, 0.0)
        along = apart**2 @ self._squares
        moved = 4 * move * along_drift + 2 * move**2 * length * lengths + 4 * move**2 * products
        scale, floor = self._shrink(
            self._squares.sum() - lost * length,
            (self._squares**2).sum() - 2 * lost * along + (lost * length) ** 2,
            (self._lengths**2).sum() + moved + (count * move**4 - (1 + move) ** 4) * length**2,
            rest,
        )
        inverse = 1 / (scale[:, None] * self._squares + floor[:, None])
        inner, norm = (inverse * points) @ self._means.T, inverse @ (self._means**2).T
        turned = (inverse * apart) @ self._means.T
        self_norm, self_inner = (inverse * apart**2).sum(axis=1), (inverse * apart * points).sum(axis=1)
        gain = scale * lost / np.maximum(1 - scale * lost * self_norm, _LEAST)  # Sherman and Morrison
        inner += (gain * self_inner)[:, None] * turned
        norm += gain[:, None] * turned**2
        grown = 1 + gain * self_norm
        inner[:, code] -= move * self_inner * grown
        norm[:, code] += grown * (move**2 * self_norm - 2 * move * turned[:, code])
        counts = self._counts - (np.arange(len(self._counts)) == code)
        return inner - norm / 2 + np.log(counts / rest)

    def _of_group(
        self,
        rows: Rows,
        group: Numbers,
        codes: Numbers,
        members: list[Numbers],
    ) -> Floats:
        """Scores [n, C] of rows that are left out together: the scatter loses as many directions, and one a class."""
        points, counts, means = self._within.points(rows, group), self._counts.copy(), self._means.copy()
        fourth, lost = (self._lengths**2).sum(), []
        for code in np.unique(codes[group]):
            gone = points[codes[group] == code] - self._means[code]
            counts[code] -= len(gone)
            move = -gone.sum(axis=0) / max(counts[code], 1)
            means[code] += move
            lost += [gone, np.sqrt(counts[code]) * move[None]]
            fourth -= (self._lengths[members[code]] ** 2).sum()
            left = np.setdiff1d(members[code], group)
            for part in slices(len(left), _NUMBERS, self._within.width):
                fourth += ((((self._within.points(rows, left[part]) - means[code]) ** 2).sum(axis=1)) ** 2).sum()
        away = np.concatenate(lost)
        few = len(away) <= away.shape[1]  # of the two products of these rows the smaller one is made
        products, rest = away @ away.T if few else away.T @ away, float(counts.sum())
        scale, floor = self._shrink(
            self._squares.sum() - np.trace(products),
            (self._squares**2).sum() - 2 * (away**2 @ self._squares).sum() + (products**2).sum(),
            fourth,
            rest,
        )
        inverse = 1 / (scale * self._squares + floor)
        if few:
            turned = (means * inverse) @ away.T
            core = np.eye(len(away)) - scale * (away * inverse) @ away.T  # Woodbury
            weights = means * inverse + scale * turned @ np.linalg.solve(core, away * inverse)
        else:
            weights = np.linalg.solve(np.diag(1 / inverse) - scale * products, means.T).T
        scores: Floats = points @ weights.T - (weights * means).sum(axis=1) / 2 + np.log(counts / rest)
        return scores


def ledoit_wolf(trace: Any, squared: Any, fourth: Any, count: Any, width: int, least: float) -> tuple[Any, Any]:
    """Return what the scatter is multiplied by, and what is added to its diagonal, for one scatter or for many.

    trace, squared: of the scatter, and of its square. fourth: sum of the rows' lengths to the fourth power. count: of
    rows. width: their dimensions. least: a trace that is rounding alone, below which (0, 1) is returned.
    """
    mean = trace / (count * width)
    spread = squared / count**2
    distance = spread - width * mean**2  # of the covariance from its target
    noise = np.minimum((fourth / count - spread) / count, distance)
    varied = trace > least
    share = np.where(distance > 0, noise / np.where(distance > 0, distance, 1), 1.0)
    floor = np.where(varied, np.maximum(share, _LEAST) * mean, 1.0)
    return np.where(varied, (1 - share) / count, 0.0), floor
