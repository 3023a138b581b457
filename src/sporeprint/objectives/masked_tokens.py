"""Masked tokens: how well the checkpoint's own head predicts the hidden words. Beyond the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from sporeprint.errors import RecipeError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.token_masks import IGNORED, Masks
from sporeprint.values import kind, short_repr


@kind("mlm")
@dataclass(frozen=True)
class MaskedTokens(Objective):
    """The masked-language-model loss, averaged over a fixed number of seeded maskings.

    For text backbones whose checkpoint has a masked-language-model head; nothing random but the maskings.
    augmentation: the maskings, such as Masks(). Its `loss` raises RecipeError without labels.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import MaskedTokens
    >>> objective = MaskedTokens()
    >>> labels = torch.tensor([[[3, -100]]])  # of one sample with one view, whose first word was masked
    >>> logits = torch.zeros(1, 1, 2, 100)
    >>> objective.loss(logits, labels=labels).exp().round()  # as good as a guess among 100 words
    tensor([100.])
    """

    reads: ClassVar[str] = "logits"
    by_modality: ClassVar[Mapping[str, Mapping[str, Any]]] = {"text": {}}

    name: str = "mlm"
    latent: int = 0  # no random head
    augmentation: Masks = field(default_factory=Masks)

    __repr__ = short_repr

    def loss(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return [N] losses: the mean over views of each view's mean over its masked tokens.

        latents: the head's logits [N, V, M, C]. labels: [N, V, M], -100 where a token was not masked.
        """
        if labels is None:
            raise RecipeError(f"{self.name!r} reads the logits of a head, and needs the labels of what was masked")
        masked = labels != IGNORED
        # For the masked tokens alone: a softmax over the vocabulary costs memory and time.
        token_losses = cross_entropy(latents[masked], labels[masked], reduction="none")
        losses = token_losses.new_zeros(labels.shape).masked_scatter(masked, token_losses)
        return (losses.sum(dim=-1) / masked.sum(dim=-1)).mean(dim=-1)

    def head_names(self) -> list[str]:
        """Return no name: the head is the checkpoint's."""
        return []
