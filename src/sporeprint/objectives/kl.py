"""KL: how far the head's softmax is from uniform. One view, the embedding's, so it costs no pass of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sporeprint.errors import RecipeError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.whole import Whole
from sporeprint.values import is_positive, kind, short_repr


@kind("kl")
@dataclass(frozen=True)
class KL(Objective):
    """The divergence KL(uniform || softmax(latent / T)), the paper's section 3.1.

    temperature: T. latent: width of the head's output. name: of block and head. Raises RecipeError.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import KL
    >>> latents = torch.randn(2, 1, 768)  # two samples, one view each
    >>> KL().loss(latents).shape
    torch.Size([2])
    >>> bool((KL().loss(0 * latents) < 1e-9).all())  # a softmax that is uniform
    True
    >>> KL(temperature=0)
    Traceback (most recent call last):
    sporeprint.errors.RecipeError: KL temperature=0; expected a number above 0
    """

    name: str = "kl"
    latent: int = 768
    augmentation: Whole = field(default_factory=Whole)
    temperature: float = 1.0  # the public library's; the research code has 15, which is equal after L2

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not is_positive(self.temperature):
            raise RecipeError(f"KL temperature={self.temperature!r}; expected a number above 0")

    def loss(self, latents: Tensor) -> Tensor:
        """Return [N] losses, the mean over views. latents: [N, V, L].

        In float64: the gradient is softmax minus 1/L, near cancellation when the latents are small.
        """
        log_p = torch.log_softmax(latents.double() / self.temperature, dim=-1)
        return (-math.log(latents.shape[-1]) - log_p.mean(dim=-1)).mean(dim=-1)
