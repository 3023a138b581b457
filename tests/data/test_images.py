import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from sporeprint.data.images import content_digest, load_image
from sporeprint.data.limits import Limits
from sporeprint.errors import SampleError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(sample):
    image = load_image(sample)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture
def picture():
    """2 wide, 3 high: red green / blue white / black grey."""
    array = np.array([[RED, GREEN], [BLUE, WHITE], [(0, 0, 0), (128, 128, 128)]], dtype=np.uint8)
    return Image.fromarray(array)


def test_every_kind_of_sample_gives_the_same_pixels(picture, tmp_path):
    data = encode(picture)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    expected = np.asarray(picture)
    samples = [picture, data, bytearray(data), memoryview(data), path, str(path), expected, expected / 255.0]
    samples += [{"bytes": data, "path": None}, {"bytes": data, "path": "gone.png"}, {"bytes": None, "path": str(path)}]
    samples += [expected.astype(np.uint16) * 257, (expected / 255.0).astype(np.float32)]
    for sample in samples:
        np.testing.assert_array_equal(pixels(sample), expected)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [  # the picture as (height, width, top left, top right); red green / blue white stored as the first two rows
        (1, (3, 2, RED, GREEN)),
        (2, (3, 2, GREEN, RED)),
        (3, (3, 2, (128, 128, 128), (0, 0, 0))),
        (4, (3, 2, (0, 0, 0), (128, 128, 128))),
        (5, (2, 3, RED, (0, 0, 0))),
        (6, (2, 3, (0, 0, 0), RED)),
        (7, (2, 3, (128, 128, 128), GREEN)),
        (8, (2, 3, GREEN, (128, 128, 128))),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(picture, orientation, expected, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = pixels(encode(picture, kind, exif=exif))
    assert (*decoded.shape[:2], tuple(decoded[0, 0]), tuple(decoded[0, -1])) == expected


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_beside_whole_pixels_is_passed_over(picture):
    text = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02up\0\0\0\0\0\0"
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", text):
        assert pixels(encode(picture, "JPEG", exif=exif)).shape == (3, 2, 3)


def test_a_pil_image_with_orientation_is_turned_and_left_as_it_was(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(picture, exif=exif)))
    assert pixels(image).shape == (2, 3, 3)
    assert image.size == (2, 3)
    assert image.getexif()[0x0112] == 6


def test_transparent_palette_pixels_become_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        assert pixels(encode(image, kind, transparency=1)).tolist() == [[list(RED), list(WHITE)]]
    assert pixels(image).tolist() == [[list(RED), list(GREEN)]]


def test_alpha_is_laid_on_white():
    assert pixels(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).tolist() == [[[255, 255, 255]]]
    assert pixels(Image.new("LA", (1, 1), (7, 255))).tolist() == [[[7, 7, 7]]]
    # half transparent black on white: 255 - 128 = 127
    assert pixels(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).tolist() == [[[127, 127, 127]]]
    assert pixels(np.array([[[0, 0, 0, 128]]], dtype=np.uint8)).tolist() == [[[127, 127, 127]]]
    # 64 premultiplied by an alpha of 128 is 128 unmultiplied: 128 * 128/255 + 127 = 191
    for image in (Image.new("RGBa", (1, 1), (64, 64, 64, 128)), Image.new("LA", (1, 1), (128, 128)).convert("La")):
        assert abs(int(pixels(image)[0, 0, 0]) - 191) <= 1


def test_a_transparent_colour_of_an_rgb_png_becomes_white(picture):
    decoded = pixels(encode(picture, transparency=RED))
    assert decoded[0].tolist() == [list(WHITE), list(GREEN)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)  # 128.5 is half of the first step
    assert pixels(encode(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert pixels(values)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_wide_integer_and_float_greys_are_scaled():
    wide = Image.fromarray(np.array([[0, 65535]], dtype=np.int32))
    assert wide.mode == "I"
    assert pixels(wide)[0, :, 1].tolist() == [0, 255]
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert pixels(encode(unit, "TIFF"))[0, :, 2].tolist() == [0, 128, 255]


def test_greys_outside_every_known_range_are_refused():
    for values in (np.array([[-1]], dtype=np.int32), np.array([[70000]], dtype=np.int32)):
        with pytest.raises(SampleError, match="expected \\[0, 65535\\]"):
            load_image(Image.fromarray(values))
    for value, seen in (
        *((value, "floats are in \\[0, 1\\]") for value in (-0.5, 1.01, 200.0)),
        *((value, "NaN or infinite, in 1 of 1 values") for value in (float("nan"), float("inf"))),
    ):
        with pytest.raises(SampleError, match=seen):
            load_image(Image.fromarray(np.array([[value]], dtype=np.float32)))


def test_cmyk_and_bilevel_become_rgb():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert pixels(cyan)[0, 0].tolist() == [0, 255, 255]
    for kind in ("JPEG", "TIFF"):  # Pillow's JPEG is Adobe's inverted CMYK
        decoded = pixels(encode(cyan, kind))[4, 4].astype(int)
        assert np.abs(decoded - [0, 255, 255]).max() <= 3
    assert pixels(Image.new("1", (1, 1), 1)).tolist() == [[[255, 255, 255]]]
    assert pixels(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert pixels(data)[3, 3].tolist() == list(RED)


def test_grey_arrays_with_and_without_a_channel_agree():
    grey = np.array([[0, 9], [17, 255]], dtype=np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(pixels(grey), expected)
    np.testing.assert_array_equal(pixels(grey[..., None]), expected)
    np.testing.assert_array_equal(pixels(grey[:, ::-1]), expected[:, ::-1])


def test_torch_tensors_are_read_in_either_layout():
    torch = pytest.importorskip("torch")
    array = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    tensor = torch.from_numpy(array)
    np.testing.assert_array_equal(pixels(tensor), array)
    np.testing.assert_array_equal(pixels(tensor.permute(2, 0, 1)), array)
    np.testing.assert_array_equal(pixels(tensor.permute(2, 0, 1).double().div(255).requires_grad_()), array)
    assert pixels(torch.ones(3, 2, 2, dtype=torch.bfloat16))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (None, "null"),
        (3, "type int"),
        (b"", "empty"),
        (b"<html>not found</html>", "looks like a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        ({"bytes": None, "path": None}, "without bytes or path"),
        ({"bytes": b"", "path": "a.png"}, "empty"),
        ({}, "without bytes or path"),
        ("nowhere.png", "no file 'nowhere.png'"),
        ("a\0b.png", "null"),
        ("x" * 5000, "cannot be opened"),
        ("https://example.org/a.png", "web address"),
        (os.curdir, "not a file"),
        (os.devnull, "not a file"),
        (np.zeros((3, 8, 9), np.uint8), "transpose"),
        (np.zeros((8, 9, 2), np.uint8), "expected \\[H, W\\]"),
        (np.zeros((1, 8, 9, 3), np.uint8), "one image a sample"),
        (np.zeros((0, 9, 3), np.uint8), "without a pixel"),
        (np.zeros((8, 9), np.int64), "expected uint8"),
        (np.full((8, 9), 255.0), "\\[0, 1\\]"),
        (np.full((8, 9), -0.1), "\\[0, 1\\]"),
        (np.full((8, 9), np.nan), "\\[0, 1\\]"),
        (np.array([["a"]]), "expected uint8"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000)), "decompression bomb"),
        (Image.new("RGB", (0, 5)), "without a pixel"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(sample, reason):
    with pytest.raises(SampleError, match=reason) as caught:
        load_image(sample)
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_truncated_file_is_an_error_although_its_header_is_whole(kind, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = encode(noise, kind)
    cut = data[: len(data) * 2 // 3] if kind != "TIFF" else data[:-2000]
    for sample in (cut, tmp_path / "cut.img"):
        if not isinstance(sample, bytes):
            sample.write_bytes(cut)
        with pytest.raises(SampleError):
            load_image(sample)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_message_names_the_file_but_not_its_folder(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"broken")
    for sample in (path, tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(SampleError) as caught:
            load_image(sample)
        assert os.path.basename(sample) in str(caught.value)
        assert str(tmp_path.parent) not in str(caught.value)


def bomb(width, height):
    """A valid PNG header that promises width x height pixels and holds none."""
    small = bytearray(encode(Image.new("L", (1, 1))))
    small[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    small[29:33] = zlib.crc32(small[12:29]).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(9_500, 9_500), (50_000, 50_000)])  # Pillow: a warning, an error
def test_a_decompression_bomb_is_refused_before_decoding(width, height):
    with pytest.raises(SampleError, match="decompression bomb"):
        load_image(bomb(width, height))


def test_a_bomb_is_refused_when_warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SampleError, match="decompression bomb"):
            load_image(bomb(9_500, 9_500))


def test_the_limit_is_ours_and_pillows_stays_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(SampleError, match="decompression bomb"):
        load_image(bomb(Limits().max_pixels, 2))
    assert Image.MAX_IMAGE_PIXELS is None


def test_the_digest_depends_on_pixels_and_size_only(picture, tmp_path):
    digest = content_digest(load_image(picture))
    assert len(digest) == 32
    assert digest == content_digest(load_image(encode(picture))) == content_digest(load_image(np.asarray(picture)))
    others = [np.asarray(picture).reshape(2, 3, 3), np.asarray(picture)[::-1], np.asarray(picture) ^ 1]
    assert len({digest, *(content_digest(load_image(other)) for other in others)}) == 4


def wave():
    y, x = np.mgrid[0:24, 0:20]
    return Image.fromarray(np.stack([x * 12, y * 10, (x * y) % 256], axis=2).astype(np.uint8))


VALID = {
    "jpeg": encode(wave(), "JPEG"),
    "progressive": encode(wave(), "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0"),
    "png": encode(wave()),
    "palette": encode(wave().quantize(16), transparency=3),
    "gif": encode(wave(), "GIF", save_all=True, append_images=[wave().rotate(90)]),
    "tiff": encode(wave(), "TIFF"),
    "packed tiff": encode(wave(), "TIFF", compression="tiff_lzw"),
    "grey tiff": encode(Image.fromarray(np.arange(99, dtype=np.uint16).reshape(9, 11) * 600), "TIFF"),
    "webp": encode(wave(), "WEBP"),
    "bmp": encode(wave(), "BMP"),
    "ppm": encode(wave(), "PPM"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VALID)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_a_sample_error(name, data):
    content = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, data.draw(st.sampled_from([60, 400, len(content)])))))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    try:
        image = load_image(bytes(content))
    except SampleError:
        return
    assert image.mode == "RGB"
    assert np.asarray(image).size > 0


def tiff(tags, data, order="<"):
    """A TIFF of these tags {tag: (type, values)}, whose one strip is `data`."""
    entries, beyond, at = b"", b"", 8 + len(data) + 2 + 12 * (len(tags) + 2) + 4
    tags = {**tags, 273: (4, [8]), 279: (4, [len(data)])}
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        inline = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", at + len(beyond))
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + inline
        beyond += packed if len(packed) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + bytes(4) + beyond


def row_of(values, code, bits, photometric=1, bands=1, **tags):
    """A TIFF of one row."""
    known = {
        256: (3, [len(values) // bands]),
        257: (3, [1]),
        258: (3, [bits] * bands),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [bands]),
        278: (3, [1]),
    }
    extra = {int(name[1:]): (3, value) for name, value in tags.items()}
    return tiff(known | extra, struct.pack(f"<{len(values)}{code}", *values))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (row_of([0, 1, 255], "B", 8), [0, 1, 255]),
        (row_of([0, 1, 255], "B", 8, photometric=0), [255, 254, 0]),
        (row_of([0, 257, 65535], "H", 16), [0, 1, 255]),
        (row_of([0, 257, 65535], "H", 16, photometric=0), [255, 254, 0]),
        (row_of([0, 0.2, 1], "f", 32, photometric=0, t339=[3]), [255, 204, 0]),
        (row_of([0, 2048, 4095], "H", 16, t281=[4095]), [0, 128, 255]),
        (row_of([0, 512, 1023], "H", 16, t281=[1023]), [0, 128, 255]),
        (row_of([0, 4000], "H", 16, t281=[4000]), [0, 16]),  # its own greatest value: no number of bits
    ],
)
def test_grey_tiffs_are_read_by_what_their_tags_say(data, expected):
    assert pixels(data)[0, :, 0].tolist() == expected


def test_twelve_bits_packed_in_a_tiff_are_scaled_by_4095():
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10])  # 0, 2048; 4095, 16
    tags = {256: (3, [4]), 257: (3, [1]), 258: (3, [12]), 259: (3, [1]), 262: (3, [1]), 277: (3, [1]), 278: (3, [1])}
    assert pixels(tiff(tags, packed))[0, :, 0].tolist() == [0, 128, 255, 1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (row_of(range(8), "B", 8, photometric=2, bands=4), "4 bands, of which 3 are colour"),
        (row_of(range(8), "B", 8, photometric=2, bands=4, t338=[0]), "4 bands, of which 3 are colour"),
        (row_of(range(10), "B", 8, photometric=2, bands=5, t338=[0, 0]), "5 bands, of which 3 are colour"),
        (row_of(range(10), "B", 8, photometric=2, bands=5, t338=[2, 0]), "5 bands, of which 3 are colour"),
        (row_of(range(8), "H", 16, photometric=2, bands=4), "4 bands, of which 3 are colour"),
        (row_of(range(4), "B", 8, bands=2, t338=[0]), "2 bands, of which 1 are colour"),
        (row_of(range(10), "B", 8, photometric=5, bands=5, t338=[0]), "5 bands, of which 4 are colour"),
        (row_of([1, 2], "h", 16, t339=[2]), "signed integers"),
        (row_of([1, 2], "b", 8, t339=[2]), "signed integers"),
        (row_of([1, 2], "I", 32), "32-bit integers"),
        (row_of(range(6), "f", 32, photometric=2, bands=3, t339=[3, 3, 3]), "a kind that is not read"),
        (encode(Image.new("LAB", (2, 2)), "TIFF"), "LAB colours"),
        (np.zeros((8, 9, 5), np.uint8), "grey, RGB or RGBA"),
    ],
)
def test_values_whose_black_and_white_are_not_known_are_refused(data, reason):
    with pytest.raises(SampleError, match=reason):
        load_image(data)


def test_a_tiffs_fourth_band_that_is_declared_as_transparency_is_laid_on_white():
    assert pixels(row_of([9, 9, 9, 0], "B", 8, photometric=2, bands=4, t338=[2])).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("value", [1.02, -0.01, 200.0])
def test_floats_beyond_one_are_refused_in_files_as_in_arrays(value):
    values = np.full((4, 4), 0.5, np.float32)
    values[0, 0] = value
    for sample in (values, Image.fromarray(values), encode(Image.fromarray(values), "TIFF")):
        with pytest.raises(SampleError, match="floats are in \\[0, 1\\]"):
            load_image(sample)


def test_the_same_floats_as_an_array_and_as_a_file_are_the_same_pixels():
    values = np.random.default_rng(0).random((50, 60)).astype(np.float32)
    expected = np.rint(values.astype(np.float64) * 255)
    for sample in (values, values.astype(np.float64), encode(Image.fromarray(values), "TIFF")):
        np.testing.assert_array_equal(pixels(sample)[..., 1], expected)


def test_an_image_in_strips_is_as_if_whole(monkeypatch):
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (50, 30, 4), dtype=np.uint8))
    grey = rng.integers(0, 2**16, (50, 30), dtype=np.uint16)
    palette = encode(rgba.convert("RGB").quantize(16), transparency=3)
    samples = [rgba, np.asarray(rgba), grey, encode(Image.fromarray(grey)), grey / 65535, palette]
    whole = [content_digest(load_image(sample)) for sample in samples]
    monkeypatch.setattr("sporeprint.data.images._STRIP_PIXELS", 7 * 30)
    assert [content_digest(load_image(sample)) for sample in samples] == whole


SECRET = b"-----BEGIN RSA PRIVATE KEY-----\nhunter2\n"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (SECRET, "text"),
        (b"%PDF-1.7 hunter2", "a PDF"),
        (b"PK\3\4hunter2", "a ZIP archive"),
        (b"<?xml version='1.0'?><svg>hunter2", "XML"),
        (b"<svg xmlns=''>hunter2</svg>", "an SVG drawing"),
        (b"\0\0\0\x18ftypheichunter2", "a HEIC image"),
        (b"\0\0\0\x18ftypisomhunter2", "a video"),
        (b"RIFF\0\0\0\0AVI hunter2", "a video"),
        (b"\0\1\2hunter2", "binary data of an unknown kind"),
        (b"P6 hunter2 ", ""),
        (b"P5 1 1 hunter2longer ", ""),
        (b"P1 1 1 hunter2", ""),
        (b"GIF89ahunter2", ""),
        (b"BMhunter2" * 9, ""),
        (b"II*\0\x08\0\0\0hunter2" * 3, ""),
        (b"\xff\xd8\xffhunter2" * 9, ""),
        (b"\x89PNG\r\n\x1a\nhunter2hunter2", ""),
    ],
)
def test_a_message_says_what_a_file_looks_like_and_quotes_none_of_it(data, what):
    with pytest.raises(SampleError, match=what) as caught:
        load_image(data)
    for quoted in ("hunter", "PRIVATE", repr(data[:4]), "hunt"):
        assert quoted not in str(caught.value)


@pytest.fixture
def cut():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    return {kind: encode(noise, kind)[:-900] for kind in ("JPEG", "PNG", "BMP", "PPM", "TIFF")}


def test_a_truncated_image_is_refused_where_another_library_lets_pillow_fill_it_up(cut, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for data in cut.values():
        with pytest.raises(SampleError):
            load_image(data)
        with pytest.raises(SampleError):
            load_image(Image.open(io.BytesIO(data)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("limit", [1, 100, None])
def test_pillows_own_limit_decides_nothing(limit, monkeypatch, picture):
    samples = [encode(wave(), kind) for kind in ("PNG", "GIF", "TIFF", "WEBP")]
    expected = [content_digest(load_image(sample)) for sample in samples]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert [content_digest(load_image(sample)) for sample in samples] == expected
    assert limit == Image.MAX_IMAGE_PIXELS


def test_warnings_made_errors_cost_no_row(picture):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    samples = [
        encode(palette, transparency=b"\0\x80"),
        encode(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    ]
    expected = [content_digest(load_image(sample)) for sample in samples]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [content_digest(load_image(sample)) for sample in samples] == expected


@pytest.mark.parametrize("error", [MemoryError, RecursionError, struct.error, AssertionError, OverflowError, KeyError])
def test_whatever_pillow_raises_costs_the_row_only(error, monkeypatch, picture):
    def fail(self):
        raise error("hunter2 'quoted'")

    data = encode(picture)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(SampleError) as caught:
        load_image(data)
    assert "hunter2" not in str(caught.value)


def test_the_limit_of_pixels_can_be_lowered_and_raised(picture):
    with pytest.raises(SampleError, match=r"2 x 3 is over 5 pixels.*--max-pixels"):
        load_image(encode(picture), Limits(max_pixels=5))
    large = np.broadcast_to(np.uint8(7), (9000, 9000))
    assert load_image(large, Limits(max_pixels=81_000_000)).size == (9000, 9000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_said_so_and_counted(value):
    values = np.full((4, 5), 0.5, np.float32)
    values[1, :3] = value
    for sample in (values, encode(Image.fromarray(values), "TIFF")):
        with pytest.raises(SampleError, match=r"NaN or infinite, in 3 of 20 values; expected finite numbers in"):
            load_image(sample)
