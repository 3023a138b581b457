"""Small rows of features with labels, for tests of predictors."""

import numpy as np


def clusters(count, width, classes, seed, spread=0.7):
    """Rows [count, width] around one centre a class, and their labels "a", "b", ...: every class is there."""
    draw = np.random.default_rng(seed)
    codes = draw.permutation(np.arange(count) % classes)
    rows = draw.normal(size=(classes, width))[codes] + spread * draw.normal(size=(count, width))
    return rows, np.array([chr(ord("a") + code) for code in codes])
