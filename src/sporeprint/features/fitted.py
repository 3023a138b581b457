"""The fitted state of a Fungi is a value: `saved` packs it into files, and a Fungi of the same recipe takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sporeprint.errors import StoreMismatch
from sporeprint.features.combine import Combiner
from sporeprint.features.dense.dense_features import FittedDense
from sporeprint.features.engine import below, heads_of
from sporeprint.features.recipe import Recipe
from sporeprint.values import canonical, from_json, to_json

DECIDES_FEATURES = ("weights", "targets", "pooling", "preprocess", "prefix_tokens", "finish")  # of a described backbone


@dataclass(frozen=True)
class Fitted:
    """Fitted is everything that fitting adds to a recipe.

    resolved: what `Fungi.describe` returned. heads: {name: {"weight": [L, E], "bias": [L]}}.
    negatives: {objective: [M, L]}.
    projections: {target: [D, P]}, the matrices of replaced projections; the others come from the recipe.
    combiner, dense: None before `fit` and `fit_dense`.
    """

    recipe: Recipe
    resolved: Mapping[str, Any]
    heads: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    negatives: Mapping[str, Tensor] = field(default_factory=dict)
    projections: Mapping[str, Tensor] = field(default_factory=dict)
    combiner: Combiner | None = None
    dense: FittedDense | None = None

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return (description as JSON, tensors by name), for `of_parts`."""
        tensors = {f"negatives/{name}": bank for name, bank in self.negatives.items()}
        tensors |= {f"projections/{path}": matrix for path, matrix in self.projections.items()}
        for name, head in self.heads.items():
            tensors |= {f"heads/{name}/{part}": value for part, value in head.items()}
        description: dict[str, Any] = {"recipe": self.recipe.to_json(), "resolved": dict(self.resolved)}
        if self.combiner is not None:
            tensors |= {f"combiner/{name}": torch.from_numpy(value) for name, value in self.combiner.arrays().items()}
            description["combination"] = to_json(self.combiner.combination)
            description["combiner"] = self.combiner.describe()
        if self.dense is not None:
            description["dense"], dense = self.dense.parts()
            tensors |= {f"dense/{name}": value for name, value in dense.items()}
        return description, tensors

    @classmethod
    def of_parts(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Fitted:
        """Rebuild the state from its `parts`. Raises RecipeError for a recipe that this version does not know."""
        combiner = dense = None
        if "combiner" in description:
            arrays = {name: value.numpy() for name, value in below(tensors, "combiner").items()}
            combiner = Combiner.restore(from_json(description["combination"]), description["combiner"], arrays)
        if "dense" in description:
            dense = FittedDense.of_parts(description["dense"], below(tensors, "dense"))
        return cls(
            recipe=Recipe.from_json(description["recipe"]),
            resolved=description["resolved"],
            heads=heads_of(below(tensors, "heads")),
            negatives=below(tensors, "negatives"),
            projections=below(tensors, "projections"),
            combiner=combiner,
            dense=dense,
        )

    def check_backbone(self, described: Mapping[str, Any], where: str) -> None:
        """Raise StoreMismatch where a backbone, as `Backbone.describe` gives it, is not this state's."""
        was, now = self.resolved["backbone"], json.loads(canonical(dict(described)))
        for part in DECIDES_FEATURES:
            if was.get(part) != now[part]:
                raise StoreMismatch(
                    f"{where} was made with backbone {was['name']!r}, whose {part} is {was.get(part)}; "
                    f"{now['name']!r} here has {now[part]}. Features would differ: use the same backbone, or fit again"
                )
