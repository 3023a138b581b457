"""From a recipe to an engine: the backbone loaded, heads and projections made, precision settled."""

from __future__ import annotations

import math
from typing import Any

import torch

from sporeprint.backbones.base import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.engine import Engine, make_head
from sporeprint.errors import RecipeError
from sporeprint.projection import PROJECTIONS
from sporeprint.recipe import Recipe


@torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
def make_engine(recipe: Recipe, backbone: Backbone | None, device: Any = None, workers: int = 1) -> Engine:
    """backbone: a network of the user's, or None for the recipe's. Raises RecipeError, BackboneError, LayerError."""
    if backbone is None:
        if recipe.backbone is None:
            raise RecipeError(
                "no backbone: name one, Recipe(backbone='facebook/dinov2-small'), or give a network of your own, "
                "Fungi(recipe, backbone=Backbone(module, ...))"
            )
        backbone = load_backbone(recipe.backbone, recipe.targets, recipe.pooling, device)
    elif recipe.targets is not None and list(backbone.targets) != list(recipe.targets):
        raise RecipeError(
            f"the recipe reads {', '.join(recipe.targets)}, the backbone given reads {', '.join(backbone.targets)}; "
            "name targets in one place"
        )
    objectives = tuple(recipe.objectives or ())
    dim = recipe.dim or backbone.width
    latents = {name: objective.latent for objective in objectives for name in objective.head_names()}
    make = PROJECTIONS[recipe.projection]
    return Engine(
        backbone=backbone,
        objectives=objectives,
        heads={name: make_head(recipe.seed, name, backbone.width, latent) for name, latent in latents.items()},
        negatives={},
        projections={path: make(dim, math.prod(t.shape), recipe.seed) for path, t in backbone.targets.items()},
        layers=recipe.layers,
        seed=recipe.seed,
        autocast=resolve_dtype(recipe.dtype, backbone)[1],
        workers=workers,
    )


def resolve_dtype(dtype: str, backbone: Backbone) -> tuple[str, torch.dtype | None]:
    """The precision that a recipe's dtype comes to, and the autocast that makes it.

    "auto" is the weights' own precision: float32 for every backbone that sporeprint loads. Raises RecipeError.
    """
    own = str(backbone.dtype).removeprefix("torch.")
    if dtype == "bfloat16":
        return "bfloat16", torch.bfloat16
    if dtype == "float32" and own not in ("float32", "float64"):
        raise RecipeError(
            f"dtype='float32', but the backbone's weights are {own}; convert it first (module.float()) or use 'auto'"
        )
    return own, None
