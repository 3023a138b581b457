"""KL: how far the head's softmax is from uniform. One view, the embedding's, so it costs no pass of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sporeprint.errors import RecipeError
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.views.whole import Whole
from sporeprint.values import check_choice, is_positive, kind, later, short_repr


@kind("kl")
@dataclass(frozen=True)
class KL(Objective):
    """The divergence KL(uniform || softmax(latent / T)), the paper's section 3.1.

    temperature: T. latent: width of a random head's output. name: of block and head.
    head: "random"; or "own", the linear map that the checkpoint was trained with, from the embedding as it is to a
    classifier's logits or CLIP's projection, whose width replaces `latent`. A backbone without one is refused.
    Raises RecipeError.

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
    >>> KL(head="own")
    KL(head='own')
    """

    name: str = "kl"
    latent: int = 768
    augmentation: Whole = field(default_factory=Whole)
    temperature: float = 1.0  # the public library's; the research code has 15, which is equal after L2
    head: str = later("random")

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not is_positive(self.temperature):
            raise RecipeError(f"KL temperature={self.temperature!r}; expected a number above 0")
        check_choice("KL head", self.head, ("random", "own"))

    @property
    def normalize(self) -> bool:  # type: ignore[override]
        """Whether the embedding is L2-normalised before the head: a trained head takes it as it is."""
        return self.head == "random"

    def loss(self, latents: Tensor) -> Tensor:
        """Return [N] losses, the mean over views. latents: [N, V, L].

        In float64: the gradient is softmax minus 1/L, near cancellation when the latents are small.
        """
        log_p = torch.log_softmax(latents.double() / self.temperature, dim=-1)
        return (-math.log(latents.shape[-1]) - log_p.mean(dim=-1)).mean(dim=-1)
