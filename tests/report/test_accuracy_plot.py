"""Where entries cost alike, each has a line with its name, its interval and its accuracy, the best first."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from small_comparison import comparison, entry
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.comparison import Comparison
from sporeprint.report.accuracy_plot import accuracy_plot, costs_alike


def alike(**others) -> Comparison:
    return comparison(entries=tuple(replace(row, passes=1) for row in comparison().entries), **others)


def texts(svg: str) -> list[str]:
    return [tag.text or "" for tag in ElementTree.fromstring(svg).iter("text")]


def entries_of(svg: str) -> list[ElementTree.Element]:
    return [tag for tag in ElementTree.fromstring(svg).iter("g") if tag.get("class") == "entry"]


@pytest.mark.parametrize(("passes", "is_alike"), [((1, 1, 1), True), ((1, 6, 1), True), ((1, 6, 62), False)])
def test_up_to_two_costs_are_alike(passes, is_alike):
    rows = tuple(entry(f"e{at}", "block", cost, 0.5 + 0.1 * at) for at, cost in enumerate(passes))
    assert costs_alike(comparison(entries=rows)) is is_alike


def test_the_best_stands_first_with_its_name_and_its_figure():
    shown = [[tag.text for tag in group.iter("text")] for group in entries_of(accuracy_plot(alike(), 960))]
    assert shown == [
        ["the choice: LDA", "80.0"],
        ["layers (one pass): LDA", "70.0"],
        ["paper's assembly (paper): LDA", "65.0"],
        ["embedding (reference): LDA", "60.0"],
        ["kl alone", "50.0"],
    ]


@pytest.mark.parametrize("width", [345, 960])
def test_accuracies_lie_on_a_linear_axis_with_their_intervals_inside_the_drawing(width):
    svg = accuracy_plot(alike(), width)
    spans = [(float(line.get("x1")), float(line.get("x2"))) for group in entries_of(svg) for line in group.iter("line")]
    (chosen, layers, _, reference, kl) = spans
    assert (chosen[0] - layers[0]) / (layers[0] - kl[0]) == pytest.approx(0.1 / 0.2, abs=0.01)
    (dashed,) = [tag for tag in ElementTree.fromstring(svg).iter("line") if tag.get("class") == "reference"]
    assert float(dashed.get("x1")) == pytest.approx(reference[0] + 0.4 * (reference[1] - reference[0]), abs=0.05)
    assert all(0 < left < right < width for left, right in spans)


def test_entries_of_two_costs_stand_in_groups_the_cheaper_first():
    rows = (entry("embedding", "embedding", 1, 0.6), entry("a", "block", 6, 0.9), entry("b", "block", 1, 0.5))
    svg = accuracy_plot(comparison(entries=rows, free="embedding", chosen="embedding"), 960)
    shown = [text for text in texts(svg) if text in ("1 pass", "6 passes", "a", "b") or "embedding" in text]
    assert shown == ["1 pass", "embedding (the choice, reference, one pass): LDA", "b", "6 passes", "a"]
    assert "1 pass" not in texts(accuracy_plot(alike(), 960))


def test_of_many_entries_those_with_words_and_then_the_best_are_drawn_and_the_rest_counted():
    rows = [entry(f"e{at:02}", "block", 1, 0.7 - 0.01 * at) for at in range(30)]
    svg = accuracy_plot(comparison(entries=tuple(rows), reference="e29", free="e00", chosen="e00"), 960, most=4)
    shown = [group.findtext("text") for group in entries_of(svg)]
    assert shown == ["e00 (the choice, one pass): LDA", "e01", "e02", "e29 (reference): LDA"]
    assert "26 more in the table of all entries" in texts(svg)


def test_names_stand_above_the_lines_on_a_phone_and_are_whole():
    name = "embedding + layers + gradients, white"
    rows = (entry("embedding", "embedding", 1, 0.6), entry(name, "combined", 1, 0.7))
    svg = accuracy_plot(comparison(entries=rows, free="embedding", chosen="embedding"), 345)
    group = entries_of(svg)[0]
    text, mark = group.find("text"), group.find("polygon")
    assert text.text == name
    assert float(text.get("y")) < min(float(spot.split(",")[1]) for spot in mark.get("points").split())


def test_the_axis_says_where_it_starts():
    low = 0.48 - 0.06 * 0.35  # the lowest end of an interval, less 6 % of what all of them span
    assert f"top-1, %; the axis starts at {100 * low:.1f}" in texts(accuracy_plot(alike(), 960))
    from_nothing = (entry("embedding", "embedding", 1, 0.02),)
    assert "top-1, %" in texts(
        accuracy_plot(comparison(entries=from_nothing, free="embedding", chosen="embedding"), 960)
    )


def test_a_screen_reader_hears_the_entries_that_matter():
    label = ElementTree.fromstring(accuracy_plot(alike(), 345)).get("aria-label")
    assert label == (
        "Accuracy of 5 entries, the best first. "
        "all, white (the choice): 80.0 % (78.0 to 83.0), LDA, 1 pass; layers (one pass): 70.0 % (68.0 to 73.0), LDA, "
        "1 pass; paper's assembly (paper): 65.0 % (63.0 to 68.0), LDA, 1 pass; "
        "embedding (reference): 60.0 % (58.0 to 63.0), LDA, 1 pass"
    )


def test_an_entry_without_interval_is_a_mark_alone_and_one_without_accuracy_is_left_out():
    nan = math.nan
    rows = (
        entry("embedding", "embedding", 1, 0.6, value=Interval(0.6, nan, nan)),
        entry("nothing", "block", 1, nan, value=Interval(nan, nan, nan)),
    )
    (group,) = entries_of(accuracy_plot(comparison(entries=rows, free="embedding", chosen="embedding"), 345))
    assert group.find("line") is None
    assert group.find("circle") is not None
    assert accuracy_plot(comparison(entries=rows[1:], reference="nothing"), 345) == ""
