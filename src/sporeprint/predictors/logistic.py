"""A linear probe is logistic regression on frozen features, with its L2 penalty chosen on a validation split."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.predictors.calibration import temperature
from sporeprint.predictors.groups import Groups
from sporeprint.predictors.predictor import LeftOut, LinearPredictor
from sporeprint.predictors.principal import Floats, Principal, eigen, significant
from sporeprint.predictors.ridge import grid_of
from sporeprint.predictors.row_order import content_order
from sporeprint.store.schema import NOTHING, NUMBER
from sporeprint.values import check_count, is_fraction

PENALTIES = (1e-2, *(float(f"{digit}e-{power}") for power in range(3, 9) for digit in (3, 1)))  # strongest first
# The penalty where nothing can be held out: the best at one row a class on Banking77, TREC and digits, by up to 1 %.
FALLBACK = 1e-3

# Tolerance of the gradient where features have a mean variance of 1. With rows of length 1, scikit-learn's 1e-4 stops
# weak penalties where the previous fit ended. 1e-6 chose the same on Banking77, TREC and digits in 2.3 times the time.
_TOLERANCE = 1e-5

_FOLDS = 5  # of `leave_one_out`

Codes = NDArray[np.intp]


class Probe(LinearPredictor):
    """Logistic regression (multinomial, L-BFGS, intercept not penalised; binary for two classes) on frozen features.

    It minimises mean cross-entropy + penalty / 2 * |W|^2, where W applies to rows that are centred and divided by one
    number, so that their mean squared length is 1. A penalty thus means the same whatever the features' scale, width
    and number of rows. Dimensions keep their own variances, the practice with frozen features (CLIP's linear probe);
    `standardise` gives all the same variance.

    The penalty is the one of `penalties` (default: 1e-2, 3e-3, 1e-3, ... 1e-8) with the best top-1 on held-out rows,
    the stronger one in a tie; the model is then fitted on all rows. The fraction `validation` of each class is held
    out, seeded: at least one row and never all, so a class with one row is fitted but not validated; of groups, about
    that fraction of those with each most frequent class. Where every class has one row, and where too little is left,
    the penalty is FALLBACK. Rows are taken in the order of their content, whatever the order given. A single penalty is
    used without choosing. A single class is always predicted. Where all features are constant, the most frequent class
    is. Probabilities are calibrated on the held-out rows; without any they are as they come.

    `penalty_`: that one, None for a single class. `validation_`: {penalty: top-1 of the held-out rows}, empty where
    there was no choice. `converged_`: whether the fit on all rows converged. `coef_`: [C, D], `intercept_`: [C].

    Examples
    --------
    >>> from sporeprint import Probe
    >>> fitted = Probe().fit([[0.0], [0.1], [1.0], [1.1]], ["cat", "cat", "dog", "dog"])
    >>> print(fitted.predict([[0.2], [0.9]]))
    ['cat' 'dog']
    """

    _kept: ClassVar[Mapping[str, Any]] = {**LinearPredictor._kept, "penalty_": (NUMBER, NOTHING), "converged_": ""}
    _working = ("_scaled",)

    def __init__(
        self,
        penalties: Sequence[float] = PENALTIES,
        validation: float = 0.2,
        standardise: bool = False,
        iterations: int = 1000,
        seed: int = 0,
    ) -> None:
        self.penalties = penalties
        self.validation = validation
        self.standardise = standardise
        self.iterations = iterations
        self.seed = seed

    @quiet_floats
    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Probe:
        """Fit on features X [N, D] and labels y [N]. groups: [N], rows of one group are held out together.

        Raises SampleError for NaN, labels that are not classes, counts that do not match, and settings that are none.
        """
        self._fit(*self._checked(X, y, groups))
        self._forget()
        return self

    @quiet_floats
    def leave_one_out(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> LeftOut:
        """Fit on X [N, D], y [N], and return what the fits on the other folds say of each row.

        It is no leave-one-out but five folds, of whole groups, stratified: each says less than all rows would. The
        penalty is chosen once, by all rows. Raises SampleError as `fit`, and for a single row.
        """
        return super().leave_one_out(X, y, groups)

    @quiet_floats
    def leave_one_out_of(self, principal: Principal, codes: Codes, groups: Groups) -> LeftOut:
        """`leave_one_out` from coordinates that predictors share; codes [N] count from 0. Raises SampleError."""
        if self.standardise:
            raise SampleError("standardise=True: coordinates hold no dimension's own variance; give the rows")
        return super().leave_one_out_of(principal, codes, groups)

    def _fit(self, rows: NDArray[Any], codes: Codes, groups: Groups) -> None:
        grid = grid_of(self.penalties)
        check_fit(self.validation, self.iterations, self.seed)
        classes, self.temperature_, self.validation_ = len(self.classes_), 1.0, {}
        if classes == 1:
            self.penalty_, self.converged_ = None, True
            self.coef_, self.intercept_ = np.zeros((1, rows.shape[1])), np.zeros(1)
            return
        order = content_order(rows, codes)
        scaling, scaled = Scaling.fit_transform(rows[order], self.standardise)
        self._scaled, codes = (order, scaling.squared_length, scaled), codes[order]
        path, best = Path(scaling.squared_length, self.iterations), 0.0
        self.penalty_ = grid[0] if len(grid) == 1 else FALLBACK
        held = self._held_out(codes, groups, order)
        rest = np.unique(codes[~held])
        if held.any() and len(rest) > 1:
            for penalty in grid:
                path.fit(scaled[~held], codes[~held], penalty)
                scores = path.scores(scaled[held], classes)
                right = float((scores.argmax(axis=1) == codes[held]).mean())
                self.validation_[penalty] = right
                if len(self.validation_) == 1 or right > best:
                    self.penalty_, best, self.temperature_ = penalty, right, temperature(scores, codes[held])
            if len(rest) < classes or len(grid) == 1:
                path = Path(scaling.squared_length, self.iterations)
        if len(grid) == 1:
            self.validation_ = {}
        self.converged_ = path.fit(scaled, codes, self.penalty_)
        self.coef_, self.intercept_ = scaling.line(*path.line())

    def _held_out(self, codes: Codes, groups: Groups, order: Codes) -> NDArray[np.bool_]:
        if len(groups) == len(codes):
            return held_out(codes, self.validation, self.seed)
        return group_folds(codes, groups, order, max(2, round(1 / self.validation)), self.seed) == 0

    def _left_out(self, rows: NDArray[Any], codes: Codes, groups: Groups) -> Floats:
        scores = np.zeros((len(codes), len(self.classes_)))
        if self.penalty_ is None:
            return scores
        order, squared_length, scaled = self._scaled
        codes = codes[order]
        folds = group_folds(codes, groups, order, _FOLDS, self.seed)
        for fold in np.unique(folds):
            held = folds == fold
            if len(rest := np.unique(codes[~held])) == 1:
                scores[np.ix_(order[held], np.arange(len(self.classes_)) != rest)] = -np.inf
                continue
            path = Path(squared_length, self.iterations)
            path.fit(scaled[~held], codes[~held], self.penalty_)
            scores[order[held]] = path.scores(scaled[held], len(self.classes_))
        return scores


@dataclass(frozen=True)
class Scaling:
    """Scaling centres rows and divides them by ONE number, so that the mean variance of a dimension is 1.

    With at most half as many training rows as dimensions, rows are also projected on the span of the training rows:
    models with an L2 penalty are the same there, and faster. The axes [D, R] of that span are fitted.T @ shares.
    """

    centre: Floats
    scale: Floats  # [1], or [D] where every dimension is standardised
    fitted: Floats | None = None  # the scaled training rows [N, D]
    shares: Floats | None = None  # [N, R]

    @classmethod
    def fit_transform(cls, train: NDArray[Any], standardise: bool = False) -> tuple[Scaling, Floats]:
        """Fit the scaling to training rows [N, D], and scale them. Constant dimensions become 0."""
        rows = train.astype(np.float64)
        centre = rows.mean(axis=0)
        rows -= centre
        variance, rounding = (rows**2).mean(axis=0), (1e-12 * centre) ** 2
        if not standardise:
            variance, rounding = variance.mean(keepdims=True), rounding.mean(keepdims=True)
        scale = np.where(variance > rounding, np.sqrt(variance), np.inf)
        rows /= scale
        if 2 * len(train) > train.shape[1]:
            return cls(centre, scale), rows
        squares, turned = significant(*eigen(rows @ rows.T))
        if not len(squares):
            squares, turned = np.ones(1), np.zeros((len(rows), 1))
        lengths = np.sqrt(squares)
        return cls(centre, scale, rows, turned / lengths), turned * lengths

    @property
    def squared_length(self) -> int:
        """Mean squared length of scaled training rows: a penalty p for rows of length 1 is p times this for them."""
        return max(1, int(np.isfinite(self.scale).sum())) if len(self.scale) > 1 else len(self.centre)

    def line(self, weights: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        """Return weights [C, R] and offsets [C] on scaled rows as weights [C, D] and offsets [C] on the rows."""
        if self.fitted is not None and self.shares is not None:
            weights = weights @ self.shares.T @ self.fitted
        weights = weights / self.scale
        return weights, offsets - weights @ self.centre

    def __call__(self, rows: NDArray[Any]) -> Floats:
        scaled: Floats = (rows.astype(np.float64) - self.centre) / self.scale
        if self.fitted is not None and self.shares is not None:
            scaled = scaled @ self.fitted.T @ self.shares
        return scaled


class Path:
    """A path is a series of logistic regressions on the same classes, each started from the previous one.

    squared_length: mean squared length of the rows.
    """

    def __init__(self, squared_length: int, iterations: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.squared_length = squared_length
        self.model = LogisticRegression(max_iter=iterations, tol=_TOLERANCE, warm_start=True)

    def fit(self, rows: NDArray[np.float64], codes: NDArray[np.intp], penalty: float) -> bool:
        """Fit scaled rows; return whether the optimiser converged."""
        from sklearn.exceptions import ConvergenceWarning

        self.model.set_params(C=1 / (penalty * self.squared_length * len(rows)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore", UserWarning)  # "could represent a regression problem": few-shot rows
            warnings.simplefilter("always", ConvergenceWarning)
            self.model.fit(rows, codes)
        return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)

    def line(self) -> tuple[Floats, Floats]:
        """Return weights [C, R] and offsets [C] of the classes that were fitted."""
        weights, offsets = self.model.coef_, self.model.intercept_
        if len(offsets) == 1:  # two classes have one line: the second's score over the first's
            return np.concatenate([0 * weights, weights]), np.append(0.0, offsets)
        return weights, offsets

    def scores(self, rows: Floats, classes: int) -> Floats:
        """Return scores [M, classes] of scaled rows; minus infinity for a class that was not fitted."""
        weights, offsets = self.line()
        scores = np.full((len(rows), classes), -np.inf)
        scores[:, self.model.classes_] = rows @ weights.T + offsets
        return scores


def group_folds(codes: Codes, groups: Groups, order: Codes, count: int, seed: int) -> Codes:
    """Deal whole groups to folds [N], in turn, by their most frequent class; a class's groups are shuffled by `seed`.

    groups: of rows whose numbers in codes [N] are by `order` [N].
    """
    place = np.argsort(order)
    groups = sorted((np.sort(place[group]) for group in groups), key=lambda group: int(group[0]))
    most = np.array([np.bincount(codes[group]).argmax() for group in groups])
    shuffled = np.random.default_rng([seed, 0, 1]).permutation(len(groups))
    folds = np.empty(len(codes), np.intp)
    for number, at in enumerate(shuffled[np.argsort(most[shuffled], kind="stable")]):
        folds[groups[at]] = number % count
    return folds


def held_out(codes: NDArray[np.intp], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose validation rows, a mask [N]: the fraction of each class, at least one row and never all."""
    rng = np.random.default_rng([seed, 0, 1])  # not a stream that draws rows
    held = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        members = rng.permutation(np.flatnonzero(codes == code))
        held[members[: min(len(members) - 1, max(1, round(fraction * len(members))))]] = True
    return held


def check_fit(validation: float, iterations: int, seed: int) -> None:
    """Check the settings of a fit. Raises SampleError."""
    if not is_fraction(validation) or validation == 1:
        raise SampleError(f"validation={validation!r}; expected a fraction of each class's rows, between 0 and 1")
    check_count("iterations", iterations, error=SampleError)
    check_count("seed", seed, 0, SampleError)
