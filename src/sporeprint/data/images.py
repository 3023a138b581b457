"""Decode one sample, whatever a table, a folder or a list holds, to an RGB image, or raise a `SampleError`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.columns import given
from sporeprint.data.decoding import decode_file, run_pillow, upright
from sporeprint.data.files import opened
from sporeprint.data.limits import Limits
from sporeprint.data.signatures import reason
from sporeprint.errors import SampleError

# Bytes from a table are untrusted: only these decoders see them. EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Files that a folder of images consists of: what people call files of these formats.
# fmt: off
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".avifs",
})
# fmt: on

SIXTEEN_BITS = "greatest of 16 bits"  # in an image's `info`: the greatest value of what was of 16 bits
FOURTH_BAND = "fourth band"  # the fourth band of an array was taken for transparency

_STRIP_PIXELS = 2**20  # that are converted at once: what takes 16 bytes a pixel is never done to a whole image
_BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # TIFF's photometric interpretation -> bands of colour
_ALPHA = ((1,), (2,), (999,))  # TIFF's extra samples that are transparency; 999: Corel Draw's


def load_image(sample: object, limits: Limits = Limits()) -> Image.Image:
    """Decode `sample` to an RGB image: upright, first frame, transparency laid on white.

    sample: a PIL image, a path, encoded bytes, a Hugging Face struct `{"bytes", "path"}`, a NumPy array [H, W],
    [H, W, 1], [H, W, 3] or [H, W, 4] (RGBA) of uint8, uint16, bool or float in [0, 1], or such a torch tensor, which
    may also be [C, H, W]. An image that needs no change is returned as it is.

    Values are read by what the array or the file says of itself, never by what they are. Floats are in [0, 1], in
    arrays and in files. 16 bits are divided by 257 (in files of colour Pillow gives their upper byte); where a TIFF
    says 12 bits, or MaxSampleValue 1023, 4095 or the like, by that. Where a TIFF says that white is 0, it is.
    Signed and 32-bit integers, and bands beyond those of colour and declared transparency, are refused. Colour
    profiles are not applied.
    Raises SampleError, with a reason of one line, for anything that is not a whole image of at most `limits`.
    """
    sample = given(sample, "image")
    if isinstance(sample, Mapping):
        sample = _from_struct(sample)
    if isinstance(sample, Image.Image):
        return _from_image(sample, limits)
    if isinstance(sample, np.ndarray):
        return _from_array(sample, limits)
    if isinstance(sample, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(sample), "these bytes", limits)
    if isinstance(sample, (str, os.PathLike)):
        return _from_path(sample, limits)
    if hasattr(sample, "detach") and hasattr(sample, "cpu"):  # a torch tensor, without importing torch
        return _from_array(_tensor_array(sample), limits)
    raise SampleError(
        f"no image: got {_kind(sample)}; expected a PIL image, a path, encoded bytes, a struct of bytes and path, "
        "or an array; check which column holds the images"
    )


def content_digest(image: Image.Image) -> str:
    """Return a hex digest (16 bytes) of an RGB image's size and pixels: the id of a sample that has no other."""
    digest = blake2b(f"{image.width} {image.height} ".encode(), digest_size=16)
    for top, bottom in _strips(image.width, image.height):
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.hexdigest()


def _kind(value: object) -> str:
    return "null (an empty cell)" if value is None else f"a value of type {type(value).__name__}"


def _from_struct(struct: Mapping[str, Any]) -> object:
    if struct.get("bytes") is not None:
        return struct["bytes"]
    if struct.get("path") is not None:
        return struct["path"]
    raise SampleError(
        f"no image: got a struct of {sorted(map(str, struct))} without bytes or path; give one of the two"
    )


def _from_path(path: str | os.PathLike[str], limits: Limits) -> Image.Image:
    with opened(path, "an image file") as (file, name):
        return _from_file(file, name, limits)


def _from_file(file: BinaryIO, name: str, limits: Limits) -> Image.Image:
    return decode_file(file, name, FORMATS, limits, lambda image: _decoded(image, name))


def _from_image(image: Image.Image, limits: Limits) -> Image.Image:
    name = "this image"
    limits.check_image(image.width, image.height, name, image.format)
    return run_pillow(lambda: _decoded(image, name), name)


def _decoded(image: Image.Image, name: str) -> Image.Image:
    """Decode all pixels of an opened image to RGB."""
    deep_colour = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    image.load()
    turn = upright(image)
    rgb = _to_rgb(image, name)
    if deep_colour and len(image.getbands()) > 1:
        rgb.info[SIXTEEN_BITS] = 256 * max(high for _, high in image.getextrema()) + 255  # type: ignore[misc]
    return rgb if turn is None else rgb.transpose(turn)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    tags = dict(getattr(image, "tag_v2", {}))
    if tags:
        _check_tags(tags, name)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image, tags, name)
    if image.mode == "LAB":
        raise SampleError(f"{name}: in LAB colours; save it in RGB")
    if image.mode in ("La", "RGBa"):  # alpha already multiplied in
        plain = "LA" if image.mode == "La" else "RGBA"
        return _by_strips(image, lambda strip: _on_white(strip.convert(plain)))
    if image.has_transparency_data:
        return _by_strips(image, _on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _check_tags(tags: Mapping[int, Any], name: str) -> None:
    """Raise SampleError where a TIFF's tags say that its values are not grey or colour from 0 on, with transparency."""
    bands, colours = tags.get(277, 1), _BANDS.get(tags.get(262, 1), 4)
    if bands > colours + (tags.get(338, ()) in _ALPHA):
        raise SampleError(
            f"{name}: a TIFF of {bands} bands, of which {colours} are colour and none is declared as transparency; "
            "choose the bands to look at, and save them as grey or RGB"
        )
    if 2 in tags.get(339, ()):
        raise SampleError(f"{name}: a TIFF of signed integers, whose black and white are not known; save it unsigned")


def _deep_to_rgb(image: Image.Image, tags: Mapping[int, Any], name: str) -> Image.Image:
    """Convert grey of more than 8 bits: integers of 16, or floats in [0, 1]."""
    bits = tags.get(258, (16,))[0]
    if image.mode != "F" and bits > 16:
        raise SampleError(f"{name}: a TIFF of {bits}-bit integers, whose white is not known; save it in 8 or 16 bits")
    top = 1 if image.mode == "F" else _stated_top(tags.get(281), 2**bits - 1)
    greatest = 0

    def convert(strip: Image.Image) -> Image.Image:
        nonlocal greatest
        values = np.asarray(strip)
        grey = _to_bytes(values, top, name)
        greatest = max(greatest, int(values.max()))
        return Image.fromarray(255 - grey if tags.get(262) == 0 else grey).convert("RGB")

    rgb = _by_strips(image, convert)
    if top == 65535:
        rgb.info[SIXTEEN_BITS] = greatest
    return rgb


def _stated_top(stated: Any, top: int) -> int:
    """Return a TIFF's MaxSampleValue where it is that of a number of bits; others state the image's own greatest."""
    value = stated[0] if isinstance(stated, tuple) and stated else stated
    if isinstance(value, int) and 255 < value < top and (value + 1).bit_count() == 1:
        return value
    return top


def _to_bytes(values: NDArray[Any], top: float, name: str) -> NDArray[np.uint8]:
    """Return values in [0, top] as bytes."""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int((~np.isfinite(values)).sum())
        raise SampleError(
            f"{name}: NaN or infinite, in {count:,} of {values.size:,} values; expected finite numbers in [0, {top}]: "
            "replace them"
        )
    if not (low >= 0 and high <= top):
        raise SampleError(
            f"{name}: values from {low} to {high}; {'floats are in [0, 1]' if top == 1 else f'expected [0, {top}]'}: "
            "scale or clip them, or give 8 bits"
        )
    return np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8)


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row, and that after the last, of strips of a bounded number of pixels."""
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    whole = Image.new("RGB", image.size)
    for top, bottom in _strips(*image.size):
        whole.paste(convert(image.crop((0, top, image.width, bottom))), (0, top))
    return whole


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _tensor_array(tensor: Any) -> np.ndarray:
    try:
        if tensor.is_floating_point():
            tensor = tensor.float()  # NumPy has no bfloat16
        array = np.asarray(tensor.detach().cpu().numpy())
    except (TypeError, RuntimeError, AttributeError) as error:
        raise SampleError(f"this tensor cannot be read: {reason(error)}; give a dense one") from None
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)  # [C, H, W], torch's habit
    return array


def _from_array(array: np.ndarray, limits: Limits) -> Image.Image:
    name = f"an array {list(array.shape)} of {array.dtype}"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise SampleError(f"{name}: channels come last here, [H, W, C]; transpose it: array.transpose(1, 2, 0)")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise SampleError(
            f"{name}: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; one image a sample, of grey, RGB or RGBA"
        )
    height, width = array.shape[:2]
    limits.check_image(width, height, name)
    known = {"bool": 1, "uint8": 255, "uint16": 65535}
    if array.dtype.kind != "f" and array.dtype.name not in known:
        raise SampleError(f"{name}: expected uint8, uint16, bool or a float in [0, 1]; convert it")
    top = known.get(array.dtype.name, 1)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    rgb = Image.new("RGB", (width, height))
    for start, end in _strips(width, height):
        strip = np.ascontiguousarray(array[start:end])
        image = Image.fromarray(strip if strip.dtype == np.uint8 else _to_bytes(strip, top, name))
        rgb.paste(_on_white(image) if image.mode == "RGBA" else image.convert("RGB"), (0, start))
    if array.dtype.name == "uint16":
        rgb.info[SIXTEEN_BITS] = int(array.max())
    if array.ndim == 3 and array.shape[2] == 4:
        rgb.info[FOURTH_BAND] = True
    return rgb
