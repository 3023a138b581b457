"""What a fitted Fungi consists of, as JSON and tensors, and back into a fresh one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sporeprint.combine import Combiner
from sporeprint.dense import kept
from sporeprint.errors import StoreMismatch
from sporeprint.precision import as_fitted
from sporeprint.projection import PROJECTIONS, Dense
from sporeprint.values import canonical, from_json, to_json

if TYPE_CHECKING:
    from sporeprint.fungi import Fungi

DECIDES_FEATURES = (
    "weights",
    "targets",
    "pooling",
    "preprocess",
    "prefix_tokens",
    "finish",
)  # of what a backbone describes


def collect(fungi: Fungi) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(description, tensors): recipe, what was resolved, heads, negatives, replaced projections, combination.

    And of features of patches, where `fit_dense` was called.
    """
    recipe, dim = fungi._recipe(), fungi._recipe().dim or fungi.network.width
    tensors: dict[str, Tensor] = {f"negatives/{name}": bank for name, bank in fungi.negatives.items()}
    for name, head in fungi.heads.items():
        tensors |= {f"heads/{name}/{part}": value for part, value in head.state_dict().items()}
    for path, projection in fungi.projections.items():
        by_recipe = isinstance(projection, PROJECTIONS[recipe.projection])
        if not by_recipe or (projection.dim, getattr(projection, "seed", None)) != (dim, recipe.seed):
            tensors[f"projections/{path}"] = projection.matrix()
    description = {"recipe": recipe.to_json(), "resolved": fungi.describe()}
    if hasattr(fungi, "combiner"):
        tensors |= {f"combiner/{key}": torch.from_numpy(value) for key, value in fungi.combiner.arrays().items()}
        description["combination"] = to_json(fungi.combiner.combination)
        description["combiner"] = fungi.combiner.describe()
    if fungi.fitted_dense:
        description["dense"], dense = kept.collect(fungi.patches)
        tensors |= {f"dense/{name}": value for name, value in dense.items()}
    return description, tensors


@torch.inference_mode(False)
def restore(fungi: Fungi, body: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> None:
    """Put what `collect` gave into a Fungi of the same recipe. Raises StoreMismatch for another backbone."""
    was, now = body["resolved"]["backbone"], json.loads(canonical(fungi.network.describe()))
    for part in DECIDES_FEATURES:
        if was.get(part) != now[part]:
            raise StoreMismatch(
                f"{where} was made with backbone {was['name']!r}, whose {part}: {was.get(part)}; {now['name']!r} "
                f"here has {now[part]}. Features would not be comparable: use the same backbone, or fit again"
            )
    network, dtype = fungi.network, fungi._recipe().dtype
    fungi.engine.autocast = as_fitted(dtype, body["resolved"].get("dtype", dtype), network.dtype, network.device)
    for name in fungi.heads:
        weight, bias = tensors[f"heads/{name}/weight"], tensors.get(f"heads/{name}/bias")
        head = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], bias=bias is not None, dtype=weight.dtype)
        head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
        fungi.heads[name] = head.requires_grad_(False)
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        if group == "negatives":
            fungi.negatives[name] = value
        elif group == "projections":
            fungi.projections[name] = Dense(value)
    if "combiner" in body:
        arrays = {k.removeprefix("combiner/"): v.numpy() for k, v in tensors.items() if k.startswith("combiner/")}
        fungi.combiner = Combiner.restore(from_json(body["combination"]), body["combiner"], arrays)
    if "dense" in body:
        dense = {k.removeprefix("dense/"): v for k, v in tensors.items() if k.startswith("dense/")}
        kept.restore(fungi.patches, body["dense"], dense)
