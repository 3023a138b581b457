"""Top-1 and mean per-class accuracy of a linear probe; few-shot draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sporeprint.data.floats import quiet_floats
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.shots import draws as few_shot_draws
from sporeprint.predictors.checks import check_classes, check_same_kind, check_same_width, features_of, labels_of
from sporeprint.predictors.groups import group_codes
from sporeprint.predictors.logistic import PENALTIES, Probe, check_fit
from sporeprint.predictors.ridge import grid_of
from sporeprint.predictors.row_order import content_order


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
    groups: ArrayLike | None = None,
) -> ProbeResult:
    """Classify test rows [M, D] by logistic regression on training rows [N, D], as `Probe` does.

    A test class that is absent from train counts as wrong. shots: rows of each class in each of `draws` fits, which
    choose their own penalty; value is their mean, spread their standard deviation (n - 1; None of one draw).
    groups: [N]; rows of one group are held out together where the penalty is chosen.
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
    check_classes(labels)
    check_same_kind(labels, test_labels)
    check_fit(validation, iterations, seed)
    grid = grid_of(PENALTIES if penalties is None else penalties)
    classes, codes = np.unique(labels, return_inverse=True)
    if shots is not None:
        order = content_order(train, codes)
        train, labels, codes = train[order], labels[order], codes[order]
    apart = None if groups is None else group_codes(groups, len(train))
    if apart is not None and shots is not None:
        apart = apart[order]
    subsets = [np.arange(len(train))] if shots is None else few_shot_draws(labels, shots, draws, seed)
    results: list[dict[str, Any]] = []
    for number, rows in enumerate(subsets):
        fitted = Probe(grid, validation, standardise, iterations, seed + number)
        fitted.fit(train[rows], codes[rows], None if apart is None else apart[rows])
        correct = classes[fitted.predict(test)] == test_labels
        figures = {"value": float(correct.mean()), "mean_per_class": mean_per_class(correct, test_labels)}
        chosen = {name: getattr(fitted, f"{name}_") for name in ("penalty", "validation", "converged")}
        results.append(figures | chosen | {"train_rows": len(rows)})
    settings = {
        "penalties": list(grid),
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
