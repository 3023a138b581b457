"""Each token has a gradient: its share of the loss's gradient at a linear layer, of rank 1, which is projected."""

from __future__ import annotations

import torch
from torch import Tensor

from sporeprint.gradients.projections.projection import Projection, reads_factors

CHUNK_BYTES = 16 * 2**20  # gradients formed at a time, for a projection that only reads gradients


def project_tokens(projection: Projection, inputs: Tensor, sensitivities: Tensor, bias: bool = True) -> Tensor:
    """Project s_t [x_t, 1]^T, the share of each token t in the gradient of weight and bias: [P, D].

    inputs: [P, I], what the layer saw. sensitivities: [P, O], d loss / d output. Computed in at least float32, with at
    most CHUNK_BYTES of [P, O, I + 1] at a time.
    """
    dtype = torch.promote_types(torch.promote_types(inputs.dtype, sensitivities.dtype), torch.float32)
    inputs, sensitivities = inputs.to(dtype), sensitivities.to(dtype)
    if reads_factors(projection):
        return projection.of_factors(inputs.unsqueeze(1), sensitivities.unsqueeze(1), bias)
    if bias:
        inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)
    if callable(of_outer := getattr(projection, "of_outer", None)):
        return of_outer(sensitivities, inputs)
    tokens = max(1, CHUNK_BYTES // (inputs.shape[1] * sensitivities.shape[1] * inputs.element_size()))
    chunks = zip(sensitivities.split(tokens), inputs.split(tokens), strict=True)
    return torch.cat([projection((felt.unsqueeze(2) * saw.unsqueeze(1)).flatten(1)) for felt, saw in chunks])
