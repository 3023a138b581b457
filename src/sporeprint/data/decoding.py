"""Decode an encoded image with Pillow: bounded, whole or refused, whatever the process has switched on in Pillow."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO, TypeVar

from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from sporeprint.data.limits import Limits
from sporeprint.data.locks import process_lock
from sporeprint.data.signatures import SIGNATURE_BYTES, looks_like, reason
from sporeprint.errors import SampleError

_T = TypeVar("_T")
_UPRIGHT = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TAG_BYTES = 2**24  # that the tags of a TIFF or of EXIF may hold beyond the file's own size
_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_swapping = process_lock()


def decode_file(
    file: BinaryIO, name: str, formats: Sequence[str], limits: Limits, finish: Callable[[Image.Image], _T]
) -> _T:
    """Return what `finish` makes of the image in `file`, loaded: its first frame, of the size that `limits` allow.

    Raises SampleError for what is not a whole image in one of Pillow's `formats`.
    """
    start = file.read(SIGNATURE_BYTES)
    if not start:
        raise SampleError(f"{name}: empty (0 bytes); expected an encoded image")

    def decode() -> _T:
        with _open(file, start, name, formats) as image:
            limits.check_image(image.width, image.height, name, image.format)
            if image.format == "TIFF":
                tile = image.tag_v2.get(322, 1), image.tag_v2.get(323, 1)
                limits.check_image(*tile, f"{name}, a tile of it")
            return finish(image)

    return run_pillow(decode, name)


def run_pillow(work: Callable[[], _T], name: str) -> _T:
    """Return what `work` gives with Pillow as it is shipped. Raises SampleError for whatever Pillow raises.

    Its flags are global, so they are changed back only where another library has changed them, and one at a time.
    """
    try:
        if not ImageFile.LOAD_TRUNCATED_IMAGES:
            try:
                result = work()
                if not ImageFile.LOAD_TRUNCATED_IMAGES:  # nor was it switched on meanwhile
                    return result
            except (Warning, Image.DecompressionBombError):  # warnings made errors; a limit that is not ours
                pass
        with _as_shipped():
            return work()
    except SampleError:
        raise
    except MemoryError:
        raise SampleError(f"{name}: it needs more memory than there is; resize it first") from None
    except Exception as error:  # decoders raise anything on damaged bytes
        raise SampleError(f"{name}: damaged or cut short ({reason(error)}); replace or remove it") from None


@contextmanager
def _as_shipped() -> Iterator[None]:
    with _swapping, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
        try:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None  # the limit is ours
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = changed


class _Jpeg(JpegImageFile):
    """A JPEG whose EXIF is not read while it is opened, and of whose frames only the first counts."""

    def _read_dpi_from_exif(self) -> None:
        pass


@cache
def known_formats(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of `names` that this Pillow can open: before 11.3 it had no AVIF."""
    Image.init()
    return tuple(name for name in names if name in Image.OPEN)


def _open(file: BinaryIO, start: bytes, name: str, formats: Sequence[str]) -> Image.Image:
    """Open the image as `Image.open` does, which would hold to a limit that any library may have changed."""
    known = known_formats(tuple(formats))
    for kind in known:
        factory, accept = Image.OPEN[kind]
        if accept is not None and accept(start[:16]) is not True:
            continue
        file.seek(0)
        if kind == "TIFF" and not _tags_fit(file):
            raise ValueError("its tags hold more than the file")
        file.seek(0)
        try:
            return _Jpeg(file, "") if kind == "JPEG" else factory(file, "")
        except SyntaxError as error:
            raise SampleError(
                f"{name}: {looks_like(start)} that is damaged, or of a kind that is not read ({reason(error)}); "
                "save it again, as 8-bit RGB or grey"
            ) from None
    raise SampleError(f"{name}: not an image in a known format ({', '.join(known)}); it looks like {looks_like(start)}")


def upright(image: Image.Image) -> Image.Transpose | None:
    """Return what turns the image upright by its EXIF; None for nothing. Damaged EXIF is passed over, as viewers do."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and not _tags_fit(io.BytesIO(exif.removeprefix(b"Exif\0\0"))):
        return None
    try:
        return _UPRIGHT.get(int(image.getexif().get(ExifTags.Base.Orientation, 1)))
    except Exception:  # as for damaged pixels: anything
        return None


def _tags_fit(file: BinaryIO) -> bool:
    """Return whether the tags of a TIFF's first directory hold about what the file has, and not the same bytes often.

    A directory of 65,535 tags that all point at the same megabyte takes 64 GB.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        file.seek(at)
        entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        entries = file.read(min(count * entry.size, size))
    except (struct.error, ValueError, OSError, OverflowError):
        return True  # damaged, which the decoder says
    whole = entries[: len(entries) // entry.size * entry.size]
    announced = sum(min(size, number * _TYPE_BYTES.get(kind, 1)) for _, kind, number in entry.iter_unpack(whole))
    return announced <= size + _TAG_BYTES
