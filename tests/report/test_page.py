"""The page is whole, needs nothing from outside, escapes what it shows, and is the same for the same comparison."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from small_comparison import altered, comparison, entry
from sporeprint.errors import StoreError
from sporeprint.evaluate.analyse import Analysis, BlockFigures, ClassChange
from sporeprint.evaluate.choice.candidates import ALL, FREE, PLAIN
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.compare_backbones import BackboneComparison, BackboneEntry
from sporeprint.evaluate.comparison import Changed
from sporeprint.report.page import render, write_report
from sporeprint.report.samples import SIDE, Samples
from sporeprint.report.svg import BLACK, BLUE, GREY, MARKS, PALE, VERMILLION

EVIL = "<script>alert('x')</script>\"&"
EMPTY = frozenset({"meta", "br", "img"})  # elements that HTML does not close


class Page(HTMLParser):
    """Elements, their attributes and their text; fails where a tag is closed that is not the open one."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables[str(dict(attributes)["class"])] = []
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if {"td", "th"} & set(self.open):
            self._table[-1][-1] += data

    @property
    def _table(self) -> list[list[str]]:
        return list(self.tables.values())[-1]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def rows(self, table: str = "entries") -> list[list[str]]:
        return [[" ".join(cell.split()) for cell in row] for row in self.tables[table]]

    def cells(self, name: str, table: str = "entries") -> list[str]:
        return next(row for row in self.rows(table) if name in row[0].split()[:2])


def pictures() -> Samples:
    rng = np.random.default_rng(0)

    def picture(width: int, height: int) -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))

    train = {f"train-{at}": picture(20 * at + 8, 30) for at in range(8)}
    return Samples("image", {"test-2": picture(300, 200)}, train)


def test_the_page_and_its_data_are_written(tmp_path):
    path = write_report(comparison(), tmp_path / "new" / "report")
    assert path == tmp_path / "new" / "report" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["comparison.json", "report.html"]
    assert json.loads(path.with_name("comparison.json").read_text()) == comparison().to_json()
    assert Page(path.read_text()).text.startswith("tiny · sporeprint compare")


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="was not written"):
        write_report(comparison(), tmp_path / "file")


def test_the_parts_come_in_their_order():
    text = Page(render(comparison())).text
    parts = [
        "Use all of it.",
        "1,400 test rows.",
        "The embedding's best 60.0",
        "The choice 80.0",
        "Gain +20.0",
        "Two rows are in both stores.",
        "Accuracy against cost",
        "By each predictor",
        "Which classes change",
        "Neighbours under both",
        "All entries",
        "What the blocks share",
        "What was compared",
        "How to read this Top-1",
    ]
    assert [text.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=text.index) == parts


def test_the_table_of_all_entries_the_blocks_and_the_settings_are_folded():
    page = render(comparison())
    folded = re.findall(r"<details>(.*?)</details>", page, re.DOTALL)
    assert [re.search("<h2>(.*?)</h2>", part)[1] for part in folded] == [
        "All entries",
        "What the blocks share",
        "What was compared",
    ]
    assert '<table class="entries">' in folded[0]
    assert "<details open" not in page
    assert all(part.count("<summary>") == 1 for part in folded)


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"backbone": "deit-tiny", "data": "flowers"}, "deit-tiny on flowers"),
        ({"data": "flowers"}, "flowers"),
        ({"backbone": "deit-tiny", "data": ""}, "deit-tiny"),
        ({}, "features compared"),
        ({"backbone": "<b>", "data": "<i>&"}, "&lt;b&gt; on &lt;i&gt;&amp;"),
    ],
)
def test_the_title_names_the_backbone_and_the_data(settings, title):
    page = render(comparison(settings=settings))
    assert f"<title>{title} &middot; sporeprint compare</title>" in page
    assert f"sporeprint compare: <bdi>{title}</bdi>" in page


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"train_rows": 1000, "classes": 2, "test_rows": 1}, "1,000 training rows, 1 test row, 2 classes. "),
        ({"train_rows": 1, "classes": 1, "splits": 10}, "1 training row, 10 splits, 1 class. "),
        ({"test_rows": 9, "groups": 4, "shots": 1, "draws": 5}, "9 test rows, 4 groups, 1 label a class, 5 draws. "),
        ({}, ""),
    ],
)
def test_rows_and_classes_stand_under_the_verdict(settings, facts):
    assert f'<p class="facts">{facts}<a href="#how">' in render(comparison(settings=settings))


def test_headings_go_down_one_level_at_a_time():
    levels = [int(tag[1]) for tag, _ in Page(render(comparison())).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(level <= before + 1 for before, level in pairwise(levels))


def test_what_matters_most_is_in_the_first_columns_of_each_table():
    page = Page(render(comparison()))
    judges = ["kNN", "closed form", "probe"]
    assert page.rows()[0][:5] == ["features", *judges, "gain, points"]
    assert page.rows("main")[0] == ["features", *judges, "gain"]


def test_the_answer_is_what_the_embedding_can_do_what_the_choice_does_and_its_gain():
    text = Page(render(comparison())).text.replace("\u00a0", " ")
    assert (
        "The embedding's best 60.0% 58.0 to 63.0 the embedding with LDA 1 pass, 1,240 rows/s, 1,536 bytes a row "
        "The choice 80.0% 78.0 to 83.0 embedding + kl with LDA 10 passes, 124 rows/s, 1,536 bytes a row "
        "Gain +20.0 points +17.0 to +23.0 on the same test rows, 95 % interval"
    ) in text


def test_a_choice_that_is_the_reference_has_no_gain():
    alone = comparison(chosen="embedding", free="embedding", entries=comparison().entries[:1])
    assert "Gain The choice is the reference." in Page(render(alone)).text


def test_the_rows_that_matter_are_listed_with_all_judges_and_the_reference_is_framed():
    text = render(comparison())
    page = Page(text)
    assert page.rows("main")[1:] == [
        ["embedding reference 1 pass", "52.0", "60.0 LDA (reference)", "58.0", "\u2013"],
        ["layers one pass 1 pass", "62.0", "70.0 LDA", "\u2013", "+10.0 +7.0 to +13.0"],
        ["kl alone 1 pass", "42.0", "50.0 LDA", "\u2013", "\u221210.0 \u221213.0 to \u22127.0"],
        ["paper's assembly 100 passes", "57.0", "65.0 LDA", "\u2013", "+5.0 +2.0 to +8.0"],
        ["all, white the choice embedding + kl; 10 passes", "72.0", "80.0 LDA", "78.0", "+20.0 +17.0 to +23.0"],
    ]
    assert text.count('<td class="base">') == 2  # here and in the table of all entries
    bold = re.findall("<td[^>]*><b>\\s*([0-9.]+)", text)
    assert bold == 2 * ["60.0", "70.0", "50.0", "65.0", "80.0"]


def test_a_row_is_judged_by_its_own_judge_and_the_reference_may_be_a_probe():
    reference, *others = comparison().entries
    page = Page(render(comparison(entries=(replace(reference, judge="probe"), *others))))
    assert page.rows("main")[1] == ["embedding reference 1 pass", "52.0", "60.0 LDA", "58.0 (reference)", "\u2013"]
    assert "The embedding's best 58.0" in page.text
    assert "the embedding with a probe" in page.text


def test_each_step_has_its_points_by_each_judge():
    *others, chosen = comparison().entries
    entries = (*others, replace(others[1], name=FREE), replace(chosen, name=ALL), replace(others[0], name=PLAIN))
    page = Page(render(comparison(entries=entries, free=FREE, chosen=ALL)))
    assert page.rows("steps") == [
        ["added points", "kNN", "closed form", "probe"],
        ["one pass, over the embedding 1 to 1 pass", "+10.0", "+10.0", "\u2013"],
        ["more passes, over one pass 1 to 10 passes", "+10.0", "+10.0", "\u2013"],
        ["gradients, over the best without 1 to 10 passes", "+20.0", "+20.0", "+20.0"],
    ]


def test_what_must_be_known_of_an_entry_stands_wherever_it_is_listed():
    *others, paper, chosen = comparison().entries
    page = Page(render(comparison(entries=(*others, replace(paper, note="other views"), chosen))))
    assert page.cells("paper's")[0] == "4 paper's assembly (other views)"
    assert page.cells("paper's", "main")[0] == "paper's assembly 100 passes; other views"


def test_the_table_has_every_entry_with_its_figures():
    page = Page(render(comparison()))
    assert page.cells("layers") == (
        [
            "2 layers one pass",
            "62.0",
            "70.0 LDA",
            "\u2013",
            "+10.0 +7.0 to +13.0",
            "1",
            "1,240",
            "1,536",
            "69.0",
            "0.300",
            "65.0",
            "kNN, k = 5; LDA",
        ]
    )
    assert page.cells("kl")[4] == "\u221210.0 \u221213.0 to \u22127.0"
    assert page.cells("embedding")[4] == "\u2013"
    assert page.cells("embedding")[-1] == "kNN, k = 5; LDA; probe"
    assert "rows/s: as measured while the store was made, whatever else ran there" in page.text
    assert "reading and decoding left out; the embedding's own includes KL's backward pass" in page.text
    assert page.cells("paper's")[6] == "12"
    kinds = [tag.get("class") for tag in page.of("tr")]
    assert kinds[1:6] == kinds[-8:-3] == ["reference", None, None, None, "chosen"]


def test_what_was_chosen_is_said_in_the_words_of_the_verdict():
    chosen = entry("all, white", "chosen", 10, 0.8, features="layers + kl, white 0.5", blocks=("embedding", "kl"))
    page = Page(render(comparison(entries=(*comparison().entries[:-1], chosen))))
    assert page.cells("all,")[0] == "5 all, white the choice layers + kl, white 0.5"
    assert "The choice 80.0% 78.0 to 83.0 layers + kl, white 0.5, with LDA" in page.text.replace("\u00a0", " ")


def test_the_legend_has_the_marks_that_are_drawn():
    shown = comparison()
    same = tuple(altered(each, value=shown.entries[0].value, passes=1) for each in shown.entries[:2])
    page = Page(render(replace(shown, entries=same, free="layers", chosen="layers")))
    assert "the embedding Right is better" in page.text
    assert "layers, views: no gradient" not in page.text


def test_every_mark_has_its_number_and_names_next_to_the_plot_and_in_the_table():
    page = Page(render(comparison()))
    listed = (
        "1 embedding : LDA reference 2 layers : LDA one pass 3 kl alone 4 paper's assembly : LDA "
        "5 all, white : LDA the choice"
    )
    assert page.text.count(listed) == 1
    assert [row[0].split()[0] for row in page.rows()[1:]] == ["1", "2", "3", "4", "5"]


def test_entries_that_share_a_mark_share_its_number_and_those_without_accuracy_have_none():
    first, second, *_ = comparison().entries
    same = replace(first, name="copy")
    nothing = altered(second, name="nothing", value=Interval(math.nan, math.nan, math.nan))
    others = comparison().entries[3:]
    shown = comparison(entries=(first, nothing, second, same, *others), chosen="layers")
    page = Page(render(shown))
    assert [row[0] for row in page.rows()[1:5]] == [
        "1 embedding reference",
        "nothing",
        "2 layers the choice one pass",
        "1 copy",
    ]
    assert "1 embedding ; copy : LDA reference 2 layers : LDA the choice one pass" in page.text


def test_where_all_cost_alike_the_names_stand_in_the_plot_and_nothing_is_numbered():
    alike = tuple(replace(row, passes=1) for row in comparison().entries)
    page = Page(render(comparison(entries=alike)))
    assert [row[0] for row in page.rows()[1:4]] == ["embedding reference", "layers one pass", "kl alone"]
    assert not [tag for tag in page.of("ul") if tag.get("class") == "names"]
    assert "Horizontal lines: the 95 % interval." in page.text.replace("\u00a0", " ")


def test_heads_of_rows_and_columns_say_which_they_are():
    heads = Page(render(comparison())).of("th")
    assert {head["scope"] for head in heads} == {"row", "col"}


def test_blocks_are_listed_with_their_figures_and_a_dash_for_none():
    page = Page(render(comparison()))
    assert page.rows("blocks")[1:] == [["embedding", "384", "120.3", "0.123"], ["kl", "768", "300.0", "\u2013"]]
    assert "Measured on 80 of 90 rows" in page.text


def test_neighbours_are_marked_right_or_wrong_by_a_sign_and_a_border():
    page = Page(render(comparison()))
    kinds = [tag.get("class") for tag in page.of("li") if tag.get("class")]
    assert kinds == ["wrong", "wrong", "wrong", "right", "wrong"]
    assert "train-7 \u2713 right: rose" in page.text
    assert "Reference, LDA: \u2717 wrong: daisy" in page.text
    assert "border-style: dashed" in render(comparison())


def test_names_labels_and_texts_are_escaped_everywhere():
    shown = comparison()
    row = replace(shown.changed[0], id=EVIL, label=EVIL, before=EVIL, after=EVIL)
    near = replace(row.neighbours_before[0], id=EVIL, label=EVIL)
    changed = replace(row, neighbours_before=(near,), neighbours_after=(near,))
    evil = comparison(
        verdict=EVIL,
        entries=tuple(entry(EVIL + role, role, 3, 0.5) for role in ("embedding", "chosen", "paper")),
        reference=EVIL + "embedding",
        free=EVIL + "embedding",
        chosen=EVIL + "chosen",
        classes=(ClassChange(EVIL, 3, 0.1, 0.3, 0.2),),
        analysis=Analysis(3, 3, {EVIL: BlockFigures(3, 1.0, 0.5)}, ((1.0,),)),
        changed=(changed,),
        settings={"backbone": EVIL, "data": EVIL, EVIL: EVIL, "list": [EVIL], "nested": {EVIL: EVIL}},
        notes=(EVIL,),
    )
    for samples in (None, Samples("text", {EVIL: EVIL}, {EVIL: EVIL}), Samples("image", {EVIL: EVIL}, {EVIL: EVIL})):
        text = render(evil, samples)
        page = Page(text)
        assert "<script" not in text
        assert page.of("script") == []
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert page.text.count(EVIL) > 10


def test_nothing_is_loaded_from_outside_and_nothing_can_run():
    text = render(comparison(), pictures())
    page = Page(text)
    links = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
    ]
    assert links
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.elements}
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def colours(css: str) -> list[dict[str, str]]:
    """The named colours on light and on dark screens."""
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return [dict(re.findall("--([a-z]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]


def contrast(first: str, second: str) -> float:
    """As WCAG 2 has it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_text_has_enough_contrast_in_the_light_and_in_the_dark():
    for named in colours(render(comparison())):
        for text in ("ink", "soft", "link", "right", "wrong"):
            assert contrast(named[text], named["paper"]) >= 4.5, text
        for ground in ("reference", "chosen"):
            assert contrast(named["ink"], named[ground]) >= 4.5
            assert contrast(named["soft"], named[ground]) >= 4.5


def test_dark_screens_have_a_colour_for_the_ink_the_grey_and_the_lines_of_the_plots():
    page = render(comparison())
    dark = page[page.index("@media screen and (prefers-color-scheme: dark)") : page.index("</style>")]
    drawn = {
        colour for svg in re.findall("<svg.*?</svg>", page, re.DOTALL) for colour in re.findall("#[0-9a-f]{6}", svg)
    }
    assert drawn >= {BLACK, GREY, PALE, BLUE}
    for colour in (BLACK, GREY, PALE, BLUE):
        assert f'="{colour}"]' in dark
    ground = colours(page)[1]["paper"]
    unchanged = {colour for colour, _ in MARKS.values()} - {BLACK} | {VERMILLION}
    assert all(contrast(colour, ground) >= 3 for colour in unchanged)


def test_a_phone_shows_the_page_at_its_own_width():
    metas = Page(render(comparison())).of("meta")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


def test_thumbnails_are_images_of_at_most_96_pixels_and_say_which_row_they_are():
    images = Page(render(comparison(), pictures())).of("img")
    assert [image["alt"] for image in images] == [
        f"row {name}" for name in ("test-2", "train-0", "train-1", "train-2", "train-7", "train-1")
    ]
    sizes = []
    for shown in images:
        kind, data = shown["src"].split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert kind == f"data:image/{image.format.lower()}"
            sizes.append(image.size)
    assert sizes[0] == (96, 64)
    assert sizes[1] == (8, 30)
    assert all(max(size) <= SIDE for size in sizes)
    assert (images[1]["width"], images[1]["height"]) == ("26", "96")  # shown larger, at its own aspect


def test_texts_are_shown_cut_and_a_sample_that_cannot_be_read_by_its_id():
    train = {"train-0": "Where is  it ?", "train-1": "word " * 400, "train-2": "   "}
    text = Page(render(comparison(), Samples("text", {"test-2": "What is it ?"}, train))).text
    assert "What is it ? Label: rose test row test-2" in text
    assert "Where is it ?" in text
    assert "word \u2026" not in text
    assert "word\u2026" in text
    assert text.count("word") < 150
    assert "train-2 (cannot be read)" in text
    assert "train-7 \u2713" in text  # of which no sample was given


def test_the_first_seconds_of_a_sound_can_be_played():
    pytest.importorskip("soxr")
    soundfile = pytest.importorskip("soundfile")
    tone = np.sin(np.arange(5 * 8000) / 4).astype(np.float32)
    page = Page(render(comparison(), Samples("audio", {"test-2": (tone, 8000)}, {"train-0": b"RIFF", "train-1": tone})))
    (player,) = page.of("audio")
    assert (player["aria-label"], player["preload"]) == ("row test-2", "metadata")
    kind, data = player["src"].split(";base64,")
    assert kind == "data:audio/mpeg"
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert len(sound) / rate == pytest.approx(3, abs=0.1)
    assert "Label: rose test row test-2" in page.text
    assert "train-0 (cannot be read)" in page.text
    assert "train-1 (cannot be read)" in page.text
    assert "media-src data:" in render(comparison())


def many_changed(count: int) -> tuple[Changed, ...]:
    change = comparison().changed[0]
    return tuple(replace(change, id=f"q{at}") for at in range(count))


def test_only_so_many_queries_and_neighbours_are_shown_and_the_rest_is_said():
    page = Page(render(comparison(changed=many_changed(7)), queries=3, neighbours=2))
    assert len(page.of("article")) == 3
    assert len([tag for tag in page.of("li") if tag.get("class")]) == 3 * 4
    assert "in turns. Here are 3 of 7; the others are in comparison.json." in page.text


def test_after_four_queries_the_others_are_folded():
    (folded,) = re.findall(r"<details>(.*?)</details>", render(comparison(changed=many_changed(6))), re.DOTALL)[:1]
    assert "<summary>2 more such rows</summary>" in folded
    assert re.findall("test-2|q[0-9]", Page(folded).text) == ["q4", "q5"]
    assert "more such rows" not in render(comparison(changed=many_changed(4)))


def test_rows_that_gain_and_rows_that_lose_take_turns():
    gain = many_changed(3)
    lose = [replace(row, id=f"w{at}", before=row.label, after="daisy") for at, row in enumerate(gain[:2])]
    text = Page(render(comparison(changed=(*gain, *lose)))).text
    assert re.findall("[qw][0-9]", text) == ["q0", "w0", "q1", "w1", "q2"]


def test_a_page_without_samples_says_how_to_see_them():
    hint = "To see the samples, and not only their ids, give --train SOURCE and --test SOURCE to compare ."
    assert hint in Page(render(comparison())).text
    assert hint not in Page(render(comparison(), pictures())).text
    assert hint not in Page(render(comparison(changed=()))).text


@pytest.mark.parametrize(
    ("settings", "same", "why"),
    [
        ({"test_rows": 9}, True, "the chosen features are the reference's own"),
        ({"test_rows": 9}, False, "every test row that one of the two classifies rightly, the other does too"),
        ({"splits": 5}, True, "no test set was given"),
        ({"splits": 5}, False, "no test set was given"),
        ({"test_rows": 9, "shots": 5}, False, "labelled rows were drawn, and a test row has one answer in each draw"),
    ],
)
def test_without_changed_queries_the_page_says_which_case_it_is(settings, same, why):
    *others, chosen = comparison().entries
    chosen = replace(chosen, combination=others[0].combination) if same else chosen
    shown = comparison(entries=(*others, chosen), changed=(), settings=settings)
    assert f"None to show: {why}" in Page(render(shown)).text


def test_what_the_test_rows_had_a_say_in_is_told_of_a_test_set_and_of_splits():
    cases = ("test_rows", "splits", "shots")
    texts = {setting: Page(render(comparison(settings={setting: 5}))).text for setting in cases}
    assert "In each draw, leave-one-out on its labelled rows chooses all three" in texts["shots"]
    assert "honest estimate" not in texts["shots"]
    assert "the test rows had no say, so their accuracy is an honest estimate" in texts["test_rows"]
    assert "All rows name the reference" in texts["splits"]
    assert "the split's test rows have no say in that" in texts["splits"]
    assert "honest estimate" not in texts["splits"]
    assert "All rows name" not in texts["test_rows"]


@pytest.mark.parametrize("gain", [Interval(0.0, -0.0004, 0.0004), Interval(-0.0004, -0.02, 0.03)])
def test_a_gain_of_nought_looks_as_it_does_in_the_verdict(gain):
    *others, chosen = comparison().entries
    page = Page(render(comparison(entries=(*others, altered(chosen, gain=gain)))))
    shown = str(gain).replace(" points", "").replace("-", "\u2212").replace("(", "").replace(")", "")
    assert shown.startswith("+0.0 ")
    assert page.cells("all,")[4] == page.cells("all,", "main")[4] == shown


def test_equal_comparisons_give_equal_pages():
    assert render(comparison(), pictures()) == render(comparison(), pictures())


def of_backbones() -> BackboneComparison:
    base, choice = comparison().entries[0], comparison().entries[-1]
    rows = (
        BackboneEntry("small", base, altered(choice, value=Interval(0.7, 0.68, 0.73)), Interval(0.1, 0.07, 0.13)),
        BackboneEntry("large", base, choice, Interval(0.0, 0.0, 0.0)),
    )
    return BackboneComparison("Use large.", rows, "small", "large", comparison(), notes=("2 rows are left out",))


def test_of_several_backbones_the_page_says_which_to_use_and_is_of_that_one(tmp_path):
    page = Page(write_report(of_backbones(), tmp_path).read_text())
    assert page.rows("backbones") == [
        ["backbone", "embedding", "choice", "gain"],
        [
            "small 10 passes, 124 rows/s, 1,536 bytes a row",
            "60.0 LDA (reference)",
            "70.0 embedding + kl with LDA",
            "+20.0 +17.0 to +23.0",
        ],
        [
            "large the one to use 10 passes, 124 rows/s, 1,536 bytes a row",
            "60.0 LDA",
            "80.0 embedding + kl with LDA",
            "+20.0 +17.0 to +23.0",
        ],
    ]
    assert "Use large. 1,400 test rows." in page.text
    assert "All below is of large ." in page.text
    assert "2 rows are left out" in page.text
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert (data["verdict"], data["chosen"]) == ("Use large.", "all, white")
    assert [backbone["name"] for backbone in data["backbones"]] == ["small", "large"]


def test_of_one_backbone_there_is_no_table_of_backbones():
    assert "backbones" not in Page(render(comparison())).tables


def test_a_comparison_that_found_nothing_says_so():
    nan = math.nan
    only = entry("embedding", "embedding", 1, 0.6, rows_per_second=None, leave_one_out=nan)
    only = altered(only, value=Interval(nan, nan, nan), gain=Interval(nan, nan, nan), mean_per_class=nan)
    bare = comparison(
        entries=(only,),
        free="embedding",
        chosen="embedding",
        classes=(ClassChange("rose", 3, 1.0, 1.0, 0.0),),
        analysis=Analysis(0, 0, {}, ()),
        changed=(),
        settings={},
        notes=(),
    )
    page = Page(render(bare))
    assert page.cells("embedding") == (
        [
            "embedding the choice reference one pass",
            "52.0",
            "\u2013 LDA (reference)",
            "58.0",
            "\u2013",
            "1",
            "\u2013",
            "1,536",
            "\u2013",
            "0.400",
            "\u2013",
            "kNN, k = 5; LDA; probe",
        ]
    )
    for sentence in (
        "No entry has an accuracy to plot.",
        "No class changes its accuracy.",
        "No blocks were analysed.",
        "None to show: the chosen features are the reference's own.",
    ):
        assert sentence in page.text


@pytest.mark.parametrize("name", ["睡莲", "🌻 sun", "שלום", "tab\there", "nul\x00 bell\x07", "lone \ud800 half"])
def test_a_name_in_any_letters_is_written_and_read_back(tmp_path, name):
    row: Changed = replace(comparison().changed[0], label=name)
    shown = comparison(changed=(row,), classes=(ClassChange(name, 3, 0.1, 0.3, 0.2),))
    page = Page(write_report(shown, tmp_path).read_text(encoding="utf-8"))
    seen = name.replace("\x00", "\ufffd").replace("\x07", "\ufffd").replace("\ud800", "\ufffd")
    assert f"Label: {' '.join(seen.split())}" in page.text
    assert json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))["changed"][0]["id"] == "test-2"


@pytest.mark.parametrize("name", ["esc\x1b[31m c1\x9b del\x7f", "\u202eturned\u202c", "\u2069\u05e9 \u2066b"])
def test_a_name_turns_and_hides_nothing_around_it_and_keeps_its_letters_in_the_json(tmp_path, name):
    row = replace(comparison().changed[0], label=name)
    shown = comparison(changed=(row,), classes=(ClassChange(name, 3, 0.1, 0.3, 0.2),), verdict=name)
    text = write_report(shown, tmp_path).read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    for drawn in re.findall(r"<text[^>]*>([^<]*)</text>", text):
        assert drawn.count("\u2068") == drawn.count("\u2069")
        assert "\u2066" not in drawn
    data = (tmp_path / "comparison.json").read_text(encoding="utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", data)
    assert json.loads(data)["classes"][0]["label"] == name
    assert json.loads(data)["verdict"] == name


def test_a_half_of_a_character_is_kept_in_the_json(tmp_path):
    row = replace(comparison().changed[0], label="lone \ud800 half")
    write_report(comparison(changed=(row,)), tmp_path)
    data = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert data["changed"][0]["label"] == "lone \ud800 half"


def test_a_label_that_is_pages_long_is_cut():
    name = "l" * 10_000
    near = replace(comparison().changed[0].neighbours_before[0], id=name, label=name)
    row = replace(comparison().changed[0], id=name, label=name, before=name, after=name, neighbours_before=(near,))
    text = render(comparison(changed=(row,), classes=(ClassChange(name, 3, 0.1, 0.3, 0.2),)))
    assert "l" * 150 in text
    assert "l" * 201 not in text


def test_settings_are_shown_in_words():
    text = Page(render(comparison(settings={"test_rows": 1400, "fit": None, "white": True, "ks": [1, 20]}))).text
    assert "test rows 1,400 fit not set white yes ks 1, 20" in text


def test_of_more_than_forty_blocks_the_first_are_in_the_map_and_all_in_the_table():
    names = [f"block-{at}" for at in range(45)]
    analysis = Analysis(9, 9, {name: BlockFigures(4, 2.0, 0.1) for name in names}, tuple([tuple([0.5] * 45)] * 45))
    page = Page(render(comparison(analysis=analysis)))
    assert "Shown are the first 40 of 45 blocks." in page.text
    assert page.cells("block-44", "blocks")[1] == "4"
    assert len([tag for tag in page.of("g") if tag.get("class") == "cell"]) == 2 * 1600  # for a screen and a phone


def test_a_long_sentence_is_a_smaller_heading():
    assert '<h1 class="brief">Use nothing.</h1>' in render(comparison(verdict="Use nothing."))
    assert f"<h1>{'word ' * 30}</h1>" in render(comparison(verdict="word " * 30))
    assert f'<h1 class="long">{"word " * 40}</h1>' in render(comparison(verdict="word " * 40))
