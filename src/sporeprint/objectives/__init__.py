"""Self-supervised losses whose gradients become blocks."""

from sporeprint.objectives.base import Objective
from sporeprint.objectives.dino import DINO
from sporeprint.objectives.kl import KL
from sporeprint.objectives.simclr import SimCLR

NAMES = {"kl": KL, "dino": DINO, "simclr": SimCLR}  # what the command line calls them


def paper() -> tuple[Objective, ...]:
    """The paper's three objectives for images, with its constants."""
    return KL(), DINO(), SimCLR()


__all__ = ["DINO", "KL", "NAMES", "Objective", "SimCLR", "paper"]
