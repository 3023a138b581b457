"""Which features and which predictor answer: those that were asked for, and the rest by leave-one-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sporeprint.evaluate.choice.candidates import choices, title_of
from sporeprint.evaluate.choice.judges import CHOSEN, PREDICTORS
from sporeprint.evaluate.choice.leave_one_out import has_few
from sporeprint.evaluate.choice.select import select
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import Combination
from sporeprint.predictors.predictor import Predictor
from sporeprint.run.combination_flags import Wanted

WORDS = {word.lower().replace(" ", "-"): word for word in PREDICTORS}  # as they are typed


@dataclass(frozen=True)
class Choice:
    """Features and a predictor, unfitted. name: of the features, for people."""

    combination: Combination
    name: str
    predictor: Predictor


def choose(
    blocks: Blocks,
    labels: Any,
    what: Wanted,
    predictor: str | None = None,
    groups: Any = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    most_width: int | None = None,
) -> Choice:
    """Choose what the flags leave open, by the leave-one-out loss. predictor: as it is typed, None for the best.

    most_width: of the features that are chosen from, where no flag names them; the embedding is always one of them.
    blocks: of the training rows. With few rows of a class LDA answers, as in `select`. Raises SampleError where
    there are too few rows to choose by.
    """
    words = CHOSEN if predictor is None else (WORDS[predictor],)
    if what.combination is None:
        listed = None if most_width is None else _narrow(blocks, most_width)
        selection = select(blocks, labels, listed, words, groups, seed=seed, progress=progress)
        combination = replace(selection.combination, size=what.size)
        assert selection.predictor is not None
        return Choice(combination, selection.name, selection.predictor)
    name = what.name or title_of(what.combination)
    if len(words) == 1:
        return Choice(what.combination, name, PREDICTORS[words[0]]())
    if has_few(labels):
        return Choice(what.combination, name, PREDICTORS["LDA"]())
    features = what.combination.fit(blocks).transform(blocks)
    losses = {}
    for word in words:
        progress(f"leave-one-out: {name} with {word}")
        losses[word] = PREDICTORS[word]().leave_one_out(features, labels, groups).losses.mean()
    return Choice(what.combination, name, PREDICTORS[min(losses, key=losses.__getitem__)]())


def _narrow(blocks: Blocks, most_width: int) -> dict[str, Combination]:
    """The features to choose from whose blocks have no more numbers than this."""
    listed = choices(list(blocks))
    widths = {name: sum(blocks[member].shape[1] for member in how.members(blocks)) for name, how in listed.items()}
    return {name: how for name, how in listed.items() if widths[name] <= most_width}
