"""Read decompression bombs in processes that may take 1 GiB beyond what they have: refused by name, or read within it.

--count: how many of the bombs, from the first on.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from trial import MEBIBYTE, Tally, arguments, attempt, numbers, run

from sporeprint.data.audio import load_audio
from sporeprint.data.images import load_image
from sporeprint.data.scenes.masks import read_mask
from sporeprint.data.sources import open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError
from sporeprint.features.fungi import Fungi
from sporeprint.features.saved import FORMAT
from sporeprint.store.atomic import seal
from sporeprint.store.described_tensors import FORM
from sporeprint.store.reader import Store


def png(width: int, height: int, bits: int = 8, colour: int = 2, rows: int | None = None) -> bytes:
    """A PNG of zeros whose rows are compressed a thousandfold."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * bits + 7) // 8)
    packer, parts = zlib.compressobj(9), []
    for _ in range(height if rows is None else rows):
        parts.append(packer.compress(row))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    data = b"".join([*parts, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int], mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def frames(kind: str, size: tuple[int, int], count: int) -> bytes:
    out = io.BytesIO()
    images = [Image.new("RGB", size, (n * 37 % 256, 0, 0)) for n in range(count)]
    images[0].save(out, kind, save_all=True, append_images=images[1:], duration=20)
    return out.getvalue()


def wide_webp() -> bytes:
    """An animation whose canvas is said to be larger than its frames, as a few changed bytes say it."""
    data = bytearray(frames("WEBP", (16, 16), 2))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (16383 - 1).to_bytes(3, "little") * 2
    return bytes(data)


def tiff(width: int, height: int) -> bytes:
    """A TIFF whose header claims what its few bytes do not hold."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, height), (279, 4, 100)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(tags)) + entries + bytes(4)


def sound(kind: str, seconds: int, subtype: str | None = None) -> bytes:
    import soundfile

    out, block = io.BytesIO(), np.zeros(48_000, np.float32)  # libsndfile holds a block of Vorbis on its stack
    with soundfile.SoundFile(out, "w", 48_000, 1, format=kind, subtype=subtype) as file:
        for _ in range(seconds):
            file.write(block)
    return out.getvalue()


def wave(frames: int) -> bytes:
    """A WAV whose header claims many frames."""
    form = struct.pack("<HHIIHH", 1, 8, 48_000, 48_000 * 32, 32, 32)
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", min(2**32 - 1, frames * 32))
    return b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVE" + body + bytes(64)


def parquet(values: pa.Array) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": values, "label": pa.nulls(len(values), pa.string())}), out, compression="zstd")
    return out.getvalue()


def rows_of(path: Path) -> int:
    """How many rows a table of texts gives."""
    seen = 0
    for row in open_source(path, modality="text").rows():
        with contextlib.suppress(SampleError):
            load_text(row.sample)
        seen += 1
    return seen


LIMIT, HALF = (8192, 8192), (5792, 5792)  # the most pixels by default; of WebP, AVIF and JPEG 2000
TURNED = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # EXIF orientation 6
AT_THE_LIMIT: dict[str, Callable[[], bytes]] = {
    "PNG, RGB, at the limit": lambda: saved("PNG", LIMIT),
    "PNG, transparent, at the limit": lambda: saved("PNG", LIMIT, "RGBA"),
    "PNG, palette, at the limit": lambda: saved("PNG", LIMIT, "P", transparency=0),
    "PNG, 16 bits, at the limit": lambda: saved("PNG", LIMIT, "I;16"),
    "PNG, turned, at the limit": lambda: saved("PNG", LIMIT, "L", exif=TURNED),
    "TIFF, float, at the limit": lambda: saved("TIFF", LIMIT, "F", compression="tiff_deflate"),
    "TIFF, CMYK, at the limit": lambda: saved("TIFF", LIMIT, "CMYK", compression="tiff_deflate"),
    "JPEG, progressive, at the limit": lambda: saved("JPEG", LIMIT, "L", progressive=True),
    "JPEG, progressive CMYK, at the limit": lambda: saved("JPEG", LIMIT, "CMYK", progressive=True),
    "GIF at the limit": lambda: saved("GIF", LIMIT, "P"),
    "WebP at its limit": lambda: saved("WEBP", HALF, lossless=True),
    "JPEG 2000 at its limit": lambda: saved("JPEG2000", HALF, "RGBA"),
}
IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG 30000 x 30000": lambda: png(30_000, 30_000, 1, 0),
    "PNG 89000000 x 1": lambda: png(89_000_000, 1, 1, 0),
    "PNG 1 x 5000000": lambda: png(1, 5_000_000, 1, 0),
    "PNG of 16 bits, 9000 x 9000": lambda: png(9_000, 9_000, 16, 6),
    "PNG cut": lambda: png(20_000, 20_000, 8, 2, rows=3),
    "GIF 2000 x 30000 claimed": lambda: saved("GIF", (2_000, 2_000), "P").replace(b"\xd0\x07", b"\x30\x75"),
    "GIF of 1000 frames": lambda: frames("GIF", (500, 500), 1000),
    "WebP 16383 x 5000": lambda: saved("WEBP", (16_383, 5_000)),
    "WebP, animated, wide canvas": wide_webp,
    "WebP of 200 frames": lambda: frames("WEBP", (400, 400), 200),
    "TIFF 60000 x 60000 claimed": lambda: tiff(60_000, 60_000),
    "TIFF 9000 x 9000, deflate": lambda: saved("TIFF", (9_000, 9_000), compression="tiff_deflate"),
    "JPEG 2000, 6000 x 6000": lambda: saved("JPEG2000", (6_000, 6_000), "L"),
    "PPM 60000 x 60000 claimed": lambda: b"P6 60000 60000 255\n" + bytes(100),
    "PGM of 16 bits, 8000 x 8000 claimed": lambda: b"P5 8000 8000 65535\n" + bytes(100),
    "BMP 30000 x 30000 claimed": lambda: saved("BMP", (8, 8))[:18] + struct.pack("<ii", 30_000, 30_000) + bytes(100),
    "AVIF 6000 x 6000": lambda: saved("AVIF", (6_000, 6_000), speed=10),
}
MASKS: dict[str, Callable[[], bytes]] = {
    "mask PNG 16000 x 16000": lambda: png(16_000, 16_000, 8, 3),
    "mask PNG 9400 x 9400 of 16 bits": lambda: png(9_400, 9_400, 16, 0),
    "mask PNG 9400 x 9400 of colours": lambda: png(9_400, 9_400, 8, 2),
    "mask PNG at the limit": lambda: saved("PNG", LIMIT, "L"),
    "mask TIFF of 32 bits at the limit": lambda: saved("TIFF", LIMIT, "I", compression="tiff_deflate"),
}
SOUNDS: dict[str, Callable[[], bytes]] = {
    "FLAC of 5 hours": lambda: sound("FLAC", 5 * 3600),
    "OGG of 30 minutes": lambda: sound("OGG", 1800, "VORBIS"),
    "MP3 of 20 minutes": lambda: sound("MP3", 1200),
    "WAV, 2^27 frames claimed": lambda: wave(2**27),
    "WAV of 30 minutes": lambda: sound("WAV", 1800),
}
TABLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "Parquet, a cell of 60 MB": ("cell.parquet", lambda: parquet(pa.array(["x" * 60_000_000, "b"]))),
    "Parquet, 20 cells of 60 MB": (
        "cells.parquet",
        lambda: parquet(pa.array(["y" * 60_000_000] * 20, pa.large_string())),
    ),
    "Parquet, 3 million rows of nothing": ("rows.parquet", lambda: parquet(pa.nulls(3_000_000, pa.string()))),
    "CSV, a cell of 200 MB": ("cell.csv", lambda: b"text,label\n" + b"x" * (200 * MEBIBYTE) + b",a\nb,b\n"),
    "CSV, a quote that never ends": ("open.csv", lambda: b'text,label\n"' + (b"x" * 199 + b"\n") * 500_000),
    "JSONL, a line of 200 MB": ("line.jsonl", lambda: b'{"text": "' + b"x" * (200 * MEBIBYTE) + b'", "label": "a"}\n'),
    "JSONL, deep": ("deep.jsonl", lambda: b'{"text": ' + DEEP + b"}\n"),
}
DEEP = b"[" * 5_000_000 + b"]" * 5_000_000
HUGE = json.dumps({"x": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()
TENSORS: dict[str, Callable[[], bytes]] = {
    "safetensors, a header of 2^40 bytes": lambda: struct.pack("<Q", 2**40) + b"{}",
    "safetensors, 2^60 numbers claimed": lambda: struct.pack("<Q", len(HUGE)) + HUGE,
    "safetensors, a deep header": lambda: struct.pack("<Q", len(DEEP)) + DEEP,
}
FOLDERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]] = {
    "manifest.json, deep": ("manifest.json", lambda: DEEP, lambda path: Store.open(path.parent)),
    "plan.json, 40 MB": (
        "plan.json",
        lambda: b'{"a": [' + b"0," * 20_000_000 + b"0]}",
        lambda path: Store.open(path.parent),
    ),
    "fungi.json, deep": ("fungi.json", lambda: DEEP, lambda path: Fungi.load(path.parent)),
    "text of 400 MB": ("text.txt", lambda: b"x" * (400 * MEBIBYTE), load_text),
}


def bombs() -> dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]]:
    """{name: (file name, what makes its bytes, what reads it)}."""
    return (
        {name: ("image", make, load_image) for name, make in (IMAGES | AT_THE_LIMIT).items()}
        | {name: ("mask.png", make, read_mask) for name, make in MASKS.items()}
        | {name: ("sound", make, load_audio) for name, make in SOUNDS.items()}
        | {name: (file, make, rows_of) for name, (file, make) in TABLES.items()}
        | {name: ("fungi.safetensors", make, fungi_of) for name, make in TENSORS.items()}
        | FOLDERS
    )


def fungi_of(path: Path) -> Fungi:
    """A saved Fungi with right checksums whose tensors are in this file."""
    body = {"format": FORMAT, "recipe": {"kind": "recipe", "backbone": "tiny"}}
    body["tensors_sha256"] = sha256(path.read_bytes()).hexdigest()
    (path.parent / "fungi.json").write_bytes(seal(None, body, FORM))
    return Fungi.load(path.parent)


def main() -> None:
    root = Path(mkdtemp(prefix="bombs-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    options, begin, listed = arguments(len(bombs())), time.monotonic(), bombs()
    names = [list(listed)[number % len(listed)] for number in numbers(options)]
    tally = Tally()
    for number, name in zip(numbers(options), names, strict=True):
        file, make, read = listed[name]
        path = root / str(number) / file
        path.parent.mkdir()
        try:
            path.write_bytes(make())  # made here, without the limit
        except (ImportError, KeyError, OSError, ValueError) as error:
            tally.add(number, name, f"not made here: {type(error).__name__}")
            continue

        def case(rng: np.random.Generator) -> tuple[str, str]:
            def action() -> str:
                read(path)  # noqa: B023 - run before the next one
                return "read within the limit"

            return attempt(name, action)  # noqa: B023

        tally.update(run(case, [number], options.seed, seconds=60))
        path.unlink()
    status = tally.show("bombs under 1 GiB", options.seed)
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)


if __name__ == "__main__":
    main()
