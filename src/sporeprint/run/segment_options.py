"""From the words of `sporeprint segment` to a plan and two sets of images."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from sporeprint.data.scenes.scenes import Scenes, open_scenes
from sporeprint.errors import RecipeError, SourceError
from sporeprint.features.dense.copies import Copies
from sporeprint.run.segment_plan import Plan
from sporeprint.segment.labeller import AUTO, Voting
from sporeprint.segment.training import Sampling


def make_plan(
    size: str | None,
    bank: int,
    neighbours: str,
    temperature: str,
    objectives: str,
    layers: str | None,
    shifts: int,
    flip: bool,
    scales: str,
    features: str | None,
    fractions: str,
    ignore: str | None,
    sampling: str,
    epochs: int,
    index: str,
    bank_dtype: str,
    **others: Any,
) -> Plan:
    """Raises RecipeError, which names the option."""
    return Plan(
        size=_size(size),
        objectives=() if objectives == "none" else tuple(_words("objectives", objectives, "simclr, kl, or none")),
        layers=None if layers is None else tuple(_each("layers", layers, int, "numbers of blocks, such as 6,8,10")),
        copies=Copies(shifts, flip, tuple(_each("scales", scales, float, "numbers, such as 1,1.5"))),
        features=None if features is None else tuple(_words("features", features, "such as layers,paper")),
        voting=Voting(
            AUTO if neighbours == AUTO else _one("neighbours", neighbours, int, "a number such as 30, or auto"),
            AUTO if temperature == AUTO else _one("temperature", temperature, float, "a number such as 0.02, or auto"),
            index,
            bank_dtype,
        ),
        sampling=Sampling(bank, sampling, epochs),
        fractions=tuple(_each("fractions", fractions, Fraction, "numbers such as 1,1/8,1/64")),
        ignore=_ignore(ignore),
        **others,
    )


@dataclass(frozen=True)
class Pair:
    """truth: whether the test images have masks. note: what else there is to say."""

    train: Scenes
    test: Scenes
    truth: bool
    note: str = ""


def open_pair(
    train: Path,
    test: Path,
    train_split: str | None,
    test_split: str | None,
    columns: dict[str, Any],
    limit: int | None,
    truth: bool,
) -> Pair:
    """Both sets of images. Where no masks of TEST are found, and none were asked for, that is said in `note`.

    Raises SourceError.
    """
    opened = open_scenes(train, split=train_split, limit=limit, **columns)
    alone: dict[str, Any] = {**columns, "mask_column": None}
    if not truth:
        return Pair(opened, open_scenes(test, split=test_split, limit=limit, masks=False, **alone), False)
    try:
        return Pair(opened, open_scenes(test, split=test_split, limit=limit, **columns), True)
    except SourceError as error:
        if columns["mask_column"] is not None:
            raise
        try:
            images = open_scenes(test, split=test_split, limit=limit, masks=False, **alone)
        except SourceError:
            raise error from None
        return Pair(opened, images, False, f"TEST has no masks, so this predicts only: {error}")


def _size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = [_one("size", side, int, "height x width in pixels: 240x320, or 512") for side in size.lower().split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise RecipeError(f"--size {size}; expected height x width in pixels: 240x320, or 512 for a square")
    return sides[0], sides[-1]


def _ignore(ignore: str | None) -> tuple[int, ...] | None:
    if ignore is None:
        return None
    return () if ignore == "none" else tuple(_each("ignore", ignore, int, "label values such as 255,11, or none"))


def _words(option: str, text: str, expected: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise RecipeError(f"--{option} {text!r} names none; expected {expected}; without --{option}, the default")
    return words


def _each(option: str, text: str, kind: type, expected: str) -> list[Any]:
    return [_one(option, word, kind, expected, text) for word in text.split(",")]


def _one(option: str, word: str, kind: type, expected: str, whole: str | None = None) -> Any:
    try:
        return kind(word.strip())
    except (ValueError, ZeroDivisionError):
        raise RecipeError(f"--{option} {whole or word}; expected {expected}") from None
