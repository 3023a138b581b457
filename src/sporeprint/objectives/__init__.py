"""Self-supervised losses whose gradients become blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sporeprint.objectives.base import Objective
from sporeprint.objectives.dino import DINO
from sporeprint.objectives.kl import KL
from sporeprint.objectives.masked import MaskedTokens
from sporeprint.objectives.simclr import SimCLR

NAMES = {"kl": KL, "dino": DINO, "simclr": SimCLR, "mlm": MaskedTokens}  # what the command line calls them


def paper(modality: str = "image") -> tuple[Objective, ...]:
    """The paper's objectives for a modality, with its constants: DINO is for images alone."""
    return settle([KL(), DINO(), SimCLR()] if modality == "image" else [KL(), SimCLR()], modality)


def settle(objectives: Sequence[Any] | None, modality: str) -> tuple[Any, ...]:
    """A recipe's objectives as they are on "image", "text" or "audio". Raises RecipeError for one that is not."""
    if objectives is None:
        return paper(modality)
    return tuple(one.for_modality(modality) if hasattr(one, "for_modality") else one for one in objectives)


__all__ = ["DINO", "KL", "NAMES", "MaskedTokens", "Objective", "SimCLR", "paper", "settle"]
