"""Calibration: one temperature, fitted on left-out rows, turns scores into probabilities (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def probabilities(scores: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return softmax(scores / temperature) of scores [N, C]; a score of minus infinity has probability 0."""
    apart = scores - scores.max(axis=1, keepdims=True)
    chances = np.exp(apart / temperature)
    return chances / chances.sum(axis=1, keepdims=True)


def temperature(scores: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Return the temperature with the least mean log loss on rows [N, C] of classes `codes` [N].

    Rows whose own class has a score of minus infinity, which no temperature changes, have no say. Where no row is left,
    and where all scores of each row are equal, it is 1. It stays between the spread of the scores divided by 10,000 and
    times 10,000, so rows that are all right do not make every answer certain: half a row is counted as wrong.
    """
    from scipy.optimize import minimize_scalar

    own = scores[np.arange(len(codes)), codes]
    good = np.isfinite(own)
    if not good.any():
        return 1.0
    apart = scores[good] - scores[good].max(axis=1, keepdims=True)
    known = np.where(np.isfinite(apart), apart, 0.0)
    spread = float(np.abs(known).mean())
    if spread < 1e-300:
        return 1.0
    count, classes = apart.shape
    # A share of the truth is spread over all classes: of separable rows the best temperature would be 0.
    share = 0.5 / (count + 1)
    truth = (1 - share) * known[np.arange(count), codes[good]] + share * known.sum(axis=1) / classes
    mean_truth = float(truth.mean())
    chances, ones = np.empty_like(apart), np.ones(classes)

    def loss(logarithm: float) -> float:
        width = spread * np.exp(logarithm)
        np.divide(apart, width, out=chances)
        np.exp(chances, out=chances)
        return float(np.log(chances @ ones).sum()) / count - mean_truth / width

    best = minimize_scalar(loss, bounds=(-9.2, 9.2), method="bounded", options={"xatol": 1e-3})
    return spread * float(np.exp(best.x))
