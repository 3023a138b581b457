"""What decides a propagation, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import RecipeError, RowFailure
from sporeprint.features.combine import Combination
from sporeprint.features.dense.copies import Copies
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.features.dense.token_objectives import TokenSimCLR
from sporeprint.segment.propagate import NEIGHBOURS, TEMPERATURE

FEATURES = ("all", "layers", "paper", "embedding")
LONGEST = 640  # pixels of the longest side, unless another size is asked for
LEAST_SURE = 10

_SHOWN = 5  # of the least sure


@dataclass(frozen=True)
class Settings:
    """What the masks depend on, beside images, marks and backbone.

    features: "all" (embedding, layers, gradients, whitened), "layers" (without gradients), "paper" (embedding and
    gradients), "embedding". shifts, flip, scales: see `Copies`. size: longest side, in pixels, that images are scaled
    to for the backbone; None leaves those up to LONGEST as they are. fit_images: so many, drawn by id and seed, are
    what features are whitened on.
    """

    features: str = "all"
    shifts: int = 2
    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    size: int | None = None
    k: int = NEIGHBOURS
    temperature: float = TEMPERATURE
    fit_images: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise RecipeError(f"features {self.features!r}; known: {', '.join(FEATURES)}")

    def dense(self, depth: int) -> Dense:
        """Of a backbone of `depth` blocks: layers at half, two thirds and five sixths of it."""
        gradients, layers = self.features in ("all", "paper"), self.features in ("all", "layers")
        numbers = sorted({max(1, round(depth * part)) for part in (1 / 2, 2 / 3, 5 / 6)})
        families = ("embedding", *(["layers"] if layers else []), *(["gradients"] if gradients else []))
        return Dense(
            objectives=(TokenSimCLR(),) if gradients else (),
            layers=tuple(numbers) if layers else (),
            copies=Copies(self.shifts, self.flip, self.scales),
            combination=Combination(families, whiten="auto", exponent=0.5) if layers else "paper",
            fit_images=self.fit_images,
        )


@dataclass(frozen=True)
class Result:
    """images: a record each, in order: id, mask (its file), shares by label, confidence, marked. removed: files of
    earlier runs, of other settings or of images that have gone.
    """

    out: Path
    images: list[dict[str, Any]]
    references: list[str]
    labels: dict[int, str]
    made: int
    failures: list[RowFailure] = field(default_factory=list)
    removed: int = 0

    @property
    def least_sure(self) -> list[dict[str, Any]]:
        """Images without marks, of the lowest mean confidence first: what to label next."""
        open_ones = [one for one in self.images if not one["marked"]]
        chosen = sorted(open_ones, key=lambda one: one["confidence"])[:LEAST_SURE]
        return [{"id": one["id"], "confidence": one["confidence"]} for one in chosen]

    def lines(self) -> list[str]:
        """For people: what was made, and what to do next."""
        kept = len(self.images) - self.made
        said = [f"{self.out / 'masks'}: {len(self.images)} masks{f', {kept} of them there already' if kept else ''}"]
        if self.removed:
            said.append(f"removed: {self.removed} files that earlier runs made with other settings or of other images")
        shares = {name: np.mean([one["shares"][name] for one in self.images]) for name in self.labels.values()}
        said.append("pixels: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
        if self.least_sure:
            said.append("least sure, label these next:")
            said += [f"  {one['id']}  {one['confidence']:.0%}" for one in self.least_sure[:_SHOWN]]
        return said

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "out": str(self.out),
            "references": self.references,
            "labels": {str(value): name for value, name in self.labels.items()},
            "made": self.made,
            "kept": len(self.images) - self.made,
            "removed": self.removed,
            "label_next": self.least_sure,
            "images": self.images,
            "failures": [one.to_json() for one in self.failures],
        }
