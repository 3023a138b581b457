"""Which families to join, how far to even them out, at what weights: chosen by leave-one-out on a user's labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.combine import FAMILIES, Axes, Blocks, Combination, family, unit
from sporeprint.errors import SampleError
from sporeprint.evaluate.knn import CANDIDATES
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.rows import labels_of
from sporeprint.evaluate.votes import winners

EXPONENTS = (0.5, 0.75, 1.0)
MOST_ROWS = 3000  # labelled rows that leave-one-out looks at: 36 MB a matrix of similarities
RAW, WHITE = "embedding", "embedding, white"


@dataclass(frozen=True)
class Selection(Result):
    """value: leave-one-out accuracy of the chosen combination, on the very rows that chose it: a little optimistic.

    name, combination, k: the choice. reference: the better of the raw and the whitened embedding, by leave-one-out.
    gain: leave-one-out accuracy over the reference's. error: its standard error, by the paired rows. table: the
    accuracy of every candidate, each with its best k.
    """

    name: str = ""
    combination: Combination = field(default_factory=Combination)
    k: int = 1
    reference: str = RAW
    gain: float = 0.0
    error: float = 0.0
    table: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        from sporeprint.recipe import to_json

        return {**super().to_json(), "combination": to_json(self.combination)}

    def __str__(self) -> str:
        points = f"{100 * self.gain:+.1f} ± {100 * self.error:.1f} points"
        return f"{self.name}: leave-one-out {self.value:.1%}, k = {self.k}; {points} over {self.reference}"


def select_candidates(names: Sequence[str]) -> dict[str, Combination]:
    """What `select` chooses from by default, for these blocks: the raw and the whitened embedding come first.

    Every set of families that has members, with the embedding and (where there are layers) without; raw, and evened
    out with exponents 0.5, 0.75 and 1; every block alike, and every family alike.
    """
    there = [one for one in FAMILIES if any(family(name) == one for name in names)]
    sets: list[tuple[str, ...]] = [("embedding",)]
    for chosen in _subsets(there):
        sets.append(("embedding", *chosen))
        if "layers" in chosen:
            sets.append(chosen)
    made = {RAW: Combination(("embedding",)), WHITE: Combination(("embedding",), whiten="auto")}
    for blocks in sets:
        title = " + ".join(blocks)
        for exponent in (None, *EXPONENTS):
            how = "raw" if exponent is None else f"white {exponent:g}"
            one = Combination(blocks) if exponent is None else Combination(blocks, "auto", exponent=exponent)
            if one in made.values():
                continue
            made[f"{title}, {how}"] = one
            if len(blocks) > 1:
                made[f"{title}, {how}, families alike"] = replace(one, weights=(1.0,) * len(blocks))
    return made


def _subsets(families: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for bits in range(1, 2 ** len(families)):
        yield tuple(one for at, one in enumerate(families) if bits >> at & 1)


def select(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination] | None = None,
    ks: Sequence[int] = CANDIDATES,
    guard: float = 1.0,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> Selection:
    """The combination with the best leave-one-out kNN accuracy on the labelled rows, k chosen along with it.

    blocks: of the training rows, each [N, D]. labels: [N], None (or NaN) for a row without one: whitening is fitted on
    all rows, which costs no label; leave-one-out asks the labelled ones only, at most `most_rows` of them, drawn by
    `seed`. candidates: by name; they must not reduce (`size`), which can be added to the choice. The reference, the
    better of the raw and the whitened embedding, is always among them.
    guard: a candidate is taken only if it beats the reference by more than so many standard errors of their paired
    difference; with few labels nothing may, and the reference stays. Among those that do, the best one is taken, the
    earlier one in a tie. Raises SampleError for fewer than two labelled rows and candidates that reduce.
    """
    found = select_candidates(list(blocks)) if candidates is None else dict(candidates)
    found = {RAW: Combination(("embedding",)), WHITE: Combination(("embedding",), whiten="auto"), **found}
    rights = leave_one_out_of(blocks, labels, found, ks, most_rows, seed)
    best = {name: max(of_k, key=lambda k: (of_k[k].mean(), -k)) for name, of_k in rights.items()}
    right = {name: of_k[best[name]] for name, of_k in rights.items()}
    table = {name: float(hits.mean()) for name, hits in right.items()}
    reference = RAW if table[RAW] >= table[WHITE] else WHITE
    chosen, gain, error = reference, 0.0, 0.0
    for name in sorted(table, key=lambda one: -table[one]):  # stable: the earlier one in a tie
        gain, error = _paired(right[reference], right[name])
        if gain > guard * error:
            chosen = name
            break
    else:
        gain, error = 0.0, 0.0
    rows = len(right[chosen])
    settings = {"labelled_rows": rows, "ks": list(ks), "guard": guard, "candidates": len(found), "seed": seed}
    return Selection(
        value=table[chosen],
        settings=settings,
        name=chosen,
        combination=found[chosen],
        k=best[chosen],
        reference=reference,
        gain=gain,
        error=error,
        table=table,
    )


def leave_one_out_of(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination],
    ks: Sequence[int] = CANDIDATES,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> dict[str, dict[int, NDArray[np.bool_]]]:
    """For each candidate and each k, whether the vote of the other labelled rows is right, of each labelled row.

    A joined feature's similarities are the weighed sum of its blocks', so each block is whitened once for all.
    """
    if reducing := [name for name, one in candidates.items() if one.size is not None]:
        size = candidates[reducing[0]].size
        raise SampleError(f"candidate {reducing[0]!r} has size={size}; choose first, then reduce")
    rows, codes = _labelled(blocks, labels, most_rows, seed)
    finite = np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
    if not finite.all():
        blocks = {name: block[finite] for name, block in blocks.items()}
        rows = np.searchsorted(np.flatnonzero(finite), rows)
    possible = [k for k in sorted(ks) if k < len(rows)]
    if not possible:
        raise SampleError(f"{len(rows)} labelled rows, k of {list(ks)}; expected a k below the number of rows")
    found: dict[str, dict[int, NDArray[np.bool_]]] = {}
    whiteners: dict[tuple[str, Any], Axes] = {}
    ways = dict.fromkeys((one.whiten, one.exponent) for one in candidates.values())
    for whiten, exponent in ways:  # one at a time: the parts of one way only are held
        shared: dict[tuple[str, ...], NDArray[np.float32]] = {}
        for name, one in candidates.items():
            if (one.whiten, one.exponent) != (whiten, exponent):
                continue
            similar = np.zeros((len(rows), len(rows)), np.float32)
            for members, weight in _groups(one, list(blocks)):
                if members not in shared:
                    shared[members] = _similar(blocks, members, one, rows, whiteners)
                similar += np.float32(weight**2) * shared[members]
            found[name] = _right(similar, codes, possible)
    return {name: found[name] for name in candidates}


def _labelled(blocks: Blocks, labels: ArrayLike, most: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that have a label and no NaN, and the codes of their labels."""
    total = len(next(iter(blocks.values())))
    given = np.asarray(labels)
    if given.shape != (total,):
        raise SampleError(f"labels have shape {given.shape} for {total} rows; expected one label a row, None for none")
    if given.dtype.kind == "O":
        has = np.array([one is not None for one in given])
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


def _groups(one: Combination, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], float]]:
    """The blocks of each weight and family, since candidates share families."""
    groups: dict[tuple[str, float], list[str]] = {}
    for name, weight in one.members(names).items():
        groups.setdefault((family(name), weight), []).append(name)
    for (_, weight), members in groups.items():
        yield tuple(members), weight


def _similar(
    blocks: Blocks,
    members: tuple[str, ...],
    one: Combination,
    rows: NDArray[np.intp],
    whiteners: dict[tuple[str, Any], Axes],
) -> NDArray[np.float32]:
    total = np.zeros((len(rows), len(rows)), np.float32)
    for name in members:
        alone = Combination((name,), one.whiten, exponent=one.exponent).fit({name: blocks[name]}, whiteners)
        part = unit(alone.join({name: blocks[name][rows]}))
        total += part @ part.T
    return total


def _right(similar: NDArray[np.float32], codes: NDArray[np.intp], ks: Sequence[int]) -> dict[int, NDArray[np.bool_]]:
    most, classes = max(ks), int(codes.max()) + 1
    lengths = np.diagonal(similar)
    votes = np.empty((len(codes), most), np.intp)
    for at, row in enumerate(similar):
        squares = lengths - 2 * row  # and this row's own length, which changes no order
        squares[at] = np.inf
        near = np.argpartition(squares, most - 1)[:most]
        votes[at] = codes[near[np.lexsort((near, squares[near]))]]
    return {k: winners(votes[:, :k], np.ones((len(codes), k)), classes) == codes for k in ks}


def _paired(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float]:
    """mean(b) - mean(a) and its standard error, over the same rows."""
    apart = b.astype(float) - a
    return float(apart.mean()), float(apart.std() / np.sqrt(len(apart)))
