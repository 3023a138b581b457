"""SimCLR: the views of one sample attract each other, a bank of other samples' views repels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint.errors import RecipeError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Patches
from sporeprint.objectives.views.text import Deletions
from sporeprint.values import is_count, is_positive, kind, short_repr

# The distance of equal views in float32 is rounding, about 1e-6, which changes with the batch; where nothing else
# repels, as for a text of one word, it was most of the gradient. Views nearer than this are equal.
_EQUAL = 3e-5
_NEAR = 1 - 1e-6  # cosine above which the distance is computed; a cosine itself is off by 1e-7


@kind("simclr")
@dataclass(frozen=True)
class SimCLR(Objective):
    """InfoNCE with every other view of the sample as a positive; the embedding is not normalised before the head.

    Normalised latents less than 3e-5 apart are equal: they count in the loss, but neither attract nor repel.

    Fields that are None are the paper's for the modality (METHOD's constants; 256 images for negatives, where the
    public library has 64). negatives: samples drawn from the fitting set; negative_views: views of each, None for all.
    augmentation: at least two views. latent: width of the head's output. Raises RecipeError.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import SimCLR
    >>> objective = SimCLR().for_modality("image")
    >>> objective.views, objective.latent, objective.negatives
    (49, 96, 256)
    >>> alike, noise = torch.ones(1, 49, 96), torch.randn(1, 49, 96)
    >>> bool(objective.loss(alike) < objective.loss(noise))
    True
    """

    normalize: ClassVar[bool] = False
    by_modality: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "image": {"latent": 96, "augmentation": Patches(), "negatives": 256},
        "text": {"latent": 256, "augmentation": Deletions(), "negatives": 256, "negative_views": 2},
        "audio": {"latent": 768, "augmentation": NoiseAndRoll(), "negatives": 64, "negative_views": 2},
    }
    by_views: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
        "native": {"image": {"augmentation": Patches(side=0.5)}}
    }

    name: str = "simclr"
    latent: int | None = None
    augmentation: Any = None
    temperature: float = 0.07
    negatives: int | None = None
    negative_views: int | None = None
    temper_negatives: bool = True  # False: the public library's loss, whose logsumexp stays at T = 1

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name, least in (("negatives", 0), ("negative_views", 1)):
            value = getattr(self, name)
            if value is not None and not is_count(value, least):
                raise RecipeError(f"SimCLR {name}={value!r}; expected an integer of at least {least}, or None")
        if not is_positive(self.temperature):
            raise RecipeError(f"SimCLR temperature={self.temperature!r}; expected a number above 0")
        if self.augmentation is not None and not hasattr(self.augmentation, "views"):
            raise RecipeError(f"SimCLR augmentation={self.augmentation!r}; expected views, such as Patches(), or None")
        if self.augmentation is not None and self.views < 2:
            raise RecipeError(f"SimCLR with {self.views} view; expected at least 2, since positives are other views")

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return [N] losses. latents: [N, V, L]. negatives: [M, L], normalised here."""
        latents = normalize(latents, dim=-1)
        views = latents.shape[1]
        similarities = _detach_equal(latents @ latents.transpose(1, 2), latents, latents)  # [N, V, V]
        itself = torch.eye(views, dtype=torch.bool, device=latents.device)
        positives = similarities.masked_fill(itself, 0).sum(dim=-1) / (views - 1) / self.temperature
        everything = similarities.masked_fill(itself, -torch.inf)
        if negatives is not None and len(negatives):
            bank = normalize(negatives.to(latents), dim=-1)
            repelled = _detach_equal(latents @ bank.T, latents, bank.expand(len(latents), -1, -1))  # [N, V, M]
            everything = torch.cat([everything, repelled], dim=-1)
        if self.temper_negatives:
            everything = everything / self.temperature
        return (torch.logsumexp(everything, dim=-1) - positives).mean(dim=-1)


def _detach_equal(cosines: Tensor, latents: Tensor, others: Tensor) -> Tensor:
    """Return cosines [N, V, M] of [N, V, L] and [N, M, L], detached where equal: their gradient is rounding alone."""
    row, view, other = torch.nonzero(cosines.detach() > _NEAR, as_tuple=True)
    apart = (latents.detach()[row, view] - others.detach()[row, other]).norm(dim=-1)
    equal = torch.zeros_like(cosines, dtype=torch.bool)
    equal[row, view, other] = apart < _EQUAL
    return torch.where(equal, cosines.detach(), cosines)
