"""Which figures of a result a table shows, under which heads, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

MEANINGS = ("passes: backbone passes a row", "white: each block whitened (PCA) by itself")


def percent(value: float, spread: float | None = None) -> str:
    """A dash where there is no such figure."""
    said = "-" if math.isnan(value) else f"{value:.1%}"
    return said if spread is None else f"{said} ± {spread:.1%}"


def number(value: float, digits: int = 3) -> str:
    """A dash where there is no such figure."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _probe(one: Any) -> dict[str, str]:
    """Of draws the penalties are each draw's own."""
    found = {one.penalty} if not one.draws else {draw["penalty"] for draw in one.draws}
    penalties = sorted(penalty for penalty in found if penalty is not None)
    said = ", ".join(f"{penalty:g}" for penalty in penalties) or "-"
    return {
        "top-1": percent(one.value, one.spread),
        "class": percent(one.mean_per_class, one.mean_per_class_spread),
        "penalty": said if one.converged else f"{said} (not converged)",
    }


def _several(one: Any) -> dict[str, str]:
    said = "-" if one.penalty is None else f"{one.penalty:g}"
    return {
        "mAP": percent(one.value),
        "micro": percent(one.micro),
        "labels": str(len(one.per_class)),
        "penalty": said if one.converged else f"{said} (not converged)",
    }


def _cluster(one: Any) -> dict[str, str]:
    shown = {"accuracy": percent(one.value, one.spread), "NMI": number(one.nmi), "ARI": number(one.ari)}
    return shown | {"clusters": str(one.clusters), "least inertia": percent(one.least_inertia["accuracy"])}


def _retrieve(one: Any) -> dict[str, str]:
    shown = {"mAP": percent(one.value)}
    shown |= {f"mP@{k}": percent(value) for k, value in one.precision_at.items()}
    shown |= {f"recall@{k}": percent(value) for k, value in one.recall_at.items()}
    return shown | {"queries": str(one.queries), "left out": str(one.left_out)}


def _revisited(one: Any) -> dict[str, str]:
    shown = {f"{name} mAP": percent(value) for name, value in one.mean_precision.items()}
    return shown | {
        f"{name} mP@{k}": percent(value)
        for name in ("medium", "hard")
        for k, value in one.precision_at[name].items()
    }  # fmt: skip


def _regress(one: Any) -> dict[str, str]:
    def mean(values: Any) -> float:
        there = [value for value in values if not math.isnan(value)]
        return sum(there) / len(there) if there else float("nan")

    shown = {"R^2": number(one.value), "MAE": f"{mean(one.mae):.4g}", "RMSE": f"{mean(one.rmse):.4g}"}
    shown["Spearman"] = number(mean(one.spearman))
    if one.k is not None:
        return shown | {"k": str(one.k)}
    penalties = sorted(set(one.penalty or ()))
    return shown | {"penalty": ", ".join(f"{penalty:g}" for penalty in penalties) or "-"}


FIGURES: dict[str, tuple[Callable[[Any], dict[str, str]], tuple[str, ...]]] = {
    "probe": (
        _probe,
        ("class: mean per-class accuracy", "penalty: of the squared weights, chosen on held-out training rows"),
    ),
    "several": (
        _several,
        (
            "mAP: mean of the labels' average precisions",
            "micro: that of all pairs of a row and a label",
            "labels: those that a test row has",
            "penalty: chosen on held-out training rows",
        ),
    ),
    "cluster": (
        _cluster,
        (
            "accuracy: of clusters matched to classes one to one, mean and standard deviation of the starts",
            "least inertia: accuracy of the start that k-means itself prefers",
        ),
    ),
    "retrieve": (
        _retrieve,
        (
            "mP@k: share of the first k that is relevant",
            "recall@k: share of queries with a relevant row among the first k",
            "left out: queries with nothing to find",
        ),
    ),
    "revisited": (_revisited, ("mAP and mP@k as in the official code of revisited Oxford and Paris",)),
    "regress": (
        _regress,
        (
            "R^2: 1 is perfect, 0 as good as the mean",
            "MAE, RMSE: in the target's unit, and of several targets all figures are means",
            "k, penalty: chosen by leave-one-out on the training rows, where not given",
        ),
    ),
}
