"""SimCLR: the views of one sample attract each other, a bank of other samples' views repels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint.errors import RecipeError
from sporeprint.objectives.base import Objective, is_positive
from sporeprint.recipe import kind
from sporeprint.views.audio import NoiseAndRoll
from sporeprint.views.image import Patches
from sporeprint.views.text import Deletions

# Float32 cannot tell such latents apart: between equal texts it sees rounding alone, which changes with the batch, and
# where nothing else repels (texts of one word), that was most of the gradient.
_EQUAL = 1 - 1e-6


@kind("simclr")
@dataclass(frozen=True)
class SimCLR(Objective):
    """InfoNCE with every other view of the sample as a positive; the embedding is not normalised before the head.

    Latents whose cosine is above 1 - 1e-6 are the same: they count in the loss, but neither attract nor repel.

    Fields that are None are the paper's for the modality (METHOD's constants; 256 images for negatives, where the
    public library has 64). negatives: samples drawn from the fitting set; negative_views: views of each, None for all.
    """

    normalize: ClassVar[bool] = False
    by_modality: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "image": {"latent": 96, "augmentation": Patches(), "negatives": 256},
        "text": {"latent": 256, "augmentation": Deletions(), "negatives": 256, "negative_views": 2},
        "audio": {"latent": 768, "augmentation": NoiseAndRoll(), "negatives": 64, "negative_views": 2},
    }

    name: str = "simclr"
    latent: int | None = None
    augmentation: Any = None
    temperature: float = 0.07
    negatives: int | None = None
    negative_views: int | None = None
    temper_negatives: bool = True  # False: the public library's loss, whose logsumexp stays at T = 1

    def __post_init__(self) -> None:
        for name, least in (("negatives", 0), ("negative_views", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise RecipeError(f"SimCLR {name}={value!r}; expected an integer of at least {least}, or None")
        if not is_positive(self.temperature):
            raise RecipeError(f"SimCLR temperature={self.temperature!r}; expected a number above 0")
        if self.augmentation is not None and self.views < 2:
            raise RecipeError(f"SimCLR with {self.views} view; expected at least 2, since positives are other views")

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """latents: [N, V, L]. negatives: [M, L], of any length (they are normalised here). Returns [N]."""
        latents = normalize(latents, dim=-1)
        views = latents.shape[1]
        similarities = _still(latents @ latents.transpose(1, 2))  # [N, V, V]
        itself = torch.eye(views, dtype=torch.bool, device=latents.device)
        positives = similarities.masked_fill(itself, 0).sum(dim=-1) / (views - 1) / self.temperature
        everything = similarities.masked_fill(itself, -torch.inf)
        if negatives is not None and len(negatives):
            repelled = _still(latents @ normalize(negatives.to(latents), dim=-1).T)  # [N, V, M]
            everything = torch.cat([everything, repelled], dim=-1)
        if self.temper_negatives:
            everything = everything / self.temperature
        return (torch.logsumexp(everything, dim=-1) - positives).mean(dim=-1)


def _still(cosines: Tensor) -> Tensor:
    """Without the gradient of equal latents, which is zero but for rounding."""
    return torch.where(cosines > _EQUAL, cosines.detach(), cosines)
