"""The options of `segment` that decide its numbers, as one value, and the plan that they make."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sporeprint.cli import options

if TYPE_CHECKING:
    from sporeprint.run.segment_plan import Plan

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class SegmentWords:
    """What decides the numbers of `segment`, as typed."""

    # fmt: off
    size: Annotated[str | None, typer.Option(help="Height x width in pixels that every image is resized to: 240x320, or 512 for 512x512.", show_default="their own size, resized to whole patches")] = None
    bank: Annotated[int, typer.Option(min=1, help="Number of patches of training images to compare with.")] = 102_400
    k: options.KOf30 = None
    temperature: Annotated[str, typer.Option(help="Temperature of the neighbours' vote: a number, or auto.")] = "0.02"
    objectives: Annotated[str, typer.Option(help="Losses whose gradients are taken, comma-separated: simclr, kl; or none.")] = "simclr"
    layers: Annotated[str | None, typer.Option(help="Numbers of the transformer blocks whose patches are joined, comma-separated, from 1; negative from the end.", show_default="at half, two thirds and five sixths of the depth: 6,8,10 of 12")] = None
    shifts: options.Shifts = 1
    flip: options.FlipOn = False
    scales: options.Scales = "1"
    projection: options.Projection = "tensorsketch"
    dim: options.Dim = None
    pca: options.Pca = None
    features: Annotated[str | None, typer.Option(help="Features to compare with the plain embedding, comma-separated: paper, layers, 'layers + gradients', and with copies 'copies: layers' and so on.", show_default="all")] = None
    fractions: Annotated[str, typer.Option(help="Fractions of the training images to run with, comma-separated: 1,1/8,1/64.")] = "1"
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs for each fraction, each with its own draw of images, patches and heads; their seeds count up from --seed.")] = 1
    seed: options.Seed = 0
    ignore: options.Ignore = None
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes, with labels from 0; default by the training masks.")] = None
    sampling: Annotated[Literal["balanced", "uniform"], typer.Option(help="How the bank's patches are drawn: balanced (rare classes first) or uniform.")] = "balanced"
    epochs: Annotated[int, typer.Option(min=1, help="Looks at each training image: itself, then random crops; 8 for a few images.")] = 1
    index: Annotated[Literal["exact", "ivf", "ivf-sq8", "ivf-sq4", "hnsw"], typer.Option(help="Index of the bank: exact; or of faiss: ivf, ivf-sq8, ivf-sq4, hnsw.")] = "exact"
    bank_dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Precision of the bank on disk: float16 or float32.")] = "float16"
    neighbours: options.OldNeighbours = None
    # fmt: on

    def plan(self) -> Plan:
        """Raises RecipeError, which names the option."""
        from sporeprint.features.dense.copies import Copies
        from sporeprint.run.dense_options import (
            count,
            parse_ignore,
            parse_number,
            parse_numbers,
            parse_scales,
            parse_size,
            parse_words,
        )
        from sporeprint.run.segment_plan import Plan
        from sporeprint.segment.labeller import Voting
        from sporeprint.segment.training import Sampling

        k = options.renamed("k", self.k, "neighbours", self.neighbours)
        k = "30" if k is None else k
        layers, features, temperature = self.layers, self.features, self.temperature
        return Plan(
            size=parse_size(self.size),
            objectives=() if self.objectives == "none" else parse_words("objectives", self.objectives, "simclr, kl, or none"),
            layers=None if layers is None else parse_numbers("layers", layers, int, "numbers of blocks, such as 6,8,10"),
            copies=Copies(self.shifts, self.flip, parse_scales(self.scales)),
            features=None if features is None else parse_words("features", features, "such as layers,paper"),
            voting=Voting(
                AUTO if k == AUTO else parse_number("k", k, count, "a number such as 30, or auto"),
                AUTO if temperature == AUTO else parse_number("temperature", temperature, float, "a number such as 0.02, or auto"),
                self.index,
                self.bank_dtype,
            ),
            sampling=Sampling(self.bank, self.sampling, self.epochs),
            projection=self.projection,
            dim=self.dim,
            pca=self.pca,
            fractions=parse_numbers("fractions", self.fractions, Fraction, "numbers such as 1,1/8,1/64"),
            seeds=self.seeds,
            seed=self.seed,
            ignore=parse_ignore(self.ignore),
            classes=self.classes,
        )  # fmt: skip
