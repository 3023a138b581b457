"""LDA that learns from unlabelled rows too, by expectation and maximisation (EM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from sporeprint.errors import SampleError
from sporeprint.predictors.calibration import probabilities
from sporeprint.predictors.lda import ledoit_wolf
from sporeprint.predictors.predictor import linear_scores
from sporeprint.predictors.principal import Principal
from sporeprint.predictors.semi_supervised import Floats, Numbers, SemiSupervised
from sporeprint.search.best_rows import slices
from sporeprint.values import check_count, is_number

_NUMBERS = 2**22  # of coordinates at a time
_ROUNDING = 1e-12  # of the sum of squares
_LEAST = 1e-13  # the same, added to the diagonal: the sum of squares loses as much where the means are taken out


class MixtureLDA(SemiSupervised):
    """A mixture of Gaussian classes with one shrunk covariance: LDA that learns from unlabelled rows too.

    Rows are brought to length 1. It starts from the `ShrunkLDA` of the labelled rows; each round gives the unlabelled
    rows their probabilities of each class, and fits class means and covariance again, on all rows. Labelled rows keep
    their labels. All unlabelled rows together weigh `weight` times as much as the labelled ones, and one never more
    than a labelled one (EM with a weight: Nigam et al. 2000): by their number alone they would outweigh the labels.
    Classes are expected as often as they are among the labelled rows. Nothing is random.
    rounds: 0 gives `ShrunkLDA`. `save_predictor` keeps what answers new rows, not what was said of the fitted ones.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import MixtureLDA
    >>> rng = np.random.default_rng(0)
    >>> truth = np.tile([0, 1], 100)
    >>> rows = rng.normal(size=(200, 40)) + np.where(truth[:, None], 0.35, -0.35)
    >>> few = np.where(np.arange(200) < 6, truth, -1)  # -1: no label
    >>> model = MixtureLDA().fit(rows, few)
    >>> round(float((model.transduction_ == truth).mean()), 2)
    0.96
    >>> model.predict_proba(rows[:1]).round(2).tolist()
    [[1.0, 0.0]]
    """

    _kept: ClassVar[Mapping[str, Any]] = {"coef_": "CD", "intercept_": "C", "temperature_": ""}

    def __init__(self, weight: float = 2.0, rounds: int = 5) -> None:
        self.weight = weight
        self.rounds = rounds

    def _prepare(self, rows: NDArray[Any]) -> None:
        if not is_number(self.weight) or self.weight < 0:
            raise SampleError(f"weight={self.weight!r}; expected a number of at least 0")
        check_count("rounds", self.rounds, 0, SampleError)
        self._rows, self._principal = rows, Principal.fit(rows, unit=True)

    def _solve(self, labelled: Numbers, codes: Numbers, unlabelled: Numbers) -> Floats:
        counts = np.bincount(codes, minlength=len(self.classes_))
        with np.errstate(divide="ignore"):
            self._shares = np.log(counts / len(codes))
        weight = min(1.0, self.weight * len(labelled) / max(len(unlabelled), 1))
        known = np.eye(len(counts))[codes]
        self._maximise(labelled, known, self._scatter(labelled))
        if weight > 0 and len(unlabelled):
            total = self._scatter(labelled) + weight * self._scatter(unlabelled)
            for _ in range(self.rounds):
                guessed = weight * probabilities(self._answers(unlabelled))
                self._maximise(np.concatenate([labelled, unlabelled]), np.concatenate([known, guessed]), total)
        return self._answers(np.arange(len(self._rows)))

    def _maximise(self, which: Numbers, members: Floats, total: Floats) -> None:
        """Fit to rows [n] that count as members [n, C] of the classes. total: [R, R], their weighted sum of squares."""
        counts = members.sum(axis=0)
        sums = np.zeros((len(counts), len(total)))
        for part in slices(len(which), _NUMBERS, self._principal.width):
            sums += members[part].T @ self._points(which[part])
        means = sums / np.maximum(counts, 1e-300)[:, None]
        scatter = total - (means.T * counts) @ means
        fourth = 0.0
        for part in slices(len(which), _NUMBERS, self._principal.width):
            points = self._points(which[part])
            apart = (points**2).sum(axis=1)[:, None] - 2 * points @ means.T + (means**2).sum(axis=1)
            fourth += float((members[part] * apart**2).sum())
        width, least = self._principal.width, _ROUNDING * np.trace(total)
        scale, floor = ledoit_wolf(np.trace(scatter), (scatter**2).sum(), fourth, counts.sum(), width, least)
        covariance = scale * scatter
        covariance[np.diag_indices(len(covariance))] += max(floor, _LEAST * scale * np.trace(total))
        self._weights = cho_solve(cho_factor(covariance, overwrite_a=True), means.T).T if len(total) else means
        self._offsets = self._shares - (self._weights * means).sum(axis=1) / 2

    def _points(self, which: Numbers) -> Floats:
        return self._principal.points(self._rows, which)

    def _scatter(self, which: Numbers) -> Floats:
        width = len(self._principal.squares)
        scatter = np.zeros((width, width))
        for part in slices(len(which), _NUMBERS, self._principal.width):
            points = self._points(which[part])
            scatter += points.T @ points
        return scatter

    def _answers(self, which: Numbers) -> Floats:
        scores = np.empty((len(which), len(self._offsets)))
        for part in slices(len(which), _NUMBERS, self._principal.width):
            scores[part] = self._points(which[part]) @ self._weights.T + self._offsets
        return scores

    def _finish(self) -> None:
        self.coef_ = self._principal.line(self._rows, self._weights)
        self.intercept_ = self._offsets - self.coef_ @ self._principal.centre
        del self._rows, self._principal, self._weights, self._offsets, self._shares

    def _scores(self, rows: NDArray[Any]) -> Floats:
        return linear_scores(rows, self.coef_, self.intercept_, unit=True)
