"""One gradient for each token: its share of the loss's gradient at a linear layer, which has rank 1, projected."""

from __future__ import annotations

import torch
from torch import Tensor

from sporeprint.gradients.projections.projection import Projection, reads_factors

CHUNK_BYTES = 16 * 2**20  # of gradients that are formed at a time, for a projection that reads nothing else


def project_tokens(projection: Projection, inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor:
    """Projections [P, D] of s_t [x_t, 1]^T, the share of each token t in the gradient of weight and bias.

    inputs: [P, I], what the layer saw. sensitivities: [P, O], d loss / d output. Never more than CHUNK_BYTES of
    [P, O, I + 1] exist. In at least float32.
    """
    kind = torch.promote_types(torch.promote_types(inputs.dtype, sensitivities.dtype), torch.float32)
    seen, felt = inputs.to(kind), sensitivities.to(kind)
    if reads_factors(projection):
        return projection.of_factors(seen.unsqueeze(1), felt.unsqueeze(1), bias)
    if bias:
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
    if callable(of_outer := getattr(projection, "of_outer", None)):
        return of_outer(felt, seen)
    tokens = max(1, CHUNK_BYTES // (seen.shape[1] * felt.shape[1] * seen.element_size()))
    pairs = zip(felt.split(tokens), seen.split(tokens), strict=True)
    return torch.cat([projection((some.unsqueeze(2) * other.unsqueeze(1)).flatten(1)) for some, other in pairs])
