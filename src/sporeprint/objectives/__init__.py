"""Self-supervised losses whose gradients become blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sporeprint.objectives.dino import DINO
from sporeprint.objectives.kl import KL
from sporeprint.objectives.masked import MaskedTokens
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.simclr import SimCLR

NAMES = {"kl": KL, "dino": DINO, "simclr": SimCLR, "mlm": MaskedTokens}  # what the command line calls them


def paper(modality: str = "image", views: str = "paper") -> tuple[Objective, ...]:
    """The paper's objectives for a modality, with its constants: DINO is for images alone. views: a recipe's."""
    return settle([KL(), DINO(), SimCLR()] if modality == "image" else [KL(), SimCLR()], modality, views)


def settle(objectives: Sequence[Any] | None, modality: str, views: str = "paper") -> tuple[Any, ...]:
    """A recipe's objectives as they are on "image", "text" or "audio". Raises RecipeError for one that is not.

    views: a recipe's, which decides what an objective without an augmentation of its own gets on images. Text and sound
    have no resolution: "native" changes nothing there.
    """
    if objectives is None:
        return paper(modality, views)
    return tuple(_settled(one, modality, views) for one in objectives)


def _settled(one: Any, modality: str, views: str) -> Any:
    if not hasattr(one, "for_modality"):
        return one
    # An objective of a user's may know the modality alone.
    return one.for_modality(modality) if views == "paper" else one.for_modality(modality, views)


__all__ = ["DINO", "KL", "NAMES", "MaskedTokens", "Objective", "SimCLR", "paper", "settle"]
