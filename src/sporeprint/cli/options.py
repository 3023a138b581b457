"""Every option that two commands share, once: its type and its help. An option of one command stands in its file.

Where a word takes other values in another command, that command has its own alias here or in its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from sporeprint.cli.plain_text import say
from sporeprint.errors import RecipeError

Value = TypeVar("Value")

# fmt: off  # one option a line reads as a table
# What is asked about

TrainStore = Annotated[Path, typer.Argument(metavar="TRAIN_STORE", help="Store of the labelled rows.")]
TestStore = Annotated[
    Path, typer.Argument(metavar="TEST_STORE", help="Store of the rows to ask about, made with --fit-from TRAIN_STORE.")
]

_TRAIN = typer.Option(
    help="Source that the training store was made from: other labels, groups, and samples, are read from it."
)
_TEST = typer.Option(
    help="Source that the test store was made from: other labels, groups, and samples, are read from it."
)
Train = Annotated[Path, _TRAIN]
OptionalTrain = Annotated[Path | None, _TRAIN]
Test = Annotated[Path, _TEST]
OptionalTest = Annotated[Path | None, _TEST]
TrainSplit = Annotated[str | None, typer.Option(help="Split of the training source, where it holds several.")]
TestSplit = Annotated[str | None, typer.Option(help="Split of the test source, where it holds several.")]
Split = Annotated[str | None, typer.Option(help="Split of the source, where it holds several.")]
OtherLabels = Annotated[
    str | None,
    typer.Option("--label-column", help="Column of the sources to take labels from, instead of the stores' labels."),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        "--group-column",
        help="Column of the sources: rows of one group (video, speaker) are left out, split and drawn together.",
    ),
]
SampleColumn = Annotated[
    str | None,
    typer.Option(help="Column of the samples; found when absent (as in the training rows, where those are known)."),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the labels, '' for none; found when absent (as in the training rows, where those are known)."
    ),
]
IdColumn = Annotated[str | None, typer.Option(help="Column of unique ids, of a table; default the row number.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of images, of a table; found when absent.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Read the first N rows of a source only.")]

# Backbone and gradients

_BACKBONE = typer.Option(help="Hugging Face id or folder, timm:NAME, or tiny.")
Backbone = Annotated[str, _BACKBONE]
OptionalBackbone = Annotated[str | None, _BACKBONE]
_MODALITY = "Tower of a checkpoint that has two: image, text or audio."
Modality = Annotated[Literal["auto", "image", "text", "audio"], typer.Option(help=_MODALITY)]
OptionalModality = Annotated[
    Literal["auto", "image", "text", "audio"] | None,
    typer.Option(help=_MODALITY, show_default="what the checkpoint takes"),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that lies in the backbone's checkpoint; never without this option."
    ),
]
AllowRandom = Annotated[
    bool,
    typer.Option(
        "--allow-random", help="Go on where the checkpoint lacks weights that features read: they are random."
    ),
]
_DTYPE = "Precision of the backbone: auto, float32 or bfloat16."
Dtype = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help=_DTYPE)]
OptionalDtype = Annotated[Literal["auto", "float32", "bfloat16"] | None, typer.Option(help=_DTYPE, show_default="auto")]
_PROJECTION = "Random projection of gradients: rademacher (the paper's; slow for patches), tensorsketch or sparse."
Projection = Annotated[str, typer.Option(help=_PROJECTION)]  # the library says what became of a removed one
OptionalProjection = Annotated[str | None, typer.Option(help=_PROJECTION, show_default="rademacher")]
Dim = Annotated[int | None, typer.Option(min=1, help="Width of a gradient block; default the embedding's.")]

# What is joined, and how

_FEATURES = "What features are made from: blocks or families (layers, views, gradients), comma-separated."
Features = Annotated[str | None, typer.Option(help=_FEATURES, show_default="a table of several")]
ChosenFeatures = Annotated[str | None, typer.Option(help=_FEATURES, show_default="chosen by leave-one-out")]
AllFeatures = Annotated[str | None, typer.Option(help=_FEATURES, show_default="all")]
PaperFeatures = Annotated[str | None, typer.Option(help=_FEATURES, show_default="the paper's: embedding and gradients")]
Whiten = Annotated[str | None, typer.Option(help="With --features: whiten each block to N dimensions, or auto.")]
Exponent = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="With --whiten: how far to even out, 0 not at all, 1 in full.", show_default="1"),
]
Pca = Annotated[int | None, typer.Option(min=1, help="Reduce what is joined to N dimensions by PCA.")]
CombinationName = Annotated[
    Literal["paper", "decorrelated", "loo"] | None,
    typer.Option(
        "--combination",
        help="Instead of --features: paper, decorrelated, or loo (chosen by leave-one-out on the labelled rows).",
    ),
]
UnlabelledCombination = Annotated[
    Literal["paper", "decorrelated", "loo"] | None,  # the command says why it does not take loo
    typer.Option("--combination", metavar="[paper|decorrelated]", help="Instead of --features: paper or decorrelated."),
]

# Neighbours and probes

_K = "Number of nearest neighbours, or auto: chosen by leave-one-out on the training data."
K = Annotated[str, typer.Option(help=_K)]
KOf30 = Annotated[str | None, typer.Option(help=_K, show_default="30")]
Metric = Annotated[Literal["euclidean", "cosine"], typer.Option(help="Distance between two rows.")]
Vote = Annotated[Literal["uniform", "distance", "softmax"], typer.Option(help="How neighbours are weighed.")]
VoteTemperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        help="With --vote softmax, its temperature: the lower, the more the nearest count.",
        show_default="0.07",
    ),
]
Standardise = Annotated[
    bool, typer.Option("--standardise", help="Give every dimension the same variance, for a probe or a ridge.")
]
Shots = Annotated[int | None, typer.Option(min=1, help="Few-shot: N training rows of each class, drawn several times.")]
_DRAWS = "With --shots: how often."
Draws = Annotated[int | None, typer.Option(min=1, help=_DRAWS, show_default="3")]
ChoosingDraws = Annotated[int | None, typer.Option("--draws", min=1, help=_DRAWS, show_default="5")]

# Predictions

Predictions = Annotated[
    Path | None,
    typer.Option("--out", help="File of predictions to write: .parquet, .csv or .jsonl.", show_default=False),
]
Abstain = Annotated[
    float | None,
    typer.Option(
        help="Add the set of labels that lacks the true one in this share of rows, such as 0.05, and an answer where it holds one label."
    ),
]
Probabilities = Annotated[bool, typer.Option("--probabilities", help="Add a column of probabilities for each class.")]

# Patches

Shifts = Annotated[
    int,
    typer.Option(
        min=1, help="N x N copies of each image, shifted by fractions of a patch, and a grid N times as fine."
    ),
]
_FLIP = "Add mirrored copies."
Flip = Annotated[bool, typer.Option(help=_FLIP)]
FlipOn = Annotated[bool, typer.Option("--flip", help=_FLIP)]
Scales = Annotated[str, typer.Option(help="Scales of the copies, comma-separated: 1,1.5 adds larger ones.")]
Ignore = Annotated[
    str | None,
    typer.Option(
        help="Label values that mean unlabelled, comma-separated; none where no value does.", show_default="255"
    ),
]
Sheet = Annotated[int, typer.Option(min=0, help="Number of images on OUT/sheet.png; 0 for no sheet.")]

# How a command runs

_SEED = "Seed of whatever is drawn at random."
Seed = Annotated[int, typer.Option(min=0, help=_SEED)]
Seed32 = Annotated[int, typer.Option(min=0, max=2**32 - 1, help=_SEED)]
OptionalSeed = Annotated[int | None, typer.Option(min=0, help=_SEED, show_default="0")]
Device = Annotated[str | None, typer.Option(help="Default cuda where there is one, else cpu.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows that are decoded together; changes no number.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Threads that decode rows and, for a GPU, cut their views; changes no number.")
]
MaxFailures = Annotated[
    float, typer.Option(min=0, max=1, help="Fraction of rows that may be unreadable (one always may, unless 0).")
]
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        help="Pixels of the largest image that is decoded (of WebP, AVIF and JPEG 2000 half as many); a larger one is a failed row.",
    ),
]
MaxSeconds = Annotated[
    float,
    typer.Option(
        min=0.001,
        help="Seconds of the longest sound that is decoded, before the backbone cuts it; a longer one is a failed row.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="Print all of it: every row and column.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

# Old names, which still work and are not shown

OldBlocks = Annotated[str | None, typer.Option("--blocks", hidden=True)]
OldSize = Annotated[int | None, typer.Option("--size", min=1, hidden=True)]
OldNeighbours = Annotated[str | None, typer.Option("--neighbours", hidden=True)]
OldNeighbourCount = Annotated[int | None, typer.Option("--neighbours", min=1, hidden=True)]
# fmt: on


def renamed(new: str, value: Value | None, old: str, old_value: Value | None) -> Value | None:
    """The value of option --`new`, which may have been given as --`old`: a note on stderr says so.

    Raises RecipeError where both names were given.
    """
    if old_value is None:
        return value
    if value is not None:
        raise RecipeError(f"--{old} is the old name of --{new}, and both were given; leave out --{old}")
    say(f"--{old} is called --{new} now; this name goes away in a later version", err=True)
    return old_value
