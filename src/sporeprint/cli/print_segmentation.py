"""Print a segmentation run for people: a table, classes, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from sporeprint.cli.console import print_meanings, print_table
from sporeprint.cli.figures import percent
from sporeprint.cli.plain_text import say
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.segmentation import SegmentationResult, over_runs
from sporeprint.run.segment import BY_TEST, BY_TRAINING, Segmentation, best_of, shown_runs
from sporeprint.run.segment_plan import EMBEDDING, LAYERS
from sporeprint.segment.labeller import AUTO

_ARRAYS = {"iou": np.float64, "confusion": np.int64}


def result_of(data: dict[str, Any]) -> SegmentationResult:
    """Read back what `SegmentationResult.to_json` gave."""
    given: dict[str, Any] = {field.name: data[field.name] for field in fields(SegmentationResult)}
    for name, dtype in _ARRAYS.items():
        values = data[name]
        given[name] = np.array([math.nan if v is None else v for v in values] if name == "iou" else values, dtype)
    return SegmentationResult(**{**given, "names": tuple(data["names"]), "values": tuple(data["values"])})


def table_of(segmented: Segmentation) -> list[dict[str, Any]]:
    """Make a row for each kind of features: name, passes, width, and for each fraction its result and gain."""
    rows = []
    for kind in segmented.kinds:
        figures = {}
        for fraction, runs in shown_runs(segmented):
            of_seeds = [run["kinds"][kind.name] for run in runs]
            if segmented.truth is not None:
                result = over_runs([result_of(outcome["result"]) for outcome in of_seeds])
                gain = of_seeds[0]["gain"]
                figures[fraction] = {"result": result, "gain": None if gain is None else _interval(gain)}
        first = segmented.runs[0]["kinds"][kind.name]
        chosen = [run["kinds"][kind.name]["chosen"] for run in segmented.runs]
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


def as_json(segmented: Segmentation) -> dict[str, Any]:
    """Return what --json prints: result.json's runs, with means over the seeds and the sentence."""
    table = [
        {
            **row,
            "figures": {
                fraction: {
                    "value": figure["result"].value,
                    "spread": figure["result"].spread,
                    "per_class": figure["result"].per_class,
                    "gain": None if figure["gain"] is None else figure["gain"].to_json(),
                }
                for fraction, figure in row["figures"].items()
            },
        }
        for row in table_of(segmented)
    ]
    return {"verdict": verdict(segmented), "table": table, **segmented.to_json()}


def print_segmentation(segmented: Segmentation) -> None:
    if segmented.truth is None:
        say(verdict(segmented))
        return
    table, first = table_of(segmented), segmented.runs[0]
    columns = ["features", "passes", "width"]
    for fraction, runs in shown_runs(segmented):
        columns += [f"mIoU, {fraction} ({runs[0]['training_images']})", "gain"]
    auto = AUTO in (segmented.plan.voting.neighbours, segmented.plan.voting.temperature)
    rows = []
    for row in table:
        cells = [row["name"], row["passes"], str(row["width"])]
        for figure in row["figures"].values():
            cells += [percent(figure["result"].value, figure["result"].spread), _gain_text(figure["gain"])]
        if auto:
            chosen = row["chosen"][0]
            score = "-" if chosen["score"] is None else f"{chosen['score']:.1%}"
            cells += [f"{chosen['neighbours']}, {chosen['temperature']:g}", score]
        rows.append(cells)
    voting = segmented.plan.voting
    title = (
        f"Segmentation by retrieval: {first['test_images']} test images, {len(segmented.names)} classes, "
        f"bank of {first['kinds'][EMBEDDING]['patches']:,} patches"
        + ("" if auto else f", {voting.neighbours} neighbours, temperature {voting.temperature:g}")
    )
    print_table(title, columns + (["k, T", "on training"] if auto else []), rows)
    fraction, runs = list(shown_runs(segmented))[-1]
    images = runs[0]["training_images"]
    meanings = [
        f"mIoU, {fraction} ({images}): with {images} training images",
        "passes: backbone passes an image; backward: through its end, for gradients",
        f"gain: points over the embedding, with seed {first['seed']}, and its 95 % interval by a paired bootstrap over "
        "the test images",
    ]
    if segmented.plan.seeds > 1:
        meanings.insert(1, f"± : standard deviation over {segmented.plan.seeds} seeds")
    if auto:
        meanings.append(
            "k, T: the first run's neighbours and temperature, chosen on training images, each labelled by the others; "
            "on training: mIoU over the pixels of those, by which the best kind is chosen"
        )
    print_meanings(meanings)
    _print_classes(segmented, table)
    say(verdict(segmented))


def _print_classes(segmented: Segmentation, table: Sequence[dict[str, Any]]) -> None:
    """Print the IoU of every class that the test images have: the embedding's and the best kind's."""
    best, _ = _best(segmented, table)
    fraction = str(segmented.plan.fractions[0])
    shown = [row for row in table if row["name"] in (EMBEDDING, best)]
    results = [row["figures"][fraction]["result"] for row in shown]
    pixels = results[0].confusion.sum(axis=1)
    rows = []
    for name, share, *ious in zip(
        results[0].names, pixels / pixels.sum(), *(result.iou for result in results), strict=True
    ):
        if not math.isnan(ious[0]):
            points = [f"{100 * (ious[1] - ious[0]):+.1f}"] if len(ious) > 1 else []
            rows.append([name, percent(share), *(percent(iou) for iou in ious), *points])
    say("")
    columns = ["class", "pixels", *(row["name"] for row in shown), *(["points"] if len(shown) > 1 else [])]
    print_table(f"IoU of classes, {segmented.plan.runs()[0].images}", columns, rows)


def verdict(segmented: Segmentation) -> str:
    """Say which kind is best, by how much, at what cost, and how sure that is."""
    table = table_of(segmented)
    if segmented.truth is None:
        return f"{segmented.runs[0]['test_images']} images were labelled; without masks of TEST nothing says how well."
    best, how = _best(segmented, table)
    rows = {row["name"]: row for row in table}
    fraction = str(segmented.plan.fractions[0])
    base = rows[EMBEDDING]["figures"][fraction]["result"]
    if best is None:
        return f"The plain embedding: {base}."
    figures = rows[best]["figures"][fraction]
    result, gain = figures["result"], figures["gain"]
    points = 100 * (result.value - base.value)
    if segmented.plan.seeds == 1:
        claim = f"mIoU {result.value:.1%}, {_gain_text(gain)} points over the plain embedding"
    else:
        claim = (
            f"mIoU {result.value:.1%} (mean of {segmented.plan.seeds} seeds), {points:+.1f} points over the plain "
            f"embedding, with seed {segmented.runs[0]['seed']} {_gain_text(gain)}"
        )
    claim += (
        f", for {rows[best]['passes']} passes an image and {rows[best]['width']} numbers a patch; the embedding takes "
        f"1 and {rows[EMBEDDING]['width']}"
    )
    if points > 0 and gain.low > 0:
        start = f"'{best}', {how}, has {claim}."
    else:
        start = _without_a_sure_gain(rows, best, how, fraction, claim)
    return start + _gradients(segmented, table, best, fraction) + _caveats(segmented, how)


def _without_a_sure_gain(rows: dict[str, dict[str, Any]], best: str, how: str, fraction: str, claim: str) -> str:
    """Say what the best kind lacks, and whether another is surely better on the test images, which chose nothing."""
    figures = {name: row["figures"][fraction] for name, row in rows.items()}
    base = figures.pop(EMBEDDING)["result"].value
    sure = {name: of["gain"] for name, of in figures.items() if of["gain"].low > 0}
    plain = f"the plain embedding ({base:.1%}) here"
    if sure:
        name = max(sure, key=lambda name: sure[name].low)
        return (
            f"'{best}', {how}, does not surely beat {plain}: it has {claim}. '{name}' does, {_gain_text(sure[name])}, "
            f"one of {len(figures)} looked at on these test images."
        )
    if all(of["result"].value <= base for of in figures.values()):
        return f"Nothing beats {plain}: '{best}', {how}, has {claim}."
    chance = " The choice of test images can make such a difference." if figures[best]["result"].value > base else ""
    return f"Nothing surely beats {plain}: '{best}', {how}, has {claim}.{chance}"


def _caveats(segmented: Segmentation, how: str) -> str:
    """Say what the choice of the best kind, and of the temperature, leaves open."""
    text = ""
    if how == BY_TEST and len(segmented.kinds) > 2:
        text += " The interval ignores the picking."
    if segmented.plan.voting.temperature != AUTO and any(LAYERS in kind.name for kind in segmented.kinds):
        text += " Compare with --temperature auto: whitened features want a higher one."
    return text


def _gradients(segmented: Segmentation, table: Sequence[dict[str, Any]], best: str, fraction: str) -> str:
    """Say what gradients add to the same features without them: to the best kind, or to the best that has gradients."""
    kinds = dict(shown_runs(segmented))[fraction][0]["kinds"]
    added = {row["name"]: row for row in table if kinds[row["name"]].get("by_gradients") is not None}
    if not added:
        return ""
    name = best if best in added else max(added, key=lambda name: added[name]["figures"][fraction]["result"].value)
    bare = name.replace("paper", EMBEDDING).replace(" + gradients", "")
    return f" Gradients change '{bare}' by {_gain_text(_interval(kinds[name]['by_gradients']))} points."


def _best(segmented: Segmentation, table: Sequence[dict[str, Any]]) -> tuple[str | None, str]:
    """Choose as `best_of` does; where test images choose, by the mean over the seeds at the first fraction."""
    fraction, runs = next(iter(shown_runs(segmented)))
    best, how = best_of(runs[0]["kinds"])
    if best is None or how == BY_TRAINING:
        return best, how
    others = [row for row in table if row["name"] != EMBEDDING]
    return str(max(others, key=lambda row: row["figures"][fraction]["result"].value)["name"]), how


def _interval(data: dict[str, Any]) -> Interval:
    known: dict[str, Any] = {name: math.nan if value is None else value for name, value in data.items()}
    return Interval(**known)


def _gain_text(gain: Interval | None) -> str:
    """Write a gain in points: "+1.2 (+0.3 to +2.0)"."""
    return "" if gain is None else str(gain).replace(" points", "")
