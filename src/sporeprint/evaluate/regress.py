"""Predict real-valued targets by the mean of the nearest neighbours' or by ridge regression; R^2 and other errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.result import Result
from sporeprint.predictors.checks import check_same_width, features_of
from sporeprint.predictors.groups import group_codes
from sporeprint.predictors.knn import check_k, check_voting
from sporeprint.predictors.knn_regressor import KNNRegressor, constant, mean_of, r2_of
from sporeprint.predictors.logistic import Scaling
from sporeprint.predictors.ridge import PENALTIES, grid_of
from sporeprint.predictors.ridge_regressor import RidgeRegressor
from sporeprint.predictors.row_order import content_order
from sporeprint.values import check_choice

METHODS = ("knn", "ridge")  # "auto" takes the better of them

Values = NDArray[np.float64]
Answer = tuple[Values, dict[str, Any]]  # predictions [M, T], and what was chosen


@dataclass(frozen=True, kw_only=True)
class RegressionResult(Result):
    """value: R^2, the mean over targets: 1 is perfect, 0 as good as the test targets' mean, and it can be negative.

    r2, mae, rmse, spearman: of each target [T]; errors in the target's unit. A target that is constant on the test
    rows has no R^2 (NaN): it is left out of `value`, which is NaN where all are. Spearman is NaN where truth or
    predictions are constant. method: "knn" or "ridge". k: of neighbours. penalty: of ridge, of each target.
    leave_one_out: R^2 on the training rows, the mean over targets, by k or penalty; empty where there was nothing to
    choose. leave_one_out_value: that of what was chosen, NaN of one row.
    """

    r2: tuple[float, ...]
    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    spearman: tuple[float, ...]
    method: str
    leave_one_out_value: float
    k: int | None = None
    penalty: tuple[float, ...] | None = None
    leave_one_out: dict[float, float] = field(default_factory=dict)

    def __str__(self) -> str:
        errors = f"MAE {np.mean(self.mae):.4g}, RMSE {np.mean(self.rmse):.4g}, Spearman {mean_of(self.spearman):.3f}"
        text = f"R^2 {self.value:.3f}, {errors}"
        if len(self.r2) > 1:
            constant = sum(np.isnan(self.r2))
            text += f", means of {len(self.r2)} targets" + (f" ({constant} constant: no R^2)" if constant else "")
        if self.k is not None:
            text += f", k = {self.k}"
        elif self.penalty is not None:
            text += f", penalty {' '.join(f'{penalty:g}' for penalty in sorted(set(self.penalty)))}"
        return text + (" (leave-one-out)" if self.leave_one_out else "")


@quiet_floats
def regress(
    train: ArrayLike,
    targets: ArrayLike,
    test: ArrayLike,
    test_targets: ArrayLike,
    method: Literal["knn", "ridge", "auto"] = "knn",
    k: int | Literal["auto"] = "auto",
    metric: Literal["euclidean", "cosine"] = "euclidean",
    vote: Literal["uniform", "distance", "softmax"] = "uniform",
    temperature: float = 0.07,
    penalties: Sequence[float] | None = None,
    standardise: bool = False,
    groups: ArrayLike | None = None,
) -> RegressionResult:
    """Predict the real-valued targets [M] or [M, T] of test rows [M, D] from training rows [N, D].

    method "knn": the mean of the k nearest rows' targets, weighted as `vote` says (see `knn`); of all rows where there
    are fewer than k; rows as near as the k-th share the places that are left. k="auto" takes the k of 1, 3, 5, 10, 20,
    50, 100, 200 with the best leave-one-out R^2, as `KNNRegressor` does.
    method "ridge": minimises mean squared error + penalty * |w|^2 with w as in `Probe` (rows centred, of mean
    squared length 1, or standardised). Each target takes that of `penalties` (default: 10, 3, 1, ... 1e-8) with the
    least leave-one-out error, the stronger one in a tie. One row, or features that are all constant: the mean target.
    method "auto": the one of both with the better leave-one-out R^2, the neighbours in a tie.
    groups: [N]; rows of one group are left out together where k, a penalty or the method is chosen.
    Raises SampleError for NaN, targets that are not numbers, and counts that do not match.

    Examples
    --------
    >>> from sporeprint import regress
    >>> result = regress([[0.0], [1.0], [2.0]], [0, 10, 20], [[0.5], [1.5]], [5, 15], k=2)
    >>> print(result)
    R^2 1.000, MAE 0, RMSE 0, Spearman 1.000, k = 2
    >>> regress([[0.0], [1.0], [2.0]], [0, 10, 20], [[0.5], [1.5]], [5, 15], method="ridge").value > 0.99
    True
    """
    flat, queries = features_of(train, "train"), features_of(test, "test")
    known, truth = _targets(targets, len(flat), "train"), _targets(test_targets, len(queries), "test")
    check_same_width(flat, queries)
    if known.shape[1] != truth.shape[1]:
        raise SampleError(f"{known.shape[1]} targets in train, {truth.shape[1]} in test; expected the same")
    check_choice("method", method, (*METHODS, "auto"), SampleError)
    settings: dict[str, Any] = {"method": method}
    answers: dict[str, Callable[[], Answer]] = {}
    if method != "ridge":
        check_voting(metric, vote, temperature)
        of: Any = "auto" if k == "auto" else check_k(k, " or 'auto'")
        answers["knn"] = lambda: _by_knn(flat, known, queries, KNNRegressor(of, metric, vote, temperature), groups)
        settings |= {"k": k, "metric": metric, "vote": vote}
        settings |= {"temperature": temperature} if vote == "softmax" else {}
    if method != "knn":
        grid = grid_of(PENALTIES if penalties is None else penalties)
        answers["ridge"] = lambda: _by_ridge(flat, known, queries, grid, standardise, groups)
        settings |= {"penalties": list(grid), "standardise": standardise}
    found = {name: answer() for name, answer in answers.items()}
    taken = best_of({name: chosen["leave_one_out_value"] for name, (_, chosen) in found.items()})
    predicted, chosen = found[taken]
    settings |= {"train_rows": len(flat), "test_rows": len(queries)}
    return RegressionResult(settings=settings, method=taken, **_figures(truth, predicted), **chosen)


def fit_and_leave_out(model: Any, rows: NDArray[Any], targets: Values, groups: ArrayLike | None) -> float:
    """Fit a regressor to rows [N, D] and targets [N, T]; return its exact leave-one-out R^2, NaN of a single row."""
    if len(rows) == 1:
        model.fit(rows, targets, groups)
        return float("nan")
    left_out = model.leave_one_out(rows, targets, groups)
    return mean_of(r2_of(targets.reshape(len(rows), -1), left_out.reshape(len(rows), -1)))


def best_of(scores: Mapping[Any, float]) -> Any:
    """Return what has the best score, the first in a tie; NaN is the worst."""
    return max(scores, key=lambda name: -np.inf if np.isnan(scores[name]) else scores[name])


def _by_knn(
    train: NDArray[Any], known: Values, queries: NDArray[Any], model: KNNRegressor, groups: ArrayLike | None
) -> Answer:
    value = fit_and_leave_out(model, train, known, groups)
    return model.predict(queries), {
        "k": model.k_,
        "leave_one_out": model.leave_one_out_,
        "leave_one_out_value": value,
    }


def _by_ridge(
    train: NDArray[Any],
    targets: Values,
    queries: NDArray[Any],
    grid: Sequence[float],
    standardise: bool,
    groups: ArrayLike | None,
) -> Answer:
    centre = targets.mean(axis=0)
    order = content_order(train, targets - centre)
    train, known = train[order], (targets - centre)[order]
    if len(train) == 1:
        predicted = np.repeat(known, len(queries), axis=0)
        return predicted + centre, {"penalty": None, "leave_one_out_value": float("nan")}
    scaling, rows = Scaling.fit_transform(train, standardise)
    apart = None if groups is None else group_codes(groups, len(order))[order]
    model = RidgeRegressor(grid)
    value = fit_and_leave_out(model, rows, known, apart)
    variances = np.where(constant(known), np.nan, known.var(axis=0))
    scores = {penalty: mean_of(1 - errors / variances) for penalty, errors in model.leave_one_out_.items()}
    return model.predict(scaling(queries)) + centre, {
        "penalty": tuple(model.penalty_.tolist()),
        "leave_one_out": scores,
        "leave_one_out_value": value,
    }


def _figures(truth: Values, predicted: Values) -> dict[str, Any]:
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    r2 = r2_of(truth, predicted)
    ranked = ~(constant(truth) | constant(predicted))
    return {
        "value": mean_of(r2),
        "r2": tuple(r2.tolist()),
        "mae": tuple(mean_absolute_error(truth, predicted, multioutput="raw_values").tolist()),
        "rmse": tuple(root_mean_squared_error(truth, predicted, multioutput="raw_values").tolist()),
        "spearman": tuple(
            float(spearmanr(truth[:, at], predicted[:, at]).statistic) if ranked[at] else float("nan")
            for at in range(truth.shape[1])
        ),
    }


def _targets(values: ArrayLike, rows: int, which: str) -> Values:
    """Return targets [rows, T]. Raises SampleError."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise SampleError(f"{which} targets are {array.dtype}; expected real numbers, [rows] or [rows, targets]")
    if array.ndim not in (1, 2) or len(array) != rows or not array.size:
        raise SampleError(
            f"{which} targets have shape {array.shape} for {rows} rows; expected [rows] or [rows, targets]"
        )
    array = array.reshape(rows, -1).astype(np.float64)
    if bad := int((~np.isfinite(array)).any(axis=1).sum()):
        raise SampleError(f"{bad} of {rows} {which} targets are NaN or infinite; drop those rows")
    return array
