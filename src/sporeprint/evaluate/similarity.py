"""What blocks have in common (CKA), and how much of their width they use (effective rank, anisotropy)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.checks import features_of
from sporeprint.features.unit import unit_float64

_CHUNK_VALUES = 2**22  # of one block, held as float64 at a time: 32 MB
_ROUNDING = 1e-12  # of what is left where terms of size 1 should cancel


class _Centred(NamedTuple):
    """A block as its deviations from the mean row, made a chunk at a time; a constant one gives exact zeros."""

    rows: NDArray[Any]
    scale: float
    first: NDArray[np.float64]
    mean: NDArray[np.float64]  # of the scaled rows' differences from the first

    def chunk(self, at: slice) -> NDArray[np.float64]:
        return self.rows[at].astype(np.float64) / self.scale - self.first - self.mean


class _Overlap(NamedTuple):
    """|A'B|^2 of two centred blocks, and HSIC without bias, times N (N - 3)."""

    plain: float
    debiased: float


def cka(a: ArrayLike, b: ArrayLike, debiased: bool = True) -> float:
    """Linear centred kernel alignment of two blocks [N, D1], [N, D2] of the same rows: 1 where they say the same.

    Kornblith et al. 2019: |A'B|^2 / (|A'A| |B'B|) of the centred blocks; rotation and scale do not matter. That
    estimator grows with width: two unrelated blocks have about D / (N + D), 0.29 at N = 1,000 and D = 400, and near 1
    where D is far above N. So by default HSIC is estimated without bias (Song et al. 2012; Nguyen et al. 2021), which
    gives unrelated blocks 0 on average, a little less at times. In float64, D1 x D2 numbers at a time, never N x N.
    Returns NaN where there is nothing to compare: a constant block, one row; debiased also fewer than 4 rows, or rows
    all equally far apart. Duplicate rows count as often as they stand there.
    Raises SampleError for rows with NaN and for blocks of different row counts.
    """
    return float(cka_matrix({"first": a, "second": b}, debiased)[1][0, 1])


def cka_matrix(blocks: Mapping[str, ArrayLike], debiased: bool = True) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names in their order and `cka` of every two blocks [B, B]; a block that cannot be compared is NaN throughout."""
    if not blocks:
        raise SampleError("no blocks to compare; expected at least one")
    centred = [_centre(rows, f"block {name!r}") for name, rows in blocks.items()]
    counts = {name: len(block.rows) for name, block in zip(blocks, centred, strict=True)}
    if len(set(counts.values())) > 1:
        seen = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise SampleError(f"blocks have different numbers of rows: {seen}; expected the same rows in each")
    norms = [_norm(block, debiased) for block in centred]
    matrix = np.full((len(centred), len(centred)), np.nan)
    for i, (one, norm) in enumerate(zip(centred, norms, strict=True)):
        if norm:
            matrix[i, i] = 1.0
        for j in range(i):
            if norm and norms[j]:
                overlap = _overlap(one, centred[j])
                cosine = (overlap.debiased if debiased else overlap.plain) / (norm * norms[j])
                matrix[i, j] = matrix[j, i] = min(1.0, max(-1.0, cosine))
    return tuple(blocks), matrix


def effective_rank(rows: ArrayLike) -> float:
    """How many directions [N, D] rows spread over: exp of the entropy of the shares of variance, in [1, min(N - 1, D)].

    Roy & Vetterli 2007, of the covariance matrix: the shares are its eigenvalues over their sum. (Of the rows' singular
    values, as in RankMe, the figure would be larger.) Few rows see few directions: compare at the same N. Duplicate
    rows count as often as they stand there. 0 of a constant block and of one row, which have no variance.
    """
    block = _centre(rows, "block")
    covariance = np.zeros((block.rows.shape[1],) * 2)
    for at in _chunks(block.rows):
        deviations = block.chunk(at)
        covariance += deviations.T @ deviations
    variances = np.linalg.eigvalsh(covariance).clip(min=0)
    if not variances.any():
        return 0.0
    shares = variances[variances > 0] / variances.sum()
    return math.exp(-(shares @ np.log(shares)))


def anisotropy(rows: ArrayLike) -> float:
    """Mean cosine of two different rows of [N, D]: 0 where they point everywhere, 1 where all point the same way.

    Ethayarajh 2019, there of random pairs; here exactly of all pairs, since the cosines of all pairs add up to
    |sum of unit rows|^2, less 1 for each row with itself. Rows are not centred. A duplicate is another row. Rows of
    zeros have no direction and are left out; NaN where fewer than two rows have one.
    """
    array = features_of(rows, "block")
    total, count = np.zeros(array.shape[1]), 0
    for at in _chunks(array):
        directions = unit_float64(array[at])
        directions = directions[directions.any(axis=1)]
        total += directions.sum(axis=0)
        count += len(directions)
    if count < 2:
        return math.nan
    return float(np.clip((total @ total - count) / (count * (count - 1)), -1.0, 1.0))


def _chunks(*blocks: NDArray[Any]) -> Iterator[slice]:
    size = max(1, _CHUNK_VALUES // max(block.shape[1] for block in blocks))
    return (slice(at, at + size) for at in range(0, len(blocks[0]), size))


def _centre(rows: ArrayLike, which: str) -> _Centred:
    array = features_of(rows, which)
    scale = max(float(array.max()), -float(array.min())) or 1.0  # fourth powers must neither overflow nor vanish
    unmoved = np.zeros(array.shape[1])
    block = _Centred(array, scale, array[0].astype(np.float64) / scale, unmoved)
    total = sum((block.chunk(at).sum(axis=0) for at in _chunks(array)), unmoved)
    return block._replace(mean=total / len(array))


def _overlap(a: _Centred, b: _Centred) -> _Overlap:
    count = len(a.rows)
    product = np.zeros((a.rows.shape[1], b.rows.shape[1]))
    together = total_a = total_b = 0.0
    for at in _chunks(a.rows, b.rows):
        some_a, some_b = a.chunk(at), b.chunk(at)
        product += some_a.T @ some_b
        squares_a, squares_b = np.einsum("nd,nd->n", some_a, some_a), np.einsum("nd,nd->n", some_b, some_b)
        together += float(squares_a @ squares_b)
        total_a += float(squares_a.sum())
        total_b += float(squares_b.sum())
    plain = float(np.einsum("ij,ij->", product, product))
    if count < 4:
        return _Overlap(plain, 0.0)
    # Song's estimator leaves out the Gram matrices' diagonals, which are the rows' squared norms; centred rows add
    # up to 0, so each remaining row of a Gram matrix adds up to minus its diagonal.
    between = total_a * total_b / ((count - 1) * (count - 2))
    return _Overlap(plain, plain - together * count / (count - 2) + between)


def _norm(block: _Centred, debiased: bool) -> float:
    """Root of the block's overlap with itself; 0 where that is nothing but rounding."""
    own = _overlap(block, block)
    if debiased:
        return math.sqrt(own.debiased) if own.debiased > _ROUNDING * own.plain else 0.0
    return math.sqrt(own.plain)
