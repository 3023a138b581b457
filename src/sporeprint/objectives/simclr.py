"""SimCLR: the patches of one image attract each other, a bank of other images' patches repels. 49 views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint.errors import RecipeError
from sporeprint.objectives.base import Objective, is_positive
from sporeprint.recipe import kind
from sporeprint.views.image import Patches


@kind("simclr")
@dataclass(frozen=True)
class SimCLR(Objective):
    """InfoNCE with every other view of the sample as a positive; the embedding is not normalised before the head."""

    normalize: ClassVar[bool] = False

    name: str = "simclr"
    latent: int = 96
    augmentation: Patches = field(default_factory=Patches)
    temperature: float = 0.07
    negatives: int = 256  # images drawn from the fitting set (the public library: 64)
    temper_negatives: bool = True  # False: the public library's loss, whose logsumexp stays at T = 1

    def __post_init__(self) -> None:
        if not (is_positive(self.temperature) and isinstance(self.negatives, int) and self.negatives >= 0):
            raise RecipeError(
                f"SimCLR temperature={self.temperature!r}, negatives={self.negatives!r}; "
                "expected a temperature above 0 and at least 0 negatives"
            )
        if self.views < 2:
            raise RecipeError(f"SimCLR with {self.views} view; expected at least 2, since positives are other views")

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """latents: [N, V, L]. negatives: [M, L], of any length (they are normalised here). Returns [N]."""
        latents = normalize(latents, dim=-1)
        views = latents.shape[1]
        similarities = latents @ latents.transpose(1, 2)  # [N, V, V]
        itself = torch.eye(views, dtype=torch.bool, device=latents.device)
        positives = similarities.masked_fill(itself, 0).sum(dim=-1) / (views - 1) / self.temperature
        everything = similarities.masked_fill(itself, -torch.inf)
        if negatives is not None and len(negatives):
            repelled = latents @ normalize(negatives.to(latents), dim=-1).T  # [N, V, M]
            everything = torch.cat([everything, repelled], dim=-1)
        if self.temper_negatives:
            everything = everything / self.temperature
        return (torch.logsumexp(everything, dim=-1) - positives).mean(dim=-1)
