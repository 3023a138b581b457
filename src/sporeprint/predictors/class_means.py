"""The nearest class mean: as few as one row a class are enough."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.predictors.groups import Groups, absent_classes, parts_of, rows_in
from sporeprint.predictors.predictor import LinearPredictor
from sporeprint.predictors.principal import Floats, sums_by_class
from sporeprint.search.best_rows import slices

_NUMBERS = 2**22  # of rows at a time
_ROUNDING = 1e-24  # of the squared mean of all rows: class means closer to it than that are rounding alone


class ClassMeans(LinearPredictor):
    """The class whose mean is nearest (Euclidean); scikit-learn's NearestCentroid, with exact leave-one-out.

    Where all means are the same (constant features) it is the most frequent class. `coef_`: the means [C, D] around the
    mean of all rows.

    Examples
    --------
    >>> from sporeprint import ClassMeans
    >>> means = ClassMeans().fit([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0]], ["a", "a", "b"])
    >>> means.predict([[1.0, 1.0], [3.0, 1.0]]).tolist()
    ['a', 'b']
    """

    _working = ("_counts", "_centre")

    def _fit(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> None:
        self._counts = np.bincount(codes, minlength=len(self.classes_)).astype(float)
        sums = np.zeros((len(self.classes_), rows.shape[1]))
        for part in slices(len(rows), _NUMBERS, rows.shape[1]):
            sums += sums_by_class(rows[part].astype(np.float64), codes[part], self._counts)
        self._centre = sums.sum(axis=0) / len(rows)
        self.coef_ = sums / self._counts[:, None] - self._centre
        squares = (self.coef_**2).sum(axis=1)
        if (squares <= _ROUNDING * (self._centre @ self._centre)).all():
            self.coef_[:] = 0
            self.intercept_ = np.log(self._counts)
        else:
            self.intercept_ = -self.coef_ @ self._centre - squares / 2  # and the row's own length, alike for all

    def _left_out(self, rows: NDArray[Any], codes: NDArray[np.intp], groups: Groups) -> Floats:
        asked = rows_in(groups)
        scores = np.empty((len(asked), len(self.classes_)))
        alike = not self.coef_.any()
        for part, together in parts_of(groups, rows.shape[1]):
            points = rows[part].astype(np.float64) - self._centre
            at = np.searchsorted(asked, part)
            scores[at] = points @ self.coef_.T - (self.coef_**2).sum(axis=1) / 2
            if not together:
                own, counts = codes[part], self._counts[codes[part]]
                means = self.coef_[own] - (points - self.coef_[own]) / np.maximum(counts - 1, 1)[:, None]
                scores[at, own] = (points * means).sum(axis=1) - (means**2).sum(axis=1) / 2
                if alike:
                    scores[at] = np.log(self._counts - (np.arange(len(self._counts)) == own[:, None]))
                continue
            for code in np.unique(codes[part]):
                gone = points[codes[part] == code]
                rest = max(self._counts[code] - len(gone), 1)
                mean = (self._counts[code] * self.coef_[code] - gone.sum(axis=0)) / rest
                scores[at, code] = points @ mean - (mean @ mean) / 2
            if alike:
                scores[at] = np.log(self._counts - np.bincount(codes[part], minlength=len(self._counts)))
        scores[absent_classes(codes, groups, len(self.classes_), asked)] = -np.inf
        return scores
