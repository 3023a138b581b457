"""The figures of each kind of result that a table shows, under which heads, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from sporeprint.cli.print_tables import Column
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.table import Entry

WHITE_MEANS = "white: each block whitened by itself as --whiten auto does, in full or with the exponent given"
METHODS = {"knn": "kNN", "ridge": "ridge"}  # of a regression
NONE = "-"  # where there is no figure


@dataclass(frozen=True)
class Figure:
    """A column of figures. text: an entry's figure as a table shows it."""

    column: Column
    text: Callable[[Entry], str]


def percent(value: float, spread: float | None = None) -> str:
    """A fraction in percent, whose sign is in the column's head."""
    return number(100 * value, 1) if spread is None else f"{percent(value)} ± {percent(spread)}"


def number(value: float, digits: int = 3) -> str:
    """A number with this many digits after the point; a dash where there is no such figure."""
    return NONE if math.isnan(value) else f"{round(value, digits) + 0.0:,.{digits}f}"  # + 0.0: no "-0.0"


def signed(value: float, digits: int = 1) -> str:
    """The same with its sign."""
    return NONE if math.isnan(value) else f"{round(value, digits) + 0.0:+,.{digits}f}"


def points(fraction: float) -> str:
    """A difference of two fractions, in points."""
    return signed(100 * fraction)


def between(interval: Interval, show: Callable[[float], str]) -> str:
    """Both ends of an interval; a dash where there is none."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return NONE
    return f"{show(interval.low)} to {show(interval.high)}"


def alike(values: Iterable[float]) -> Callable[[float], str]:
    """How to show numbers of unknown size: the same digits after the point for all, four of the largest in all."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    digits = max(0, 3 - math.floor(math.log10(largest))) if largest else 1
    return lambda value: number(value, min(digits, 12))


def whole(values: Iterable[float]) -> Callable[[float], str]:
    """How to show counts such as passes: without a point unless one of them has a fraction."""
    digits = 0 if all(value == int(value) for value in values) else 1
    return lambda value: number(value, digits)


@dataclass(frozen=True)
class Kind:
    """How the results of a command are shown.

    headline: what `Result.value` is called. figures: the columns, that of the headline first, or where `first` says.
    share: whether the value is a fraction, shown in percent. keeps: what leave-one-out does where the embedding stays.
    """

    headline: str
    figures: Callable[[Sequence[Entry]], list[Figure]]
    share: bool = True
    first: int = 0
    keeps: str = "finds nothing surely better"

    def value(self, value: float) -> str:
        """The headline figure in a sentence."""
        return f"{percent(value)}%" if self.share and not math.isnan(value) else number(value)

    def gain(self, value: float) -> str:
        """A difference of two headline figures, without its unit."""
        return points(value) if self.share else signed(value, 3)

    @property
    def unit(self) -> str:
        """Of such a difference."""
        return " points" if self.share else ""


def leave_one_out(entry: Entry) -> float:
    """The best leave-one-out figure on the training rows; NaN where nothing was chosen by it."""
    given = getattr(entry.result, "leave_one_out", math.nan)
    return max(given.values(), default=math.nan) if isinstance(given, dict) else float(given)


def _figure(
    name: str, text: Callable[[Any], str], meaning: str = "", extra: bool = False, k: str | None = None
) -> Figure:
    """A figure of an entry's result, or of that for one k."""
    return Figure(Column(name, meaning, extra), lambda entry: text(entry.result if k is None else entry.results[k]))


def _mean(result: Any) -> str:
    return percent(result.value, result.spread)


def _class(extra: bool = True) -> Figure:
    return _figure(
        "class %",
        lambda result: percent(result.mean_per_class, result.mean_per_class_spread),
        "class: mean of the classes' accuracies",
        extra,
    )


_MAP = "mAP: mean of the labels' average precisions"
_MICRO = _figure(
    "micro %",
    lambda result: percent(result.micro),
    "micro: average precision of all pairs of a row and a label",
    extra=True,
)


def _knn(entries: Sequence[Entry]) -> list[Figure]:
    results = entries[0].results
    several = hasattr(entries[0].result, "micro")
    name = "mAP" if several else "top-1"
    shown = [] if "auto" not in results else [
        _figure(f"{name} %", _mean, _MAP if several else ""),
        _figure("k", lambda result: ", ".join(map(str, sorted(set(getattr(result, "ks", ()))) or [result.k])), "k: chosen by leave-one-out on the training rows"),
        Figure(Column("leave-one-out %", "leave-one-out: accuracy on the training rows with that k", True), lambda entry: percent(leave_one_out(entry))),
    ]  # fmt: skip
    fixed = [_figure(f"{name}, k={k} %", _mean, extra=bool(shown), k=k) for k in results if k != "auto"]
    return [*shown, *fixed, _MICRO if several else _class()]


def _penalties(result: Any) -> str:
    chosen = {draw["penalty"] for draw in getattr(result, "draws", ())} or {result.penalty}  # every draw has its own
    penalties = chosen if not isinstance(result.penalty, tuple) else set(result.penalty)
    text = ", ".join(f"{penalty:g}" for penalty in sorted(value for value in penalties if value is not None)) or NONE
    return text if getattr(result, "converged", True) else f"{text} (not converged)"


def _probe(entries: Sequence[Entry]) -> list[Figure]:
    meaning = "penalty: of the squared weights, chosen on held-out training rows"
    return [_figure("top-1 %", _mean), _class(extra=False), _figure("penalty", _penalties, meaning, extra=True)]


def _several(entries: Sequence[Entry]) -> list[Figure]:
    return [
        _figure("mAP %", _mean, _MAP),
        _MICRO,
        _figure("labels", lambda result: f"{len(result.per_class):,}", "labels: those that a test row has", extra=True),
        _figure("penalty", _penalties, "penalty: chosen on held-out training rows", extra=True),
    ]


def _cluster(entries: Sequence[Entry]) -> list[Figure]:
    return [
        _figure(
            "accuracy %",
            _mean,
            "accuracy: of clusters matched to classes one to one, mean and standard deviation of the starts",
        ),
        _figure("NMI", lambda result: number(result.nmi)),
        _figure("ARI", lambda result: number(result.ari)),
        _figure("clusters", lambda result: f"{result.clusters:,}", extra=True),
        _figure(
            "least inertia %",
            lambda result: percent(result.least_inertia["accuracy"]),
            "least inertia: accuracy of the start that k-means itself prefers",
            extra=True,
        ),
    ]


def _at(name: str, *keys: Any) -> Callable[[Any], str]:
    return lambda result: percent(reduce(getitem, keys, getattr(result, name)))


def _retrieve(entries: Sequence[Entry]) -> list[Figure]:
    ks = list(entries[0].result.precision_at)
    precision, recall = (
        "share of the first k that is relevant",
        "share of queries with a relevant row among the first k",
    )
    few = "mP@k is below 100% where a query has fewer than k relevant rows, however good the features are"
    figures = [_figure("mAP %", _mean)]
    for k in ks:
        meaning = f"mP@k: {precision}; {few}" if k == ks[0] else ""
        figures.append(_figure(f"mP@{k} %", _at("precision_at", k), meaning, k != ks[0]))
    for k in ks:
        meaning = f"recall@k: {recall}" if k == ks[-1] else ""
        figures.append(_figure(f"recall@{k} %", _at("recall_at", k), meaning, k != ks[-1]))
    return [
        *figures,
        _figure("queries", lambda result: f"{result.queries:,}", extra=True),
        _figure(
            "left out", lambda result: f"{result.left_out:,}", "left out: queries with nothing to find", extra=True
        ),
    ]


def _revisited(entries: Sequence[Entry]) -> list[Figure]:
    first = entries[0].result
    names = sorted(first.mean_precision, key=lambda name: name != "medium")  # the headline first
    figures = [
        _figure(
            f"{name} mAP %",
            _at("mean_precision", name),
            "mAP and mP@k as in the official code of revisited Oxford and Paris" if name == names[0] else "",
        )
        for name in names
    ]
    return figures + [
        _figure(f"{name} mP@{k} %", _at("precision_at", name, k), extra=True)
        for name in ("medium", "hard")
        for k in first.precision_at[name]
    ]


def _regress(entries: Sequence[Entry]) -> list[Figure]:
    def mean(values: Sequence[float]) -> float:
        there = [value for value in values if not math.isnan(value)]
        return sum(there) / len(there) if there else math.nan

    mae = alike(mean(entry.result.mae) for entry in entries)
    rmse = alike(mean(entry.result.rmse) for entry in entries)
    return [
        _figure("method", lambda result: METHODS[result.method]),
        _figure(
            "leave-one-out",
            lambda result: number(result.leave_one_out_value),
            "leave-one-out: R^2 on the training rows, which chooses features, method, k and penalty, where not given",
        ),
        _figure(
            "R^2", lambda result: number(result.value), "R^2: on the test rows; 1 is perfect, 0 as good as the mean"
        ),
        _figure(
            "MAE", lambda result: mae(mean(result.mae)), "MAE, RMSE: in the target's unit; means of several targets"
        ),
        _figure("RMSE", lambda result: rmse(mean(result.rmse)), extra=True),
        _figure("Spearman", lambda result: number(mean(result.spearman)), extra=True),
        _figure(
            "k or penalty", lambda result: _penalties(result) if result.k is None else f"k = {result.k}", extra=True
        ),
    ]


KINDS = {
    "knn": Kind("top-1", _knn),
    "knn of several": Kind("mAP", _knn),
    "probe": Kind("top-1", _probe),
    "several": Kind("mAP", _several),
    "cluster": Kind("matched accuracy", _cluster),
    "retrieve": Kind("mAP", _retrieve),
    "revisited": Kind("medium mAP", _revisited),
    "regress": Kind("R^2", _regress, share=False, first=2, keeps="finds nothing better"),
}
