"""What --blocks, --whiten, --exponent, --size and --combination ask for, of the blocks that a store has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.joined_features import distinct, short_table
from sporeprint.evaluate.choice.select import Selection, select
from sporeprint.features.blocks import FAMILIES, Blocks, family
from sporeprint.features.combine import NAMED, Combination, named
from sporeprint.run.store_pair import block_list
from sporeprint.store.reader import Store

LOO = "loo"
NO_LABELS = "take decorrelated, which needs no labels"


@dataclass(frozen=True)
class Wanted:
    """combination: the one that was asked for; None for loo, which chooses it, and where a table is wanted.

    name: of it. size: of a PCA over whatever is joined.
    """

    combination: Combination | None = None
    loo: bool = False
    size: int | None = None
    name: str = ""

    @property
    def table(self) -> bool:
        return self.combination is None and not self.loo

    def reads(self, store: Store) -> tuple[str, ...]:
        """The blocks to read. Raises RecipeError for one, or a family, that the store does not have."""
        there = store.block_names
        if self.combination is None:
            return tuple(there)
        if self.name not in NAMED:  # those take what there is
            check_blocks(self.combination.blocks or (), there, str(store.folder))
        return tuple(self.combination.members(there))


def wanted(
    blocks: str | None = None,
    whiten: str | None = None,
    exponent: float | None = None,
    size: int | None = None,
    combination: str | None = None,
) -> Wanted:
    """As given on a command line; without any of them a table. Raises RecipeError for what does not go together."""
    if combination is not None:
        given = [("--blocks", blocks), ("--whiten", whiten), ("--exponent", exponent)]
        if beside := [flag for flag, value in given if value is not None]:
            raise RecipeError(f"--combination {combination} says which blocks and how; leave out {', '.join(beside)}")
        if combination == LOO:
            return Wanted(loo=True, size=size)
        if combination not in NAMED:
            raise RecipeError(f"--combination {combination!r}; expected one of: {', '.join((*NAMED, LOO))}")
        return Wanted(named(combination, size), size=size, name=combination)
    rank = None if whiten is None else _rank(whiten)
    if exponent is not None and rank is None:
        raise RecipeError(
            "--exponent says how far --whiten evens out; add --whiten auto (or a number), or leave it out"
        )
    if blocks is None:
        if rank is not None:
            raise RecipeError("--whiten goes with --blocks; name them, or a family: layers, views, gradients")
        return Wanted(size=size)
    made = Combination(block_list(blocks), rank, size, 1.0 if exponent is None else exponent)
    return Wanted(made, size=size, name=title_of(made))


def combinations(
    what: Wanted,
    blocks: Blocks,
    labels: Any = None,
    unlabelled: str = "",
    seed: int = 0,
    table: Mapping[str, Combination] | None = None,
) -> tuple[dict[str, Combination], Selection | None]:
    """Those to evaluate, by name, and what loo chose, if it was asked.

    labels: of the training rows, for loo to choose by; None where it must not. unlabelled: why not, and what to take
    instead. table: what is evaluated beside loo's choice where no way is named; without it the short one.
    Raises RecipeError where only loo is wanted and must not be.
    """
    if what.combination is not None:
        return {what.name: what.combination}, None
    if what.loo and labels is None:
        raise RecipeError(f"--combination loo: {unlabelled}")
    selection = None
    if what.loo or (labels is not None and len(labels) > 1):  # of one row there is no other to ask
        selection = select(blocks, labels, seed=seed)
    chosen = {} if selection is None else {f"loo: {selection.name}": selection.combination}
    made = chosen if what.loo else {**(short_table() if table is None else table), **chosen}
    return distinct({name: named(one, what.size) for name, one in made.items()}, list(blocks)), selection


def check_blocks(wanted: Sequence[str], there: Sequence[str], where: str) -> None:
    """Raises RecipeError for a block, or a family, that is not there."""
    for name in wanted:
        if name in FAMILIES and not any(family(one) == name for one in there):
            raise RecipeError(f"'{where}' has no block of the family {name!r}; there are: {', '.join(there)}")
        if name not in FAMILIES and name not in there:
            raise RecipeError(
                f"'{where}' has no block {name!r}; there are: {', '.join(there)}; and families: {', '.join(FAMILIES)}"
            )


def title_of(one: Combination) -> str:
    """For people: what is joined, and how."""
    words = [" + ".join(one.blocks or ("paper",))]
    if one.whiten is not None:
        words.append(f"white {one.whiten}" + ("" if one.exponent == 1 else f", exponent {one.exponent:g}"))
    return ", ".join([*words, *([] if one.size is None else [f"PCA {one.size}"])])


def _rank(word: str) -> int | str:
    if word.strip() == "auto":
        return "auto"
    if not word.strip().isdecimal() or int(word) < 1:
        raise RecipeError(f"--whiten {word!r}; expected a number of dimensions of at least 1, or auto")
    return int(word)
