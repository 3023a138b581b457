"""Losses over the tokens of one image; their gradients are read token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint.errors import RecipeError
from sporeprint.values import check_count, is_count, is_fraction, is_positive, kind, short_repr


@runtime_checkable
class TokenObjective(Protocol):
    """A token objective is a loss over one image's tokens.

    name: of the block and of the head. latent: width of the head's output. normalize: L2-normalise tokens before the
    head. neighbours: how many tokens of other images serve as negatives of each token; 0 for none.
    """

    name: str
    latent: int
    normalize: ClassVar[bool]
    neighbours: int

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return [P], one loss a token. latents: [P, L], of one image. negatives: [M, L]."""
        ...


_PUBLIC_CODE = "of the paper's public code, which made features worse; use TokenSimCLR without it"


@kind("token-simclr")
@dataclass(frozen=True)
class TokenSimCLR:
    """InfoNCE over an image's patches: the others are its positives, similar patches of other images its negatives.

    Constants are those of the paper's public code for segmentation, without its mistakes, which
    benchmarks/dense_variants.py measures. neighbours: looked up for each token, of which the fraction `kept` (drawn by
    the image's id) takes part. latent: width of the head's output. Raises RecipeError.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import TokenSimCLR
    >>> TokenSimCLR().loss(torch.randn(20, 96), negatives=torch.randn(50, 96)).shape  # one loss a patch
    torch.Size([20])
    """

    normalize: ClassVar[bool] = False
    removed: ClassVar[Mapping[str, tuple[bool, str]]] = {
        "temper_negatives": (True, f"false left the logsumexp at temperature 1, a mistake {_PUBLIC_CODE}"),
        "scrambled": (False, f"it mixed up the numbers of the negatives, a mistake {_PUBLIC_CODE}"),
        "unit_negatives": (False, f"it L2-normalised the negatives alone before the head, a mistake {_PUBLIC_CODE}"),
        "own_image": (False, f"it gave a training image its own tokens as negatives, a mistake {_PUBLIC_CODE}"),
    }

    name: str = "simclr"
    latent: int = 96
    temperature: float = 0.07
    neighbours: int = 2
    kept: float = 0.5

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _check(self)
        check_count("TokenSimCLR neighbours", self.neighbours, least=0)
        if not is_fraction(self.kept):
            raise RecipeError(f"TokenSimCLR kept={self.kept!r}; expected a fraction above 0, at most 1")

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return losses [P]. latents: [P, L], P at least 2. negatives: [M, L], of any length (normalised here)."""
        latents = normalize(latents, dim=-1)
        itself = torch.eye(len(latents), dtype=torch.bool, device=latents.device)
        similarities = latents @ latents.T  # [P, P]
        positives = similarities.masked_fill(itself, 0).sum(dim=1) / (len(latents) - 1) / self.temperature
        everything = similarities.masked_fill(itself, -torch.inf)
        if negatives is not None and len(negatives):
            everything = torch.cat([everything, latents @ normalize(negatives.to(latents), dim=-1).T], dim=1)
        return torch.logsumexp(everything / self.temperature, dim=1) - positives


@kind("token-kl")
@dataclass(frozen=True)
class TokenKL:
    """KL(uniform || softmax(latent / T)) of every token by itself, without other tokens or images.

    temperature: T. latent: width of the head's output. Raises RecipeError.

    Examples
    --------
    >>> import torch
    >>> from sporeprint import TokenKL
    >>> TokenKL().loss(torch.randn(20, 768)).shape  # one loss a patch
    torch.Size([20])
    """

    normalize: ClassVar[bool] = True
    neighbours: ClassVar[int] = 0

    name: str = "kl"
    latent: int = 768
    temperature: float = 1.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        _check(self)

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return losses [P] of latents [P, L], in float64: the gradient is softmax minus 1/L, near cancellation."""
        log_p = torch.log_softmax(latents.double() / self.temperature, dim=-1)
        return -math.log(latents.shape[-1]) - log_p.mean(dim=-1)


def _check(objective: Any) -> None:
    if not is_positive(objective.temperature):
        raise RecipeError(f"temperature={objective.temperature!r} of {objective!r}; expected a number above 0")
    if not is_count(objective.latent):
        raise RecipeError(f"latent={objective.latent!r} of {objective!r}; expected an integer of at least 1")
    if not isinstance(objective.name, str):
        raise RecipeError(f"{objective!r} has no name; expected a string, which its block is called")
