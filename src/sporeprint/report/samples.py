"""A sample as a page shows it: an image as a thumbnail in the page itself, a text as text, a sound as its beginning."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sporeprint.data.limits import Limits
from sporeprint.errors import MissingExtra, SampleError

SIDE = 96  # pixels, the longer side of a thumbnail
LETTERS = 280  # of a text
SECONDS = 3  # of a sound


@dataclass(frozen=True)
class Shown:
    """What stands for a sample. image, sound: data URIs. text: of the sample, cut. None of them: its id has to do.

    missing: why a sample that was given cannot be shown.
    """

    image: str | None = None
    size: tuple[int, int] = (0, 0)  # width and height to show the image at, pixels
    text: str | None = None
    sound: str | None = None
    missing: str | None = None


@dataclass(frozen=True)
class Samples:
    """The samples of the test and the training rows by their ids, as sources give them, not decoded.

    modality: "image", "text" or "audio". limits: larger samples are not shown.
    """

    modality: str
    test: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()


def thumbnail(sample: object, modality: str, limits: Limits = Limits()) -> Shown:
    """`sample`, as `load_image` and its siblings take it, ready for a page. One that cannot be read says why."""
    try:
        if modality == "image":
            return _image(sample, limits)
        if modality == "text":
            return Shown(text=_text(sample))
        if modality == "audio":
            return _sound(sample, limits)
    except (SampleError, MissingExtra) as error:
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


def _sound(sample: object, limits: Limits) -> Shown:
    from sporeprint.data.audio import load_audio, mp3

    clip = load_audio(sample, limits)
    if clip.rate_hz is None:
        return Shown(missing="its sample rate is not known")
    start = replace(clip, samples=clip.samples[: SECONDS * clip.rate_hz])
    return Shown(sound=f"data:audio/mpeg;base64,{base64.b64encode(mp3(start)).decode()}")


def _text(sample: object) -> str:
    from sporeprint.data.texts import load_text

    text = " ".join(load_text(sample)[: 8 * LETTERS].split())
    return text if len(text) <= LETTERS else text[:LETTERS].rstrip() + "\u2026"
