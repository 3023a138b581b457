"""Decode one sample, whatever a table, a folder or a list holds, to an RGB image, or raise a `SampleError`."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from sporeprint.data.files import opened
from sporeprint.errors import SampleError

MAX_PIXELS = (
    89_478_485  # Pillow's default limit (a quarter of a gigabyte as RGB); larger is taken for a decompression bomb
)

# Bytes from a table are untrusted: only these decoders see them. EPS, for one, would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

# What Pillow's decoders raise on damaged bytes. Fuzzing 13.0 raised the first three; other releases may raise more.
_DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError),
    *(EOFError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Warning),  # warnings, where they are made errors
)

_UPRIGHT = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(sample: object) -> Image.Image:
    """Decode `sample` to an RGB image: upright, first frame, transparency laid on white.

    sample: a PIL image, a path, encoded bytes, a Hugging Face struct `{"bytes", "path"}`, a NumPy array [H, W],
    [H, W, 1], [H, W, 3] or [H, W, 4] of uint8, uint16, bool or float in [0, 1], or such a torch tensor, which may
    also be [C, H, W]. 16 bits are scaled to 8, never clipped. An image that needs no change is returned as it is.
    Raises SampleError, with a reason of one line, for anything that is not a whole image of at most `MAX_PIXELS`.
    """
    if isinstance(sample, SampleError):
        raise sample
    if isinstance(sample, Mapping):
        sample = _from_struct(sample)
    if isinstance(sample, Image.Image):
        return _decode(sample, "this image")
    if isinstance(sample, np.ndarray):
        return _from_array(sample)
    if isinstance(sample, (bytes, bytearray, memoryview)):
        return _from_file(io.BytesIO(sample), "these bytes")
    if isinstance(sample, (str, os.PathLike)):
        return _from_path(sample)
    if hasattr(sample, "detach") and hasattr(sample, "cpu"):  # a torch tensor, without importing torch
        return _from_array(_tensor_array(sample))
    raise SampleError(
        f"no image: got {_kind(sample)}; expected a PIL image, a path, encoded bytes, a struct of bytes and path, "
        "or an array; check which column holds the images"
    )


def content_digest(image: Image.Image) -> str:
    """Return a hex digest (16 bytes) of an RGB image's size and pixels: the id of a sample that has no other."""
    digest = blake2b(f"{image.width} {image.height} ".encode(), digest_size=16)
    digest.update(image.tobytes())
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


def _from_path(path: str | os.PathLike[str]) -> Image.Image:
    if str(path).startswith(("http://", "https://")):
        name = repr(os.path.basename(os.fspath(path)))
        raise SampleError(f"{name} is a web address; sporeprint reads files: download it and give its path")
    with opened(path, "an image file") as (file, name):
        return _from_file(file, name)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow before 11.3 has no AVIF


def _from_file(file: BinaryIO, name: str) -> Image.Image:
    start = file.read(16)
    if not start:
        raise SampleError(f"{name}: empty (0 bytes); expected an encoded image")
    file.seek(0)
    try:
        with Image.open(file, formats=_formats()) as image:
            return _decode(image, name)
    except SampleError:
        raise
    except Image.UnidentifiedImageError:
        raise SampleError(
            f"{name}: not an image in a known format ({', '.join(_formats())}); it starts {start!r}"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"{name}: {_line(error)}; resize it first") from None
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from None


def _decode(image: Image.Image, name: str) -> Image.Image:
    """Decode all pixels of an opened image to RGB, once its size is checked."""
    _check_size(image.width, image.height, name)
    try:
        image.load()
        upright = _UPRIGHT.get(_orientation(image))
        image = _to_rgb(image, name)
        return image if upright is None else image.transpose(upright)
    except SampleError:
        raise
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from None


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise SampleError(f"{name}: {width} x {height}, without a pixel; expected at least 1 x 1")
    if width * height > MAX_PIXELS:
        raise SampleError(
            f"{name}: {width} x {height} is over {MAX_PIXELS:,} pixels, as a decompression bomb is; resize it first"
        )


def _damaged(name: str, error: Exception) -> SampleError:
    return SampleError(f"{name}: damaged or cut short ({_line(error)}); replace or remove it")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return type(error).__name__ if not text or " at 0x" in text else text[:200]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:  # damaged EXIF, whole pixels: shown as stored, as every viewer does
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(np.asarray(image), name)
    if image.mode in ("La", "RGBa"):  # alpha already multiplied in
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_rgb(values: np.ndarray, name: str) -> Image.Image:
    """Convert grey [H, W] of more than 8 bits: 16-bit integers, or floats in [0, 1] or, like Pillow's own, [0, 255]."""
    low, high = values.min(), values.max()
    top = 65535 if values.dtype.kind in "iu" else 1 if high <= 1 else 255
    if not (low >= 0 and high <= top):  # also when there is a NaN
        raise SampleError(f"{name}: grey values from {low} to {high}; expected [0, {top}]; scale it to 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _tensor_array(tensor: Any) -> np.ndarray:
    try:
        if tensor.is_floating_point():
            tensor = tensor.float()  # NumPy has no bfloat16
        array = np.asarray(tensor.detach().cpu().numpy())
    except (TypeError, RuntimeError, AttributeError) as error:
        raise SampleError(f"this tensor cannot be read: {_line(error)}; give a dense one") from None
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)  # [C, H, W], torch's habit
    return array


def _from_array(array: np.ndarray) -> Image.Image:
    name = f"an array {list(array.shape)} of {array.dtype}"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        raise SampleError(f"{name}: channels come last here, [H, W, C]; transpose it: array.transpose(1, 2, 0)")
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise SampleError(f"{name}: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; one image a sample")
    _check_size(array.shape[1], array.shape[0], name)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257.0).astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also when there is a NaN
            raise SampleError(f"{name} with values from {low} to {high}: floats are in [0, 1]; scale it, or give uint8")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise SampleError(f"{name}: expected uint8, uint16, bool or a float in [0, 1]; convert it")
    array = np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    image = Image.fromarray(array)
    return _on_white(image) if image.mode == "RGBA" else image.convert("RGB")
