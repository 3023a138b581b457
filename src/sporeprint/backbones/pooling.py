"""Pool tokens to one vector: the first, the mean or the last of those that are not padding."""

from __future__ import annotations

import torch
from torch import Tensor

POOLINGS = ("auto", "cls", "mean", "last")  # what a recipe or a Backbone may ask for


def pool(tokens: Tensor, how: str, real: Tensor | None, prefix: int) -> Tensor:
    """Pool tokens [N, T, E] to [N, E]. how: "cls" (the first), "mean", "max", "last".

    real: [N, T], true where a token counts. prefix: tokens before the patches, left out of mean and maximum; in `real`
    they are false already.
    """
    if how == "cls":
        return tokens[:, 0]
    if how == "mean":
        return mean(tokens[:, prefix:]) if real is None else mean(tokens, real)
    if how == "max":
        if real is not None:
            most = tokens.masked_fill(~real.unsqueeze(-1), -torch.inf).amax(dim=1)
            return torch.where(real.any(dim=1, keepdim=True), most, 0)  # a text without a word: as in `mean`
        return tokens[:, prefix:].amax(dim=1)
    if real is None:
        return tokens[:, -1]
    steps = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(real, steps, 0).amax(dim=1)  # [N]
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


def mean(tokens: Tensor, real: Tensor | None = None) -> Tensor:
    """Return [N, E], the mean over tokens [N, T, E], or over those that `real` [N, T] marks."""
    if real is None:
        return tokens.mean(dim=1)
    kept = tokens.masked_fill(~real.unsqueeze(-1), 0)  # not a product: padding may hold anything
    return kept.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1)
