"""The fitted state of a Fungi is a value: `saved` packs it into files, and a Fungi of the same recipe takes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sporeprint.errors import DamagedStore, StoreMismatch
from sporeprint.features.combine import Combiner
from sporeprint.features.dense.dense_features import FittedDense
from sporeprint.features.engine import below, heads_of
from sporeprint.features.recipe import Recipe
from sporeprint.values import canonical, from_json, to_json

# Of a described backbone; own_head where an objective reads the checkpoint's own.
DECIDES_FEATURES = ("weights", "targets", "pooling", "preprocess", "prefix_tokens", "finish", "own_head")


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

    def check_tensors(self, given: Mapping[str, Tensor]) -> None:
        """Raise ValueError where the tensors that this was rebuilt of are others than its own, or hold NaN."""
        own = self.parts()[1]
        if other := sorted(set(given) ^ set(own)):
            raise ValueError(f"the tensor {other[0]!r} is {'not known' if other[0] in given else 'missing'}")
        for name, tensor in own.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"the tensor {name!r} holds numbers that are not finite")

    def check_shapes(self, heads: Iterable[str], width: int, targets: Mapping[str, int], where: str) -> None:
        """Raise DamagedStore where heads, negatives or projections do not fit a network.

        heads: names of them. width: of the network's embedding. targets: {path: numbers of its gradient}.
        """
        for name in heads:
            head = self.heads.get(name, {})
            rows = len(head["weight"]) if "weight" in head and head["weight"].dim() == 2 else 0
            shapes = {part: tuple(value.shape) for part, value in head.items()}
            if not rows or {"bias": (rows,), **shapes} != {"weight": (rows, width), "bias": (rows,)}:
                raise DamagedStore(f"{where} holds no head {name!r} of {width} numbers; save it again")
            bank = self.negatives.get(name)
            if bank is not None and (bank.dim() != 2 or bank.shape[1] != rows):
                raise DamagedStore(f"{where} holds negatives of {name!r} of shape {list(bank.shape)}; save it again")
        for path, matrix in self.projections.items():
            if matrix.dim() != 2 or matrix.shape[1] != targets.get(path):
                raise DamagedStore(
                    f"{where} holds a projection of {path!r} of shape {list(matrix.shape)}; save it again"
                )
        floating = [*self.negatives.values(), *self.projections.values()]
        floating += [value for head in self.heads.values() for value in head.values()]
        if not all(value.is_floating_point() for value in floating):
            raise DamagedStore(f"{where} holds heads, negatives or projections that are no floats; save it again")

    def check_backbone(self, described: Mapping[str, Any], where: str) -> None:
        """Raise StoreMismatch where a backbone, as `Fungi.describe` gives it, is not this state's."""
        was, now = self.resolved["backbone"], json.loads(canonical(dict(described)))
        for part in DECIDES_FEATURES:
            if was.get(part) != now.get(part):
                raise StoreMismatch(
                    f"{where} was made with backbone {was['name']!r}, whose {part} is {was.get(part)}; "
                    f"{now['name']!r} here has {now.get(part)}. Features would differ: use the same backbone, or fit "
                    "again"
                )
