"""Score several labels a row, or none, by the nearest neighbours or by one linear probe a label; mAP."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.columns import as_list
from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.result import Result
from sporeprint.predictors.checks import check_same_width, features_of
from sporeprint.predictors.knn import CANDIDATES, check_k, check_voting
from sporeprint.predictors.knn_regressor import best_k, mean_of, neighbour_means
from sporeprint.predictors.logistic import FALLBACK, PENALTIES, Path, Scaling, check_fit, held_out
from sporeprint.predictors.ridge import grid_of
from sporeprint.predictors.row_order import content_order
from sporeprint.search.ties import tied_neighbours
from sporeprint.values import check_choice

METHODS = ("knn", "probe")

_NEVER, _ALWAYS = -1e300, 1e300  # scores of labels with nothing to fit: beyond those of any fit

Labels = ArrayLike | Sequence[Collection[Any]]
Indicator = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MultiLabelResult(Result):
    """value: mAP, the mean of the labels' average precisions, over labels with a positive test row; a fraction.

    micro: average precision of all pairs of a test row and a label, ranked together. per_class: {label: average
    precision}. left_out: how many labels have no positive test row. k: of neighbours; leave_one_out: mAP on the
    training rows by k, where k="auto" chose. penalty, converged (for every label): of the probe; validation: mAP on
    held-out rows by penalty.
    """

    micro: float
    per_class: dict[Any, float]
    left_out: int = 0
    k: int | None = None
    leave_one_out: dict[int, float] = field(default_factory=dict)
    penalty: float | None = None
    validation: dict[float, float] = field(default_factory=dict)
    converged: bool = True

    def __str__(self) -> str:
        text = f"mAP {self.value:.1%} of {len(self.per_class)} labels"
        text += f" ({self.left_out} without a positive left out)" if self.left_out else ""
        text += f", micro AP {self.micro:.1%}"
        if self.k is not None:
            text += f", k = {self.k}{' (leave-one-out)' if self.leave_one_out else ''}"
        elif self.penalty is not None:
            text += f", penalty {self.penalty:g}{' (validation)' if self.validation else ''}"
        return text if self.converged else f"{text}, NOT CONVERGED in {self.settings['iterations']} iterations"


@quiet_floats
def multilabel(
    train: ArrayLike,
    labels: Labels,
    test: ArrayLike,
    test_labels: Labels,
    method: Literal["knn", "probe"] = "knn",
    k: int | Literal["auto"] = "auto",
    metric: Literal["euclidean", "cosine"] = "euclidean",
    vote: Literal["uniform", "distance", "softmax"] = "uniform",
    temperature: float = 0.07,
    penalties: Sequence[float] | None = None,
    validation: float = 0.2,
    seed: int = 0,
    standardise: bool = False,
    iterations: int = 1000,
) -> MultiLabelResult:
    """Rank test rows [M, D] for every label by training rows [N, D]; average precisions as in scikit-learn.

    labels: for each row a list of labels, texts or whole numbers, perhaps empty; or an indicator matrix [N, C], an
    ARRAY of 0 and 1 (or bool), whose labels are then 0 ... C - 1. Lists name the labels of either side: one that is
    absent from train scores lowest in every row.
    method "knn": a label's score is the share of the k nearest rows that have it, weighted as `vote` says (see `knn`);
    of all rows where there are fewer than k. k="auto" takes the k of 1, 3, 5, 10, 20 with the best leave-one-out mAP
    on the training rows, the smaller one in a tie; 1 for one row, or where no training row has a label.
    method "probe": one logistic regression a label, penalised as in `Probe`. All share that of `penalties` which
    has the best mAP on held-out rows, the stronger one in a tie. Held out is the fraction `validation` of each label's
    positive and negative rows; labels with fewer than two positives or negatives are not validated, and where none is,
    the penalty is FALLBACK. A label that all training rows have scores highest in every row.
    Rows with equal scores are ranked together: of a constant score the average precision is the share of positives.
    Raises SampleError for NaN, labels that cannot be read, and where no test row has a label.

    Examples
    --------
    >>> from sporeprint import multilabel
    >>> labels = [["sea"], ["sea", "beach"], []]
    >>> result = multilabel([[0.0], [1.0], [2.0]], labels, [[0.1], [0.9]], [["sea"], ["beach"]], k=1)
    >>> result.per_class, result.value
    ({'beach': 1.0, 'sea': 0.5}, 0.75)
    """
    rows, queries = features_of(train, "train"), features_of(test, "test")
    check_same_width(rows, queries)
    names, known, truth = indicators(labels, test_labels, len(rows), len(queries))
    check_choice("method", method, METHODS, SampleError)
    settings: dict[str, Any] = {"method": method}
    chosen: dict[str, Any]
    if method == "knn":
        check_voting(metric, vote, temperature)
        voting, values = (metric, vote, temperature), known.astype(np.float64)
        table = _leave_one_out(rows, known, voting) if k == "auto" else {}
        nearest = best_k(table) if k == "auto" else check_k(k, " or 'auto'")
        near = tied_neighbours(rows, queries, nearest, values, metric)
        scores = neighbour_means(near, values, len(queries), [nearest], *voting)[nearest]
        chosen = {"k": nearest, "leave_one_out": table}
        settings |= {"k": k, "metric": metric, "vote": vote}
        settings |= {"temperature": temperature} if vote == "softmax" else {}
    else:
        check_fit(validation, iterations, seed)
        grid = grid_of(PENALTIES if penalties is None else penalties)
        scores, chosen = _probe(rows, known, queries, grid, validation, seed, standardise, iterations)
        settings |= {"penalties": list(grid), "validation": validation, "seed": seed}
        settings |= {"standardise": standardise, "iterations": iterations}
    settings |= {"train_rows": len(rows), "test_rows": len(queries), "labels": len(names)}
    precisions = _precisions(truth, scores)
    return MultiLabelResult(
        value=mean_of(precisions),
        settings=settings,
        micro=float(_precisions(truth.reshape(-1, 1), scores.reshape(-1, 1))[0]),
        per_class={name: float(value) for name, value in zip(names, precisions, strict=True) if not np.isnan(value)},
        left_out=int(np.isnan(precisions).sum()),
        **chosen,
    )


def indicators(
    labels: Labels, test_labels: Labels, rows: int, test_rows: int
) -> tuple[list[Any], Indicator, Indicator]:
    """Return the labels' names [C], and which row has which: [rows, C] and [test_rows, C]. Raises SampleError."""
    given = [_read(labels, rows, "train"), _read(test_labels, test_rows, "test")]
    if isinstance(given[0], np.ndarray) != isinstance(given[1], np.ndarray):
        raise SampleError("one side's labels are an indicator matrix, the other's are lists; expected the same in both")
    if isinstance(given[0], np.ndarray):
        known, truth = given
        if known.shape[1] != truth.shape[1]:
            raise SampleError(f"{known.shape[1]} labels in train, {truth.shape[1]} in test; expected the same columns")
        names = list(range(known.shape[1]))
    else:
        distinct = {name for side in given for row in side for name in row}
        if len({isinstance(name, str) for name in distinct}) > 1:
            raise SampleError("some labels are texts and some are numbers; expected one kind in train and test")
        names = sorted(distinct)
        column = {name: at for at, name in enumerate(names)}
        known, truth = (np.zeros((len(side), len(names)), bool) for side in given)
        for side, matrix in zip(given, (known, truth), strict=True):
            for at, row in enumerate(side):
                matrix[at, [column[name] for name in row]] = True
    if not truth.any():
        raise SampleError("no test row has a label; expected at least one, to rank")
    return names, known, truth


def _read(labels: Any, rows: int, which: str) -> Any:
    """Return an indicator matrix [rows, C], or lists of labels."""
    if len(getattr(labels, "shape", ())) == 2:  # of a table of pandas or polars too
        array = np.asarray(labels)
        if array.dtype.kind in "fiub":
            if len(array) != rows:
                raise SampleError(f"{which} labels have shape {array.shape} for {rows} rows; expected a row for each")
            if not np.isin(array, (0, 1)).all():
                raise SampleError(
                    f"{which} labels are an array with numbers beyond 0 and 1; give lists, or an indicator matrix"
                )
            return array.astype(bool)
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__") or len(labels) != rows:
        seen = f"{len(labels)} lists" if hasattr(labels, "__len__") else f"a {type(labels).__name__}"
        raise SampleError(f"{which} labels are {seen} for {rows} rows; expected a list of labels for each")
    given = labels if isinstance(labels, np.ndarray) else as_list(labels, "labels")
    return [_row(row, f"{which} row {at}") for at, row in enumerate(given)]


def _row(row: Any, where: str) -> list[Any]:
    if isinstance(row, (str, bytes)) or not hasattr(row, "__len__") or getattr(row, "ndim", 1) != 1:
        raise SampleError(f"{where} has the labels {row!r}; expected a list, perhaps empty")
    names = [name.item() if isinstance(name, np.generic) else name for name in row]
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise SampleError(f"{where} has the label {name!r}; expected a text or a whole number")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SampleError(f"{where} has the label {twice!r} twice; give an indicator matrix as an array, not as lists")
    return names


def _leave_one_out(rows: NDArray[Any], known: Indicator, voting: tuple[str, str, float]) -> dict[int, float]:
    """Return the mAP of each candidate k below the number of rows; {1: NaN} for one row."""
    ks = [k for k in CANDIDATES if k < len(rows)]
    if not ks:
        return {1: float("nan")}
    values = known.astype(np.float64)
    near = tied_neighbours(rows, rows, max(ks), values, voting[0], np.arange(len(rows)))
    means = neighbour_means(near, values, len(rows), ks, *voting)
    return {k: _mean_precision(known, scores) for k, scores in means.items()}


def _probe(
    train: NDArray[Any],
    known: Indicator,
    queries: NDArray[Any],
    grid: Sequence[float],
    validation: float,
    seed: int,
    standardise: bool,
    iterations: int,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Return scores [M, C]; and the penalty, its validation and whether the fit converged, by name."""
    order = content_order(train, known)
    train, known = train[order], known[order]
    scaling, rows = Scaling.fit_transform(train, standardise)
    tests = scaling(queries)
    fitted = [at for at in range(known.shape[1]) if 0 < known[:, at].sum() < len(known)]
    paths = {at: Path(scaling.squared_length, iterations) for at in fitted}
    tables: list[list[float]] = []
    for at in fitted if len(grid) > 1 else []:
        has = known[:, at]
        if 2 <= has.sum() <= len(has) - 2:
            held = held_out(has.astype(np.intp), validation, seed)
            tables.append([])
            for penalty in grid:
                paths[at].fit(rows[~held], has[~held].astype(np.intp), penalty)
                held_scores = paths[at].model.decision_function(rows[held])
                tables[-1].append(float(_precisions(has[held, None], held_scores[:, None])[0]))
    means = dict(zip(grid, np.mean(tables, axis=0).tolist(), strict=True)) if tables else {}
    penalty = max(means, key=lambda penalty: means[penalty]) if means else FALLBACK if len(grid) > 1 else grid[0]
    scores = np.where(known.all(axis=0), _ALWAYS, _NEVER) * np.ones((len(queries), 1))
    converged = True
    for at, path in paths.items():
        converged &= path.fit(rows, known[:, at].astype(np.intp), penalty)
        scores[:, at] = path.model.decision_function(tests)
    return scores, {"penalty": penalty if fitted else None, "validation": means, "converged": converged}


def _precisions(truth: Indicator, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the average precision of each column [C], NaN for one without a positive."""
    from sklearn.metrics import average_precision_score

    return np.array(
        [average_precision_score(*pair) if pair[0].any() else np.nan for pair in zip(truth.T, scores.T, strict=True)]
    )


def _mean_precision(truth: Indicator, scores: NDArray[np.float64]) -> float:
    return mean_of(_precisions(truth, scores))
