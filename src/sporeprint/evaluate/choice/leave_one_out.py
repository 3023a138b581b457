"""Leave-one-out of many combinations of the same blocks, whitened once, similarities added up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.combine import Combination
from sporeprint.features.unit import unit
from sporeprint.features.whiten import Axes
from sporeprint.predictors.checks import label_array, labels_of
from sporeprint.predictors.knn import CANDIDATES, counts_of
from sporeprint.predictors.votes import winners
from sporeprint.search.best_rows import slices
from sporeprint.search.ties import places_of

_DISTANCES = 2**20  # at a time: 4 MiB
_ROUNDING = 2.0**-20  # of squared distances, relative to the greatest length; products in float32 lose a few 2^-24

MOST_ROWS = 3000  # labelled rows that leave-one-out looks at: 36 MB a matrix of similarities


def silent(step: str) -> None:
    """The progress of who asked for none."""


@quiet_floats
def leave_one_out_of(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination],
    ks: Sequence[int] = CANDIDATES,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    progress: Callable[[str], None] = silent,
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """Whether the other labelled rows vote rightly for each labelled row, by candidate and k: {name: {k: [rows]}}.

    Every k below their number is tried; of more than `most_rows` labelled rows, those drawn by `seed` stand for all.
    Votes and ties are as in `knn_predict`. A joined feature's similarities are the weighed sum of its blocks', so each
    block is whitened, and multiplied with itself, once for all: `neighbours` would search every candidate's joined rows
    again. progress: called with each candidate as its turn comes. Raises SampleError as `select`.
    """
    blocks, counts = _checked(blocks, candidates), counts_of(ks)
    rows, codes = _labelled(blocks, labels, most_rows, seed)
    finite = np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
    if not finite.all():
        blocks = {name: block[finite] for name, block in blocks.items()}
        rows = np.searchsorted(np.flatnonzero(finite), rows)
    possible = [k for k in counts if k < len(rows)]
    if not possible:
        raise SampleError(f"{len(rows)} labelled rows, k of {counts}; expected a k below the number of rows")
    rights: dict[str, dict[int, NDArray[np.bool_]]] = {}
    whiteners: dict[tuple[str, Any], Axes] = {}
    whitenings = dict.fromkeys((combination.whiten, combination.exponent) for combination in candidates.values())
    for whitening in whitenings:  # one at a time: only the similarities of one whitening are held
        shared: dict[tuple[str, ...], NDArray[np.float32]] = {}
        for name, combination in candidates.items():
            if (combination.whiten, combination.exponent) != whitening:
                continue
            progress(f"choosing: {name} ({len(rights) + 1} of {len(candidates)})")
            similar = np.zeros((len(rows), len(rows)), np.float32)
            for members, weight in _groups(combination, list(blocks)):
                if members not in shared:
                    shared[members] = _similar(blocks, members, combination, rows, whiteners)
                similar += np.float32(weight**2) * shared[members]
            rights[name] = _right(similar, codes, possible)
    return {name: rights[name] for name in candidates}


def _checked(blocks: Blocks, candidates: Mapping[str, Combination]) -> dict[str, NDArray[Any]]:
    arrays = {name: np.asarray(block) for name, block in blocks.items()}
    shapes = {name: block.shape for name, block in arrays.items()}
    if (
        not shapes
        or any(len(shape) != 2 for shape in shapes.values())
        or len({shape[0] for shape in shapes.values()}) > 1
    ):
        raise SampleError(f"blocks have shapes {shapes}; expected [rows, dimensions], the same rows in each")
    for title, combination in candidates.items():
        if not isinstance(combination, Combination):
            raise SampleError(f"candidate {title!r} is a {type(combination).__name__}; expected a Combination(...)")
        if combination.size is not None:
            raise SampleError(f"candidate {title!r} has size={combination.size}; choose first, then reduce")
        if missing := [name for name in combination.members(arrays) if name not in arrays]:
            raise SampleError(f"candidate {title!r} takes block {missing[0]!r}; there are: {', '.join(arrays)}")
    return arrays


def _labelled(blocks: Blocks, labels: ArrayLike, most: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows that have a label and no NaN, and the codes of their labels."""
    total = len(next(iter(blocks.values())))
    given = label_array(labels)
    if given.shape != (total,):
        raise SampleError(f"labels have shape {given.shape} for {total} rows; expected one label a row, None for none")
    if given.dtype.kind == "O":
        has = np.array([not _is_missing(label) for label in given], bool)
    else:
        has = ~np.isnan(given) if given.dtype.kind == "f" else np.ones(total, bool)
    for block in blocks.values():
        has &= np.isfinite(block).all(axis=1)
    rows = np.flatnonzero(has)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    if len(rows) < 2:
        raise SampleError(f"{len(rows)} rows with a label and features; expected at least two to leave one out")
    return rows, np.unique(labels_of(given[rows], len(rows), "train"), return_inverse=True)[1]


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, (float, np.floating)) and bool(np.isnan(label)))


def _groups(combination: Combination, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], float]]:
    """The blocks of each weight and family, since candidates share families."""
    groups: dict[tuple[str, float], list[str]] = {}
    for name, weight in combination.members(names).items():
        groups.setdefault((family(name), weight), []).append(name)
    for (_, weight), members in groups.items():
        yield tuple(members), weight


def _similar(
    blocks: Blocks,
    members: tuple[str, ...],
    combination: Combination,
    rows: NDArray[np.intp],
    whiteners: dict[tuple[str, Any], Axes],
) -> NDArray[np.float32]:
    total = np.zeros((len(rows), len(rows)), np.float32)
    for name in members:
        alone = Combination((name,), combination.whiten, exponent=combination.exponent)
        combiner = alone.fit({name: blocks[name]}, whiteners)
        part = unit(combiner.join({name: blocks[name][rows]}))
        total += part @ part.T
    return total


def _right(similar: NDArray[np.float32], codes: NDArray[np.intp], ks: Sequence[int]) -> dict[int, NDArray[np.bool_]]:
    most, classes = max(ks), int(codes.max()) + 1
    lengths = np.diagonal(similar)
    rounding = _ROUNDING * max(1.0, float(lengths.max()))
    right = {k: np.empty(len(codes), bool) for k in ks}
    for part in slices(len(codes), _DISTANCES, len(codes)):
        squares = lengths - 2 * similar[part]  # and the row's own length, which changes no order
        squares[np.arange(len(squares)), np.arange(part.start, part.stop)] = np.inf
        last = np.partition(squares, most - 1, axis=1)[:, most - 1]
        width = int((squares <= last[:, None] + rounding).sum(axis=1).max())  # with all that tie for the last place
        near = np.argpartition(squares, width - 1, axis=1)[:, :width]
        apart = np.take_along_axis(squares, near, 1)
        order = np.argsort(apart, axis=1)
        near, apart = np.take_along_axis(near, order, 1), _snapped(np.take_along_axis(apart, order, 1), rounding)
        for k in ks:
            right[k][part] = winners(codes[near], places_of(apart, k), apart, classes) == codes[part]
    return right


def _snapped(distances: NDArray[np.float32], rounding: float) -> NDArray[np.float64]:
    """Distances [n, K], rising, where those that only rounding keeps apart are equal."""
    steps = np.diff(distances, axis=1, prepend=-np.inf)
    firsts = np.maximum.accumulate(np.where(steps > rounding, np.arange(distances.shape[1]), 0), axis=1)
    return np.take_along_axis(distances, firsts, 1).astype(np.float64)
