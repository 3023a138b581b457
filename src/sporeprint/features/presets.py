"""Presets are recipes by name, each on the measured frontier of accuracy against cost (docs/speed.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.libraries.huggingface import find_modality
from sporeprint.errors import RecipeError
from sporeprint.features.combine import Combination
from sporeprint.objectives import DINO, KL, SimCLR, settle
from sporeprint.objectives.view_sets import view_sets
from sporeprint.objectives.views.clip import NoiseAndRoll
from sporeprint.objectives.views.image import Crops, Patches
from sporeprint.objectives.views.text import Deletions

PRESETS = ("paper", "balanced", "fast", "free")
DECIDES = ("objectives", "views")  # fields that the preset sets and overrides may not


class _Unnamed(tuple[Any, ...]):
    """Objectives that nobody named: a recipe tells them from equal ones, also where it is copied or unpickled."""

    def __reduce__(self) -> str:
        return "FREE"


FREE = _Unnamed((KL(),))  # a recipe's default: no views, so one pass
# Chosen on training rows of Flowers102 and TREC, by accuracy with all labels and with five per class.
JOINED = Combination(("embedding", "layers", "views", "gradients"), whiten="auto", exponent=0.75)

_CROPS = Crops(2, 4, local_side=0.5)
_OBJECTIVES: dict[str, dict[str, tuple[Any, ...]]] = {
    "image": {
        "balanced": (KL(), DINO(augmentation=_CROPS), SimCLR(augmentation=Patches(3, side=0.5))),
        "fast": (KL(), DINO(augmentation=_CROPS)),
    },
    "text": {
        "balanced": (KL(), SimCLR(augmentation=Deletions(4))),
        "fast": (KL(), SimCLR(augmentation=Deletions(2))),
    },
    "audio": {
        "balanced": (KL(), SimCLR(augmentation=NoiseAndRoll(4))),
        "fast": (KL(), SimCLR(augmentation=NoiseAndRoll(4))),
    },
}


def preset(name: str, modality: str) -> dict[str, Any]:
    """Return the fields that a preset sets in a recipe for "image", "text" or "audio".

    "paper": the paper's objectives and assembly. "balanced", "fast": the three families of blocks for at most 15 and 5
    embeddings' cost, counted in tokens. "free": a single pass, so layers and KL; a recipe's defaults.
    Raises RecipeError for other names.
    """
    for what, given, known in (("preset", name, PRESETS), ("modality", modality, tuple(_OBJECTIVES))):
        if given not in known:
            raise RecipeError(f"{what} {given!r}; known: {', '.join(known)}")
    if name == "paper":
        return {"objectives": None, "combination": "paper"}
    objectives = FREE if name == "free" else _OBJECTIVES[modality][name]
    return {"objectives": objectives, "combination": JOINED}


def passes(name: str, backbone: Backbone) -> float:
    """Return a preset's passes a row; a view of fewer tokens counts as that fraction.

    Raises RecipeError for a backbone that cannot take its views.
    """
    objectives = settle(preset(name, backbone.modality)["objectives"], backbone.modality)
    return sum(view_set.cost(backbone.preprocess) for view_set in view_sets(objectives))


def fields_of(name: str, backbone: str | None, modality: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return all fields of `Recipe.preset`. Raises RecipeError, and BackboneError for an unknown backbone."""
    if taken := [field for field in DECIDES if field in overrides]:
        raise RecipeError(
            f"preset {name!r} sets {taken[0]}; leave {taken[0]} out, or write Recipe({taken[0]}=...) without a preset"
        )
    if backbone is None and modality == "auto" and name in ("paper", "free"):
        return {**preset(name, "image"), **overrides}  # their fields are the same for every modality
    if backbone is None and modality == "auto":
        raise RecipeError(
            f"preset {name!r} depends on the modality; give backbone=..., or, for a network of your own, "
            "modality='image', 'text' or 'audio'"
        )
    kind = modality if backbone is None else find_modality(backbone, modality)
    return {"backbone": backbone, "modality": modality, **preset(name, kind), **overrides}
