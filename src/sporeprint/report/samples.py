"""A sample as a page shows it: an image as a thumbnail in the page itself, a text as text, a sound by its id."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sporeprint.data.limits import Limits
from sporeprint.errors import SampleError

SIDE = 96  # pixels, the longer side of a thumbnail
LETTERS = 280  # of a text


@dataclass(frozen=True)
class Shown:
    """What stands for a sample. image: a data URI. text: of the sample, cut. Neither: its id has to do.

    missing: why a sample that was given cannot be shown.
    """

    image: str | None = None
    size: tuple[int, int] = (0, 0)  # width and height to show the image at, pixels
    text: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of the test and the training rows by their ids, as sources give them, not decoded.

    modality: "image", "text" or "audio", of which only the ids are shown. limits: larger samples are not shown.
    """

    modality: str
    test: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()


def thumbnail(sample: object, modality: str, limits: Limits = Limits()) -> Shown:
    """`sample`, as `load_image` or `load_text` take it, ready for a page. One that cannot be read says why."""
    try:
        if modality == "image":
            return _image(sample, limits)
        if modality == "text":
            return Shown(text=_text(sample))
    except SampleError as error:
        return Shown(missing=str(error))
    return Shown()


def _image(sample: object, limits: Limits) -> Shown:
    from PIL import Image

    from sporeprint.data.images import load_image

    image = load_image(sample, limits)
    scale = SIDE / max(image.size)
    if scale < 1:
        sides = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        image = image.resize(sides, Image.Resampling.LANCZOS, reducing_gap=2.0)
    data, kind = _smaller(image)
    scale = SIDE / max(image.size)  # above 1 for images of a few pixels: the browser enlarges them
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return Shown(image=f"data:image/{kind};base64,{base64.b64encode(data).decode()}", size=size)


def _smaller(image: Any) -> tuple[bytes, str]:
    """JPEG, or PNG where that is smaller: drawings, digits."""
    files = {"jpeg": io.BytesIO(), "png": io.BytesIO()}
    image.save(files["jpeg"], "JPEG", quality=80)
    image.save(files["png"], "PNG", optimize=True)
    kind = min(files, key=lambda name: files[name].tell())
    return files[kind].getvalue(), kind


def _text(sample: object) -> str:
    from sporeprint.data.texts import load_text

    text = " ".join(load_text(sample)[: 8 * LETTERS].split())
    return text if len(text) <= LETTERS else text[:LETTERS].rstrip() + "\u2026"
