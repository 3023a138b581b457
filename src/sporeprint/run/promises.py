"""What must be said where labelled test rows surely fare worse than the training rows promise."""

from __future__ import annotations

import math

from sporeprint.run.row_groups import GROUP_FLAG

_SURE = 0.05  # the chance of as few or fewer, had the rows been drawn as the training rows were


def surely_fewer(right: int, rows: int, promised: int, of: int) -> bool:
    """Whether `right` of `rows` is surely (95 %) fewer than others of which `promised` of `of` were right let expect.

    Both counts are a matter of chance: with a flat prior the number of right rows is beta-binomial.

    >>> from sporeprint.run.promises import surely_fewer
    >>> surely_fewer(80, 100, 180, 200), surely_fewer(8, 10, 18, 20)
    (True, False)
    """
    from scipy.stats import betabinom

    return bool(betabinom.cdf(right, rows, promised + 1, of - promised + 1) < _SURE)


def accuracy_note(right: int, rows: int, held_out_right: int, training: int) -> list[str]:
    """A sentence where test rows are surely right less often than training rows that were held out."""
    if not surely_fewer(right, rows, held_out_right, training):
        return []
    return [
        f"the test rows are surely right less often than held-out training rows ({right / rows:.1%} of {rows}, "
        f"{held_out_right / training:.1%} of {training}): are they other data, or do several training rows come from "
        f"one source, such as a video or a speaker? then give {GROUP_FLAG}"
    ]


def coverage_note(held: int, rows: int, training: int, error: float) -> list[str]:
    """A sentence where surely fewer sets of test rows hold the true label than `error` allows.

    The share that does is itself a matter of chance, of the training rows: a beta distribution (Vovk 2012).
    """
    lacking = math.floor(error * (training + 1) + 1e-9)
    if not surely_fewer(held, rows, training - lacking, training - 1):
        return []
    return [
        f"surely fewer sets hold the true label than an error of {error:g} allows ({held / rows:.1%} of {rows}): the "
        "test rows are not drawn as the training rows were, and the error does not hold for them"
    ]
