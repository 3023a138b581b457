"""Which families to join, how far to even them out, at what weights: chosen by leave-one-out on a user's labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.combine import FAMILIES, Axes, Blocks, Combination, family, unit
from sporeprint.errors import SampleError
from sporeprint.evaluate.knn import CANDIDATES, _counts
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.rows import labels_of
from sporeprint.evaluate.votes import winners

EXPONENTS = (0.5, 0.75, 1.0)
MOST_ROWS = 3000  # labelled rows that leave-one-out looks at: 36 MB a matrix of similarities
RAW, WHITE = "embedding", "embedding, white"
REFERENCES = {RAW: Combination(("embedding",)), WHITE: Combination(("embedding",), whiten="auto")}


@dataclass(frozen=True)
class Selection(Result):
    """value: leave-one-out accuracy of the chosen combination, on the very rows that chose it: a little optimistic.

    name, combination, k: the choice. reference: the better of the raw and the whitened embedding, by leave-one-out.
    gain: leave-one-out accuracy over the reference's. error: its standard error, by the paired rows; it knows nothing
    of how many candidates were tried. table: the accuracy of every candidate, each with its best k.
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
    out with exponents 0.5, 0.75 and 1; every block alike, and every family alike where that is not the same.
    """
    there = [one for one in FAMILIES if any(family(name) == one for name in names)]
    sets: list[tuple[str, ...]] = [("embedding",)]
    for chosen in _subsets(there):
        sets.append(("embedding", *chosen))
        if "layers" in chosen:
            sets.append(chosen)
    made = dict(REFERENCES)
    for blocks in sets:
        title = " + ".join(blocks)
        for exponent in (None, *EXPONENTS):
            how = "raw" if exponent is None else f"white {exponent:g}"
            one = Combination(blocks) if exponent is None else Combination(blocks, "auto", exponent=exponent)
            if one in made.values():
                continue
            made[f"{title}, {how}"] = one
            alike = replace(one, weights=(1.0,) * len(blocks))
            if len(blocks) > 1 and alike.members(names) != one.members(names):
                made[f"{title}, {how}, families alike"] = alike
    return made


def _subsets(families: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for bits in range(1, 2 ** len(families)):
        yield tuple(one for at, one in enumerate(families) if bits >> at & 1)


def select(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination] | None = None,
    ks: Sequence[int] = CANDIDATES,
    guard: float = 2.0,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> Selection:
    """The combination with the best leave-one-out kNN accuracy on the labelled rows, k chosen along with it.

    blocks: of the training rows, each [N, D]. labels: [N], None (or NaN) for a row without one: whitening is fitted on
    all rows, which costs no label; leave-one-out asks the labelled ones only, at most `most_rows` of them, drawn by
    `seed`, about each other. Rows with NaN in any block are left out of both. candidates: by name; they must not reduce
    (`size`), which can be added to the choice. The reference, the better of the raw and the whitened embedding, is
    always among them.
    guard: see `choose`. Raises SampleError for fewer than two labelled rows, blocks of other rows or that are not
    there, candidates that reduce or take the reference's name, and numbers out of range.
    """
    found = select_candidates(list(blocks)) if candidates is None else dict(candidates)
    for name, one in REFERENCES.items():
        if found.get(name, one) != one:
            raise SampleError(f"a candidate is called {name!r}, which is the reference's name; call it otherwise")
    found = {**REFERENCES, **found}
    _check_guard(guard)
    rights = leave_one_out_of(blocks, labels, found, ks, most_rows, seed)
    choice = choose(found, rights, guard, {"ks": list(ks), "seed": seed})
    return replace(choice, combination=choice.combination.over(list(blocks)))  # of these blocks, also beside others


def choose(
    candidates: Mapping[str, Combination],
    rights: Mapping[str, Mapping[int, NDArray[np.bool_]]],
    guard: float = 2.0,
    settings: Mapping[str, Any] | None = None,
) -> Selection:
    """The best of some candidates, the references among them, by what `leave_one_out_of` found.

    Each candidate has its best k, the smaller one in a tie. One is taken only if it beats the reference by more than
    `guard` standard errors of their paired difference; the best of those is taken, the earlier one in a tie; where
    there is none, the reference stays. The errors are of one difference and many are looked at, so labels that say
    nothing still move the choice: in half of our trials at guard 1, in a sixth at 2, hardly ever at 3.
    """
    _check_guard(guard)
    best = {name: max(rights[name], key=lambda k: (rights[name][k].mean(), -k)) for name in candidates}
    right = {name: rights[name][k] for name, k in best.items()}
    table = {name: float(hits.mean()) for name, hits in right.items()}
    reference = RAW if table[RAW] >= table[WHITE] else WHITE
    chosen, gain, error = reference, 0.0, 0.0
    for name in sorted(table, key=lambda one: -table[one]):  # stable: the earlier one in a tie
        apart, spread = _paired(right[reference], right[name])
        if apart > guard * spread:
            chosen, gain, error = name, apart, spread
            break
    told = {"labelled_rows": len(right[chosen]), "guard": guard, "candidates": len(candidates), **(settings or {})}
    return Selection(
        value=table[chosen],
        settings=told,
        name=chosen,
        combination=candidates[chosen],
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

    Every k below their number; of more than `most_rows` labelled rows, those drawn by `seed` stand for all. Votes and
    ties as in `knn_predict`. A joined feature's similarities are the weighed sum of its blocks', so each block is
    whitened once for all. Raises SampleError as `select`.
    """
    blocks, wanted = _checked(blocks, candidates), _counts(ks)
    rows, codes = _labelled(blocks, labels, most_rows, seed)
    finite = np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
    if not finite.all():
        blocks = {name: block[finite] for name, block in blocks.items()}
        rows = np.searchsorted(np.flatnonzero(finite), rows)
    possible = [k for k in wanted if k < len(rows)]
    if not possible:
        raise SampleError(f"{len(rows)} labelled rows, k of {wanted}; expected a k below the number of rows")
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


def _checked(blocks: Blocks, candidates: Mapping[str, Combination]) -> dict[str, NDArray[Any]]:
    arrays = {name: np.asarray(block) for name, block in blocks.items()}
    shapes = {name: block.shape for name, block in arrays.items()}
    if not shapes or any(len(shape) != 2 for shape in shapes.values()) or len({one[0] for one in shapes.values()}) > 1:
        raise SampleError(f"blocks have shapes {shapes}; expected [rows, dimensions], the same rows in each")
    for title, one in candidates.items():
        if one.size is not None:
            raise SampleError(f"candidate {title!r} has size={one.size}; choose first, then reduce")
        if missing := [name for name in one.members(arrays) if name not in arrays]:
            raise SampleError(f"candidate {title!r} takes block {missing[0]!r}; there are: {', '.join(arrays)}")
    return arrays


def _check_guard(guard: float) -> None:
    if not 0 <= guard < np.inf:
        raise SampleError(f"guard={guard!r}; expected a number of standard errors, 0 or more")


def _labelled(blocks: Blocks, labels: ArrayLike, most: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that have a label and no NaN, and the codes of their labels."""
    total = len(next(iter(blocks.values())))
    given = np.asarray(labels, dtype=object if isinstance(labels, (list, tuple)) else None)  # NaN stays one amid texts
    if given.shape != (total,):
        raise SampleError(f"labels have shape {given.shape} for {total} rows; expected one label a row, None for none")
    if given.dtype.kind == "O":
        has = np.array([not _is_missing(one) for one in given], bool)
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
        near = np.flatnonzero(squares <= np.partition(squares, most - 1)[most - 1])  # with all that tie for the last
        votes[at] = codes[near[np.argsort(squares[near], kind="stable")[:most]]]
    return {k: winners(votes[:, :k], np.ones((len(codes), k)), classes) == codes for k in ks}


def _paired(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float]:
    """mean(b) - mean(a) and its standard error, over the same rows."""
    apart = b.astype(float) - a
    return float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))
