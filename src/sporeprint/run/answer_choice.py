"""Which features and which predictor answer: those that were asked for, and the rest by leave-one-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sporeprint.evaluate.choice.candidates import title_of
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.combine import Combination, named
from sporeprint.predictors.class_means import ClassMeans
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.predictor import Predictor
from sporeprint.predictors.ridge import Ridge
from sporeprint.run.combination_flags import Wanted

PREDICTORS: dict[str, type[Predictor]] = {"class means": ClassMeans, "LDA": ShrunkLDA, "ridge": Ridge}
WORDS = {word.lower().replace(" ", "-"): word for word in PREDICTORS}  # as they are typed


@dataclass(frozen=True)
class Choice:
    """Features and a predictor, unfitted. title: both, for people: "layers, white 0.5 with LDA"."""

    combination: Combination
    predictor: Predictor
    title: str


def choose(
    blocks: Blocks,
    labels: Any,
    what: Wanted,
    predictor: str | None = None,
    groups: Any = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Choose what the flags leave open. blocks: of the training rows. predictor: as it is typed, None for the best.

    Raises SampleError where there are too few rows to choose by.
    """
    combination = what.combination
    if combination is None:
        layers = any(family(name) == "layers" for name in blocks)
        combination = Combination(("layers",) if layers else ("embedding",), "auto", exponent=0.5)
    combination = named(combination, what.size)
    word = WORDS[predictor or "lda"]
    return Choice(combination, PREDICTORS[word](), f"{what.name or title_of(combination)} with {word}")
