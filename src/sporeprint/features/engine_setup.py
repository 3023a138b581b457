"""An engine is set up from a recipe: load the backbone, make heads and projections, resolve the precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.description import weights_digest
from sporeprint.backbones.libraries.sentence_model import is_sentence_transformer
from sporeprint.backbones.load import load_backbone
from sporeprint.backbones.own_head import own_head
from sporeprint.backbones.precision import resolve_dtype
from sporeprint.errors import NotFitted, RecipeError
from sporeprint.features.engine import Engine, make_head
from sporeprint.features.recipe import Recipe
from sporeprint.gradients.projections.projection import make_projection
from sporeprint.gradients.switches import own_settings
from sporeprint.objectives import settle


@own_settings()
def make_engine(
    recipe: Recipe,
    backbone: Any,
    device: Any = None,
    workers: int = 1,
    trust_remote_code: bool = False,
    allow_random: bool = False,
) -> Engine:
    """Make the engine of a recipe. backbone: the user's `Backbone` or SentenceTransformer, or None for the recipe's.

    trust_remote_code, allow_random: as in `load_backbone`.
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
        head = any(getattr(objective, "reads", "") == "logits" for objective in recipe.objectives or ())
        backbone = load_backbone(
            recipe.backbone,
            recipe.targets,
            recipe.pooling,
            device,
            recipe.modality,
            head,
            trust_remote_code,
            allow_random,
            whole=any(map(reads_own_head, recipe.objectives or ())),
        )
    else:
        _check_given_backbone(recipe, backbone, device)
    objectives = settle(recipe.objectives, backbone.modality, recipe.views)
    _check_view_sizes(objectives, backbone)
    dim = recipe.dim or backbone.width
    own = own_head(backbone) if any(map(reads_own_head, objectives)) else None
    if own is not None:
        objectives = tuple(
            replace(each, latent=own.out_features) if reads_own_head(each) else each for each in objectives
        )
    return Engine(
        backbone=backbone,
        objectives=objectives,
        heads={
            name: copy.deepcopy(own)
            if own is not None and reads_own_head(objective)
            else make_head(recipe.seed, name, backbone.width, objective.latent)
            for objective in objectives
            for name in objective.head_names()
        },
        own_head=None if own is None else weights_digest([own]),
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


def reads_own_head(objective: Any) -> bool:
    """Return whether an objective's head is the checkpoint's own linear map, as `KL(head="own")` asks for."""
    return getattr(objective, "head", "random") == "own"


def _check_given_backbone(recipe: Recipe, backbone: Any, device: Any) -> None:
    """Check that the recipe and the device ask for nothing that the given backbone contradicts. Raises RecipeError."""
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
        requested = backbone.device if device is None else torch.device(device)
    except RuntimeError as error:
        raise RecipeError(f"device {device!r}: {str(error).splitlines()[0]}") from error
    actual = backbone.device
    if requested.type != actual.type or (requested.index is not None and requested.index != (actual.index or 0)):
        raise RecipeError(
            f"device={str(device)!r}, but the backbone given is on {actual}; move it there "
            "(backbone.module.to(...)) or leave device out"
        )


def _check_view_sizes(objectives: Sequence[Any], backbone: Backbone) -> None:
    """Raise RecipeError, before any row is read, for views at a resolution that the backbone cannot take."""
    for objective in objectives:
        if hasattr(objective.augmentation, "sizes"):
            objective.augmentation.sizes(backbone.preprocess)


def _layer_kinds(backbone: Backbone, requested: Sequence[str] | None) -> tuple[str, ...]:
    """Return the prefixes of layer blocks for a recipe's `layer_kinds`. Raises RecipeError for what is not there."""
    if requested is None:
        return backbone.layer_kinds
    mean = "patches" if backbone.modality == "image" else "tokens"
    possible: dict[str, str] = {kind: kind for kind in ("cls", "last") if kind in backbone.layer_kinds}
    possible |= {"mean": mean, "max": "max"} | ({"attention": "attention"} if backbone.attentions else {})
    if missing := [kind for kind in requested if kind not in possible]:
        lacks = "reads no attention's output projection" if missing[0] == "attention" else "has no such token"
        raise RecipeError(f"layer_kinds={missing[0]!r}: {backbone.name} {lacks}; possible here: {', '.join(possible)}")
    return tuple(dict.fromkeys(possible[kind] for kind in requested))


def check_state(engine: Engine) -> None:
    """Check heads and negatives, which may be replaced or not drawn yet. Raises NotFitted, RecipeError."""
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
