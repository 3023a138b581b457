"""The command that computes the blocks of every row into a store."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sporeprint.cli import options
from sporeprint.cli.option_groups import SampleLimits, SourceWords, grouped
from sporeprint.cli.plain_text import say

if TYPE_CHECKING:
    from sporeprint.run.extract import Settings

_FAILURES = 10  # rows that were not read, which are named


@dataclass(frozen=True, kw_only=True)
class RecipeWords:
    """What decides the numbers of `extract`: words of `run.recipe_options.make_recipe`."""

    # fmt: off
    backbone: options.OptionalBackbone = None
    objectives: Annotated[str | None, typer.Option(help="Losses, comma-separated: kl, simclr, dino (images), mlm (text); none for no gradients.", show_default="kl alone: --preset free")] = None
    preset: Annotated[Literal["paper", "balanced", "fast", "free"] | None, typer.Option(help="Instead of --objectives, --views and --negatives: paper, balanced, fast or free; see the README.", show_default="free")] = None
    modality: options.OptionalModality = None
    targets: Annotated[str | None, typer.Option(help="Linear layers to read, comma-separated; found when absent.")] = None
    pooling: Annotated[Literal["auto", "cls", "mean", "last"] | None, typer.Option(help="auto, cls, mean or last.", show_default="auto")] = None
    projection: options.OptionalProjection = None
    dim: options.Dim = None
    layers: Annotated[int | None, typer.Option(help="Number of last layers that become blocks.", show_default="6")] = None
    layer_kinds: Annotated[str | None, typer.Option(help="Kinds of blocks that a layer becomes: cls, last, mean, max; attention: what the heads of the last attention gave; comma-separated.", show_default="cls or last, where there is one, and mean; of text max too")] = None
    views: Annotated[Literal["paper", "native"] | None, typer.Option(help="Views of images: paper, or native, which takes patches and local crops at half the side, several times faster; with --objectives.", show_default="paper")] = None
    negatives: Annotated[int | None, typer.Option(help="Number of rows in SimCLR's bank of negatives; with --objectives.", show_default="256; of sound 64")] = None
    dtype: options.OptionalDtype = None
    seed: options.OptionalSeed = None
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """How `extract` goes about it: fields of `run.extract.Settings`."""

    # fmt: off
    max_failures: options.MaxFailures = 0.01
    device: options.Device = None
    batch_size: options.BatchSize = 32
    workers: options.Workers = 1
    shard_rows: Annotated[int, typer.Option(min=1, help="Number of rows in a shard: what an interruption can cost.")] = 256
    store_dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Precision of the blocks on disk: float32 or float16.")] = "float32"
    trust_remote_code: options.TrustRemoteCode = False
    allow_random: options.AllowRandom = False
    # fmt: on

    def settings(self, limits: SampleLimits) -> Settings:
        from sporeprint.run.extract import Settings

        fields = asdict(self)
        return Settings(dtype=fields.pop("store_dtype"), limits=limits.limits(), **fields)


@grouped
def extract(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder of class folders, Parquet / CSV / JSONL table, or datasets folder; of images, texts or sound.")],
    out: Annotated[Path, typer.Option(help="Store to make; interrupted, the same command goes on.")],
    words: RecipeWords,
    rows: SourceWords,
    settings: ExtractSettings,
    limits: SampleLimits,
    fit_from: Annotated[Path | None, typer.Option(help="Store (or saved Fungi) whose recipe, heads and negatives to use: what a test set needs.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe as JSON, instead of --backbone, --seed and all options between them.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="A random N rows, the same at every call: for a source that is sorted by class, where --limit would read a few classes only.")] = None,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Compute the blocks of every row into a store. Interrupted, the same command goes on where it stopped."""
    from sporeprint.cli.console import print_json
    from sporeprint.cli.print_tables import say_folded
    from sporeprint.data.sampling import Sampled
    from sporeprint.data.sources import Source, open_source
    from sporeprint.errors import StoreMismatch
    from sporeprint.features.progress import ProgressLine
    from sporeprint.run.extract import extract
    from sporeprint.run.plan_differences import other_run
    from sporeprint.run.recipe_options import fitted_columns, make_recipe, source_modality
    from sporeprint.run.store_info import blocks_text, source_lines, store_summary

    moved = None if fit_from is None else words.backbone  # the fit's own backbone, where it lies now
    if moved is not None:
        words = replace(words, backbone=None)
    trusted = settings.trust_remote_code
    asked = make_recipe(recipe, bare=fit_from is None, trust_remote_code=trusted, **asdict(words))
    modality = source_modality(asked, fit_from, moved, trusted)
    opened: Source = open_source(source, **asdict(rows), modality=modality, like=fitted_columns(fit_from))
    if sample is not None:
        opened = Sampled(opened, sample)
    for line in source_lines(opened.describe(), opened.notes()):
        say(line, err=True)
    try:
        store = extract(opened, out, asked, fit_from, moved, settings.settings(limits), progress=ProgressLine())
    except StoreMismatch as error:
        raise other_run(out, error) from None
    if json:
        print_json(store_summary(store))
        return
    say_folded(f"{out}: {len(store)} rows, blocks {blocks_text(store.block_names, everything)}", "  ")
    if store.truncated:
        say(f"too long: {store.truncated} rows, of which the backbone saw the beginning only", err=True)
    shown = store.failures if everything else store.failures[:_FAILURES]
    for failure in shown:
        say(f"not read: {failure.id}: {failure.reason}", err=True)
    if len(shown) < len(store.failures):
        more = len(store.failures) - len(shown)
        say(f"not read: {more:,} more rows; `sporeprint info {out} --all` names them", err=True)
