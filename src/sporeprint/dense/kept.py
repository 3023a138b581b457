"""What fitted dense features consist of, as JSON and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.combine import Combiner
from sporeprint.dense.features import DenseFeatures
from sporeprint.dense.support import Support
from sporeprint.values import from_json, to_json


def collect(features: DenseFeatures) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(description, tensors): heads, support and combination of fitted features."""
    engine = features.engine
    tensors = {f"heads/{name}/{part}": value for name, head in engine.heads.items() for part, value in _parts(head)}
    if engine.support is not None:
        tensors |= {"support/tokens": engine.support.tokens, "support/owners": engine.support.owners}
    description: dict[str, Any] = {}
    if features.combiner is not None:
        tensors |= {f"combiner/{key}": torch.from_numpy(value) for key, value in features.combiner.arrays().items()}
        description = {"combination": to_json(features.combiner.combination), "fitted": features.combiner.describe()}
    return description, tensors


def restore(features: DenseFeatures, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Put what `collect` gave into features of the same recipe and backbone."""
    engine = features.engine
    for name, head in engine.heads.items():
        head.load_state_dict({part: tensors[f"heads/{name}/{part}"] for part, _ in _parts(head)})
    if "support/tokens" in tensors:
        engine.support = Support(tensors["support/tokens"], tensors["support/owners"])
    if description:
        arrays = {k.removeprefix("combiner/"): v.numpy() for k, v in tensors.items() if k.startswith("combiner/")}
        features.combiner = Combiner.restore(from_json(description["combination"]), description["fitted"], arrays)


def _parts(head: nn.Linear) -> list[tuple[str, Tensor]]:
    return list(head.state_dict().items())
