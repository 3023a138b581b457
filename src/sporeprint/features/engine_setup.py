"""From a recipe to an engine: the backbone loaded, heads and projections made, precision settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.libraries.sentence_model import is_sentence_transformer
from sporeprint.backbones.load import load_backbone
from sporeprint.backbones.precision import resolve_dtype
from sporeprint.errors import NotFitted, RecipeError
from sporeprint.features.engine import Engine, make_head
from sporeprint.features.recipe import Recipe
from sporeprint.gradients.projections.projection import make_projection
from sporeprint.objectives import settle


@torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
def make_engine(recipe: Recipe, backbone: Any, device: Any = None, workers: int = 1) -> Engine:
    """backbone: a `Backbone` or SentenceTransformer of the user's, or None for the recipe's.

    Raises RecipeError, BackboneError, LayerError.
    """
    if is_sentence_transformer(backbone):
        backbone = Backbone(backbone, target=recipe.targets, pooling=recipe.pooling)
    if backbone is None:
        if recipe.backbone is None:
            raise RecipeError(
                "no backbone: name one, Recipe(backbone='facebook/dinov2-small'), or give a network of your own, "
                "Fungi(recipe, backbone=Backbone(module, ...))"
            )
        head = any(getattr(one, "reads", "") == "logits" for one in recipe.objectives or ())
        backbone = load_backbone(recipe.backbone, recipe.targets, recipe.pooling, device, recipe.modality, head)
    else:
        _check_given(recipe, backbone, device)
    objectives = settle(recipe.objectives, backbone.modality, recipe.views)
    _check_sides(objectives, backbone)
    dim = recipe.dim or backbone.width
    latents = {name: objective.latent for objective in objectives for name in objective.head_names()}
    return Engine(
        backbone=backbone,
        objectives=objectives,
        heads={name: make_head(recipe.seed, name, backbone.width, latent) for name, latent in latents.items()},
        negatives={},
        projections={
            path: make_projection(recipe.projection, dim, target.shape, recipe.seed)
            for path, target in backbone.targets.items()
        },
        layers=recipe.layers,
        layer_kinds=_layer_kinds(backbone, recipe.layer_kinds),
        seed=recipe.seed,
        autocast=resolve_dtype(recipe.dtype, backbone.dtype, backbone.device),
        workers=workers,
    )


def _check_given(recipe: Recipe, backbone: Any, device: Any) -> None:
    """What a backbone that is given has settled already must not be asked for otherwise. Raises RecipeError."""
    if not isinstance(backbone, Backbone):
        raise RecipeError(
            f"backbone is a {type(backbone).__name__}; expected a Backbone(module, preprocess=...) or a "
            "SentenceTransformer"
        )
    if recipe.targets is not None and list(backbone.targets) != list(recipe.targets):
        raise RecipeError(
            f"the recipe reads {', '.join(recipe.targets)}, the backbone given reads {', '.join(backbone.targets)}; "
            "name targets in one place"
        )
    if recipe.modality not in ("auto", backbone.modality):
        raise RecipeError(f"the recipe is for {recipe.modality}, the backbone given takes {backbone.modality}")
    if recipe.pooling not in ("auto", backbone.pooling):
        raise RecipeError(
            f"the recipe's pooling is {recipe.pooling!r}, that of the backbone given is {backbone.pooling!r}; give it "
            f"to the backbone: Backbone(..., pooling={recipe.pooling!r})"
        )
    try:
        wanted = backbone.device if device is None else torch.device(device)
    except RuntimeError as error:
        raise RecipeError(f"device {device!r}: {str(error).splitlines()[0]}") from error
    here = backbone.device
    if wanted.type != here.type or (wanted.index is not None and wanted.index != (here.index or 0)):
        raise RecipeError(
            f"device={str(device)!r}, but the backbone given is on {here}; move it there "
            "(backbone.module.to(...)) or leave device out"
        )


def _check_sides(objectives: Sequence[Any], backbone: Backbone) -> None:
    """Before any row is read. Raises RecipeError for views at a resolution that the backbone cannot take."""
    for objective in objectives:
        if hasattr(objective.augmentation, "sizes"):
            objective.augmentation.sizes(backbone.preprocess)


def _layer_kinds(backbone: Backbone, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Names of layer blocks, before "-N", for a recipe's `layer_kinds`. Raises RecipeError for one it has not."""
    if wanted is None:
        return backbone.layer_kinds
    mean = "patches" if backbone.modality == "image" else "tokens"
    possible: dict[str, str] = {kind: kind for kind in ("cls", "last") if kind in backbone.layer_kinds}
    possible |= {"mean": mean, "max": "max"}
    if missing := [kind for kind in wanted if kind not in possible]:
        raise RecipeError(
            f"layer_kinds={missing[0]!r}: {backbone.name} has no such token; possible here: {', '.join(possible)}"
        )
    return tuple(dict.fromkeys(possible[kind] for kind in wanted))


def check_state(engine: Engine) -> None:
    """Heads and negatives may have been replaced, or not been drawn yet. Raises NotFitted, RecipeError."""
    width = engine.backbone.width
    for name, head in engine.heads.items():
        if head.in_features != width:
            raise RecipeError(f"heads[{name!r}] takes {head.in_features} numbers; the embedding has {width}")
    for objective in engine.objectives:
        if objective.name not in engine.heads:
            continue
        bank, latent = engine.negatives.get(objective.name), engine.heads[objective.name].out_features
        if objective.negatives and bank is None:
            raise NotFitted(
                f"objective {objective.name!r} needs negatives from a fitting set: call fit(training_samples) "
                f"first, or set fungi.negatives[{objective.name!r}] = latents [M, {latent}]"
            )
        if bank is not None and (bank.dim() != 2 or bank.shape[1] != latent):
            raise RecipeError(
                f"negatives[{objective.name!r}] has shape {tuple(bank.shape)}; expected [M, {latent}], the width of "
                "the head's latents"
            )
