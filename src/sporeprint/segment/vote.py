"""From the nearest labelled patches to labels: votes for patches, and a label for each pixel between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError

NEIGHBOURS, TEMPERATURE = 30, 0.02  # Hummingbird (Balazevic et al. 2023); the neighbours of each class in `class_vote`
CLASS_TEMPERATURE = 0.05

SAME = 2.0**-20  # cosines of equal patches differ by less, where a product in float32 has them at different places

_NUMBERS = 2**23  # interpolated probabilities at a time: 32 MiB


@quiet_floats
def vote(similarities: NDArray[Any], histograms: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """Mean of the neighbours' histograms [Q, k, C], weighted by softmax(similarity / temperature). Returns [Q, C].

    similarities: [Q, k], cosines. Raises SampleError for a temperature that is not above 0.
    """
    check_temperature(temperature, TEMPERATURE)
    scaled = np.asarray(similarities, np.float32) / np.float32(temperature)
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.matmul(weights[:, None], histograms.astype(np.float32, copy=False))[:, 0]


def class_vote(similarities: Tensor, histograms: Tensor, neighbours: int, temperature: float) -> Tensor:
    """Share of the vote [Q, C] where every class has one vote, however many patches it has; each row sums to 1.

    similarities: [Q, M], cosines with all labelled patches. histograms: [M, C], each class in one of them at least. A
    class's score is the mean exp(similarity / temperature) of its `neighbours` most similar patches, weighted by its
    share in each; the scores are divided by their sum. Patches as similar as the last share its place. This is not
    `search.neighbours`: one product of similarities serves every class, which looks among its own patches.
    """
    scores = []
    for shares in histograms.T:
        own = torch.nonzero(shares).flatten()
        apart, count = similarities[:, own], min(neighbours, len(own))
        nearest, positions = apart.topk(min(count + 1, len(own)), dim=1)
        weights = shares[own][positions[:, :count]]
        further = nearest[:, -1] if count < len(own) else torch.full_like(nearest[:, -1], -torch.inf)
        tied = torch.nonzero(nearest[:, count - 1] - further <= SAME).flatten()
        nearest = nearest[:, :count]
        if len(tied):  # those as similar as the last share the places that are left
            last = nearest[tied, -1:]
            alike = ((apart[tied] - last).abs() <= SAME).to(shares.dtype)
            mean = (alike @ shares[own] / alike.sum(1))[:, None]
            weights[tied] = torch.where(nearest[tied] - last <= SAME, mean, weights[tied])
        scores.append(torch.logsumexp(nearest / temperature + weights.log(), 1) - weights.sum(1).log())
    return torch.softmax(torch.stack(scores, dim=1), dim=1)


def check_temperature(temperature: float, example: float) -> None:
    """Raise SampleError for a temperature of a vote that is not above 0."""
    if not temperature > 0:
        raise SampleError(f"a temperature of {temperature!r}; expected more than 0, such as {example}")


def upsample(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Labels [H, W] from probabilities [H_p, W_p, C]: bilinear, then the largest; a tie goes to the lower class.

    Patches and pixels are cells of one rectangle: the first patch's centre lies half a patch from the border
    (`align_corners=False`). Beyond 12 bytes a pixel, 64 MiB suffice for any number of classes.
    """
    return upsample_with_shares(probabilities, size)[0]


def upsample_with_shares(
    probabilities: NDArray[np.float32], size: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The labels of `upsample`, and the interpolated probability of each pixel's label, float32 [H, W]."""
    if probabilities.ndim != 3 or not probabilities.size or min(size) < 1:
        raise SampleError(
            f"probabilities of shape {list(probabilities.shape)} for {size} pixels; "
            "expected [patch rows, patch columns, classes] and at least one pixel"
        )
    planes = torch.from_numpy(np.ascontiguousarray(probabilities.transpose(2, 0, 1), np.float32))
    best = torch.full(size, -torch.inf)
    labels = torch.zeros(size, dtype=torch.int32)
    first = 0
    for part in planes.split(max(1, _NUMBERS // (size[0] * size[1]))):  # [C, H, W] of a photograph is gigabytes
        highest, label = interpolate(part[None], size, mode="bilinear", align_corners=False)[0].max(0)
        better = highest > best
        best[better], labels[better] = highest[better], label[better].int() + first
        first += len(part)
    return labels.numpy(), best.numpy()
