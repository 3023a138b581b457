"""The command that carries the labels of a few images to others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import ImageLimits, grouped
from sporeprint.cli.plain_text import say


@dataclass(frozen=True, kw_only=True)
class PropagateWords:
    """Which images, and how they are marked: fields of `run.propagation.Words`."""

    # fmt: off
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images (flat, or with a folder images), or a table with a column of images.")]
    out: Annotated[Path, typer.Option(help="Folder for masks/, sheet.png and result.json; outside IMAGES. Interrupted, the same command goes on.")]
    backbone: options.Backbone
    on: Annotated[list[str], typer.Option(help="Image that is marked: its id or file name in IMAGES, or a path. May be repeated, with marks for each.")]
    mask: Annotated[list[Path] | None, typer.Option(help="PNG of --on's size, a label value a pixel: grey or with a palette. May be partial.", show_default=False)] = None
    scribbles: Annotated[list[Path] | None, typer.Option(help="The same, a few strokes on a background of an --ignore value.", show_default=False)] = None
    points: Annotated[list[str] | None, typer.Option(help='"x,y,label; x,y,label", in pixels from the upper left, or a CSV file with these columns; a label is a number or a name.', show_default=False)] = None
    ignore: options.Ignore = None
    scales: options.Scales = "1"
    id_column: options.IdColumn = None
    image_column: options.ImageColumn = None
    split: options.Split = None
    limit: options.Limit = None
    device: options.Device = None
    trust_remote_code: options.TrustRemoteCode = False
    allow_random: options.AllowRandom = False
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class PropagateSettings:
    """What the masks depend on: fields of `run.propagate_plan.Settings`, None for its default."""

    # fmt: off
    features: Annotated[str | None, typer.Option(help="Features of the patches: all, layers (without gradients: faster), paper, or embedding.", show_default="all; of scribbles and points embedding")] = None
    shifts: options.Shifts = 2
    flip: options.Flip = True
    size: Annotated[int | None, typer.Option(min=16, help="Length in pixels that the longer side of every image is resized to; the other side follows.", show_default="their own, at most 640")] = None
    k: Annotated[int | None, typer.Option(min=1, help="Number of nearest labelled patches of each class that vote.", show_default="30")] = None
    temperature: Annotated[float | None, typer.Option(min=0.001, help="Temperature of the neighbours' vote: the lower, the more the nearest count.", show_default="0.05; of scribbles and points 0.1")] = None
    seed: options.Seed = 0
    neighbours: options.OldNeighbourCount = None
    # fmt: on

    def chosen(self) -> dict[str, Any]:
        """Raises RecipeError where k was given under both its names."""
        fields = asdict(self)
        fields["k"] = options.renamed("k", self.k, "neighbours", fields.pop("neighbours"))
        return fields


@grouped
def propagate(
    words: PropagateWords,
    settings: PropagateSettings,
    limits: ImageLimits,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write confidence/ too: grey pictures, black where the vote was close.")] = False,
    sheet: options.Sheet = 12,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Label one image, or click a few points on it: masks for all others, and which of them to label next."""
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.features.progress import ProgressLine
    from sporeprint.run.propagation import Words, run_propagate

    result = run_propagate(
        Words(**asdict(words), limits=limits.limits()), settings.chosen(), confidence, sheet, ProgressLine()
    )
    for failure in result.failures:
        say(f"not read: {failure.id}: {failure.reason}", err=True)
    if json:
        print_json(result.to_json())
        return
    for line in result.lines(everything):
        say_folded(line, "  ")
