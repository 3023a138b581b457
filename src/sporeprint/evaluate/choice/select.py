"""Which families to join, how far to even them out, at what weights: chosen by leave-one-out on a user's labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.leave_one_out import MOST_ROWS, leave_one_out_of
from sporeprint.evaluate.knn import CANDIDATES
from sporeprint.evaluate.result import Result
from sporeprint.features.blocks import FAMILIES, Blocks, family
from sporeprint.features.combine import Combination

EXPONENTS = (0.5, 0.75, 1.0)
RAW, WHITE = "embedding", "embedding, white 0.5"
REFERENCES = {RAW: Combination((RAW,)), WHITE: Combination((RAW,), whiten="auto", exponent=0.5)}
GUARD = 2.0  # standard errors


@dataclass(frozen=True)
class Selection(Result):
    """value: leave-one-out accuracy of the chosen combination, on the very rows that chose it: a little optimistic.

    name, combination, k: the choice. gain: leave-one-out accuracy over the raw embedding's. error: its standard error,
    by the paired rows; it knows nothing of how many candidates were tried. table: the accuracy of every candidate, each
    with its best k.
    """

    name: str = ""
    combination: Combination = field(default_factory=Combination)
    k: int = 1
    gain: float = 0.0
    error: float = 0.0
    table: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        from sporeprint.values import to_json

        return {**super().to_json(), "combination": to_json(self.combination)}

    def __str__(self) -> str:
        points = f"{100 * self.gain:+.1f} ± {100 * self.error:.1f} points"
        return f"{self.name}: leave-one-out {self.value:.1%}, k = {self.k}; {points} over the raw embedding"


def select_candidates(names: Sequence[str]) -> dict[str, Combination]:
    """What `select` chooses from by default, for these blocks; the raw and the whitened embedding come first.

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
    guard: float = GUARD,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> Selection:
    """The combination with the best leave-one-out kNN accuracy on the labelled rows, k chosen along with it.

    blocks: of the training rows, each [N, D]. labels: [N], None (or NaN) for a row without one: whitening is fitted on
    all rows, which costs no label; leave-one-out asks the labelled ones only, at most `most_rows` of them, drawn by
    `seed`, about each other. Rows with NaN in any block are left out of both. candidates: by name; they must not reduce
    (`size`), which can be added to the choice. The raw and the whitened embedding are always among them.
    guard: see `choose`. Raises SampleError for fewer than two labelled rows, blocks of other rows or that are not
    there, candidates that reduce or take the name of one of these two, and numbers out of range.
    """
    found = select_candidates(list(blocks)) if candidates is None else dict(candidates)
    for name, one in REFERENCES.items():
        if found.get(name, one) != one:
            raise SampleError(f"a candidate is called {name!r}, which is another's name; call it otherwise")
    found = {**REFERENCES, **found}
    _check_guard(guard)
    rights = leave_one_out_of(blocks, labels, found, ks, most_rows, seed)
    choice = choose(found, rights, guard, {"ks": list(ks), "seed": seed})
    return replace(choice, combination=choice.combination.over(list(blocks)))  # of these blocks, also beside others


def choose(
    candidates: Mapping[str, Combination],
    rights: Mapping[str, Mapping[int, NDArray[np.bool_]]],
    guard: float = GUARD,
    settings: Mapping[str, Any] | None = None,
) -> Selection:
    """The best of some candidates, the raw and the whitened embedding among them, by what `leave_one_out_of` found.

    Each candidate has its best k, the smaller one in a tie. One is taken only if it beats both of these two by more
    than `guard` standard errors of the paired difference, the whitened embedding if it so beats the raw one; the best
    of those is taken, the earlier one in a tie; where there is none, the raw embedding stays. The errors are of one
    difference and many are looked at, so labels that say nothing still move the choice: in half of our trials at guard
    1, in a sixth at 2, hardly ever at 3.
    """
    _check_guard(guard)
    best = {name: max(rights[name], key=lambda k: (rights[name][k].mean(), -k)) for name in candidates}
    right = {name: rights[name][k] for name, k in best.items()}
    table = {name: float(hits.mean()) for name, hits in right.items()}
    chosen, gain, error = RAW, 0.0, 0.0
    for name in sorted(table, key=lambda one: -table[one]):  # stable: the earlier one in a tie
        apart = {one: paired(right[one], right[name]) for one in (RAW, WHITE) if one != name}
        if all(by > guard * spread for by, spread in apart.values()) and RAW in apart:
            chosen, (gain, error) = name, apart[RAW]
            break
    told = {"labelled_rows": len(right[chosen]), "guard": guard, "candidates": len(candidates), **(settings or {})}
    return Selection(
        value=table[chosen],
        settings=told,
        name=chosen,
        combination=candidates[chosen],
        k=best[chosen],
        gain=gain,
        error=error,
        table=table,
    )


def _check_guard(guard: float) -> None:
    if not 0 <= guard < np.inf:
        raise SampleError(f"guard={guard!r}; expected a number of standard errors, 0 or more")


def paired(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float]:
    """mean(b) - mean(a) and its standard error, over the same rows."""
    apart = b.astype(float) - a
    return float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(len(apart)))
