"""Small files that decode to gigabytes, in a process that may take 1 GiB more than it does at rest.

benchmarks/reliability/bombs.py has the slow ones: every format at the limit.
"""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

READ = """
import json, resource, sys
from sporeprint.data.audio import load_audio
from sporeprint.data.images import load_image
from sporeprint.data.scenes.masks import read_mask
from sporeprint.errors import SampleError
from PIL import Image
import soundfile, soxr, torch
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.objectives.views.image import Crops
import numpy as np
Image.init()

def at_work(sample):
    image = load_image(sample)
    preprocess = Preprocess(size=32, keep_aspect=True)
    Preprocess(size=32)(image), preprocess(image)
    Crops(1, 1)(image, preprocess, np.random.default_rng(0))
    return image

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) << 10

read = {"image": at_work, "sound": load_audio, "mask": read_mask,
        "painted": lambda sample: read_mask(sample, None, (), {(0, 0, 0): 0, (9, 9, 9): 1})}
torch.ones(9, 9) @ torch.ones(9, 9)
at_work(Image.new("RGB", (9, 9)))
resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") + 2**30,) * 2)
for line in sys.stdin:
    kind, path = line.split()
    data = open(path, "rb").read()
    open("/proc/self/clear_refs", "w").write("5")  # from here on VmHWM is that of this file
    before = status("VmHWM")
    try:
        read[kind](data)
        outcome = "read"
    except SampleError as error:
        outcome = f"refused: {error}"
    print(json.dumps([(status("VmHWM") - before) >> 20, outcome]), flush=True)
"""


LIMIT = (8192, 8192)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blank(mode="RGB", size=LIMIT):
    return Image.new(mode, size)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(name, data):
    small = encode(Image.new("L", (1, 1)))
    return small[:33] + chunk(name, data) + small[33:]


def many_tags(order="<", bytes_each=2**20):
    """A TIFF's directory of 65,000 tags that all hold the same bytes."""
    count = 65_000
    entries = b"".join(struct.pack(order + "HHII", 300 + at, 7, bytes_each, 8) for at in range(count))
    head = b"II*\0" if order == "<" else b"MM\0*"
    return (
        head + struct.pack(order + "I", 8 + bytes_each) + bytes(bytes_each) + struct.pack(order + "H", count) + entries
    )


def tiff(tags, data):
    """A little-endian TIFF of these tags {tag: (type, value)}, whose one strip or tile is `data`."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def huge_tile():
    body = zlib.compress(bytes(2**16))
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 324: 8, 325: len(body)}
    return tiff({tag: (4, value) for tag, value in tags.items()}, body)


def exif_jpeg():
    """A JPEG with EXIF in many segments, whose tags all hold the same bytes."""
    small, exif = encode(Image.new("RGB", (8, 8)), "JPEG"), many_tags(">", 2**19)
    parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
    segments = (b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts)
    bare = small[:2] + small[20:]  # no JFIF density, so that Pillow looks for one in EXIF
    return bare[:2] + b"".join(segments) + bare[2:]


def flac(frames, channels, rate_hz):
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    samples = np.zeros((frames, channels), np.int16)
    samples[0] = 1
    soundfile.write(buffer, samples, rate_hz, format="FLAC")
    return buffer.getvalue()


def open_flac():
    """A FLAC whose header promises 2^36 - 1 frames."""
    data = bytearray(flac(5000, 1, 16_000))
    data[21:26] = bytes([data[21] | 15]) + b"\xff" * 4
    return bytes(data)


BOMBS = {  # name: kind, file, what comes of it
    "a PNG of 89,000,000 x 1": ("image", lambda: encode(blank("1", (89_000_000, 1))), "refused"),
    "a PNG of 1 x 1,048,576": ("image", lambda: encode(blank("1", (1, 2**20))), "read"),
    "a PNG at the limit": ("image", lambda: encode(blank()), "read"),
    "a profile of 1 GB": ("image", lambda: png_with(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**30), 1)), ""),
    "EXIF of 65,000 megabytes": ("image", lambda: png_with(b"eXIf", many_tags()), "read"),
    "EXIF of 32,000 megabytes in a JPEG": ("image", exif_jpeg, "read"),
    "a TIFF of 65,000 megabytes of tags": ("image", many_tags, "refused"),
    "a big-endian TIFF of 65,000 megabytes of tags": ("image", lambda: many_tags(">"), "refused"),
    "a TIFF of one pixel in a tile of 40,000 x 40,000": ("image", huge_tile, "refused"),
    "a PPM that promises 99,999 x 99,999": ("image", lambda: b"P6 99999 99999 255\n", "refused"),
    "a PGM that promises a million rows": ("image", lambda: b"P5 60 1000000 65535\n", "refused"),
    "a FLAC that promises 49 days": ("sound", open_flac, "refused"),
    "a FLAC of 8 channels": ("sound", lambda: flac(1_500_000, 8, 8000), "read"),
}  # fmt: skip


@pytest.fixture(scope="module")
def reader():
    if sys.platform != "linux":
        pytest.skip("reads /proc, and limits memory as Linux does")
    with subprocess.Popen(
        [sys.executable, "-c", READ], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_less_than_a_gibibyte(name, reader, tmp_path):
    kind, make, expected = BOMBS[name]
    (tmp_path / "bomb").write_bytes(make())
    reader.stdin.write(f"{kind} {tmp_path / 'bomb'}\n")
    reader.stdin.flush()
    megabytes, outcome = json.loads(reader.stdout.readline())
    print(f"BOMB {name} | {(tmp_path / 'bomb').stat().st_size:,} bytes | {megabytes} MB | {outcome}")
    assert outcome.startswith(expected or ("read", "refused"))
    assert megabytes < 1024
    assert "more memory than there is" not in outcome
