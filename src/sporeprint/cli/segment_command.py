"""The command that segments by retrieval, registered by cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sporeprint.cli.evaluate_commands import Json


def segment(
    train: Annotated[Path, typer.Argument(help="Images with masks: a folder of images/ and masks/, VOC's layout, a list, or a Parquet / CSV / JSONL table with a column of each.")],
    test: Annotated[Path, typer.Argument(help="Images to label; where they have masks, predictions are compared with them.")],
    backbone: Annotated[str, typer.Option(help="Hugging Face id or folder, timm:NAME, or tiny.")],
    out: Annotated[Path, typer.Option(help="Folder for result.json, sheet.png and masks; interrupted, the same command goes on.")],
    size: Annotated[str | None, typer.Option(help="What images are resized to, height x width in pixels: 240x320, or 512 for a square.", show_default="their own size, resized to whole patches")] = None,
    bank: Annotated[int, typer.Option(min=1, help="Patches of training images to compare with.")] = 102_400,
    neighbours: Annotated[str, typer.Option(help="Of each patch; a number, or auto: chosen on the training images.")] = "30",
    temperature: Annotated[str, typer.Option(help="Of the neighbours' vote; a number, or auto.")] = "0.02",
    objectives: Annotated[str, typer.Option(help="Of gradients, comma-separated: simclr, kl; or none.")] = "simclr",
    layers: Annotated[str | None, typer.Option(help="Blocks whose patches are joined, comma-separated, from 1; negative from the end.", show_default="at half, two thirds and five sixths of the depth: 6,8,10 of 12")] = None,
    shifts: Annotated[int, typer.Option(min=1, help="Also copies moved by fractions of a patch: n x n of them, and a grid n times as fine.")] = 1,
    flip: Annotated[bool, typer.Option("--flip", help="Also mirrored copies.")] = False,
    scales: Annotated[str, typer.Option(help="Also copies of other sizes: 1,1.5.")] = "1",
    projection: Annotated[str, typer.Option(help="Of gradients: tensorsketch, sparse, kronecker, or rademacher, which is the paper's and slow.")] = "tensorsketch",
    dim: Annotated[int | None, typer.Option(min=1, help="Width of a gradient block; default the embedding's.")] = None,
    pca: Annotated[int | None, typer.Option(min=1, help="PCA of what is joined to this size; the embedding alone stays as it is.", show_default="none")] = None,
    features: Annotated[str | None, typer.Option(help="Only these, comma-separated: paper, layers, 'layers + gradients', and with copies 'copies: layers' and so on.", show_default="all")] = None,
    fractions: Annotated[str, typer.Option(help="Of the training images, comma-separated: 1,1/8,1/64.")] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="So many runs a fraction, each with its own draw of images, patches and heads.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first run.")] = 0,
    ignore: Annotated[str | None, typer.Option(help="Label values that are void, comma-separated, or none.", show_default="255")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Labels are 0 to this less one; default by the training masks.")] = None,
    sampling: Annotated[str, typer.Option(help="Of the bank's patches: balanced (rare classes first) or uniform.")] = "balanced",
    epochs: Annotated[int, typer.Option(min=1, help="Looks of a training image: itself, then random crops; 8 for a few images.")] = 1,
    index: Annotated[str, typer.Option(help="exact; or of faiss: ivf, ivf-sq8, ivf-sq4, hnsw.")] = "exact",
    bank_dtype: Annotated[str, typer.Option(help="float16 or float32, of the bank on disk.")] = "float16",
    train_split: Annotated[str | None, typer.Option(help="Which split, where TRAIN holds several.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Which split, where TEST holds several.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Of tables; found when absent.")] = None,
    mask_column: Annotated[str | None, typer.Option(help="Of tables; found when absent.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Of tables; default the row number.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many of TRAIN, and of TEST.")] = None,
    no_truth: Annotated[bool, typer.Option("--no-truth", help="Do not look for masks of TEST: predict only.")] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Write predictions as palette PNGs to OUT/masks/FEATURES/ID.png (of the first run).")] = False,
    sheet: Annotated[int, typer.Option(min=0, help="Images on OUT/sheet.png: image, truth, the embedding's and the best prediction; 0 for none.")] = 8,
    keep_bank: Annotated[bool, typer.Option("--keep-bank", help="Keep the memory banks, in OUT/banks.")] = False,
    device: Annotated[str | None, typer.Option(help="Default cuda where there is one, else cpu.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images decoded together; changes no number.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode; changes no number.")] = 1,
    max_failures: Annotated[float, typer.Option(min=0, max=1, help="Fraction of images that may be unreadable (one always may, unless 0).")] = 0.01,
    json: Json = False,
) -> None:  # fmt: skip
    """Label images by the most similar patches of a few labelled ones; which features do it best, and at what cost."""
    from sporeprint.cli.console import ProgressLine, print_json
    from sporeprint.cli.print_segmentation import as_json, print_segmentation
    from sporeprint.run.labelled_folder import finished_runs, refuse_among_images
    from sporeprint.run.segment import Way, segment
    from sporeprint.run.segment_plan import make_plan
    from sporeprint.run.segment_scenes import open_pair

    def say(what: str) -> None:
        typer.echo(what, err=True)

    plan = make_plan(
        size=size, bank=bank, neighbours=neighbours, temperature=temperature, objectives=objectives, layers=layers,
        shifts=shifts, flip=flip, scales=scales, projection=projection, dim=dim, pca=pca, features=features,
        fractions=fractions, seeds=seeds, seed=seed, ignore=ignore, classes=classes, sampling=sampling, epochs=epochs,
        index=index, bank_dtype=bank_dtype,
    )  # fmt: skip
    refuse_among_images(out, "segmented", TRAIN=train, TEST=test)
    columns = {"image_column": image_column, "mask_column": mask_column, "id_column": id_column}
    pair = open_pair(train, test, train_split, test_split, columns, limit, not no_truth)
    if pair.note:
        say(pair.note)
    way = Way(device, dtype, batch_size, workers, max_failures, masks, sheet, keep_bank)
    try:
        found = segment(pair.train, pair.test, out, plan, backbone, way, pair.truth, ProgressLine(), say)
    except KeyboardInterrupt:
        if not finished_runs(out):
            _fail("interrupted: no run had finished, so nothing is kept; the same command starts anew")
        _fail("interrupted; runs that finished are kept, the same command goes on with the next")
    if json:
        print_json(as_json(found))
    else:
        print_segmentation(found)
    failures = [(one.get("where", ""), one["id"], one["reason"]) for run in found.runs for one in run["failures"]]
    for where, image_id, reason in dict.fromkeys(failures):
        say(f"not read: {image_id} of {where}: {reason}" if where else f"not read: {image_id}: {reason}")
    written = [name for name in ("result.json", "sheet.png", "masks", "banks") if (out / name).exists()]
    say(f"{out}: {', '.join(written)}")


def _fail(error: str) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1)
