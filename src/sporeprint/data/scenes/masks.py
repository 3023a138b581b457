"""Decode one mask to a map of label values, or raise a `SampleError` that says why not."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.data.decoding import decode_file, run_pillow, upright
from sporeprint.data.files import opened
from sporeprint.data.limits import Limits
from sporeprint.errors import SampleError

Colour: TypeAlias = tuple[int, int, int]  # red, green, blue of 0..255
Colours: TypeAlias = Mapping[Colour, int]  # for a painted mask: colour -> label value

FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "JPEG")  # JPEG is opened only to be refused by its name
_INT32 = np.iinfo(np.int32)
_STRIP_PIXELS = 2**20  # that are looked up at once
_FEW_BITS = re.compile(r"\bL;([24])")  # what Pillow calls grey of 2 or 4 bits
_LISTED = 5  # values or colours that a message names; the rest is counted


def read_mask(
    mask: object,
    classes: int | None = None,
    ignore: Sequence[int] = (),
    colours: Colours | None = None,
    limits: Limits = Limits(),
) -> NDArray[np.int32]:
    """Decode a mask, upright, to label values [H, W].

    mask: a path, encoded bytes, a struct `{"bytes", "path"}`, a PIL image, or an integer or bool array [H, W].
    Grey (2 to 32 bits, as stored), black-and-white (0 and 1) and palette images (the indices) hold label values. Colour
    images are read by `colours`; so are grey ones where each of them is a grey, such as 0 and 255, and palette
    images whose palette gives a colour another index than `colours` does.
    classes: values 0..classes-1 and those in `ignore` are known; None: every value from 0 on.
    Raises SampleError for a mask that cannot be read, is larger than `limits`, or holds other values. A mask
    of void alone raises nothing.
    """
    labels = _labels(mask, colours, limits)
    odd: Counter[int] = Counter()
    for strip in _strips(labels):
        beyond = strip[(strip < 0) | (strip >= (classes if classes is not None else np.inf))]
        values, counts = np.unique(beyond, return_counts=True)
        odd.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    for value in ignore:
        odd.pop(value, None)
    if odd:
        known = "a label is 0 or more" if classes is None else f"there are {classes} classes, 0 to {classes - 1}"
        raise SampleError(
            f"label value {_counted(odd)}; {known}; if it is void, leave it out (--ignore), else fix the mask"
        )
    return labels


def label_values(labels: NDArray[np.int32]) -> list[int]:
    """Return the different values of a mask, rising."""
    return sorted({value for strip in _strips(labels) for value in np.unique(strip).tolist()})


def mask_palette(mask: object, limits: Limits = Limits()) -> list[Colour] | None:
    """Return a palette mask's colours by label value; None for other masks. Raises SampleError if it cannot be read."""
    if isinstance(mask, np.ndarray):
        return None
    image, _ = _opened(mask, limits, stored=False)
    return _palette(image) if image.mode == "P" else None


def _palette(image: Image.Image) -> list[Colour]:
    flat = image.getpalette("RGB") or []
    return [(flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat) - 2, 3)]


def _strips(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array [H, W, ...] in strips of rows, of a bounded number of pixels."""
    rows = max(1, _STRIP_PIXELS // max(1, array.shape[1]))
    for top in range(0, len(array), rows):
        yield array[top : top + rows]


def _labels(mask: object, colours: Colours | None, limits: Limits) -> NDArray[np.int32]:
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype.kind not in "biu":
            raise SampleError(f"an array {list(mask.shape)} of {mask.dtype}; expected whole numbers [H, W]")
        if mask.size:
            limits.check_image(mask.shape[1], mask.shape[0], f"an array {list(mask.shape)}")
        if mask.size and not (_INT32.min <= mask.min() and mask.max() <= _INT32.max):
            raise SampleError(
                f"an array with values from {mask.min()} to {mask.max()}; a label is {_INT32.max} at most: "
                "renumber the labels"
            )
        return mask.astype(np.int32)
    greys = bool(colours and all(red == green == blue for red, green, blue in colours))
    image, name = _opened(mask, limits, stored=not greys)
    painted = image.mode in ("RGB", "RGBA")
    if painted and not colours:
        raise SampleError(
            f"{name} is in colour ({image.mode}); expected one label value a pixel: save it in grey or with a palette, "
            'or put a classes.json next to the source that gives each colour: {"sky": [128, 128, 128], ...}'
        )
    if colours and (painted or (greys and image.mode in ("1", "L"))):
        return _from_colours(image, colours, name)
    if colours and image.mode == "P":
        return _from_palette(image, colours, greys, name)
    if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.int32)
    raise SampleError(
        f"{name} has pixels of mode {image.mode}; expected grey of 8 or 16 bits, or a palette: save it as one of these"
    )


def _from_palette(image: Image.Image, colours: Colours, greys: bool, name: str) -> NDArray[np.int32]:
    """Return the indices, unless the palette says that they are not the label values of `colours`."""
    indices, palette = np.asarray(image).astype(np.int32), _palette(image)
    used = {index: palette[index] if index < len(palette) else None for index in label_values(indices)}
    if not greys and all(colour == (index, index, index) for index, colour in used.items()):
        return indices  # the palette that is saved where nobody chose one
    by_label = {label: colour for colour, label in colours.items()}
    other = [
        index
        for index, colour in used.items()
        if by_label.get(index, colour) != colour or (colour is not None and colours.get(colour, index) != index)
    ]
    if not other:
        return indices
    if all(colour in colours for colour in used.values()):
        return _from_colours(image, colours, name)
    index = other[0]
    colour = used[index]
    conflict = f"and class {index} of classes.json {_shown(by_label[index])}" if index in by_label else ""
    conflict = conflict or f"the colour of class {colours[colour] if colour else None} of classes.json"
    unknown = next(_shown(colour) for colour in used.values() if colour not in colours)
    raise SampleError(
        f"{name}: index {index} of its palette is {_shown(colour)}, {conflict}; by colour it cannot be read either, as "
        f"{unknown} is not in classes.json: put the colours of the palette there, or, if the indices are the labels, "
        "names without colours"
    )


def _shown(colour: Colour | None) -> str:
    return "no colour" if colour is None else str(list(colour))


def _from_colours(image: Image.Image, colours: Colours, name: str) -> NDArray[np.int32]:
    """Return the label values [H, W] of the colours of an image."""
    pairs = sorted((_code(*colour), label) for colour, label in colours.items())
    known, labels = np.array(pairs, dtype=np.int32).T
    found = np.empty((image.height, image.width), dtype=np.int32)
    unknown: Counter[int] = Counter()
    top = 0
    for strip in _strips(found):
        part = np.asarray(image.crop((0, top, image.width, top + len(strip))).convert("RGB"), dtype=np.int32)
        codes = _code(part[..., 0], part[..., 1], part[..., 2])
        nearest = np.searchsorted(known, codes).clip(max=len(known) - 1)
        values, counts = np.unique(codes[known[nearest] != codes], return_counts=True)
        unknown.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        strip[:], top = labels[nearest], top + len(strip)
    if unknown:
        shown = {f"[{code >> 16}, {code >> 8 & 255}, {code & 255}]": count for code, count in sorted(unknown.items())}
        raise SampleError(
            f"{name}: colour {_counted(shown)} is not among the {len(known)} in classes.json; add it there, "
            "or paint the mask without soft edges"
        )
    return found


def _code(red: Any, green: Any, blue: Any) -> Any:
    return (red << 16) | (green << 8) | blue


def _counted(counts: Mapping[Any, int]) -> str:
    """List the most frequent first: "11 (3,412 pixels), 255 (1 pixel) and 2 more"."""
    order = sorted(counts, key=lambda value: (-counts[value], value))
    named = [f"{value} ({counts[value]:,} pixel{'s' if counts[value] > 1 else ''})" for value in order[:_LISTED]]
    return ", ".join(named) + (f" and {len(order) - _LISTED} more" if len(order) > _LISTED else "")


def _opened(mask: Any, limits: Limits, stored: bool = True) -> tuple[Image.Image, str]:
    """Return the mask, decoded whole, and its name for messages. stored: see `_loaded`."""
    if isinstance(mask, SampleError):
        raise mask
    if isinstance(mask, Mapping):
        mask = mask.get("bytes") if mask.get("bytes") is not None else mask.get("path")
    if isinstance(mask, Image.Image):
        limits.check_image(mask.width, mask.height, "this image", mask.format)
        if _is_stretched(mask, stored):
            raise SampleError("this image is grey of other than 8 or 16 bits, which Pillow stretches; give its file")
        return run_pillow(lambda: _loaded(mask, "this image", stored), "this image"), "this image"
    if isinstance(mask, (bytes, bytearray, memoryview)):
        return _decoded(io.BytesIO(mask), "these bytes", limits, stored), "these bytes"
    if isinstance(mask, (str, os.PathLike)):
        with opened(mask, "a mask") as (file, name):
            return _decoded(file, name, limits, stored), name
    if mask is None:
        raise SampleError("there is none: no file of the image's name, or an empty cell; add it, or leave the row out")
    raise SampleError(f"a value of type {type(mask).__name__}; expected a path, encoded bytes, an image or an array")


def _decoded(file: BinaryIO, name: str, limits: Limits, stored: bool) -> Image.Image:
    def finish(image: Image.Image) -> Image.Image:
        if image.format == "JPEG":
            raise SampleError(f"{name} is a JPEG, which changes label values; save masks as PNG, from their source")
        return _loaded(image, name, stored)

    return decode_file(file, name, FORMATS, limits, finish)


def _loaded(image: Image.Image, name: str, stored: bool) -> Image.Image:
    """Return the mask with all its pixels, upright.

    stored: grey has the values of the file; otherwise up to 8 bits are shades from 0 to 255, as Pillow shows them.
    """
    if getattr(image, "tag_v2", {}).get(262) == 0 and image.mode != "1":
        raise SampleError(f"{name}: a TIFF whose white is 0, so its values are not the labels; save it with black as 0")
    step = _unstretched(image) if _is_stretched(image, stored) else 1
    image.load()
    turn = upright(image)
    image = image if step == 1 else image.point([value // step for value in range(256)])
    return image if turn is None else image.transpose(turn)


def _is_stretched(image: Image.Image, stored: bool) -> bool:
    """Whether Pillow will stretch the grey values of an opened image to 8 or 16 bits; shades of 8 bits it may."""
    if image.mode not in (("L", "I") if stored else ("I",)) or not getattr(image, "tile", None):
        return False
    args = image.tile[0][3]  # type: ignore[attr-defined]
    if image.format == "PPM":  # args: a mode, or a mode and the greatest value
        return isinstance(args, tuple) and args[-1] not in (255, 65535)
    return bool(_FEW_BITS.search(str(args)))


def _unstretched(image: Image.Image) -> int:
    """Have Pillow leave the values of a PGM as they are; return what it multiplies those of other files by."""
    *place, args = image.tile[0]  # type: ignore[attr-defined]
    if image.format == "PPM":
        image.tile = [(*place, (args[0], 255 if image.mode == "L" else 65535))]  # type: ignore[attr-defined]
        return 1
    bits = _FEW_BITS.search(str(args))
    return 255 // (2 ** int(bits[1]) - 1) if bits else 1
