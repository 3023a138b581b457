"""The plan of `propagate`: words of the command line, and the settings that decide the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sporeprint.data.limits import Limits
from sporeprint.errors import RecipeError
from sporeprint.features.combine import Combination
from sporeprint.features.dense.copies import Copies
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.features.dense.token_objectives import TokenSimCLR
from sporeprint.run.dense_options import middle_layers
from sporeprint.segment.vote import CLASS_TEMPERATURE, NEIGHBOURS

FEATURES = ("all", "layers", "paper", "embedding")
LONGEST = 640  # pixels of the longest side, unless another size is asked for
# Defaults for scribbles and points: on CamVid, two points a class gave an mIoU of 32.6 with these features, 28.6 with
# all; a temperature of 0.1 was up to 0.7 above 0.05.
FEW: Mapping[str, Any] = {"features": "embedding", "temperature": 0.1}


@dataclass(frozen=True)
class Settings:
    """Settings that the masks depend on, apart from images, marks and backbone.

    features: "all" (embedding, layers, gradients, whitened), "layers" (without gradients), "paper" (embedding and
    gradients), "embedding". shifts, flip, scales: see `Copies`. size: longest side, in pixels, that images are scaled
    to for the backbone; None leaves those up to LONGEST as they are. fit_images: the number of images, drawn by id and
    seed, that features are whitened on.
    """

    features: str = "all"
    shifts: int = 2
    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    size: int | None = None
    k: int = NEIGHBOURS
    temperature: float = CLASS_TEMPERATURE
    fit_images: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise RecipeError(f"features {self.features!r}; known: {', '.join(FEATURES)}")

    def dense(self, depth: int) -> Dense:
        """Settings of the dense features of a backbone of `depth` blocks."""
        gradients, layers = self.features in ("all", "paper"), self.features in ("all", "layers")
        families = ("embedding", *(["layers"] if layers else []), *(["gradients"] if gradients else []))
        return Dense(
            objectives=(TokenSimCLR(),) if gradients else (),
            layers=middle_layers(depth) if layers else (),
            copies=Copies(self.shifts, self.flip, self.scales),
            combination=Combination(families, whiten="auto", exponent=0.5) if layers else "paper",
            fit_images=self.fit_images,
        )


@dataclass(frozen=True)
class Words:
    """Words of the command line, apart from those that `Settings` holds."""

    images: Path
    out: Path
    backbone: str
    on: Sequence[str]
    mask: Sequence[Path] | None = None
    scribbles: Sequence[Path] | None = None
    points: Sequence[str] | None = None
    ignore: str | None = None
    scales: str = "1"
    id_column: str | None = None
    image_column: str | None = None
    split: str | None = None
    limit: int | None = None
    device: str | None = None
    limits: Limits = Limits()
    trust_remote_code: bool = False
    allow_random: bool = False
