"""Blocks made by hand, without a network: of rows that no label is about, and of classes that overlap."""

import numpy as np

WHOLE, CUT = {"views": "whole", "passes": 1}, {"views": "simclr", "passes": 9}
INFO = {
    "embedding": {"family": "embedding", **WHOLE},
    "cls-1": {"family": "layers", **WHOLE},
    "simclr.views": {"family": "views", **CUT},
    "kl": {"family": "gradients", **WHOLE},
    "simclr": {"family": "gradients", **CUT},
}


def unlabelled_blocks(rows, seed=0, **blocks):
    """Blocks that share a few directions, of rows that no label is about. blocks: name to width."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((rows, 4))
    widths = blocks or {"embedding": 6, "cls-1": 5, "patches-1": 4, "dino.views": 6, "kl": 7}
    return {
        name: (common @ rng.standard_normal((4, width)) + rng.standard_normal((rows, width))).astype(np.float32)
        for name, width in widths.items()
    }


def classed_blocks(rows, seed=0, names=tuple(INFO), classes=3, **strength):
    """Blocks in which classes stand apart so far (1 where not given), and the labels, by turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(99).standard_normal((classes, 6))
    apart = {name: strength.get(name, 1.0) * centres[labels] for name in names}
    return {name: (mean + rng.standard_normal((rows, 6))).astype(np.float32) for name, mean in apart.items()}, labels
