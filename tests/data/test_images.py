import io
import os
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
    for value in (-0.5, 1.01, 200.0, float("nan"), float("inf")):
        with pytest.raises(SampleError, match="floats are in \\[0, 1\\]"):
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
