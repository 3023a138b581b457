"""Print a segmentation run for people: a table, classes, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from sporeprint.cli.figures import NONE, between, percent, points
from sporeprint.cli.plain_text import say
from sporeprint.cli.print_analysis import ends
from sporeprint.cli.print_tables import Column, print_table, say_folded
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
    return {"verdict": verdict(segmented), "notes": list(reasons(segmented)), "table": table, **segmented.to_json()}


def print_segmentation(segmented: Segmentation, everything: bool = False) -> None:
    """Print the verdict, the kinds of features, the classes, and what stands behind the verdict."""
    say_folded(verdict(segmented))
    if segmented.truth is None:
        return
    say("")
    table, first = table_of(segmented), segmented.runs[0]
    level = f"{100 * Interval.level:g}%"
    fractions = list(shown_runs(segmented))
    columns = [Column("features"), Column("passes", "passes: backbone passes an image; backward: through its end")]
    for fraction, runs in fractions:
        images = f", {fraction} ({runs[0]['training_images']})" if len(fractions) > 1 else ""
        columns += [Column(f"mIoU{images} %"), Column("gain"), Column(f"{level} interval")]
    auto = AUTO in (segmented.plan.voting.neighbours, segmented.plan.voting.temperature)
    columns += [Column("k, T", extra=True), Column("on training %")] if auto else []
    rows = []
    for row in table:
        cells = [row["name"], row["passes"]]
        for figure in row["figures"].values():
            gain = figure["gain"]
            cells.append(percent(figure["result"].value, figure["result"].spread))
            cells += ["", ""] if gain is None else [points(gain.value), between(gain, points)]
        if auto:
            chosen = row["chosen"][0]
            score = NONE if chosen["score"] is None else percent(chosen["score"])
            cells += [f"{chosen['neighbours']}, {chosen['temperature']:g}", score]
        rows.append([*cells, f"{row['width']:,}"])
    columns.append(Column("width", "width: numbers of a patch", extra=True))
    voting = segmented.plan.voting
    title = (
        f"Segmentation by retrieval: {first['test_images']} test images, {len(segmented.names)} classes, "
        f"bank of {first['kinds'][EMBEDDING]['patches']:,} patches"
        + ("" if auto else f", {voting.neighbours} neighbours, temperature {voting.temperature:g}")
    )
    print_table(columns, rows, title, everything=everything, notes=_meanings(segmented, fractions, auto and everything))
    say("")
    _print_classes(segmented, table, everything)
    for note in reasons(segmented):
        say_folded(f"note: {note}", "  ")


def _meanings(segmented: Segmentation, fractions: Sequence[Any], auto: bool) -> list[str]:
    first = segmented.runs[0]
    meanings = [
        f"gain: points over the embedding, with seed {first['seed']}, its interval by a paired bootstrap over the test images"
    ]
    if len(fractions) > 1:
        fraction, runs = fractions[-1]
        images = runs[0]["training_images"]
        meanings.insert(0, f"mIoU, {fraction} ({images}): with {images} training images")
    if segmented.plan.seeds > 1:
        meanings.append(f"±: standard deviation over {segmented.plan.seeds} seeds")
    if auto:
        meanings.append(
            "k, T: the first run's neighbours and temperature, chosen on training images, each labelled by the others; "
            "on training: mIoU over the pixels of those, by which the best kind is chosen"
        )
    return meanings


def _print_classes(segmented: Segmentation, table: Sequence[dict[str, Any]], everything: bool) -> None:
    """Print the IoU of the classes that the test images have, or those that gain and lose most by the best kind."""
    best, _ = _best(segmented, table)
    fraction = str(segmented.plan.fractions[0])
    shown = [row for row in table if row["name"] in (EMBEDDING, best)]
    results = [row["figures"][fraction]["result"] for row in shown]
    pixels = results[0].confusion.sum(axis=1)
    rows: list[list[str]] = []
    gains: list[float] = []
    for name, share, *ious in zip(
        results[0].names, pixels / pixels.sum(), *(result.iou for result in results), strict=True
    ):
        if not math.isnan(ious[0]):
            gains.append(ious[-1] - ious[0])
            rows.append([name, percent(share), *map(percent, ious), *([points(gains[-1])] if len(ious) > 1 else [])])
    ordered = sorted(range(len(rows)), key=lambda at: -gains[at])
    columns = [Column("class"), Column("pixels %"), *(Column(f"{row['name']} %") for row in shown)]
    columns += [Column("gain")] if len(shown) > 1 else []
    main = [ordered[at] for at in ends(len(rows))]
    title = f"IoU of classes, {segmented.plan.runs()[0].images}"
    title += (
        "" if everything or len(main) == len(rows) else f"; those that gain and lose most, {len(main)} of {len(rows)}"
    )
    print_table(columns, rows, title, main, everything)


def verdict(segmented: Segmentation) -> str:
    """Say which kind is best, by how much, at what cost, and how sure that is, in at most 25 words."""
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
    mean, passes = 100 * (result.value - base.value), f"for {rows[best]['passes']} passes"
    over = f"mIoU {result.value:.1%}, {_gain_text(gain)} points"
    if segmented.plan.seeds > 1:
        seed = segmented.runs[0]["seed"]
        over = f"mIoU {result.value:.1%}, {mean:+.1f} points (seed {seed}: {between(gain, points)})"
    if mean > 0 and gain.low > 0:
        where = "on these images" if how == BY_TEST else "on training images"
        picked = "" if segmented.plan.seeds > 1 else f", picked {where}"
        return f"'{best}'{picked}: {over} over the embedding, {passes}."
    return _without_a_sure_gain(rows, best, fraction, f"{over}, {passes}")


def reasons(segmented: Segmentation) -> Iterator[str]:
    """Say how the best kind was found, what it costs, what gradients add, and what the verdict leaves open."""
    if segmented.truth is None:
        return
    table = table_of(segmented)
    best, how = _best(segmented, table)
    if best is None:
        return
    rows, fraction = {row["name"]: row for row in table}, str(segmented.plan.fractions[0])
    yield (
        f"'{best}' is {how}; it has {rows[best]['width']:,} numbers a patch, the embedding {rows[EMBEDDING]['width']:,} "
        f"and {rows[EMBEDDING]['passes']} pass"
    )
    yield from _surer(rows, best, fraction)
    yield from _gradients(segmented, table, best, fraction)
    yield from _caveats(segmented, how)


def _without_a_sure_gain(rows: dict[str, dict[str, Any]], best: str, fraction: str, claim: str) -> str:
    """Say what the best kind lacks, and whether another is surely better on the test images, which chose nothing."""
    figures = {name: row["figures"][fraction] for name, row in rows.items()}
    base = figures.pop(EMBEDDING)["result"].value
    plain = f"the plain embedding ({base:.1%}) here"
    if sure := _surest(rows, fraction):
        return f"'{best}' does not surely beat {plain}; '{sure}' does: {_gain_text(figures[sure]['gain'])} points."
    if all(of["result"].value <= base for of in figures.values()):
        return f"Nothing beats {plain}: '{best}' has {claim}."
    return f"Nothing surely beats {plain}: '{best}' has {claim}."


def _surest(rows: dict[str, dict[str, Any]], fraction: str) -> str | None:
    """The kind that is most surely better than the embedding on the test images; None where none is."""
    gains = {name: row["figures"][fraction]["gain"] for name, row in rows.items() if name != EMBEDDING}
    sure = {name: gain for name, gain in gains.items() if gain.low > 0}
    return max(sure, key=lambda name: sure[name].low, default=None)


def _surer(rows: dict[str, dict[str, Any]], best: str, fraction: str) -> Iterator[str]:
    """Say of a kind that is surely better, where the best is not, how it was found."""
    figures = rows[best]["figures"][fraction]
    sure, base = _surest(rows, fraction), rows[EMBEDDING]["figures"][fraction]["result"].value
    if figures["result"].value > base and figures["gain"].low > 0:
        return
    if sure:
        yield f"'{sure}' is one of {len(rows) - 1} looked at on these test images"
    elif figures["result"].value > base:
        yield "the choice of test images can make such a difference"


def _caveats(segmented: Segmentation, how: str) -> Iterator[str]:
    """Say what the choice of the best kind, and of the temperature, leaves open."""
    if how == BY_TEST and len(segmented.kinds) > 2:
        yield "the interval ignores the picking"
    if segmented.plan.voting.temperature != AUTO and any(LAYERS in kind.name for kind in segmented.kinds):
        yield "compare with --temperature auto: whitened features want a higher one"


def _gradients(segmented: Segmentation, table: Sequence[dict[str, Any]], best: str, fraction: str) -> Iterator[str]:
    """Say what gradients add to the same features without them: to the best kind, or to the best that has gradients."""
    kinds = dict(shown_runs(segmented))[fraction][0]["kinds"]
    added = {row["name"]: row for row in table if kinds[row["name"]].get("by_gradients") is not None}
    if added:
        name = best if best in added else max(added, key=lambda name: added[name]["figures"][fraction]["result"].value)
        bare = name.replace("paper", EMBEDDING).replace(" + gradients", "")
        yield f"gradients change '{bare}' by {_gain_text(_interval(kinds[name]['by_gradients']))} points"


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
