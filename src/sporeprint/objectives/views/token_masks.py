"""Views of one text with some of its tokens hidden, for an objective that predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sporeprint.errors import BackboneError
from sporeprint.values import check_count, check_probability, kind, short_repr

if TYPE_CHECKING:
    from sporeprint.backbones.inputs.tokens import Tokens

IGNORED = -100  # the label of a token that is not to be predicted, as transformers has it


@kind("masks")
@dataclass(frozen=True)
class Masks:
    """Copies of a text, each token replaced by the mask token with probability p, at least one in a view.

    Special tokens are never masked, unknown words only in a text of nothing else. BERT's 15 %, but always the mask
    token, never a random or unchanged one, whose loss differs.
    """

    views: int = 8
    probability: float = 0.15

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_count("views", self.views)
        check_probability(self.probability, 0.15)

    def __call__(self, text: str, preprocess: Tokens, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Return one input for each view, with "labels": the hidden token's number, or -100. Raises BackboneError."""
        plain, tokenizer = preprocess(text), preprocess.tokenizer
        if tokenizer.mask_token_id is None:
            raise BackboneError(
                f"{type(tokenizer).__name__} has no mask token, so nothing can be masked; leave this objective out"
            )
        special, ids = set(tokenizer.all_special_ids), plain["input_ids"]
        around = set(preprocess.around)
        words = [at for at, token in enumerate(ids) if token not in special]
        words = words or [at for at, token in enumerate(ids) if token not in around] or list(range(len(ids)))
        views = []
        for _ in range(self.views):
            numbers, chosen = rng.random(len(words)), words[int(rng.random() * len(words))]
            hidden = {at for at, number in zip(words, numbers, strict=True) if number < self.probability} or {chosen}
            masked = [tokenizer.mask_token_id if at in hidden else token for at, token in enumerate(ids)]
            labels = [token if at in hidden else IGNORED for at, token in enumerate(ids)]
            views.append({**plain, "input_ids": masked, "labels": labels})
        return views
