import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from small_scenes import LABELS, encoded, indexed, mask
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.masks import read_mask
from sporeprint.errors import SampleError


def deep(values):
    return Image.fromarray(values.astype(np.uint16))


@pytest.mark.parametrize(
    ("image", "kind", "labels"),
    [
        (Image.fromarray(LABELS), "PNG", LABELS),
        (indexed(LABELS), "PNG", LABELS),
        (indexed(LABELS), "GIF", LABELS),
        (deep(LABELS * np.uint16(300)), "PNG", LABELS * np.int32(300)),
        (deep(LABELS * np.uint16(300)), "TIFF", LABELS * np.int32(300)),
        (Image.fromarray(LABELS.astype(np.int32) * 70_000), "TIFF", LABELS.astype(np.int32) * 70_000),
        (Image.fromarray(LABELS > 0), "PNG", LABELS > 0),
    ],
    ids=["L", "P", "P in GIF", "I;16", "I;16 in TIFF", "I", "1"],
)
def test_every_mode_that_holds_label_values_is_read_exactly(image, kind, labels):
    read = read_mask(encoded(image, kind))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, labels)


def test_a_mask_in_memory_is_read_as_it_is():
    np.testing.assert_array_equal(read_mask(LABELS.astype(np.int64)), LABELS)
    np.testing.assert_array_equal(read_mask(Image.fromarray(LABELS)), LABELS)
    with pytest.raises(SampleError, match=r"an array \[2, 3\] of float64; expected whole numbers"):
        read_mask(LABELS / 2)


def test_grey_masks_are_label_values_unless_all_the_colours_are_greys():
    colours = {(10, 20, 30): 0, (255, 255, 255): 1}
    np.testing.assert_array_equal(read_mask(mask(), colours=colours), LABELS)
    greys = {(255, 255, 255): 1, (0, 0, 0): 0}
    for halves in (Image.fromarray((LABELS > 0) * np.uint8(255)), Image.fromarray(LABELS > 0)):
        np.testing.assert_array_equal(read_mask(encoded(halves), 2, colours=greys), LABELS > 0)


def with_palette(values, *palette):
    image = Image.fromarray(np.asarray(values, np.uint8), "P")
    image.putpalette([part for colour in palette for part in colour])
    return image


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = {RED: 0, GREEN: 1}


def test_a_palette_in_another_order_than_the_colours_given_is_read_by_colour():
    swapped = encoded(with_palette(LABELS, GREEN, RED, GREEN))
    assert read_mask(swapped, colours=COLOURS).tolist() == [[1, 0, 1], [1, 0, 1]]
    assert read_mask(swapped).tolist() == LABELS.tolist()
    high = with_palette([[0, 3]], (0, 0, 0), BLUE, BLUE, (255, 255, 255))
    assert read_mask(high, colours={(0, 0, 0): 0, (255, 255, 255): 1}).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "palette",
    [(RED, GREEN, BLUE), (RED, GREEN), [(index,) * 3 for index in range(3)]],
    ids=["a void colour", "too short", "none chosen"],
)
def test_a_palette_that_contradicts_no_given_colour_leaves_the_indices(palette):
    assert read_mask(with_palette(LABELS, *palette), colours=COLOURS).tolist() == LABELS.tolist()


def test_a_palette_that_contradicts_the_colours_given_and_has_others_is_refused():
    message = (
        r"index 1 of its palette is \[0, 0, 255\], and class 1 of classes.json \[0, 255, 0\]; by colour it cannot be "
        r"read either, as \[0, 0, 255\] is not in classes.json"
    )
    with pytest.raises(SampleError, match=message):
        read_mask(with_palette(LABELS, RED, BLUE, GREEN), colours=COLOURS)
    message = r"index 2 of its palette is \[255, 0, 0\], the colour of class 0 of classes.json; .* as no colour is not"
    with pytest.raises(SampleError, match=message):
        read_mask(with_palette([[0, 2, 3]], RED, GREEN, RED), colours=COLOURS)
    assert read_mask(with_palette([[0, 0, 2]], RED, BLUE, GREEN), colours=COLOURS).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("value", [2**40, -(2**40), 2**31])
def test_a_value_that_would_wrap_is_refused(value):
    with pytest.raises(SampleError, match=f"values from .*{value}"):
        read_mask(np.array([[0, value]]))
    assert read_mask(np.array([[2**31 - 1]])).tolist() == [[2**31 - 1]]


def test_unknown_label_values_are_named_with_their_pixels():
    odd = np.full((30, 40), 255)
    odd[0, :7], odd[1:] = 12, 3
    with pytest.raises(SampleError, match=r"label value 255 \(33 pixels\), 12 \(7 pixels\); there are 11 .*--ignore"):
        read_mask(mask(odd), 11)
    with pytest.raises(SampleError, match=r"label value 12 \(7 pixels\);"):
        read_mask(mask(odd), 11, [255])
    assert set(np.unique(read_mask(mask(odd), 11, [255, 12]))) == {3, 12, 255}
    assert read_mask(mask(odd)).max() == 255
    with pytest.raises(SampleError, match=r"label value -1 \(1 pixel\)"):
        read_mask(np.array([[0, -1]]))
    assert read_mask(np.array([[0, -1]]), 1, [-1]).tolist() == [[0, -1]]


def test_a_mask_is_turned_upright_as_images_are():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn to the right
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(LABELS), exif=exif)), np.rot90(LABELS, -1))


def test_a_mask_of_void_alone_is_read():
    assert (read_mask(mask(LABELS * 0 + 255), 3, [255]) == 255).all()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (mask(np.arange(200).reshape(10, 20))[:-30], "damaged or cut short"),
        (b"", r"empty \(0 bytes\)"),
        (b"not a picture", "not an image in a known format .*it looks like text"),
        (encoded(Image.fromarray(LABELS), "JPEG"), "is a JPEG, which changes label values"),
        (encoded(Image.fromarray(LABELS).convert("LA")), "mode LA; expected grey of 8 or 16 bits"),
        (b"P5 10000 10000 255\n", "10000 x 10000 is over 67,108,864 pixels"),
        (None, "there is none"),
        ({"bytes": None, "path": None}, "there is none"),
        (3, "a value of type int"),
    ],
)
def test_a_mask_that_cannot_be_read_says_why(data, message):
    with pytest.raises(SampleError, match=message):
        read_mask(data)


def white_is_zero():
    image = Image.fromarray(np.array([[0, 1], [2, 255]], dtype=np.uint8))
    return encoded(image, "TIFF", tiffinfo={262: 0})


def test_a_mask_whose_white_is_zero_is_refused_since_its_values_are_turned_round():
    with pytest.raises(SampleError, match="white is 0"):
        read_mask(white_is_zero())


def test_colours_looked_up_in_strips_are_as_if_whole(monkeypatch):
    labels = np.random.default_rng(0).integers(0, 3, (40, 30))
    painted = Image.fromarray(np.array([(9, 9, 9), (0, 200, 0), (7, 0, 250)], dtype=np.uint8)[labels])
    colours = {(9, 9, 9): 0, (0, 200, 0): 1, (7, 0, 250): 2}
    monkeypatch.setattr("sporeprint.data.scenes.masks._STRIP_PIXELS", 7 * 30)
    np.testing.assert_array_equal(read_mask(painted, 3, (), colours), labels)
    with pytest.raises(SampleError, match=rf"colour \[7, 0, 250\] \({(labels == 2).sum()} pixels\) is not among"):
        read_mask(painted, 2, (), {(9, 9, 9): 0, (0, 200, 0): 1})
    with pytest.raises(SampleError, match=rf"label value 2 \({(labels == 2).sum()} pixels\)"):
        read_mask(labels, 2)


def test_a_mask_beyond_the_limit_names_the_flag():
    with pytest.raises(SampleError, match=r"3 x 2 is over 5 pixels.*--max-pixels"):
        read_mask(np.zeros((2, 3), int), limits=Limits(max_pixels=5))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(bits, values):
    """A grey PNG of few bits a pixel, written by hand."""
    lines = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        lines += b"\0" + bytes(int(text[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(text), 8))
    size = struct.pack(">IIBBBBB", len(values[0]), len(values), bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def grey_tiff(bits, packed, width, turn=1):
    """A grey TIFF of one row."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 274: turn, 277: 1, 278: 1, 279: len(packed)}
    body = packed.ljust(8, b"\0")
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def pgm(maxval, *values):
    width = 1 if maxval < 256 else 2
    return b"P5 %d 1 %d\n" % (len(values), maxval) + b"".join(value.to_bytes(width, "big") for value in values)


FEW_BITS = {
    "PNG of 1 bit": (grey_png(1, [[0, 1, 1]]), [0, 1, 1]),
    "PNG of 2 bits": (grey_png(2, [[0, 1, 2, 3, 1]]), [0, 1, 2, 3, 1]),
    "PNG of 4 bits": (grey_png(4, [list(range(16))]), list(range(16))),
    "TIFF of 2 bits": (grey_tiff(2, bytes([0b00011011]), 4), [0, 1, 2, 3]),
    "TIFF of 4 bits": (grey_tiff(4, bytes([0x01, 0x2F]), 4), [0, 1, 2, 15]),
    "TIFF of 2 bits, turned round": (grey_tiff(2, bytes([0b00011011]), 4, turn=3), [3, 2, 1, 0]),
    "PGM up to 1": (pgm(1, 0, 1), [0, 1]),
    "PGM up to 3": (pgm(3, 0, 1, 2, 3), [0, 1, 2, 3]),
    "PGM up to 20, and void": (pgm(20, 0, 20, 255), [0, 20, 255]),
    "PGM up to 254": (pgm(254, *range(255)), list(range(255))),
    "PGM up to 255": (pgm(255, 0, 7, 255), [0, 7, 255]),
    "PGM up to 256": (pgm(256, 0, 1, 256), [0, 1, 256]),
    "PGM up to 300": (pgm(300, 0, 1, 299, 300), [0, 1, 299, 300]),
    "PGM up to 1000": (pgm(1000, *range(1001)), list(range(1001))),
    "PGM up to 65535": (pgm(65535, 0, 300, 65535), [0, 300, 65535]),
    "PGM in text, up to 3": (b"P2 4 1 3\n0 1 2 3\n", [0, 1, 2, 3]),
    "PGM in text, up to 1000": (b"P2 3 1 1000\n0 1 1000\n", [0, 1, 1000]),
}


@pytest.mark.parametrize("name", FEW_BITS)
def test_the_labels_are_the_values_in_the_file_whatever_its_greatest(name):
    data, labels = FEW_BITS[name]
    assert read_mask(data).tolist() == [labels]
    assert read_mask(data, colours={RED: 0, GREEN: 1}).tolist() == read_mask(data, colours={}).tolist() == [labels]


def test_greys_of_classes_are_the_shades_that_a_viewer_shows():
    shades = {(85, 85, 85): 0, (0, 0, 0): 1, (255, 255, 255): 2}
    for data in (grey_png(2, [[0, 1, 3]]), pgm(3, 0, 1, 3)):
        assert read_mask(data, colours=shades).tolist() == [[1, 0, 2]]
    assert read_mask(pgm(300, 0, 85, 300), colours=shades).tolist() == [[0, 85, 300]]


def test_an_opened_image_that_pillow_would_stretch_is_refused_since_it_forgets_the_values():
    for data in (grey_png(2, [[0, 1]]), pgm(3, 0, 1), pgm(300, 0, 1)):
        with pytest.raises(SampleError, match="grey of other than 8 or 16 bits, which Pillow stretches; give its file"):
            read_mask(Image.open(io.BytesIO(data)))
    for data in (grey_png(1, [[0, 1]]), pgm(255, 0, 1), pgm(65535, 0, 1)):
        assert read_mask(Image.open(io.BytesIO(data))).tolist() == [[0, 1]]
