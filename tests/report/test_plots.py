"""The plots put every figure where it belongs; marks do not lie on each other."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from small_comparison import comparison, entry
from sporeprint.evaluate.analyse import ClassChange
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.report.cost_plot import (
    RADIUS,
    SMALL,
    Box,
    Frame,
    accuracy_range,
    cost_plot,
    frame_of,
    named,
    numbered,
    places,
)
from sporeprint.report.numbers import width_of
from sporeprint.report.plots import cka_plot, class_plot, shade, sorted_changes
from sporeprint.report.svg import round_ticks


def tags(svg: str, tag: str, group: str | None = None) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(svg)
    inside = [root] if group is None else [tag for tag in root.iter("g") if tag.get("class") == group]
    return [child for parent in inside for child in parent.iter(tag)]


def title_of(group: ElementTree.Element) -> str:
    return group.findtext("title") or ""


def test_passes_lie_on_a_log_axis_and_accuracies_on_a_linear_one():
    frame = Frame(Box(40, 20, 440, 220), passes=(1, 100), accuracy=(0.5, 0.9))
    assert frame.x(1) == pytest.approx(40 + 400 / 8)
    assert frame.x(100) == pytest.approx(40 + 400 * 7 / 8)
    assert frame.x(10) == pytest.approx(240)  # half way in the logarithm
    assert [frame.y(value) for value in (0.5, 0.6, 0.9)] == pytest.approx([220, 170, 20])


def test_a_single_number_of_passes_lies_in_the_middle():
    assert Frame(Box(0, 0, 100, 100), (7, 7), (0, 1)).x(7) == 50


def test_the_plot_draws_each_entry_and_its_interval_there():
    svg = cost_plot(comparison(), 448, 300)
    # area: 46 to 440 and 30 to 254; figures from 0.48 to 0.83, and 6 % of that as air
    discs = tags(svg, "circle", "entry")
    assert float(discs[0].get("cx")) == pytest.approx(46 + 394 / 8, abs=0.01)
    low, high = 0.48 - 0.06 * 0.35, 0.83 + 0.06 * 0.35
    assert float(discs[0].get("cy")) == pytest.approx(254 - 224 * (0.6 - low) / (high - low), abs=0.01)
    groups = {title_of(group).split(":")[0]: group for group in tags(svg, "g")}
    assert set(groups) == {f"{number} {entry.name}" for number, entry in enumerate(comparison().entries, 1)}
    assert all(title.split()[0] == group.findtext("text") for title, group in groups.items())
    line = groups["5 all, white"].find("line")
    assert float(line.get("x1")) == float(line.get("x2")) == pytest.approx(46 + 394 / 2, abs=0.01)
    assert float(line.get("y2")) == pytest.approx(254 - 224 * (0.83 - low) / (high - low), abs=0.01)
    (dashed,) = [tag for tag in tags(svg, "line") if tag.get("class") == "reference"]
    assert dashed.get("y1") == dashed.get("y2") == discs[0].get("cy")


def test_the_entries_that_matter_are_named_together_where_they_are_one():
    assert named(comparison()) == {
        "all, white": "the choice",
        "embedding": "reference",
        "layers": "one pass",
        "paper's assembly": "paper",
    }
    same = named(comparison(chosen="embedding", free="embedding"))
    assert same["embedding"] == "the choice, reference, one pass"


def test_a_screen_reader_hears_the_entries_that_matter_once_with_their_numbers():
    label = ElementTree.fromstring(cost_plot(comparison(), 345, 380)).get("aria-label")
    assert label == (
        "Accuracy of 5 entries against passes per input. "
        "1 embedding (reference): 60.0 % (58.0 to 63.0), LDA, 1 pass; 2 layers (one pass): 70.0 % (68.0 to 73.0), LDA, "
        "1 pass; 4 paper's assembly (paper): 65.0 % (63.0 to 68.0), LDA, 100 passes; "
        "5 all, white (the choice): 80.0 % (78.0 to 83.0), LDA, 10 passes"
    )


@pytest.mark.parametrize(("width", "height", "most"), [(345, 380, 25), (960, 440, 60)])
def test_marks_lie_inside_and_clear_of_each_other(width, height, most):
    rng = random.Random(0)
    for _ in range(20):
        entries = tuple(
            entry(f"e{at}", "combined", rng.choice([1, 1, 1, 12, 13, 61, 62]), rng.gauss(0.7, 0.05))
            for at in range(rng.randint(4, most))
        )
        frame = frame_of(entries, width, height)
        spots = places(entries, frame)
        for at, (x, y) in enumerate(spots):
            assert frame.area.left + RADIUS < x < frame.area.right - RADIUS
            assert all(max(abs(x - left), abs(y - top)) >= 2 * RADIUS for left, top in spots[:at])


def test_marks_at_equal_passes_step_aside_and_the_first_keeps_its_place():
    entries = [entry(f"e{at}", "block", 1, 0.5) for at in range(9)] + [entry("far", "block", 64, 0.5)]
    frame = frame_of(entries, 960, 440)
    spots = places(entries, frame)
    assert spots[0] == (frame.x(1), frame.y(0.5))
    assert spots[9] == (frame.x(64), frame.y(0.5))
    for at, spot in enumerate(spots):
        assert all(math.dist(spot, other) >= 2 * RADIUS for other in spots[:at])


def test_equal_choices_are_one_mark_that_has_all_their_names_and_words():
    first = entry("embedding", "embedding", 1, 0.6)
    entries = (first, entry("chosen, one pass", "chosen", 1, 0.6), entry("other", "block", 2, 0.6))
    both = comparison(entries=entries, free="chosen, one pass", chosen="chosen, one pass")
    titles = [title_of(group) for group in tags(cost_plot(both, 345, 380), "g")]
    assert titles == [
        "2 other: 60.0 % (58.0 to 63.0), LDA, 2 passes",
        "1 embedding; chosen, one pass: 60.0 % (58.0 to 63.0), LDA, 1 pass",
    ]
    assert [(mark.number, mark.names, mark.words) for mark in numbered(both)] == [
        (1, ("embedding", "chosen, one pass"), "reference, the choice, one pass"),
        (2, ("other",), ""),
    ]


def test_entries_that_do_not_matter_are_small_unnumbered_marks_without_their_interval():
    rows = [entry(f"cls-{at}", "control", 1, 0.6 + 0.01 * at, blocks=(f"cls-{at}",)) for at in range(9)]
    shown = comparison(entries=(*comparison().entries, *(replace(row, passes=2 + at) for at, row in enumerate(rows))))
    numbers = {mark.names[0]: mark.number for mark in numbered(shown)}
    assert [number for name, number in numbers.items() if name.startswith("cls-")] == [0] * 8 + [5]
    assert sorted(number for number in numbers.values() if number) == [1, 2, 3, 4, 5]
    groups = {title_of(group): group for group in tags(cost_plot(shown, 960, 440), "g")}
    small = groups["cls-0: 60.0 % (58.0 to 63.0), LDA, 2 passes"]
    assert small.find("text") is small.find("line") is None
    large = next(group for title, group in groups.items() if title.startswith("5 cls-8: "))
    assert large.find("text").text == "5"

    def widths(group):
        across = [float(spot.split(",")[0]) for spot in group.find("polygon").get("points").split()]
        return max(across) - min(across)

    assert widths(small) < widths(large) / 2


def test_small_marks_lie_inside_and_clear_of_all_others():
    rng = random.Random(0)
    entries = [entry(f"e{at}", "control", rng.choice([1, 12]), rng.gauss(0.7, 0.05)) for at in range(70)]
    radii = [RADIUS] * 10 + [SMALL] * 60
    frame = frame_of(entries, 345, 380)
    spots = list(zip(places(entries, frame, radii), radii, strict=True))
    for at, ((x, y), radius) in enumerate(spots):
        assert frame.area.left + radius < x < frame.area.right - radius
        assert all(max(abs(x - left), abs(y - top)) >= radius + other for (left, top), other in spots[:at])


def test_more_entries_than_have_room_are_drawn_on_each_other():
    entries = [entry(f"e{at}", "block", 1, 0.5) for at in range(200)]
    assert len(places(entries, frame_of(entries, 345, 380))) == 200


def test_an_entry_without_interval_is_a_mark_alone_and_one_without_accuracy_is_left_out():
    nan = math.nan
    entries = (
        entry("embedding", "embedding", 1, 0.6, value=Interval(0.6, nan, nan)),
        entry("nothing", "block", 1, nan, value=Interval(nan, nan, nan)),
    )
    svg = cost_plot(comparison(entries=entries, free="embedding", chosen="embedding"), 345, 380)
    assert [title_of(tag) for tag in tags(svg, "g")] == ["1 embedding: 60.0 %, LDA, 1 pass"]
    assert not tags(svg, "line", "entry")
    assert cost_plot(comparison(entries=entries[1:], reference="nothing"), 345, 380) == ""


def test_bars_are_as_long_as_the_changes_and_start_at_one_line():
    svg = class_plot(comparison().classes, 345)
    gain, loss = tags(svg, "rect", "class")
    zero = float(tags(svg, "line")[0].get("x1"))
    assert float(gain.get("x")) == pytest.approx(zero, abs=0.02)
    assert float(loss.get("x")) + float(loss.get("width")) == pytest.approx(zero, abs=0.02)
    assert float(gain.get("width")) / float(loss.get("width")) == pytest.approx(0.3 / 0.25, abs=0.001)
    texts = [tag.text for tag in tags(svg, "text", "class")]
    assert texts == ["rose (10)", "+30.0", "daisy (4)", "\u221225.0"]


def test_of_many_classes_the_largest_changes_are_drawn_and_the_rest_counted():
    changes = [0.05 * (10 - at) for at in range(21)]  # ten gain, one stays, ten lose
    classes = [ClassChange(f"c{at}", 5, 0.5, 0.5 + change, change) for at, change in enumerate(changes)]
    gains, losses, rest = sorted_changes(classes, 3)
    assert [change.label for change in gains] == ["c0", "c1", "c2"]
    assert [change.label for change in losses] == ["c18", "c19", "c20"]
    assert len(rest) == 15
    texts = [tag.text for tag in tags(class_plot(classes, 960, 3), "text")]
    assert texts[6] == "15 more"


@pytest.mark.parametrize("width", [345, 960])
def test_the_widest_figures_next_to_bars_are_inside_the_plot(width):
    svg = class_plot([ClassChange("rose", 1, 0.0, 1.0, 1.0), ClassChange("iris", 1, 1.0, 0.0, -1.0)], width)
    names = {tag.text: tag for tag in tags(svg, "text", "class")}
    gain, loss = names["+100.0"], names["\u2212100.0"]
    assert float(gain.get("x")) + width_of("+100.0", 12) <= width
    assert float(loss.get("x")) - width_of("\u2212100.0", 12) >= float(names["iris (1)"].get("x"))


def test_without_a_change_there_are_no_bars():
    assert class_plot([ClassChange("rose", 3, 1.0, 1.0, 0.0)], 345) == ""
    assert class_plot([], 345) == ""


def test_the_heat_map_has_a_cell_for_every_two_blocks_and_writes_what_it_knows():
    svg = cka_plot(["a", "b"], [[1.0, -0.02], [-0.02, math.nan]])
    cells = tags(svg, "g")
    assert [title_of(tag) for tag in cells] == [
        "a and a: 1.00",
        "a and b: -0.02",
        "b and a: -0.02",
        "b and b: not defined",
    ]
    assert [tag.text for tag in tags(svg, "text", "cell")] == ["1.00", "\u22120.02", "\u22120.02"]
    assert [tag.get("fill") for tag in tags(svg, "rect")] == ["#003c72", "#ffffff", "#ffffff", "#ffffff"]
    assert len(tags(svg, "path")) == 1


@pytest.mark.parametrize("count", [1, 2, 13, 25, 40])
def test_the_heat_map_fits_its_width(count):
    svg = cka_plot([f"patches-{at}" for at in range(count)], [[0.5] * count] * count, 345)
    assert float(ElementTree.fromstring(svg).get("width")) <= 345


def test_of_no_blocks_there_is_no_heat_map():
    assert cka_plot([], []) == ""


def test_the_plot_says_where_its_axis_starts():
    low = 0.48 - 0.06 * 0.35  # the lowest end of an interval, less 6 % of what all of them span
    texts = [tag.text for tag in tags(cost_plot(comparison(), 448, 300), "text")]
    assert f"right of the test rows (top-1, %); the axis starts at {100 * low:.1f}" in texts


def test_an_axis_starts_at_0_where_that_is_near():
    low, high = (entry("embedding", "embedding", 1, accuracy) for accuracy in (0.04, 0.25))
    assert accuracy_range([low, high]) == (0.0, pytest.approx(0.28 + 0.06 * 0.26))
    far = entry("embedding", "embedding", 1, 0.06)
    assert accuracy_range([far, high])[0] == pytest.approx(0.04 - 0.06 * 0.24)


def test_cells_of_forty_blocks_are_too_small_for_numbers():
    svg = cka_plot([f"b{at}" for at in range(40)], [[0.5] * 40] * 40)
    assert len(tags(svg, "rect")) == 1600
    assert not tags(svg, "text", "cell")


def test_shades_run_from_white_to_dark_and_never_beyond():
    assert (shade(-1), shade(0), shade(0.5), shade(1), shade(2)) == (
        "#ffffff",
        "#ffffff",
        "#809eb8",
        "#003c72",
        "#003c72",
    )


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0, 10, 6, [0, 2, 4, 6, 8, 10]),
        (47.9, 85.1, 5, [50, 60, 70, 80]),
        (99.5, 100.5, 5, [99.6, 99.8, 100, 100.2, 100.4]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_round_numbers(low, high, most, ticks):
    assert round_ticks(low, high, most) == pytest.approx(ticks)


def test_class_names_are_cut_to_the_room_there_is_and_kept_in_the_title():
    name = "a class with a very long name " * 4
    change = ClassChange(name, 1234, 0.1, 0.2, 0.1)
    svg = class_plot([change], 345)
    text = tags(svg, "text", "class")[0].text
    assert text.startswith("a class")
    assert text.endswith("\u2026 (1,234)")
    assert tags(svg, "title")[0].text == f"{name}: 1,234 rows, 10.0% before, 20.0% after"


def test_roles_differ_by_shape_and_not_by_colour_alone():
    roles = ("embedding", "block", "control", "paper", "combined", "chosen")
    entries = tuple(entry("embedding" if at == 0 else role, role, 4**at, 0.6) for at, role in enumerate(roles))
    whole = replace(comparison(), entries=entries, free="embedding", chosen="chosen")
    shapes = [
        (tag.tag, len((tag.get("points") or "").split()), tag.get("fill"))
        for tag in ElementTree.fromstring(cost_plot(whole, 960, 440)).iter()
        if (tag.get("class") or "").startswith("mark")
    ]
    assert len(shapes) == 6
    assert len({fill for _, _, fill in shapes}) == 6
    assert sorted(count for _, count, _ in shapes) == [0, 3, 3, 4, 4, 10]
