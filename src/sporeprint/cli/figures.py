"""The figures of each kind of result that a table shows, under which heads, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

WHITE_MEANS = "white: each block whitened by itself as --whiten auto does, in full or with the exponent given"
MEANINGS = ("passes: backbone passes a row", WHITE_MEANS)


def percent(value: float, spread: float | None = None) -> str:
    """A fraction in percent; a dash where there is no such figure."""
    text = "-" if math.isnan(value) else f"{value:.1%}"
    return text if spread is None else f"{text} ± {spread:.1%}"


def number(value: float, digits: int = 3) -> str:
    """A number with this many digits; a dash where there is no such figure."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _probe(result: Any) -> dict[str, str]:
    chosen = {draw["penalty"] for draw in result.draws} or {result.penalty}  # every draw has its own
    penalties = sorted(penalty for penalty in chosen if penalty is not None)
    penalty = ", ".join(f"{penalty:g}" for penalty in penalties) or "-"
    return {
        "top-1": percent(result.value, result.spread),
        "class": percent(result.mean_per_class, result.mean_per_class_spread),
        "penalty": penalty if result.converged else f"{penalty} (not converged)",
    }


def _several(result: Any) -> dict[str, str]:
    penalty = "-" if result.penalty is None else f"{result.penalty:g}"
    return {
        "mAP": percent(result.value),
        "micro": percent(result.micro),
        "labels": str(len(result.per_class)),
        "penalty": penalty if result.converged else f"{penalty} (not converged)",
    }


def _cluster(result: Any) -> dict[str, str]:
    shown = {"accuracy": percent(result.value, result.spread), "NMI": number(result.nmi), "ARI": number(result.ari)}
    return shown | {"clusters": str(result.clusters), "least inertia": percent(result.least_inertia["accuracy"])}


def _retrieve(result: Any) -> dict[str, str]:
    shown = {"mAP": percent(result.value)}
    shown |= {f"mP@{k}": percent(value) for k, value in result.precision_at.items()}
    shown |= {f"recall@{k}": percent(value) for k, value in result.recall_at.items()}
    return shown | {"queries": str(result.queries), "left out": str(result.left_out)}


def _revisited(result: Any) -> dict[str, str]:
    shown = {f"{name} mAP": percent(value) for name, value in result.mean_precision.items()}
    return shown | {
        f"{name} mP@{k}": percent(value)
        for name in ("medium", "hard")
        for k, value in result.precision_at[name].items()
    }  # fmt: skip


def _regress(result: Any) -> dict[str, str]:
    def mean(values: Any) -> float:
        there = [value for value in values if not math.isnan(value)]
        return sum(there) / len(there) if there else float("nan")

    shown = {"R^2": number(result.value), "MAE": f"{mean(result.mae):.4g}", "RMSE": f"{mean(result.rmse):.4g}"}
    shown["Spearman"] = number(mean(result.spearman))
    if result.k is not None:
        return shown | {"k": str(result.k)}
    penalties = sorted(set(result.penalty or ()))
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
