"""Views of one text: copies with words deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.values import check_count, check_probability, kind, short_repr


@kind("deletions")
@dataclass(frozen=True)
class Deletions:
    """Copies of a text with words deleted, each with probability `probability`, at least one a view.

    Words are separated by whitespace, so a text without whitespace (Chinese, Japanese, Thai) is one word. A text of one
    word stays itself in every view; of any other, each view keeps at least one word, in order, joined by one space.
    The first views of `Deletions(12)` are those of `Deletions(2)`, where the generator is the same.
    """

    views: int = 12
    probability: float = 0.1

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_count("views", self.views)
        check_probability(self.probability, 0.1)

    def texts(self, text: str, rng: np.random.Generator) -> list[str]:
        """Return `views` copies; for a text of two words or more each takes one draw a word and one more."""
        words = text.split()
        if len(words) < 2:
            return [text] * self.views
        copies = []
        for _ in range(self.views):
            kept = kept_words(rng.random(len(words) + 1), self.probability)
            copies.append(" ".join(word for word, keep in zip(words, kept.tolist(), strict=True) if keep))
        return copies

    def __call__(self, text: str, preprocess: Callable[[str], Any], rng: np.random.Generator) -> list[Any]:
        """Return each of `texts` as `preprocess` gives it to the backbone."""
        return [preprocess(copy) for copy in self.texts(text, rng)]


def kept_words(draws: NDArray[np.float64], probability: float) -> NDArray[np.bool_]:
    """Return which of n >= 2 words stay: bool [n]. draws: [n + 1], uniform in [0, 1), as `rng.random` gives them.

    A word is deleted where its draw is below `probability`. Where none or all would be deleted, the last draw chooses
    the one word that is deleted, or that stays.
    """
    kept = draws[:-1] >= probability
    if kept.all() or not kept.any():
        chosen = int(draws[-1] * len(kept))
        kept[chosen] = not kept[chosen]
    return kept
