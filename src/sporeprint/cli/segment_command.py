"""The command that segments by retrieval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import ImageLimits, grouped
from sporeprint.cli.plain_text import say
from sporeprint.cli.segment_words import SegmentWords


@dataclass(frozen=True, kw_only=True)
class SegmentWay:
    """How `segment` goes about it: fields of `run.segment.Way`."""

    # fmt: off
    masks: Annotated[bool, typer.Option("--masks", help="Write predictions as palette PNGs to OUT/masks/FEATURES/ID.png (of the first run).")] = False
    sheet: options.Sheet = 8
    keep_bank: Annotated[bool, typer.Option("--keep-bank", help="Keep the memory banks, in OUT/banks.")] = False
    device: options.Device = None
    dtype: options.Dtype = "auto"
    batch_size: options.BatchSize = 8
    workers: options.Workers = 1
    max_failures: options.MaxFailures = 0.01
    trust_remote_code: options.TrustRemoteCode = False
    allow_random: options.AllowRandom = False
    # fmt: on


@grouped
def segment(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Images with masks: a folder of images/ and masks/, VOC's layout, a list, or a Parquet / CSV / JSONL table with a column of each.")],
    test: Annotated[Path, typer.Argument(metavar="TEST", help="Images to label; where they have masks, predictions are compared with them.")],
    backbone: options.Backbone,
    out: Annotated[Path, typer.Option(help="Folder for result.json, masks and sheet.png (image, truth, the embedding's and the best prediction); interrupted, the same command goes on.")],
    words: SegmentWords,
    way: SegmentWay,
    limits: ImageLimits,
    train_split: options.TrainSplit = None,
    test_split: options.TestSplit = None,
    image_column: options.ImageColumn = None,
    mask_column: Annotated[str | None, typer.Option(help="Column of masks, of a table; found when absent.")] = None,
    id_column: options.IdColumn = None,
    limit: options.Limit = None,
    no_truth: Annotated[bool, typer.Option("--no-truth", help="Do not look for masks of TEST: predict only.")] = False,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Label images by the most similar patches of a few labelled ones; which features do it best, and at what cost.

    The plain embedding, which the others are compared with, is never reduced by --pca.
    """
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_segmentation import as_json, print_segmentation
    from sporeprint.features.progress import ProgressLine
    from sporeprint.run.output_folder import finished_runs, refuse_among_images
    from sporeprint.run.segment import Way, segment
    from sporeprint.run.segment_scenes import open_pair

    plan = words.plan()
    refuse_among_images(out, "segmented", TRAIN=train, TEST=test)
    columns = {"image_column": image_column, "mask_column": mask_column, "id_column": id_column}
    pair = open_pair(train, test, train_split, test_split, columns, limit, not no_truth)
    if pair.note:
        say(pair.note, err=True)
    try:
        result = segment(
            pair.train,
            pair.test,
            out,
            plan,
            backbone,
            Way(**asdict(way), limits=limits.limits()),
            pair.truth,
            ProgressLine(),
            partial(say, err=True),
        )
    except KeyboardInterrupt:
        count = finished_runs(out)
        kept = f"finished runs are kept in '{out}' ({count}); the same command goes on with the next"
        raise KeyboardInterrupt(kept if count else "no run had finished; the same command starts again") from None
    if json:
        print_json(as_json(result))
    else:
        print_segmentation(result, everything)
    failures = [(row.get("where", ""), row["id"], row["reason"]) for run in result.runs for row in run["failures"]]
    for where, image_id, reason in dict.fromkeys(failures):
        of = f" of {where}" if where else ""
        say(f"not read: {image_id}{of}: {reason}", err=True)
    written = [name for name in ("result.json", "sheet.png", "masks", "banks") if (out / name).exists()]
    say(f"{out}: {', '.join(written)}", err=True)
