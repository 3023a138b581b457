"""Self-supervised losses whose gradients become blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sporeprint.objectives.dino import DINO
from sporeprint.objectives.kl import KL
from sporeprint.objectives.masked_tokens import MaskedTokens
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.simclr import SimCLR

NAMES = {"kl": KL, "dino": DINO, "simclr": SimCLR, "mlm": MaskedTokens}  # what the command line calls them


def paper(modality: str = "image", views: str = "paper") -> tuple[Objective, ...]:
    """Return the paper's objectives for a modality, with its constants; DINO is for images alone. views: a recipe's."""
    return settle([KL(), DINO(), SimCLR()] if modality == "image" else [KL(), SimCLR()], modality, views)


def settle(objectives: Sequence[Any] | None, modality: str, views: str = "paper") -> tuple[Any, ...]:
    """Set a recipe's objectives for "image", "text" or "audio". Raises RecipeError for one that is not for it.

    views: a recipe's; it decides the augmentation of an objective on images that names none. Text and sound have no
    resolution: "native" changes nothing there.
    """
    if objectives is None:
        return paper(modality, views)
    return tuple(_for_modality(objective, modality, views) for objective in objectives)


def _for_modality(objective: Any, modality: str, views: str) -> Any:
    if not hasattr(objective, "for_modality"):
        return objective
    # A user's own objective may take the modality alone.
    return objective.for_modality(modality) if views == "paper" else objective.for_modality(modality, views)


__all__ = ["DINO", "KL", "NAMES", "MaskedTokens", "Objective", "SimCLR", "paper", "settle"]
