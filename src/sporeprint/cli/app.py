"""The command line. Commands only: what they do lives in run/ and evaluate/, imported when a command runs."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sporeprint.cli.compare_command import compare
from sporeprint.cli.evaluate_commands import COMMANDS as EVALUATIONS
from sporeprint.cli.evaluate_commands import Json
from sporeprint.cli.propagate_command import propagate
from sporeprint.cli.segment_command import segment

app = typer.Typer(
    name="sporeprint",
    help="Better features from frozen models: gradients, layers and views, joined to the embedding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def extract(
    source: Annotated[Path, typer.Argument(help="Folder of class folders, Parquet / CSV / JSONL table, or datasets folder; of images, texts or sound.")],
    out: Annotated[Path, typer.Option(help="The store to make, or to go on with.")],
    backbone: Annotated[str | None, typer.Option(help="Hugging Face id or folder, timm:NAME, or tiny.")] = None,
    objectives: Annotated[str | None, typer.Option(help="Comma-separated: kl, simclr, dino (images), mlm (text); none for no gradients.", show_default="kl,dino,simclr for images, kl,simclr for text and sound")] = None,
    preset: Annotated[str | None, typer.Option(help="In the place of --objectives, --views and --negatives: paper, balanced, fast or free; see the README.")] = None,
    fit_from: Annotated[Path | None, typer.Option(help="Store (or saved Fungi) whose recipe, heads and negatives to use: what a test set needs.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe as JSON, in the place of the options below.")] = None,
    modality: Annotated[str | None, typer.Option(help="image, text or audio: which tower of a checkpoint of two.", show_default="what the checkpoint takes")] = None,
    targets: Annotated[str | None, typer.Option(help="Linear layers to read, comma-separated; found when absent.")] = None,
    pooling: Annotated[str | None, typer.Option(help="auto, cls, mean or last.", show_default="auto")] = None,
    projection: Annotated[str | None, typer.Option(help="rademacher, tensorsketch, sparse or kronecker.", show_default="rademacher")] = None,
    dim: Annotated[int | None, typer.Option(help="Width of a gradient block; default the embedding's.")] = None,
    layers: Annotated[int | None, typer.Option(help="Blocks of the last so many layers.", show_default="6")] = None,
    layer_kinds: Annotated[str | None, typer.Option(help="Of cls, last, mean, max, comma-separated.", show_default="cls or last, where there is one, and mean; of text max too")] = None,
    view_moments: Annotated[int | None, typer.Option(help="2 keeps the spread of a row's view embeddings beside their mean.", show_default="1")] = None,
    views: Annotated[str | None, typer.Option(help="Of images: paper, or native, which takes patches and local crops at half the side, several times faster.", show_default="paper")] = None,
    negatives: Annotated[int | None, typer.Option(help="Rows in SimCLR's bank of negatives.", show_default="256; of sound 64")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.", show_default="auto")] = None,
    seed: Annotated[int | None, typer.Option(help="Of heads, projection, views and negatives.", show_default="0")] = None,
    sample_column: Annotated[str | None, typer.Option(help="Column of the samples; found when absent (with --fit-from: as there).")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels; found when absent, '' for none.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of unique ids; default the row number.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split, of a folder that holds several.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows (many sources are sorted by class: see --sample).")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="A random part of so many rows, the same at every call.")] = None,
    max_failures: Annotated[float, typer.Option(min=0, max=1, help="Fraction of rows that may be unreadable (one always may, unless 0).")] = 0.01,
    device: Annotated[str | None, typer.Option(help="Default cuda where there is one, else cpu.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows decoded and projected together; changes no number.")] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode, and that cut views for a GPU (on a CPU these are cut in turn with the backbone); changes no number.")] = 1,
    compile: Annotated[bool, typer.Option("--compile", help="The blocks with torch.compile, some 20 s; changes no number.")] = False,
    shard_rows: Annotated[int, typer.Option(min=1, help="Rows a shard: what an interruption can cost.")] = 256,
    store_dtype: Annotated[str, typer.Option(help="float32 or float16 on disk.")] = "float32",
    json: Json = False,
) -> None:  # fmt: skip
    """Compute the blocks of every row into a store. Interrupted, the same command goes on where it stopped."""
    from sporeprint.cli.console import ProgressLine, print_json
    from sporeprint.data.sampling import Sampled
    from sporeprint.data.sources import Source, open_source
    from sporeprint.run.extract import Settings, extract
    from sporeprint.run.recipe_options import fitted_columns, make_recipe, source_modality
    from sporeprint.run.store_info import source_lines, store_summary

    moved = None if fit_from is None else backbone  # the fit's own backbone, where it lies now
    made = make_recipe(
        recipe, bare=fit_from is None, preset=preset, backbone=None if moved else backbone, objectives=objectives, modality=modality, targets=targets,
        pooling=pooling, projection=projection, dim=dim, layers=layers, layer_kinds=layer_kinds, view_moments=view_moments, views=views, negatives=negatives, dtype=dtype, seed=seed,
    )  # fmt: skip
    rows: Source = open_source(
        source,
        sample_column=sample_column,
        label_column=label_column,
        id_column=id_column,
        split=split,
        limit=limit,
        modality=source_modality(made, fit_from, moved),
        like=fitted_columns(fit_from),
    )
    if sample is not None:
        rows = Sampled(rows, sample)
    for line in source_lines(rows.describe()):
        typer.echo(line, err=True)
    settings = Settings(device, batch_size, workers, shard_rows, store_dtype, max_failures, compile)
    try:
        store = extract(rows, out, made, fit_from, moved, settings, progress=ProgressLine())
    except KeyboardInterrupt:
        _fail("interrupted; what is done is kept, the same command goes on from there", 1)
    if json:
        print_json(store_summary(store))
        return
    typer.echo(f"{out}: {len(store)} rows, blocks {', '.join(store.block_names)}")
    if store.truncated:
        typer.echo(f"too long: {store.truncated} rows, of which the backbone saw the beginning only", err=True)
    for failure in store.failures:
        typer.echo(f"not read: {failure.id}: {failure.reason}", err=True)


for command in (compare, *EVALUATIONS, segment, propagate):
    app.command()(command)


@app.command()
def demonstrations(
    train_store: Annotated[Path, typer.Argument(help="Store of the labelled texts, which become examples.")],
    test_store: Annotated[Path, typer.Argument(help="Store of the texts to ask about.")],
    train: Annotated[Path, typer.Option(help="The source that TRAIN_STORE was made of.")],
    test: Annotated[Path, typer.Option(help="The source that TEST_STORE was made of.")],
    out: Annotated[Path, typer.Option(help="The JSON lines file to write: a prompt a line.")],
    template: Annotated[Path | None, typer.Option(help="Text file: example and query, or header, example and query, with a line --- between; fields {text}, {label}, {labels}.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Examples in a prompt.")] = 8,
    choose: Annotated[str, typer.Option(help="nearest, or balanced: the nearest of every class in turn.")] = "nearest",
    order: Annotated[str, typer.Option(help="nearest_last (beside the query) or nearest_first.")] = "nearest_last",
    blocks: Annotated[str | None, typer.Option(help="Blocks or families (layers, views, gradients), comma-separated; without it, the paper's: embedding and gradients.")] = None,
    whiten: Annotated[str | None, typer.Option(help="With --blocks: whiten each to so many dimensions, or auto.")] = None,
    exponent: Annotated[float | None, typer.Option(min=0, max=1, help="With --whiten: how far to even out, 0 not at all, 1 in full.", show_default="1")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="PCA of the joined blocks to this size.")] = None,
    combination: Annotated[str | None, typer.Option(help="In the place of --blocks: paper, decorrelated, or loo (chosen by leave-one-out on the training rows).")] = None,
    train_split: Annotated[str | None, typer.Option(help="Which split, where --train holds several.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Which split, where --test holds several.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Prompts for a language model: for each test text the nearest training texts with their labels. None is called."""
    from sporeprint.cli.console import print_json
    from sporeprint.errors import RecipeError
    from sporeprint.evaluate.demonstrations import write_jsonl
    from sporeprint.run.combination_flags import wanted
    from sporeprint.run.prompts import make_prompts
    from sporeprint.run.store_source import Rows

    if out.is_dir():
        raise RecipeError(f"--out '{out}' is a folder; give the name of a file, such as {out / 'prompts.jsonl'}")
    made = make_prompts(
        Rows(train_store, train, train_split),
        Rows(test_store, test, test_split),
        template, k, choose, order, wanted(blocks, whiten, exponent, size, combination),
    )  # fmt: skip
    write_jsonl(made.lines, out)
    for note in made.notes:
        typer.echo(note, err=True)
    if json:
        print_json({"out": str(out), "prompts": len(made.lines), "blocks": list(made.blocks), "notes": made.notes})
        return
    typer.echo(f"{out}: {len(made.lines)} prompts, neighbours by {', '.join(made.blocks)}")


@app.command()
def info(
    store: Annotated[Path, typer.Argument(help="A store, complete or not.")],
    verify: Annotated[bool, typer.Option(help="Read every file and check it.")] = False,
    json: Json = False,
) -> None:
    """What a store holds: rows, blocks, recipe, backbone, failures, cost."""
    from sporeprint.cli.console import print_json
    from sporeprint.run.store_info import store_lines, store_summary
    from sporeprint.store.reader import Store

    opened = Store.open(store)
    if verify:
        opened.verify()
    if json:
        print_json({**store_summary(opened), **({"verified": True} if verify else {})})
        return
    for line in store_lines(opened, verify):
        typer.echo(line)


@app.command()
def backbones(
    name: Annotated[str | None, typer.Argument(help="Hugging Face id or folder, timm:NAME or tiny: load it and say what was found.")] = None,
    modality: Annotated[str, typer.Option(help="With NAME: auto, image, text or audio.")] = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """What is supported, and how the target layer is found."""
    from sporeprint.cli.console import print_json, print_table
    from sporeprint.run.store_info import SUPPORTED, describe_backbone

    if name is not None:
        found = describe_backbone(name, modality)
        if json:
            print_json(found)
            return
        for key, value in found.items():
            typer.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
        return
    if json:
        print_json([dict(zip(("modality", "backbones", "embedding"), row, strict=True)) for row in SUPPORTED])
        return
    print_table(
        "Backbones", ["", "library and families", "embedding (pooling auto)"], SUPPORTED, numbers=False, group=True
    )
    typer.echo(
        "The target is found by structure: the longest list of equal blocks that hold an attention; in its last block, "
        "the attention's last linear layer that makes no query, key or value. Any other layer: --targets PATH. "
        "`sporeprint backbones NAME` says what is found in a checkpoint."
    )


@app.command()
def demo(
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the split, heads, projection, views and negatives.")
    ] = 0,
    json: Json = False,
) -> None:
    """The shipped backbone on digits that it has never seen: accuracy and cost of each block. Needs no network."""
    from sporeprint.cli.console import print_entries, print_json
    from sporeprint.run.demo import demo

    typer.echo("computing the blocks of 600 digits with the shipped backbone: a minute or so ...", err=True)
    result = demo(seed)
    if json:
        print_json(result.to_json())
        return
    note = f"scikit-learn digits, {result.train_rows} training rows, {result.test_rows} test rows, shipped backbone"
    print_entries(note, result.entries, rates=True)
    typer.echo(result.verdict())


def main() -> Any:
    """Run the command line: 0 done, 1 failed, 2 misuse."""
    from sporeprint.errors import RecipeError, SourceError, SporeprintError

    log = logging.getLogger("sporeprint")
    log.setLevel(logging.INFO)
    log.handlers = [_Stderr()]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
            app()
    except (RecipeError, SourceError) as error:
        _fail(error, 2)
    except SporeprintError as error:
        _fail(error, 1)


class _Stderr(logging.Handler):
    """What the library logs, as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(record.getMessage(), err=True)


def _fail(error: Any, status: int) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    sys.exit(status)
