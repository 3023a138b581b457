import numpy as np
import pytest
from PIL import Image

from sporeprint.errors import SampleError
from sporeprint.report.tiles import Tile, tile_sheet

COLOURS = [(200, 30, 30), (30, 30, 200)]
GREY = (128, 128, 128)


def sheet(*tiles, **options):
    return tile_sheet([("Marked", tiles)], COLOURS, [(0, "a"), (1, "b")], **options)


def tile(labels=None):
    return Tile(Image.new("RGB", (40, 30), GREY), None if labels is None else np.asarray(labels, np.int32), "one")


def count(picture, colour):
    return int((np.asarray(picture) == np.array(colour)).all(axis=2).sum())


def test_a_picture_without_labels_is_shown_as_it_is():
    assert count(sheet(tile()), GREY) == 327 * 245  # a quarter of 1400 - 2 * 28 - 3 * 12


def test_unlabelled_pixels_show_the_picture():
    labels = np.full((30, 40), -1)
    labels[:, 20:] = 1
    picture = sheet(tile(labels), width=700)
    plain = count(sheet(tile(), width=700), GREY)
    assert count(picture, GREY) == pytest.approx(plain / 2, rel=0.05)
    mixed = tuple(round(0.45 * grey + 0.55 * colour) for grey, colour in zip(GREY, COLOURS[1], strict=True))
    assert count(picture, mixed) > 0.4 * plain


def test_points_are_dots_in_their_colour():
    labels = np.full((30, 40), -1)
    labels[15, 10], labels[15, 30] = 0, 1
    bare = sheet(tile())
    for colour in COLOURS:
        assert count(sheet(tile(labels)), colour) - count(bare, colour) > 20


def test_more_than_four_tiles_take_more_rows():
    four, five = sheet(*[tile()] * 4), sheet(*[tile()] * 5)
    assert count(five, GREY) == 5 / 4 * count(four, GREY)
    assert five.height > four.height + 240


def test_a_sheet_needs_a_tile():
    with pytest.raises(SampleError, match="no tiles"):
        sheet()
