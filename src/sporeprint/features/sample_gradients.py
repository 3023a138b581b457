"""From the embeddings of a sample's views to the gradient of its loss, from the two factors that the tap kept."""

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
    """embeddings [..., E] to [..., L], in the embeddings' precision."""
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
    """Gradient of each sample's loss with respect to each target's weight and bias.

    embeddings: [N, V, E] from the passes that filled `captures`, with autograd behind them; where there are several,
    they are of one sample. predicted: for an objective that reads logits, these [N, V, M, C], and the labels [N, V, M].
    projections: of each target. Returns {target: [N, P]}, the sum over views and tokens, flattened; where the target's
    projection reads the factors, {target: [N, D]}: projected.
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
    seen = [(path, capture) for one in captures for path, capture in one.items()]
    outputs = [capture.outputs for _, capture in seen]
    found = torch.autograd.grad(losses.sum(), outputs, retain_graph=True, allow_unused=True)
    factors: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (path, capture), sensitivities in zip(seen, found, strict=True):
        if sensitivities is not None:
            both = samples_first(capture.inputs, samples), samples_first(sensitivities, samples)
            factors.setdefault(path, []).append(both)
    if missing := [path for path, _ in seen if path not in factors]:
        raise LayerError(
            f"the loss of {objective.name!r} does not depend on layer {missing[0]!r}; choose another target"
        )
    bias = {path: capture.bias for path, capture in seen}
    return {path: _joined(parts, projections[path], bias[path], embeddings.dtype) for path, parts in factors.items()}


def _joined(
    parts: Sequence[tuple[Tensor, Tensor]], projection: Projection, bias: bool, precision: torch.dtype
) -> Tensor:
    """parts: (inputs, sensitivities) of each pass. Returns the gradients [N, P], or their projections [N, D]."""
    cast = [(inputs.to(precision), sensitivities.to(precision)) for inputs, sensitivities in parts]
    if not reads_factors(projection):
        return reduce(torch.add, (weight_gradients(*factors, bias) for factors in cast)).flatten(1)
    inputs, sensitivities = (torch.cat(of, dim=1) for of in zip(*(felt_tokens(*one) for one in cast), strict=True))
    return projection.of_factors(inputs, sensitivities, bias)


def predictions(passes: Sequence[Pass], samples: int) -> tuple[Tensor, Tensor] | None:
    """The head's logits at the masked tokens [N, V, M, C], and labels [N, V, M]; None where it did not run."""
    logits = [one.logits for one in passes if one.logits is not None]
    labels = [one.labels for one in passes if one.labels is not None]
    if not logits:
        return None
    most = max(part.shape[1] for part in labels)
    if len(passes) > 1:
        logits = [pad(part, (0, 0, 0, most - part.shape[1])) for part in logits]
        labels = [pad(part, (0, most - part.shape[1]), value=-100) for part in labels]
    whole = torch.cat(logits)
    whole = whole if whole.dtype == torch.float64 else whole.float()
    return whole.unflatten(0, (samples, -1)), torch.cat(labels).unflatten(0, (samples, -1))
