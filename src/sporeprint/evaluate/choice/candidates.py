"""Which combinations of blocks are compared: each with its name for people and its role, from one list.

The tables of `compare`, `knn`, `demo`, `probe` and `segment` and the choices of `select` are all taken from here.
"White" means one thing: `whiten="auto"`, in full, or with the exponent that stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sporeprint.features.blocks import FAMILIES, family
from sporeprint.features.combine import NAMED, Combination

EMBEDDING = "embedding"
RAW, HALF_WHITE, WHITE = EMBEDDING, f"{EMBEDDING}, white 0.5", f"{EMBEDDING}, white"
REFERENCES = {RAW: Combination((EMBEDDING,)), HALF_WHITE: Combination((EMBEDDING,), "auto", exponent=0.5)}
EMBEDDINGS = {**REFERENCES, WHITE: Combination((EMBEDDING,), "auto")}
EXPONENTS = (0.5, 1.0)  # that `select` chooses from
PAPER, DECORRELATED = "paper", "decorrelated"
CHOICES = FREE, PLAIN, ALL = "chosen, one pass", "chosen, no gradients", "chosen, all passes"
SHORT = (RAW, WHITE, PAPER, DECORRELATED)  # where a full table would take too long

_WHITE_JOINS = (
    ("embedding", "views"),
    ("embedding", "layers"),
    ("embedding", "layers", "views"),
    ("layers",),
    ("layers", "views"),
    ("embedding", "gradients"),
    ("layers", "gradients"),
    ("embedding", "layers", "gradients"),
    ("layers", "views", "gradients"),
)


@dataclass(frozen=True)
class Candidate:
    """One way to make features.

    role: "embedding" (raw and white: the references), "block" (gradients alone), "control" (no gradient in it, at a
    price that a gradient would have), "paper", "combined" (gradients joined with others), "chosen" (by leave-one-out on
    the training rows).
    """

    name: str
    role: str
    combination: Combination


def full_table(names: Sequence[str], size: int | None = None) -> list[Candidate]:
    """Every combination that these blocks allow, as `compare` measures them. size: adds the paper's with this PCA."""
    return distinct(_every(names, size), names)


def family_table(names: Sequence[str], size: int | None = None) -> list[Candidate]:
    """The full table without single layers, which are many: the table of `knn` and `demo`."""
    return distinct((row for row in _every(names, size) if not _is_single_layer(row.combination)), names)


def short_table(names: Sequence[str]) -> list[Candidate]:
    """The embedding, raw and white, and the combinations with a name: the table of `probe` and its like."""
    return distinct((row for row in _every(names) if row.name in SHORT), names)


def patch_table() -> list[Candidate]:
    """The kinds of features of patches that `segment` compares; "layers" are joined to the embedding there."""
    return [
        Candidate(RAW, "embedding", REFERENCES[RAW]),
        Candidate(PAPER, "paper", NAMED[PAPER]),
        Candidate("layers", "control", joined((EMBEDDING, "layers"), 0.5)),
        Candidate("layers + gradients", "combined", joined((EMBEDDING, "layers", "gradients"), 0.5)),
    ]


def choices(names: Sequence[str]) -> dict[str, Combination]:
    """What `select` chooses from by default, for these blocks; the raw and the half-white embedding come first.

    Every set of families that has members, with the embedding and (where there are layers) without; raw, and evened
    out with exponents 0.5 and 1.
    """
    families = [kind for kind in FAMILIES if any(family(name) == kind for name in names)]
    sets: list[tuple[str, ...]] = [(EMBEDDING,)]
    for subset in _subsets(families):
        sets.append((EMBEDDING, *subset))
        if "layers" in subset:
            sets.append(subset)
    listed = dict(REFERENCES)
    for blocks in sets:
        for exponent in (None, *EXPONENTS):
            combination = joined(blocks, exponent)
            listed.setdefault(title_of(combination, names), combination)
    return listed


def joined(blocks: Sequence[str], exponent: float | None = None) -> Combination:
    """Blocks or families joined: as they are, or white with an exponent."""
    if exponent is None:
        return Combination(tuple(blocks))
    return Combination(tuple(blocks), "auto", exponent=exponent)


def candidate_of(combination: Combination, names: Sequence[str], name: str | None = None) -> Candidate:
    """A combination of these blocks with its role, and its name for people where none is given."""
    return Candidate(title_of(combination) if name is None else name, role_of(combination, names), combination)


def title_of(combination: Combination, names: Sequence[str] = ()) -> str:
    """The name of a combination for people, in every table and sentence: what is joined, and how.

    "white" is `whiten="auto"` in full, "white 0.5" with that exponent; any other rank is said in words. names: of all
    blocks there are; a family goes by its name where it is joined whole.
    """
    if names:
        combination = by_family(combination, names)
    blocks = combination.blocks or (PAPER,)
    alone = len(blocks) == 1 and blocks[0] != PAPER and _family(blocks[0]) == "gradients"
    words = [f"{blocks[0]} alone" if alone else " + ".join(blocks)]
    if combination.whiten == "auto":
        words.append("white" if combination.exponent == 1 else f"white {combination.exponent:g}")
    elif combination.whiten is not None:
        words.append(f"whitened to {combination.whiten} dimensions")
        words += [] if combination.exponent == 1 else [f"exponent {combination.exponent:g}"]
    if combination.weights is not None:
        words.append("families alike" if len(set(combination.weights)) == 1 else "weighed")
    return ", ".join([*words, *([] if combination.size is None else [f"PCA {combination.size}"])])


def by_family(combination: Combination, names: Sequence[str]) -> Combination:
    """The same combination of the blocks `names`, with each family that is whole by its name; one block has its own."""
    if combination.blocks is None or combination.weights is not None:
        return combination
    members = list(combination.members(names))
    if len(members) > 1:
        whole = set(FAMILIES) - {family(name) for name in names if name not in members}
        members = [kind if (kind := family(name)) in whole else name for name in members]
    return replace(combination, blocks=tuple(dict.fromkeys(members)))


def role_of(combination: Combination, names: Sequence[str]) -> str:
    """The role of a combination among these blocks, from the families of its members. See `Candidate`."""
    if combination.blocks is None:
        return "paper"
    families = {family(name) for name in combination.members(names)}
    if families == {EMBEDDING}:
        return "embedding"
    if families == {"gradients"}:
        return "block"
    return "combined" if "gradients" in families else "control"


def distinct(candidates: Iterable[Candidate], names: Sequence[str]) -> list[Candidate]:
    """The candidates that differ for these blocks, the first of equals.

    Raises RecipeError for a combination of none of these blocks.
    """
    first: dict[Any, Candidate] = {}
    for candidate in candidates:
        how = candidate.combination
        key = (how.whiten, how.exponent if how.whiten is not None else None, how.size)
        first.setdefault((frozenset(how.members(names).items()), key), candidate)
    return list(first.values())


def _every(names: Sequence[str], size: int | None = None) -> list[Candidate]:
    of = {kind: [name for name in names if family(name) == kind] for kind in FAMILIES}
    listed = list(EMBEDDINGS.values())
    for name in (*of["layers"], *of["views"], *of["gradients"]):
        listed += [joined((name,)), joined((name,), 1.0)]
    gradients = of["gradients"]
    if len(gradients) > 1:
        listed += [*(joined((EMBEDDING, name)) for name in gradients), joined(("gradients",))]
    if gradients:
        listed += [NAMED[PAPER], *([] if size is None else [replace(NAMED[PAPER], size=size)])]
    listed += [joined(blocks, 1.0) for blocks in _WHITE_JOINS if all(of.get(name, True) for name in blocks)]
    decorrelated = candidate_of(NAMED[DECORRELATED], names, DECORRELATED)
    return [*(candidate_of(combination, names) for combination in listed), decorrelated]


def _is_single_layer(combination: Combination) -> bool:
    blocks = combination.blocks or ()
    return len(blocks) == 1 and blocks[0] not in FAMILIES and family(blocks[0]) == "layers"


def _family(name: str) -> str:
    """The family of a block, or the family that this is the name of."""
    return name if name in FAMILIES else family(name)


def _subsets(families: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for bits in range(1, 2 ** len(families)):
        yield tuple(kind for at, kind in enumerate(families) if bits >> at & 1)
