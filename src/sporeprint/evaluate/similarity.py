"""Blocks are compared by CKA; effective rank and anisotropy say how much of its width a block uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.features.unit import unit_float64
from sporeprint.predictors.checks import features_of

_CHUNK_VALUES = 2**22  # numbers of a block held as float64 at a time: 32 MB
_ROUNDING = 1e-12  # most that is left where terms of size 1 should cancel


class _Centred(NamedTuple):
    """A centred block is computed a chunk at a time, as deviations from the mean row; exactly 0 for a constant one."""

    rows: NDArray[Any]
    scale: float
    first: NDArray[np.float64]
    mean: NDArray[np.float64]  # mean difference of the scaled rows from the first

    def chunk(self, at: slice) -> NDArray[np.float64]:
        return self.rows[at].astype(np.float64) / self.scale - self.first - self.mean


class _Overlap(NamedTuple):
    """The overlap of two centred blocks: |A'B|^2, and unbiased HSIC times N (N - 3)."""

    plain: float
    debiased: float


def cka(a: ArrayLike, b: ArrayLike, debiased: bool = True) -> float:
    """Return the linear centred kernel alignment of blocks [N, D1], [N, D2] of the same rows: 1 if they say the same.

    Kornblith et al. 2019: |A'B|^2 / (|A'A| |B'B|) of the centred blocks; rotation and scale do not matter. That
    estimator grows with width: two unrelated blocks have about D / (N + D), 0.29 at N = 1,000 and D = 400, and near 1
    where D is far above N. So by default HSIC is estimated without bias (Song et al. 2012; Nguyen et al. 2021), which
    gives unrelated blocks 0 on average, sometimes slightly less. In float64, D1 x D2 numbers at a time, never N x N.
    Returns NaN where there is nothing to compare: a constant block or one row; debiased, also fewer than 4 rows or rows
    all equally far apart. Duplicate rows all count.
    Raises SampleError for rows with NaN and for blocks of different row counts.
    """
    return float(cka_matrix({"first": a, "second": b}, debiased)[1][0, 1])


@quiet_floats
def cka_matrix(blocks: Mapping[str, ArrayLike], debiased: bool = True) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the names and the `cka` [B, B] of every two blocks; NaN throughout for a block that cannot be compared."""
    if not blocks:
        raise SampleError("no blocks to compare; expected at least one")
    centred = [_centre(rows, f"block {name!r}") for name, rows in blocks.items()]
    counts = {name: len(block.rows) for name, block in zip(blocks, centred, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise SampleError(f"blocks have different numbers of rows: {listed}; expected the same rows in each")
    norms = [_norm(block, debiased) for block in centred]
    matrix = np.full((len(centred), len(centred)), np.nan)
    for i, (block, norm) in enumerate(zip(centred, norms, strict=True)):
        if norm:
            matrix[i, i] = 1.0
        for j in range(i):
            if norm and norms[j]:
                overlap = _overlap(block, centred[j])
                cosine = (overlap.debiased if debiased else overlap.plain) / (norm * norms[j])
                matrix[i, j] = matrix[j, i] = min(1.0, max(-1.0, cosine))
    return tuple(blocks), matrix


@quiet_floats
def effective_rank(rows: ArrayLike) -> float:
    """Return how many directions rows [N, D] spread over: exp(entropy of the variance shares), in [1, min(N - 1, D)].

    Roy & Vetterli 2007, for the covariance matrix: the shares are its eigenvalues over their sum. (Singular values of
    the rows, as in RankMe, would give a larger figure.) Few rows see few directions: compare at the same N. Duplicate
    rows all count. A constant block and a single row, which have no variance, give 0.
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


@quiet_floats
def anisotropy(rows: ArrayLike) -> float:
    """Return the mean cosine of two different rows of [N, D]: 0 if they point everywhere, 1 if all point the same way.

    Ethayarajh 2019 samples pairs; here all pairs count exactly, since the cosines of all pairs add up to
    |sum of unit rows|^2, less 1 for each row with itself. Rows are not centred. A duplicate is another row. Rows of
    zeros have no direction and are left out; NaN where fewer than two rows remain.
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
    zero = np.zeros(array.shape[1])
    block = _Centred(array, scale, array[0].astype(np.float64) / scale, zero)
    total = sum((block.chunk(at).sum(axis=0) for at in _chunks(array)), zero)
    return block._replace(mean=total / len(array))


def _overlap(a: _Centred, b: _Centred) -> _Overlap:
    count = len(a.rows)
    product = np.zeros((a.rows.shape[1], b.rows.shape[1]))
    together = total_a = total_b = 0.0
    for at in _chunks(a.rows, b.rows):
        chunk_a, chunk_b = a.chunk(at), b.chunk(at)
        product += chunk_a.T @ chunk_b
        squares_a, squares_b = np.einsum("nd,nd->n", chunk_a, chunk_a), np.einsum("nd,nd->n", chunk_b, chunk_b)
        together += float(squares_a @ squares_b)
        total_a += float(squares_a.sum())
        total_b += float(squares_b.sum())
    plain = float(np.einsum("ij,ij->", product, product))
    if count < 4:
        return _Overlap(plain, 0.0)
    # Song's estimator leaves out the Gram matrices' diagonals, the rows' squared norms; centred rows add up to 0, so
    # the rest of each row of a Gram matrix adds up to minus its diagonal.
    between = total_a * total_b / ((count - 1) * (count - 2))
    return _Overlap(plain, plain - together * count / (count - 2) + between)


def _norm(block: _Centred, debiased: bool) -> float:
    """Return the root of the block's overlap with itself; 0 where that is only rounding."""
    own = _overlap(block, block)
    if debiased:
        return math.sqrt(own.debiased) if own.debiased > _ROUNDING * own.plain else 0.0
    return math.sqrt(own.plain)
