"""What --features, --whiten, --exponent, --pca and --combination ask for, among the blocks that a store has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.candidates import Candidate, candidate_of, distinct, short_table, title_of
from sporeprint.evaluate.choice.select import Selection, select
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import NAMED, Combination, named
from sporeprint.run.store_pair import block_list, check_block_names
from sporeprint.store.reader import Store

LOO = "loo"
NO_LABELS = "take decorrelated, which needs no labels"


@dataclass(frozen=True)
class Wanted:
    """What the flags ask for: one combination, the choice of loo, or a table.

    combination: None for loo, which chooses it, and for a table. name: of the combination. size: of a PCA over
    whatever is joined.
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
            check_block_names(self.combination.blocks or (), there, str(store.folder))
        return tuple(self.combination.members(there))


def wanted(
    blocks: str | None = None,
    whiten: str | None = None,
    exponent: float | None = None,
    size: int | None = None,
    combination: str | None = None,
) -> Wanted:
    """What the flags of a command line ask for; without any, a table. Raises RecipeError where they contradict."""
    if combination is not None:
        given = [("--features", blocks), ("--whiten", whiten), ("--exponent", exponent)]
        if contradicting := [flag for flag, value in given if value is not None]:
            raise RecipeError(
                f"--combination {combination} says which blocks and how; leave out {', '.join(contradicting)}"
            )
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
            raise RecipeError("--whiten goes with --features; name them, or a family: layers, views, gradients")
        return Wanted(size=size)
    combination_of_blocks = Combination(block_list(blocks), rank, size, 1.0 if exponent is None else exponent)
    return Wanted(combination_of_blocks, size=size, name=title_of(combination_of_blocks))


def candidates(
    what: Wanted,
    blocks: Blocks,
    labels: Any = None,
    unlabelled: str = "",
    seed: int = 0,
    table: Callable[[Sequence[str]], list[Candidate]] = short_table,
    progress: Callable[[str], None] = lambda _: None,
    predictors: Sequence[str] = ("kNN",),
) -> tuple[list[Candidate], Selection | None]:
    """The candidates to evaluate, and what loo chose, if it was asked.

    labels: of the training rows, for loo to choose by; None where it must not. unlabelled: why not, and what to take
    instead. table: what is evaluated, with loo's choice, where the flags name no combination. progress,
    predictors: of `select`.
    Raises RecipeError where only loo is wanted and must not be.
    """
    names = list(blocks)
    if what.combination is not None:
        return [candidate_of(what.combination, names, what.name)], None
    if what.loo and labels is None:
        raise RecipeError(f"--combination loo: {unlabelled}")
    selection = None
    if what.loo or (labels is not None and len(labels) > 1):  # a single row has no other to ask
        selection = select(blocks, labels, predictors=predictors, seed=seed, progress=progress)
    listed = [] if what.loo else table(names)
    if selection is not None:
        listed.append(Candidate(f"loo: {selection.name}", "chosen", selection.combination))
    sized = [replace(candidate, combination=named(candidate.combination, what.size)) for candidate in listed]
    return distinct(sized, names), selection


def _rank(word: str) -> int | str:
    if word.strip() == "auto":
        return "auto"
    if not word.strip().isdecimal() or int(word) < 1:
        raise RecipeError(f"--whiten {word!r}; expected a number of dimensions of at least 1, or auto")
    return int(word)
