"""The gradient of a sample's loss is computed from the two factors that the tap captured for its views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sporeprint.backbones.backbone import Pass
from sporeprint.errors import LayerError
from sporeprint.gradients.capture import Capture, samples_first, weight_gradients
from sporeprint.gradients.factors import felt_tokens
from sporeprint.gradients.projections.projection import Projection, reads_factors
from sporeprint.objectives.objective import Objective


def latents_of(head: nn.Linear, objective: Objective, embeddings: Tensor) -> Tensor:
    """Map embeddings [..., E] to latents [..., L], in the embeddings' precision."""
    if objective.normalize:
        embeddings = nn.functional.normalize(embeddings, dim=-1)
    bias = None if head.bias is None else head.bias.to(embeddings)
    return nn.functional.linear(embeddings, head.weight.to(embeddings), bias)


def sample_gradients(
    objective: Objective,
    embeddings: Tensor,
    captures: Sequence[Mapping[str, Capture]],
    heads: Mapping[str, nn.Linear],
    projections: Mapping[str, Projection],
    negatives: Tensor | None = None,
    predicted: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of each sample's loss with respect to each target's weight and bias.

    embeddings: [N, V, E] of the passes that filled `captures`, part of their autograd graph; several passes hold the
    views of one sample. predicted: logits [N, V, M, C] and labels [N, V, M], for an objective that reads logits.
    projections: {target: projection}. Returns {target: [N, P]}, the sum over views and tokens, flattened; or, where the
    target's projection reads the factors, the projected {target: [N, D]}.
    """
    samples = len(embeddings)
    extras = {
        extra: latents_of(heads[f"{objective.name}_{extra}"], objective, embeddings.detach())
        for extra in objective.extra_heads
    }
    if objective.negatives and negatives is not None:
        extras["negatives"] = negatives.to(embeddings)
    with torch.enable_grad():
        if getattr(objective, "reads", "") == "logits":
            assert predicted is not None
            losses = objective.loss(predicted[0], labels=predicted[1])
        else:
            losses = objective.loss(latents_of(heads[objective.name], objective, embeddings), **extras)
    targets = [(path, capture) for captured in captures for path, capture in captured.items()]
    outputs = [capture.outputs for _, capture in targets]
    gradients = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
    factors: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (path, capture), sensitivities in zip(targets, gradients, strict=True):
        if sensitivities is not None:
            pair = samples_first(capture.inputs, samples), samples_first(sensitivities, samples)
            factors.setdefault(path, []).append(pair)
    if missing := [path for path, _ in targets if path not in factors]:
        raise LayerError(
            f"the loss of {objective.name!r} does not depend on layer {missing[0]!r}; choose another target"
        )
    bias = {path: capture.bias for path, capture in targets}
    return {
        path: _sum_passes(parts, projections[path], bias[path], embeddings.dtype) for path, parts in factors.items()
    }


def _sum_passes(
    parts: Sequence[tuple[Tensor, Tensor]], projection: Projection, bias: bool, precision: torch.dtype
) -> Tensor:
    """Return the gradients [N, P], or their projections [N, D]. parts: (inputs, sensitivities) of each pass."""
    cast = [(inputs.to(precision), sensitivities.to(precision)) for inputs, sensitivities in parts]
    if not reads_factors(projection):
        return reduce(torch.add, (weight_gradients(*factors, bias) for factors in cast)).flatten(1)
    felt = zip(*(felt_tokens(*factors) for factors in cast), strict=True)
    inputs, sensitivities = (torch.cat(factor, dim=1) for factor in felt)
    return projection.of_factors(inputs, sensitivities, bias)


def predictions(passes: Sequence[Pass], samples: int) -> tuple[Tensor, Tensor] | None:
    """Return the head's logits at the masked tokens [N, V, M, C] and labels [N, V, M]; None where it did not run."""
    logits = [run.logits for run in passes if run.logits is not None]
    labels = [run.labels for run in passes if run.labels is not None]
    if not logits:
        return None
    most = max(part.shape[1] for part in labels)
    if len(passes) > 1:
        logits = [pad(part, (0, 0, 0, most - part.shape[1])) for part in logits]
        labels = [pad(part, (0, most - part.shape[1]), value=-100) for part in labels]
    whole = torch.cat(logits)
    whole = whole if whole.dtype == torch.float64 else whole.float()
    return whole.unflatten(0, (samples, -1)), torch.cat(labels).unflatten(0, (samples, -1))
