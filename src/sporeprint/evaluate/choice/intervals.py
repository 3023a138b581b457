"""How sure a figure is: bootstrap over test rows, or repeated splits where there is no test set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.group_splits import GroupSplits
from sporeprint.predictors.checks import label_array, labels_of
from sporeprint.predictors.groups import group_codes
from sporeprint.values import check_count

_FEW_VALUES = 256  # of different scores; resampling counts is exact for any number, and quicker for few
_CHUNK = 2**20  # numbers drawn at a time: 8 MB


@dataclass(frozen=True)
class Interval:
    """A mean score, or a difference of two, with a confidence interval at `level`; fractions, printed in points.

    low and high are NaN where nothing says how sure the value is (one row, one split).
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    difference: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types; NaN becomes None."""
        return {name: None if value != value else value for name, value in asdict(self).items()}  # JSON has no NaN

    def __str__(self) -> str:
        show, unit = (_points, " points") if self.difference else (_percent, "")
        known = math.isfinite(self.low) and math.isfinite(self.high)
        return f"{show(self.value)}{unit} ({f'{show(self.low)} to {show(self.high)}' if known else 'no interval'})"


@quiet_floats
def bootstrap_difference(
    right_a: ArrayLike,
    right_b: ArrayLike,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Interval:
    """mean(right_b) - mean(right_a) of the same test rows [N], by the percentiles of a paired bootstrap.

    right: whether a row was classified rightly, or any score of it as a fraction (its average precision). Rows are
    drawn with replacement, both scores of a row together. Of few different outcomes only the counts are drawn, which
    is the same (multinomial), so that a million rows of right and wrong take no longer than ten.
    labels: [N], for the difference of mean per-class accuracies. Rows are then drawn within their class, one fewer
    than it has, without which the spread of small classes comes out too small (McCarthy & Snowden 1985). A class of one
    row counts, but shows no spread: with many of them the interval is too narrow.
    groups: [N], such as the video of a frame. Whole groups are then drawn instead of rows, since rows of one group are
    alike; with labels every group must be of one class.
    One row or group, or no class with two, gives no interval (NaN). Where all rows differ by the same, as when both are
    always right, the interval has no width: that says that this sample shows no spread, not that there is none.
    Raises SampleError for scores that are not finite, counts that do not match, and with labels a group of two classes.
    """
    a, b = _scores(right_a, "first"), _scores(right_b, "second")
    if len(a) != len(b):
        raise SampleError(f"{len(a)} scores against {len(b)}; expected two scores of each test row")
    return _bootstrap(b - a, labels, groups, draws, level, seed, difference=True)


@quiet_floats
def bootstrap_mean(
    right: ArrayLike,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Interval:
    """mean(right) of test rows [N], or with labels [N] the mean of the classes' means; as `bootstrap_difference`."""
    return _bootstrap(_scores(right, "test"), labels, groups, draws, level, seed, difference=False)


@quiet_floats
def repeated_splits(
    labels: ArrayLike, test_fraction: float = 0.3, count: int = 10, seed: int = 0, groups: ArrayLike | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """`count` splits of one labelled set [N] into (training rows, test rows), each in order.

    Stratified: of every class test_fraction of its rows, rounded, is tested, at least one row and never all; a class
    of one row is trained on. So small classes can shift the fraction: `len(test) / N` is what it came to, the same in
    every split. Split i is seeded with (seed, i), so more splits leave the first as they are.
    groups: [N]; the rows of a group stay on one side, so the classes' shares are met as well as whole groups allow, and
    differ from split to split. A class of one group is trained on.
    Raises SampleError where every class has one row, or no group can be tested.
    """
    array = label_array(labels)
    if array.ndim != 1 or not len(array):
        raise SampleError(f"labels have shape {array.shape}; expected one label a row, at least one row")
    _check_fraction("test_fraction", test_fraction)
    check_count("count", count, error=SampleError)
    members = _classes(array, len(array), "train")
    sizes = [min(max(1, math.floor(len(rows) * test_fraction + 0.5)), len(rows) - 1) for rows in members]
    if not sum(sizes):
        raise SampleError(f"none of {len(members)} classes has two rows; expected one to test and one to train on")
    whole = None if groups is None else GroupSplits(members, sizes, group_codes(groups, len(array)))
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        tested = np.zeros(len(array), bool)
        if whole is not None:
            tested[whole.tested(rng)] = True
        else:
            for rows, size in zip(members, sizes, strict=True):
                tested[rng.permutation(rows)[:size]] = True
        yield np.flatnonzero(~tested), np.flatnonzero(tested)


@quiet_floats
def split_interval(differences: ArrayLike, test_fraction: float, level: float = 0.95) -> Interval:
    """The mean of the differences [J] seen in J repeated splits, with Nadeau & Bengio's (2003) corrected t interval.

    The splits share rows, so their differences agree more than those of fresh data would: the variance of the mean is
    taken as (1 / J + tested / trained) s^2 instead of s^2 / J. More splits therefore narrow the interval only so far.
    test_fraction: of all rows, as it came to. One split gives no interval (NaN); equal differences one of no width.
    """
    from scipy import stats

    values = _scores(differences, "split")
    _check_fraction("test_fraction", test_fraction)
    _check_fraction("level", level)
    value = float(values.mean())
    if len(values) < 2:
        return Interval(value, math.nan, math.nan, level)
    spread = float(values.std(ddof=1)) if np.ptp(values) else 0.0  # the mean of equal numbers is rounded
    error = math.sqrt(1 / len(values) + test_fraction / (1 - test_fraction)) * spread
    margin = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * error
    return Interval(value, value - margin, value + margin, level)


def _bootstrap(
    scores: NDArray[np.float64],
    labels: ArrayLike | None,
    groups: ArrayLike | None,
    draws: int,
    level: float,
    seed: int,
    difference: bool,
) -> Interval:
    check_count("draws", draws, error=SampleError)
    _check_fraction("level", level)
    codes = np.arange(len(scores)) if groups is None else group_codes(groups, len(scores))
    classes = [np.arange(len(scores))] if labels is None else _classes(labels, len(scores), "test")
    strata = [_units(scores[rows], codes[rows]) for rows in classes]
    if groups is not None and sum(map(len, strata)) > codes.max() + 1:
        raise SampleError("a group has rows of several classes; leave out labels, or split that group by class")
    taken = [len(units) if labels is None else max(1, len(units) - 1) for units in strata]
    rng = np.random.default_rng(seed)
    value = float(np.mean([scores[rows].mean() for rows in classes]))
    if max(map(len, strata)) < 2:
        return Interval(value, math.nan, math.nan, level, difference)
    total = np.zeros(draws)
    for units, size in zip(strata, taken, strict=True):
        total += _resampled_means(units, size, draws, rng)
    low, high = np.quantile(total / len(strata), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, difference)


def _units(scores: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """The sum of the scores of each group, and its number of rows: [G, 2]."""
    of_row = np.unique(codes, return_inverse=True)[1]
    return np.stack([np.bincount(of_row, scores), np.bincount(of_row)], axis=1)


def _resampled_means(
    units: NDArray[np.float64], size: int, draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The mean of the rows of `size` groups [G, 2], drawn with replacement, for each draw: [draws]."""
    values, counts = np.unique(units, axis=0, return_counts=True)
    if len(values) == 1:
        return np.full(draws, values[0, 0] / values[0, 1])
    sums = np.empty((draws, 2))
    if len(values) <= _FEW_VALUES:
        step = _CHUNK // len(values)
        for at in range(0, draws, step):
            drawn = rng.multinomial(size, counts / len(units), min(step, draws - at))
            sums[at : at + step] = drawn @ values
    else:
        for draw in range(draws):
            parts = (min(_CHUNK, size - at) for at in range(0, size, _CHUNK))
            sums[draw] = sum(units[rng.integers(len(units), size=part)].sum(axis=0) for part in parts)
    return sums[:, 0] / sums[:, 1]


def _classes(labels: ArrayLike, rows: int, which: str) -> list[NDArray[np.intp]]:
    """The rows of each class, in order."""
    array = labels_of(labels, rows, which)
    if array.dtype.kind == "f" and (missing := int(np.isnan(array).sum())):
        raise SampleError(f"{missing} of {rows} {which} labels are NaN (missing); drop those rows")
    _, codes, counts = np.unique(array, return_inverse=True, return_counts=True)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])


def _scores(scores: ArrayLike, which: str) -> NDArray[np.float64]:
    array = np.asarray(scores)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "biuf":
        raise SampleError(
            f"{which} scores have shape {array.shape} of {array.dtype}; expected one number or truth value a row, at "
            "least one row"
        )
    if bad := int((~np.isfinite(array)).sum()):
        raise SampleError(f"{bad} of {len(array)} {which} scores are NaN or infinite; drop those rows")
    return array.astype(np.float64)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise SampleError(f"{name}={value!r}; expected a fraction between 0 and 1, both excluded")


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"  # + 0.0: no "-0.0"


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"
