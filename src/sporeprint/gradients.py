"""From the embeddings of a sample's views to the gradient of its loss, from the two factors that the tap kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from sporeprint.backbones.base import Pass
from sporeprint.capture import Capture, samples_first, weight_gradients
from sporeprint.errors import LayerError
from sporeprint.objectives.base import Objective


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
    negatives: Tensor | None = None,
    predicted: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gradient of each sample's loss with respect to each target's weight and bias.

    embeddings: [N, V, E] from the passes that filled `captures`, with autograd behind them; where there are several,
    they are of one sample. predicted: for an objective that reads logits, these [N, V, M, C], and the labels [N, V, M].
    Returns {target: [N, O, I + 1]}; the sum over views and tokens, from the two factors.
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
    gradients: dict[str, Tensor] = {}
    for (path, capture), sensitivities in zip(seen, found, strict=True):
        if sensitivities is None:
            continue
        part = weight_gradients(
            samples_first(capture.inputs, samples).to(embeddings.dtype),
            samples_first(sensitivities, samples).to(embeddings.dtype),
            bias=capture.bias,
        )
        gradients[path] = gradients[path] + part if path in gradients else part
    if missing := [path for path, _ in seen if path not in gradients]:
        raise LayerError(
            f"the loss of {objective.name!r} does not depend on layer {missing[0]!r}; choose another target"
        )
    return gradients


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
