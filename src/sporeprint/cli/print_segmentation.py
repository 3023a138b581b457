"""What a segmentation run found, for people: a table, classes, and a sentence."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from sporeprint.cli.console import print_meanings, print_table
from sporeprint.cli.figures import percent
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.segmentation import SegmentationResult, over_runs
from sporeprint.run.segment import BY_TEST, BY_TRAINING, Segmentation, best_of, shown_runs
from sporeprint.run.segment_plan import EMBEDDING, LAYERS
from sporeprint.segment.labeller import AUTO

_ARRAYS = {"iou": np.float64, "confusion": np.int64}


def result_of(data: dict[str, Any]) -> SegmentationResult:
    """What `SegmentationResult.to_json` gave."""
    given: dict[str, Any] = {one.name: data[one.name] for one in fields(SegmentationResult)}
    for name, dtype in _ARRAYS.items():
        values = data[name]
        given[name] = np.array([math.nan if one is None else one for one in values] if name == "iou" else values, dtype)
    return SegmentationResult(**{**given, "names": tuple(data["names"]), "values": tuple(data["values"])})


def table_of(found: Segmentation) -> list[dict[str, Any]]:
    """A row for each kind of features: name, passes, width, and for each fraction its result and gain."""
    rows = []
    for kind in found.kinds:
        figures = {}
        for fraction, runs in shown_runs(found):
            each = [run["kinds"][kind.name] for run in runs]
            if found.truth is not None:
                result = over_runs([result_of(one["result"]) for one in each])
                gain = each[0]["gain"]
                figures[fraction] = {"result": result, "gain": None if gain is None else _interval(gain)}
        first = found.runs[0]["kinds"][kind.name]
        chosen = [run["kinds"][kind.name]["chosen"] for run in found.runs]
        rows.append(
            {
                "name": kind.name,
                "passes": first["passes"],
                "width": first["width"],
                "figures": figures,
                "chosen": chosen,
            }
        )
    return rows


def as_json(found: Segmentation) -> dict[str, Any]:
    """For --json: result.json's runs, with means over the seeds and the sentence."""
    table = [
        {
            **row,
            "figures": {
                fraction: {
                    "value": one["result"].value,
                    "spread": one["result"].spread,
                    "per_class": one["result"].per_class,
                    "gain": None if one["gain"] is None else one["gain"].to_json(),
                }
                for fraction, one in row["figures"].items()
            },
        }
        for row in table_of(found)
    ]
    return {"verdict": verdict(found), "table": table, **found.to_json()}


def print_segmentation(found: Segmentation) -> None:
    if found.truth is None:
        sys.stdout.write(verdict(found) + "\n")
        return
    table, first = table_of(found), found.runs[0]
    columns = ["features", "passes", "width"]
    for fraction, runs in shown_runs(found):
        columns += [f"mIoU, {fraction} ({runs[0]['training_images']})", "gain"]
    auto = AUTO in (found.plan.voting.neighbours, found.plan.voting.temperature)
    rows = []
    for row in table:
        cells = [row["name"], row["passes"], str(row["width"])]
        for one in row["figures"].values():
            cells += [percent(one["result"].value, one["result"].spread), _shown(one["gain"])]
        if auto:
            chosen = row["chosen"][0]
            score = "-" if chosen["score"] is None else f"{chosen['score']:.1%}"
            cells += [f"{chosen['neighbours']}, {chosen['temperature']:g}", score]
        rows.append(cells)
    voting = found.plan.voting
    title = (
        f"Segmentation by retrieval: {first['test_images']} test images, {len(found.names)} classes, "
        f"bank of {first['kinds'][EMBEDDING]['patches']:,} patches"
        + ("" if auto else f", {voting.neighbours} neighbours, temperature {voting.temperature:g}")
    )
    print_table(title, columns + (["k, T", "on training"] if auto else []), rows)
    fraction, runs = list(shown_runs(found))[-1]
    images = runs[0]["training_images"]
    meanings = [
        f"mIoU, {fraction} ({images}): with {images} training images",
        "passes: backbone passes an image; backward: through its end, for gradients",
        f"gain: points over the embedding, with seed {first['seed']}, and its 95 % interval by a paired bootstrap over "
        "the test images",
    ]
    if found.plan.seeds > 1:
        meanings.insert(1, f"± : standard deviation over {found.plan.seeds} seeds")
    if auto:
        meanings.append(
            "k, T: of the first run, neighbours and temperature chosen on training images, each asked of the others; "
            "on training: mIoU over pixels of those, by which kinds are told apart"
        )
    print_meanings(meanings)
    _print_classes(found, table)
    sys.stdout.write(verdict(found) + "\n")


def _print_classes(found: Segmentation, table: Sequence[dict[str, Any]]) -> None:
    """IoU of every class that the test images have: the embedding's and the best kind's."""
    best, _ = _best(found, table)
    fraction = str(found.plan.fractions[0])
    shown = [row for row in table if row["name"] in (EMBEDDING, best)]
    results = [row["figures"][fraction]["result"] for row in shown]
    pixels = results[0].confusion.sum(axis=1)
    rows = []
    for name, share, *ious in zip(results[0].names, pixels / pixels.sum(), *(one.iou for one in results), strict=True):
        if not math.isnan(ious[0]):
            points = [f"{100 * (ious[1] - ious[0]):+.1f}"] if len(ious) > 1 else []
            rows.append([name, percent(share), *(percent(one) for one in ious), *points])
    sys.stdout.write("\n")
    columns = ["class", "pixels", *(row["name"] for row in shown), *(["points"] if len(shown) > 1 else [])]
    print_table(f"IoU of classes, {found.plan.runs()[0].images}", columns, rows)


def verdict(found: Segmentation) -> str:
    """Which kind, how much, at what cost, and how sure that is."""
    table = table_of(found)
    if found.truth is None:
        return f"{found.runs[0]['test_images']} images were labelled; without masks of TEST nothing says how well."
    best, how = _best(found, table)
    rows = {row["name"]: row for row in table}
    fraction = str(found.plan.fractions[0])
    base = rows[EMBEDDING]["figures"][fraction]["result"]
    if best is None:
        return f"The plain embedding: {base}."
    figures = rows[best]["figures"][fraction]
    result, gain = figures["result"], figures["gain"]
    points = 100 * (result.value - base.value)
    if found.plan.seeds == 1:
        said = f"mIoU {result.value:.1%}, {_shown(gain)} points over the plain embedding"
    else:
        said = (
            f"mIoU {result.value:.1%} (mean of {found.plan.seeds} seeds), {points:+.1f} points over the plain "
            f"embedding, with seed {found.runs[0]['seed']} {_shown(gain)}"
        )
    said += (
        f", for {rows[best]['passes']} passes an image and {rows[best]['width']} numbers a patch; the embedding takes "
        f"1 and {rows[EMBEDDING]['width']}"
    )
    if points > 0 and gain.low > 0:
        start = f"'{best}', {how}, has {said}."
    elif points > 0:
        start = (
            f"Nothing surely beats the plain embedding ({base.value:.1%}) here: '{best}', {how}, has {said}. The "
            "choice of test images can make such a difference."
        )
    else:
        start = f"Nothing beats the plain embedding ({base.value:.1%}) here: '{best}', {how}, has {said}."
    return start + _gradients(found, table, best, fraction) + _doubts(found, how)


def _doubts(found: Segmentation, how: str) -> str:
    """What the choice of the best kind, and of the temperature, leaves open."""
    said = ""
    if how == BY_TEST and len(found.kinds) > 2:
        said += " The interval ignores the picking."
    if found.plan.voting.temperature != AUTO and any(LAYERS in one.name for one in found.kinds):
        said += " Compare with --temperature auto: whitened features want a higher one."
    return said


def _gradients(found: Segmentation, table: Sequence[dict[str, Any]], best: str, fraction: str) -> str:
    """What gradients add to the same features without them: to the best kind, else where there are the best of them."""
    kinds = dict(shown_runs(found))[fraction][0]["kinds"]
    added = {row["name"]: row for row in table if kinds[row["name"]].get("by_gradients") is not None}
    if not added:
        return ""
    name = best if best in added else max(added, key=lambda one: added[one]["figures"][fraction]["result"].value)
    bare = name.replace("paper", EMBEDDING).replace(" + gradients", "")
    return f" Gradients change '{bare}' by {_shown(_interval(kinds[name]['by_gradients']))} points."


def _best(found: Segmentation, table: Sequence[dict[str, Any]]) -> tuple[str | None, str]:
    """As `best_of`; by the test images that is the mean over the seeds at the first fraction."""
    fraction, runs = next(iter(shown_runs(found)))
    best, how = best_of(runs[0]["kinds"])
    if best is None or how == BY_TRAINING:
        return best, how
    others = [row for row in table if row["name"] != EMBEDDING]
    return str(max(others, key=lambda row: row["figures"][fraction]["result"].value)["name"]), how


def _interval(data: dict[str, Any]) -> Interval:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in data.items()}
    return Interval(**known)


def _shown(gain: Interval | None) -> str:
    """In points: "+1.2 (+0.3 to +2.0)"."""
    return "" if gain is None else str(gain).replace(" points", "")
