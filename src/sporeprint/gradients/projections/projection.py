"""Seeded random projections take a gradient to a few hundred numbers."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

from sporeprint.errors import Removed
from sporeprint.gradients.factors import FactorProjection, check_width
from sporeprint.gradients.projections.sparse import Sparse
from sporeprint.gradients.projections.tensorsketch import TensorSketch
from sporeprint.values import check_choice

DENSE_LIMIT_BYTES = 32 * 2**20  # a matrix up to this size is kept unpacked
TILE = 32, 8192  # rows and columns of a packed matrix unpacked at a time: 1 MiB, which stays in a core's cache
GPU_TILE = 256, 65536  # few launches
OUTER_BYTES = 16 * 2**20  # of products of rank 1 that exist at a time


class Projection(Protocol):
    """A fixed linear map from flattened gradients [N, P] to [N, D]."""

    dim: int

    def __call__(self, gradients: Tensor) -> Tensor: ...

    def matrix(self) -> Tensor: ...


class ReadsFactors(Projection, Protocol):
    """A projection that takes the factors [N, T, I] and [N, T, O]: the gradient is not formed."""

    def of_factors(self, inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor: ...


class Rademacher:
    """Its entries are +1 or -1 with probability 1/2 (Achlioptas 2003; the paper's choice), each a bit in memory.

    Row d is the bit stream of PCG64 seeded with (seed, d), which NumPy keeps the same on every platform and in every
    version; so a smaller `dim` is a prefix of a larger one. ViT-B (768 x 590,592) takes 54 MiB, where the dense
    float32 matrix takes 1.7 GiB. The scale is left at one: features are L2-normalised after the projection.
    """

    def __init__(self, dim: int, width: int, seed: int = 0):
        """Draw the bits. dim: D, numbers out. width: P = O * (I + 1), numbers in. seed: of the bits."""
        self.dim, self.width, self.seed = dim, width, seed
        words = -(-width // 64)
        packed = np.empty((dim, words * 8), dtype=np.uint8)
        for row in range(dim):
            raw = np.random.PCG64(np.random.SeedSequence([seed, row])).random_raw(words)
            packed[row] = raw.astype("<u8").view(np.uint8)
        self._packed = torch.from_numpy(np.ascontiguousarray(packed[:, : -(-width // 8)]))
        bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
        self._signs = torch.from_numpy(bits.astype(np.float32) * 2 - 1)  # [256, 8]: the signs in each byte
        self._dense: Tensor | None = None

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project gradients [N, P], of any float type and device. Returns [N, D] of the same type."""
        check_width(gradients, self.width)
        if self.dim * self.width * 4 <= DENSE_LIMIT_BYTES:
            if self._dense is None or self._dense.device != gradients.device:
                self._dense = self._rows(slice(None), gradients.device)
            return gradients @ self._dense.to(gradients.dtype).T
        high, wide = TILE if gradients.device.type == "cpu" else GPU_TILE
        sums = torch.promote_types(gradients.dtype, torch.float32)
        projected = gradients.new_zeros(len(gradients), self.dim, dtype=sums)
        for column in range(0, self.width, wide):
            part = gradients[:, column : column + wide].to(sums)
            for row in range(0, self.dim, high):
                signs = self._rows(slice(row, row + high), gradients.device, slice(column, column + wide))
                projected[:, row : row + high].addmm_(part, signs.to(sums).T)
        return projected.to(gradients.dtype)

    def of_outer(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Project the N products of rows [N, O] and columns [N, I + 1], of which a part exists at a time.

        Each part of the matrix is unpacked once for as many products as fit. Returns [N, D] of their type.
        """
        check_width(torch.empty(0, rows.shape[1] * columns.shape[1]), self.width)
        wide, device = columns.shape[1], columns.device
        most = max(1, OUTER_BYTES // (8 * wide * rows.element_size()))  # of eight rows each: a packed byte has eight
        if len(rows) > most:
            pairs = zip(rows.split(most), columns.split(most), strict=True)
            return torch.cat([self.of_outer(*pair) for pair in pairs])
        step = max(8, OUTER_BYTES // max(1, wide * len(rows) * rows.element_size()) // 8 * 8)
        projected = rows.new_zeros(len(rows), self.dim)
        for at in range(0, rows.shape[1], step):
            part = (rows[:, at : at + step].unsqueeze(2) * columns.unsqueeze(1)).flatten(1)
            signs = self._rows(slice(None), device, slice(at * wide, at * wide + part.shape[1]))
            projected.addmm_(part, signs.to(part).T)
        return projected

    def matrix(self) -> Tensor:
        """Give the float32 [D, P] matrix of +1 and -1, laid out as the row-major [O, I + 1] gradient."""
        return self._rows(slice(None), torch.device("cpu"))

    def _rows(self, rows: slice, device: torch.device, columns: slice = slice(0, None)) -> Tensor:
        """Unpack a part of the matrix. columns: from a multiple of eight on."""
        if self._packed.device != device:
            self._packed, self._signs = self._packed.to(device), self._signs.to(device)
        stop = self.width if columns.stop is None else min(columns.stop, self.width)
        packed = self._packed[rows, columns.start // 8 : -(-stop // 8)]
        signs = torch.nn.functional.embedding(packed.int(), self._signs)  # [rows, bytes, 8]
        return signs.flatten(1)[:, : stop - columns.start]


class Dense:
    """A projection by the matrix [D, P] that the user gives."""

    def __init__(self, matrix: Tensor):
        self.dim, self.width = matrix.shape
        self._matrix = matrix.detach()

    def __call__(self, gradients: Tensor) -> Tensor:
        """Project gradients [N, P]. Returns [N, D] of the same type."""
        check_width(gradients, self.width)
        self._matrix = self._matrix.to(gradients.device)
        return gradients @ self._matrix.to(gradients.dtype).T

    def matrix(self) -> Tensor:
        """Give the [D, P] matrix."""
        return self._matrix


PROJECTIONS: dict[str, type[Rademacher | FactorProjection]] = {
    "rademacher": Rademacher,
    "tensorsketch": TensorSketch,
    "sparse": Sparse,
}
REMOVED = {  # names that recipes of earlier versions hold
    "kronecker": "it kept the cosines of gradients that share a factor badly (62.5 % where rademacher has 71.5 %, "
    "docs/projections.md); use tensorsketch, which costs as little, or sparse",
}


def check_projection_name(name: Any) -> None:
    """Raises RecipeError for all but the names of PROJECTIONS."""
    if isinstance(name, str) and name in REMOVED:
        raise Removed(f"projection {name!r} was removed: {REMOVED[name]}")
    check_choice("projection", name, PROJECTIONS)


def make_projection(name: str, dim: int, shape: tuple[int, int], seed: int) -> Projection:
    """Make the projection that a recipe names, of a gradient [O, I + 1] (without a bias [O, I])."""
    kind = PROJECTIONS[name]
    return kind(dim, shape, seed) if issubclass(kind, FactorProjection) else kind(dim, math.prod(shape), seed)


def reads_factors(projection: Projection) -> TypeGuard[ReadsFactors]:
    """This says whether a projection, ours or a user's, has `of_factors`."""
    return callable(getattr(projection, "of_factors", None))


def normalise(rows: Tensor) -> Tensor:
    """L2-normalise rows [N, D] in at least float32; a row of zeros stays zero.

    Rows are first divided by their largest entry: KL gradients are near 1e-9 and their squares would underflow.
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()
    largest = rows.abs().amax(dim=-1, keepdim=True)
    rows = rows / torch.where(largest > 0, largest, torch.ones_like(largest))
    norms = rows.norm(dim=-1, keepdim=True)
    return rows / torch.where(norms > 0, norms, torch.ones_like(norms))
