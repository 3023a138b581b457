"""The command that carries the labels of a few images to others, registered by cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sporeprint.cli.evaluate_commands import Json


def propagate(
    images: Annotated[Path, typer.Argument(help="Folder of images (flat, or with a folder images), or a table with a column of images.")],
    out: Annotated[Path, typer.Option(help="Folder for masks/, sheet.png and result.json; outside IMAGES. The same command goes on with it.")],
    backbone: Annotated[str, typer.Option(help="Hugging Face id or folder, timm:NAME, or tiny.")],
    on: Annotated[list[str], typer.Option(help="The image that is marked: its id or file name in IMAGES, or a path. May be repeated, with marks for each.")],
    mask: Annotated[list[Path] | None, typer.Option(help="PNG of --on's size, a label value a pixel: grey or with a palette. May be partial.", show_default=False)] = None,
    scribbles: Annotated[list[Path] | None, typer.Option(help="The same, a few strokes on a background of an --ignore value.", show_default=False)] = None,
    points: Annotated[list[str] | None, typer.Option(help='"x,y,label; x,y,label", in pixels from the upper left, or a CSV file with these columns; a label is a number or a name.', show_default=False)] = None,
    ignore: Annotated[str | None, typer.Option(help="Values of --mask and --scribbles that mean unlabelled, comma-separated; none for no such value.", show_default="255")] = None,
    features: Annotated[str | None, typer.Option(help="all, layers (without gradients: faster), paper, or embedding.", show_default="all; of scribbles and points embedding")] = None,
    shifts: Annotated[int, typer.Option(min=1, help="n x n shifted copies of each image, and a grid n times as fine.")] = 2,
    flip: Annotated[bool, typer.Option(help="Mirrored copies too.")] = True,
    scales: Annotated[str, typer.Option(help="Scaled copies, comma-separated, such as 1,1.5.")] = "1",
    size: Annotated[int | None, typer.Option(min=16, help="Longest side, in pixels, that the backbone gets images at.", show_default="their own, at most 640")] = None,
    neighbours: Annotated[int | None, typer.Option(min=1, help="Labelled patches of each class that vote.", show_default="30")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.001, help="Of the vote: the lower, the more the nearest counts.", show_default="0.05; of scribbles and points 0.1")] = None,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write confidence/ too: grey pictures, black where the vote was close.")] = False,
    sheet: Annotated[int, typer.Option(min=0, help="Images on sheet.png; 0 for none.")] = 12,
    id_column: Annotated[str | None, typer.Option(help="Column of ids, of a table; default the row number.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of images, of a table; found when absent.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split, of a folder that holds several.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of head, projection and negatives.")] = 0,
    device: Annotated[str | None, typer.Option(help="Default cuda where there is one, else cpu.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Label one image, or click a few points on it: masks for all others, and which of them to label next."""
    from sporeprint.cli.console import ProgressLine, print_json
    from sporeprint.run.propagation import Words, run_propagate

    words = Words(images, out, backbone, on, mask, scribbles, points, ignore, scales, id_column, image_column, split, limit, device)  # fmt: skip
    chosen: dict[str, Any] = {"features": features, "shifts": shifts, "flip": flip, "size": size, "seed": seed}
    chosen |= {"k": neighbours, "temperature": temperature}
    try:
        found = run_propagate(words, chosen, confidence, sheet, ProgressLine())
    except KeyboardInterrupt:
        typer.echo("error: interrupted; what is done is kept, the same command goes on from there", err=True)
        raise typer.Exit(1) from None
    for failure in found.failures:
        typer.echo(f"not read: {failure.id}: {failure.reason}", err=True)
    if json:
        print_json(found.to_json())
        return
    for line in found.lines():
        typer.echo(line)
