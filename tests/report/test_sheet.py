import numpy as np
import pytest
from PIL import Image

from sporeprint.errors import SampleError
from sporeprint.report import sheet as module
from sporeprint.report.letters import drawable, height, length, write
from sporeprint.report.overlay import BETTER, WORSE
from sporeprint.report.palette import VOID, palette
from sporeprint.report.sheet import SheetRow, Tile, contact_sheet, tile_sheet

VOID_LABEL = 9
COLOURS = palette(3)
TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, VOID_LABEL]])
FIRST = np.array([[0, 1, 1, 0], [0, 0, 1, 0]])
SECOND = np.array([[0, 0, 1, 1], [0, 2, 1, 0]])


def row(name="one.png", truth=TRUTH, size=(80, 40), **predictions):
    return SheetRow(name, Image.new("RGB", size), truth, predictions or {"plain": FIRST, "FUNGI": SECOND})


def make(*rows, **options):
    return contact_sheet(rows or [row()], COLOURS, **{"void": (VOID_LABEL,), "width": 900, **options})


@pytest.fixture
def written(monkeypatch):
    """Every text that is written on a sheet: (asked, drawn, left, width)."""
    texts = []

    def spy(picture, at, text, size, room, ink):
        drawn = write(picture, at, text, size, room, ink)
        texts.append((text, drawn, at[0], length(drawn, size)))
        return drawn

    monkeypatch.setattr(module, "write", spy)
    return texts


def texts(written):
    return [text for text, *_ in written if text]


def colours(picture):
    return {colour for _, colour in picture.getcolors(2**24)}


def test_a_sheet_has_headings_captions_and_a_legend(written):
    make(names=["sky", "tree", "road"], title="A title", notes={"FUNGI": "mIoU 42%"})
    assert texts(written) == [
        *("A title", "Image", "Truth", "plain", "FUNGI", "mIoU 42%", "Difference"),
        # plain: 3 of 4 and 2 of 3 right; IoU 3 / 5 and 2 / 4. FUNGI: 3 of 4 and 3 of 3; IoU 3 / 4 and 3 / 3
        *("one.png", "mIoU 55.0%", "mIoU 87.5% (+32.5)", "28.6% better, 14.3% worse"),
        *("sky", "tree", "road", "void", "only FUNGI right", "only plain right"),
    ]


def test_everything_is_written_whole_and_inside_the_sheet(written):
    picture = make(row("1"), row("2"), names=["sky", "tree", "road"], title="A title", notes={"plain": "mIoU 38.5%"})
    assert [drawn for _, drawn, *_ in written] == [text for text, *_ in written]
    assert all(left > 0 and left + wide < picture.width for _, _, left, wide in written)
    assert [picture.getpixel(corner) for corner in ((0, 0), (899, 0), (899, picture.height - 1))] == 3 * [(255,) * 3]


def test_each_picture_stands_in_its_column():
    answers = {"first": np.zeros((2, 4), int), "second": np.ones((2, 4), int), "third": np.full((2, 4), 2)}
    picture = contact_sheet([row(truth=None, **answers)], COLOURS, width=400)
    middle = picture.getpixel((8 + 45, 60))
    assert middle == (0, 0, 0)
    for number, colour in enumerate(COLOURS, 1):  # 4 columns of 93 pixels and gaps of 3, over a black image
        shown = np.array(picture.getpixel((8 + number * 96 + 45, 60)))
        assert shown == pytest.approx(module._OPACITY * np.array(colour), abs=1)


@pytest.mark.parametrize("width", [900, 1400])
def test_a_sheet_is_as_wide_as_asked_and_its_letters_grow_with_it(width):
    assert make(width=width).width == width
    assert make(width=2 * width).height == pytest.approx(2 * make(width=width).height, rel=0.04)


def test_names_in_letters_that_the_font_lacks_stand_after_their_numbers(written):
    make(names=["\u5929\u7a7a", "\u6a39\u6728", "why?"])
    assert [text for text in texts(written) if "\u6728" in text or "\u7a7a" in text or "?" in text] == [
        "0: \u5929\u7a7a",
        "1: \u6a39\u6728",
        "why?",
    ]


def test_the_legend_has_only_the_labels_that_occur(written):
    make(row(truth=None, plain=np.zeros((2, 4), int), FUNGI=np.full((2, 4), 2)))
    assert texts(written) == ["Image", "plain", "FUNGI", "one.png", "0", "2"]


def test_the_swatches_have_the_colours_of_the_pictures():
    shown = colours(make())
    assert {*COLOURS, VOID, BETTER, WORSE} <= shown
    assert not {BETTER, WORSE} & colours(make(difference=False))


def test_rows_without_a_truth_stand_beside_rows_with_one(written):
    make(row("one"), row("two", truth=None))
    assert texts(written)[5:12] == [
        *("one", "mIoU 55.0%", "mIoU 87.5% (+32.5)", "28.6% better, 14.3% worse"),
        *("two", "not known", "0"),
    ]


def test_an_image_that_is_all_void_has_no_figure(written):
    make(row(truth=np.full((2, 4), VOID_LABEL)))
    assert texts(written).count("no labelled pixel") == 2


def test_a_difference_needs_two_predictions_and_can_be_left_out(written):
    make(row(only=FIRST))
    make(difference=False)
    assert "Difference" not in texts(written)


def test_plain_tuples_will_do_and_differ_in_nothing():
    assert contact_sheet([tuple(row())], COLOURS, void=(9,)) == contact_sheet([row()], COLOURS, void=(9,))


def test_a_tall_image_is_not_taller_than_its_column_allows():
    assert make(row(size=(40, 4000))).height == pytest.approx(make(row(size=(40, 50))).height, abs=1)


def test_many_labels_take_many_lines_of_the_legend(written):
    labels = np.arange(60).reshape(6, 10)
    picture = contact_sheet([row(truth=None, one=labels)], palette(60), [f"class {n}" for n in range(60)], width=500)
    entries = [(left, wide) for text, _, left, wide in written if text.startswith("class")]
    assert len(entries) == 60
    assert all(left + wide < picture.width for left, wide in entries)
    assert 2 < len({left for left, _ in entries}) < 12  # columns


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([], {}, "no rows"),
        (
            [row(), row("b", FUNGI=SECOND, plain=FIRST)],
            {},
            r"row 'b' has the predictions \['FUNGI', 'plain'\]; expected",
        ),
        ([row(Truth=FIRST)], {}, "none called Image, Truth or Difference"),
        ([row()], {"width": 100}, "width=100 leaves .* pixels a picture"),
        ([row()], {"names": ["sky"]}, "1 names for 3 colours"),
        ([row(plain=FIRST[:1])], {}, "the truth is 2 x 4 pixels, the prediction 1 x 4"),
        ([row()], {"void": ()}, r"the truth has the labels \[9\]; expected 0 to 2"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_says_why(rows, options, complaint):
    with pytest.raises(SampleError, match=complaint):
        contact_sheet(rows, COLOURS, **{"void": (VOID_LABEL,), "width": 900, **options})


def test_long_texts_are_cut_in_the_middle_to_their_room():
    picture = Image.new("RGB", (300, 40), "white")
    drawn = write(picture, (10, 5), "folder/of/many/images/frame-000123.png", 16, 150, (0, 0, 0))
    assert drawn.startswith("folder")
    assert drawn.endswith("123.png")
    assert drawn.count("...") == 1
    ink = np.asarray(picture.convert("L")) < 250
    across, down = np.flatnonzero(ink.any(axis=0)), np.flatnonzero(ink.any(axis=1))
    assert across.min() >= 10
    assert 10 + 120 < across.max() < 10 + 150
    assert down.min() >= 5
    assert down.max() < 5 + height(16)


def test_no_room_is_no_text():
    assert write(Image.new("RGB", (9, 9)), (0, 0), "wide", 16, 2, (255, 0, 0)) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vélo", "velo"),
        ("a\nb\t c", "a b c"),
        ("車 1", "? 1"),
        ("\x00\ud800", "??"),
        ("a" * 999 + "b", "a" * 150 + "..." + "a" * 149 + "b"),
        ("", ""),
    ],
)
def test_letters_that_the_font_lacks_are_replaced(text, expected):
    assert drawable(text) == expected


TILE_COLOURS = [(200, 30, 30), (30, 30, 200)]
GREY = (128, 128, 128)


def tiled(*tiles, **options):
    return tile_sheet([("Marked", tiles)], TILE_COLOURS, [(0, "a"), (1, "b")], **options)


def tile(labels=None):
    return Tile(Image.new("RGB", (40, 30), GREY), None if labels is None else np.asarray(labels, np.int32), "one")


def count(picture, colour):
    return int((np.asarray(picture) == np.array(colour)).all(axis=2).sum())


def test_a_picture_without_labels_is_shown_as_it_is():
    assert count(tiled(tile()), GREY) == 327 * 245  # a quarter of 1400 - 2 * 28 - 3 * 12


def test_unlabelled_pixels_show_the_picture():
    labels = np.full((30, 40), -1)
    labels[:, 20:] = 1
    picture = tiled(tile(labels), width=700)
    plain = count(tiled(tile(), width=700), GREY)
    assert count(picture, GREY) == pytest.approx(plain / 2, rel=0.05)
    mixed = tuple(round(0.45 * grey + 0.55 * colour) for grey, colour in zip(GREY, TILE_COLOURS[1], strict=True))
    assert count(picture, mixed) > 0.4 * plain


def test_points_are_dots_in_their_colour():
    labels = np.full((30, 40), -1)
    labels[15, 10], labels[15, 30] = 0, 1
    bare = tiled(tile())
    for colour in TILE_COLOURS:
        assert count(tiled(tile(labels)), colour) - count(bare, colour) > 20


def test_more_than_four_tiles_take_more_rows():
    four, five = tiled(*[tile()] * 4), tiled(*[tile()] * 5)
    assert count(five, GREY) == 5 / 4 * count(four, GREY)
    assert five.height > four.height + 240


def test_a_sheet_needs_a_tile():
    with pytest.raises(SampleError, match="no tiles"):
        tiled()
