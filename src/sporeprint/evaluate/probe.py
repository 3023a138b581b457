"""A linear probe is logistic regression on frozen features, with its L2 penalty chosen on a validation split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.shots import draws as few_shot_draws
from sporeprint.predictors.checks import check_same_kind, check_same_width, features_of, labels_of
from sporeprint.predictors.ridge import grid_of
from sporeprint.predictors.row_order import content_order
from sporeprint.values import check_count, is_fraction

PENALTIES = (1e-2, *(float(f"{digit}e-{power}") for power in range(3, 9) for digit in (3, 1)))  # strongest first
# The penalty where nothing can be held out: the best at one row a class on Banking77, TREC and digits, by up to 1 %.
FALLBACK = 1e-3

# Tolerance of the gradient where features have a mean variance of 1. With rows of length 1, scikit-learn's 1e-4 stops
# weak penalties where the previous fit ended. 1e-6 chose the same on Banking77, TREC and digits in 2.3 times the time.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Scaling:
    """Scaling centres rows and divides them by ONE number, so that the mean variance of a dimension is 1.

    With at most half as many training rows as dimensions, rows are also projected on the span of the training rows:
    models with an L2 penalty are the same there, and faster.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]  # [1], or [D] where every dimension is standardised
    axes: NDArray[np.float64] | None  # [D, R]

    @classmethod
    def fit(cls, train: NDArray[Any], standardise: bool = False) -> Scaling:
        """Fit the scaling to training rows [N, D]. Constant dimensions become 0."""
        rows = train.astype(np.float64)
        centre = rows.mean(axis=0)
        rows -= centre
        variance, rounding = (rows**2).mean(axis=0), (1e-12 * centre) ** 2
        if not standardise:
            variance, rounding = variance.mean(keepdims=True), rounding.mean(keepdims=True)
        scale = np.where(variance > rounding, np.sqrt(variance), np.inf)
        axes = None
        if 2 * len(train) <= train.shape[1]:
            axes = np.linalg.svd(rows / scale, full_matrices=False)[2].T
        return cls(centre, scale, axes)

    @property
    def squared_length(self) -> int:
        """Mean squared length of scaled training rows: a penalty p for rows of length 1 is p times this for them."""
        return max(1, int(np.isfinite(self.scale).sum())) if len(self.scale) > 1 else len(self.centre)

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        scaled = (rows.astype(np.float64) - self.centre) / self.scale
        return scaled if self.axes is None else scaled @ self.axes


@dataclass(frozen=True)
class Probe:
    """A probe is fitted with `penalty`, which is None where a single class left nothing to fit.

    validation: {penalty: top-1 of the held-out rows}, empty where nothing could be held out. converged: whether the fit
    on all rows converged.
    """

    classes: NDArray[Any]
    penalty: float | None
    validation: dict[float, float]
    converged: bool
    scaling: Scaling
    model: Any = None

    @quiet_floats
    def predict(self, rows: ArrayLike) -> NDArray[Any]:
        """Predict labels [M] of rows [M, D]. Raises SampleError."""
        array = features_of(rows, "test")
        if array.shape[1] != len(self.scaling.centre):
            raise SampleError(
                f"rows are {array.shape[1]} wide; expected {len(self.scaling.centre)}, as the probe was fitted"
            )
        if self.model is None:
            return np.repeat(self.classes, len(array))
        return self.classes[self.model.predict(self.scaling(array))]


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Result):
    """The value is top-1 accuracy; mean_per_class is the mean of the test classes' accuracies. Both are fractions.

    penalty, validation, converged: as in Probe. draws: figures of each few-shot draw; with draws, value and
    mean_per_class are means, spread and mean_per_class_spread standard deviations, and only the draws have a penalty
    and validation.
    """

    mean_per_class: float
    mean_per_class_spread: float | None = None
    penalty: float | None = None
    validation: dict[float, float] = field(default_factory=dict)
    converged: bool = True
    draws: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        spreads = [
            f" ± {value:.1%}" if value is not None else "" for value in (self.spread, self.mean_per_class_spread)
        ]
        text = f"top-1 {self.value:.1%}{spreads[0]}, mean per class {self.mean_per_class:.1%}{spreads[1]}"
        if self.draws:
            text += f", {len(self.draws)} draws of {self.settings['shots']} a class"
        elif self.penalty is not None:
            text += f", penalty {self.penalty:g}{' (validation)' if self.validation else ''}"
        return text if self.converged else f"{text}, NOT CONVERGED in {self.settings['iterations']} iterations"


@quiet_floats
def probe(
    train: ArrayLike,
    labels: ArrayLike,
    test: ArrayLike,
    test_labels: ArrayLike,
    penalties: Sequence[float] | None = None,
    validation: float = 0.2,
    shots: int | None = None,
    draws: int = 3,
    seed: int = 0,
    standardise: bool = False,
    iterations: int = 1000,
) -> ProbeResult:
    """Classify test rows [M, D] by logistic regression on training rows [N, D], as `fit_probe` does.

    A test class that is absent from train counts as wrong. shots: rows of each class in each of `draws` fits, which
    choose their own penalty; value is their mean, spread their standard deviation (n - 1; None of one draw).
    Raises SampleError.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import probe
    >>> features, labels = load_iris(return_X_y=True)
    >>> train, test = slice(0, None, 2), slice(1, None, 2)
    >>> result = probe(features[train], labels[train], features[test], labels[test])
    >>> round(result.value, 1), result.converged, len(result.validation)
    (0.9, True, 13)
    """
    train, test = features_of(train, "train"), features_of(test, "test")
    labels, test_labels = labels_of(labels, len(train), "train"), labels_of(test_labels, len(test), "test")
    check_same_width(train, test)
    check_same_kind(labels, test_labels)
    check_fit(validation, iterations, seed)
    if shots is not None:
        order = content_order(train, np.unique(labels, return_inverse=True)[1])
        train, labels = train[order], labels[order]
    subsets = [np.arange(len(train))] if shots is None else few_shot_draws(labels, shots, draws, seed)
    results: list[dict[str, Any]] = []
    for number, rows in enumerate(subsets):
        fitted = fit_probe(train[rows], labels[rows], penalties, validation, seed + number, standardise, iterations)
        correct = fitted.predict(test) == test_labels
        figures = {"value": float(correct.mean()), "mean_per_class": mean_per_class(correct, test_labels)}
        chosen = {name: getattr(fitted, name) for name in ("penalty", "validation", "converged")}
        results.append(figures | chosen | {"train_rows": len(rows)})
    settings = {
        "penalties": list(grid_of(PENALTIES if penalties is None else penalties)),
        "validation": validation,
        "standardise": standardise,
        "iterations": iterations,
        "seed": seed,
        "train_rows": len(train),
        "test_rows": len(test),
        "classes": len(np.unique(labels)),
    }
    settings |= {} if shots is None else {"shots": shots, "draws": draws}
    if shots is None:
        del results[0]["train_rows"]
        return ProbeResult(settings=settings, **results[0])
    columns = {name: [result[name] for result in results] for name in ("value", "mean_per_class")}
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    spreads = {name: float(np.std(values, ddof=1)) if len(values) > 1 else None for name, values in columns.items()}
    return ProbeResult(
        value=means["value"],
        mean_per_class=means["mean_per_class"],
        spread=spreads["value"],
        mean_per_class_spread=spreads["mean_per_class"],
        settings=settings,
        converged=all(result["converged"] for result in results),
        draws=tuple(results),
    )


@quiet_floats
def fit_probe(
    train: ArrayLike,
    labels: ArrayLike,
    penalties: Sequence[float] | None = None,
    validation: float = 0.2,
    seed: int = 0,
    standardise: bool = False,
    iterations: int = 1000,
) -> Probe:
    """Fit logistic regression (multinomial, L-BFGS, intercept not penalised; binary for two classes) on rows [N, D].

    It minimises mean cross-entropy + penalty / 2 * |W|^2, where W applies to rows that are centred and divided by one
    number, so that their mean squared length is 1. A penalty thus means the same whatever the features' scale, width
    and number of rows. Dimensions keep their own variances, the practice with frozen features (CLIP's linear probe);
    `standardise` gives all the same variance.

    The penalty is the one of `penalties` (default: 1e-2, 3e-3, 1e-3, ... 1e-8) with the best top-1 on held-out rows,
    the stronger one in a tie; the model is then fitted on all rows. The fraction `validation` of each class is held
    out, seeded: at least one row and never all, so a class with one row is fitted but not validated. Where every class
    has one row, the penalty is FALLBACK. Rows are taken in the order of their content, whatever the order given. A
    single penalty is used without holding anything out. A single class is always predicted. Where all features are
    constant, the most frequent class is. Raises SampleError.

    Examples
    --------
    >>> from sporeprint.evaluate.probe import fit_probe
    >>> fitted = fit_probe([[0.0], [0.1], [1.0], [1.1]], ["cat", "cat", "dog", "dog"])
    >>> print(fitted.predict([[0.2], [0.9]]))
    ['cat' 'dog']
    """
    array = features_of(train, "train")
    names = labels_of(labels, len(array), "train")
    grid = grid_of(PENALTIES if penalties is None else penalties)
    check_fit(validation, iterations, seed)
    classes, codes = np.unique(names, return_inverse=True)
    order = content_order(array, codes)
    array, codes = array[order], codes[order]
    scaling = Scaling.fit(array, standardise)
    if len(classes) == 1:
        return Probe(classes, None, {}, True, scaling)
    rows = scaling(array)
    path = Path(scaling.squared_length, iterations)
    held = held_out(codes, validation, seed)
    accuracies = {}
    if len(grid) > 1 and held.any():
        for penalty in grid:
            path.fit(rows[~held], codes[~held], penalty)
            accuracies[penalty] = float((path.model.predict(rows[held]) == codes[held]).mean())
    best = max(grid, key=lambda penalty: accuracies[penalty]) if accuracies else FALLBACK if len(grid) > 1 else grid[0]
    converged = path.fit(rows, codes, best)
    return Probe(classes, best, accuracies, converged, scaling, path.model)


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
