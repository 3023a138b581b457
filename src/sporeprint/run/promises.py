"""What must be said where labelled test rows clearly fare worse than the training rows promise."""

from __future__ import annotations

import math

from sporeprint.run.row_groups import GROUP_FLAG

_CHANCE = 0.01  # of as few or fewer, had the rows been drawn as the training rows were


def clearly_fewer(right: int, rows: int, promised: int, of: int) -> bool:
    """Whether `right` of `rows` is fewer than chance explains, where of `of` training rows `promised` were right.

    Both counts are a matter of chance: with a flat prior the number of right rows is beta-binomial. Features and
    predictor were chosen on these training rows, which makes them look better, so one standard error is taken off.

    >>> from sporeprint.run.promises import clearly_fewer
    >>> clearly_fewer(75, 100, 180, 200), clearly_fewer(8, 10, 18, 20)
    (True, False)
    """
    from scipy.stats import betabinom

    expected = promised - math.sqrt(promised * (of - promised) / of)
    return bool(betabinom.cdf(right, rows, expected + 1, of - expected + 1) < _CHANCE)


def accuracy_note(right: int, rows: int, held_out_right: int, training: int) -> list[str]:
    """A sentence where test rows are clearly right less often than training rows that were held out."""
    if not clearly_fewer(right, rows, held_out_right, training):
        return []
    return [
        f"the test rows are right clearly less often than held-out training rows ({right / rows:.1%} of {rows}, "
        f"{held_out_right / training:.1%} of {training}): are they other data, or do several training rows come from "
        f"one source, such as a video or a speaker? then give {GROUP_FLAG}"
    ]


def coverage_note(held: int, rows: int, training: int, error: float) -> list[str]:
    """A sentence where clearly fewer sets of test rows hold the true label than `error` allows.

    The share that does is itself a matter of chance, of the training rows: a beta distribution (Vovk 2012).
    """
    lacking = math.floor(error * (training + 1) + 1e-9)
    if not clearly_fewer(held, rows, training - lacking, training - 1):
        return []
    return [
        f"clearly fewer sets hold the true label than an error of {error:g} allows ({held / rows:.1%} of {rows}): the "
        "test rows seem to be drawn otherwise than the training rows, and the error does not hold for them"
    ]
