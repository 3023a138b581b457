"""Mutate valid inputs at random and read them: a value or a named error; no other exception, no hang, little memory."""

from __future__ import annotations

import atexit
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hand_edits import DEEP, edited
from PIL import Image
from trial import Wrong, attempt, timed

from sporeprint.data.audio import load_audio
from sporeprint.data.images import load_image
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import read_marks, read_points
from sporeprint.data.scenes.masks import read_mask
from sporeprint.data.scenes.scenes import open_scenes, read_scene
from sporeprint.data.sources import open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError, SporeprintError
from sporeprint.evaluate.ground_truth import load_ground_truth
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.values import parse_json

TOKENS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b'"', b"'", b",", b"\n", b"\r", b"\t", b"-", b"1e999", b"NaN",
    b"null", b"true", b"{", b"}", b"[", b"]", b"[[[[", b"../", b"/etc/passwd", b"http://a/b.png", b"\\ud800", b"=cmd()",
    b"99999999999999999999", b"\x1b[31m", b"[/b]", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80",
]  # fmt: skip


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind, **options)
    return out.getvalue()


def images() -> list[bytes]:
    listed = [encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "L"), encoded("PNG", "RGBA")]
    listed += [encoded(kind) for kind in ("JPEG", "BMP", "TIFF", "PPM", "WEBP")] + [encoded("GIF", "P")]
    listed.append(encoded("TIFF", "F"))
    return listed


def sounds() -> list[bytes]:
    import soundfile

    wave, listed = np.sin(np.arange(800) / 9).astype(np.float32), []
    for kind in ("WAV", "FLAC", "OGG", "AIFF", "MP3"):
        out = io.BytesIO()
        soundfile.write(out, wave, 8000, format=kind)
        listed.append(out.getvalue())
    return listed


def parquet() -> bytes:
    table = pa.table({"text": ["one", "two", "three"], "label": [0, 1, 0], "id": ["a", "b", "c"]})
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


ENTRY = {"easy": [0], "hard": [1], "junk": [2], "bbx": [0, 0, 5, 5]}
TRUTH = json.dumps({"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": [ENTRY]}).encode()
CLASSES = [b'["a", "b"]', b'{"0": "a", "3": "b"}', b'{"a": [1, 2, 3]}']
POINTS = b"x,y,label\n1,2,cat\n3,4,dog\n"
CSV = b'id,text,label\na,one,x\nb,"two, too",y\nc,three,x\n'
JSONL = b'{"id": "a", "text": "one", "label": 1}\n{"id": "b", "text": "two", "label": 2}\n{"text": "c", "id": "c"}\n'
RECIPE = Recipe(backbone="tiny", objectives=[KL(), DINO(), SimCLR(negatives=2)], size=3)


def recipe_of(data: bytes) -> object:
    try:
        value = parse_json(data)
    except ValueError:  # all that is promised of JSON that is none
        return None
    return Recipe.from_json(value)


def mutated_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Keys and values changed, so that it stays JSON."""
    value = json.loads(data)
    for _ in range(rng.integers(1, 3)):
        value = edited(value, rng)
    return json.dumps(value).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).encode()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes: bits, bytes, tokens, cuts, repeats."""
    for _ in range(rng.integers(1, 4)):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 30))
        kind, token = rng.integers(7), TOKENS[rng.integers(len(TOKENS))]
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + rng.bytes(length) + data[at + length :]
        elif kind == 2:
            data = data[:at] + token + data[at:]
        elif kind == 3:
            data = data[:at] + token + data[at + len(token) :]
        elif kind == 4:
            data = data[:at] + data[at + length :]
        elif kind == 5:
            data = data[:at] + data[at : at + length] * int(rng.integers(1, 50)) + data[at:]
        elif rng.integers(4) == 0:
            data = data[:at]
    return data


class Readers:
    """What is fuzzed: {name: (valid inputs, what reads the mutated bytes)}."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        texts = ["Grüße,\n zwei".encode(), b"plain words", "\ufeffwords".encode("utf-16")]
        mask = encoded("PNG", "L")
        (folder / "scenes" / "images").mkdir(parents=True)
        (folder / "scenes" / "masks").mkdir()
        (folder / "scenes" / "images" / "a.png").write_bytes(encoded("PNG"))
        self.listed: dict[str, tuple[list[bytes], Callable[[bytes], object]]] = {
            "image": (images(), load_image),
            "image in a file": (images(), lambda data: load_image(self.file("image.png", data))),
            "image in a row": (images(), lambda data: load_image({"bytes": data, "path": None})),
            "mask": ([mask, encoded("PNG", "P"), encoded("PNG"), encoded("PNG", "RGBA")], read_mask),
            "mask of a scene": ([mask], self.scene),
            "sound": (sounds(), load_audio),
            "sound in a file": (sounds(), lambda data: load_audio(self.file("sound.wav", data))),
            "text": (texts, load_text),
            "text in a file": (texts, lambda data: load_text(self.file("text.txt", data))),
            "CSV": ([CSV], lambda data: self.rows("table.csv", data)),
            "JSONL": ([JSONL], lambda data: self.rows("table.jsonl", data)),
            "Parquet": ([parquet()], lambda data: self.rows("table.parquet", data)),
            "classes.json": (CLASSES, lambda data: self.classes("json", data)),
            "classes.txt": ([b"a\nb\n\nc\n", b"0 a\n1 b\n"], lambda data: self.classes("txt", data)),
            "points in CSV": ([POINTS], lambda data: read_points(str(self.file("points.csv", data)))),
            "points in words": ([b"1,2,cat", b"1,2,cat 3,4,dog"], lambda data: read_points(data.decode("latin-1"))),
            "marks": ([mask], lambda data: read_marks(self.file("marks.png", data), (255,))),
            "ground truth": ([TRUTH], lambda data: load_ground_truth(self.file("truth.json", data))),
            "recipe": ([json.dumps(RECIPE.to_json()).encode()], recipe_of),
        }  # fmt: skip

    def file(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def scene(self, data: bytes) -> object:
        self.file("scenes/masks/a.png", data)
        scenes = open_scenes(self.folder / "scenes")
        return [read_scene(scene) for scene in scenes]

    def rows(self, name: str, data: bytes) -> int:
        seen = 0
        for row in open_source(self.file(name, data), modality="text").rows():
            try:
                load_text(row.sample)
            except SampleError:
                continue
            seen += 1
        return seen

    def classes(self, suffix: str, data: bytes) -> object:
        path = self.file(f"classes.{suffix}", data)
        try:
            return find_class_list([self.folder])
        finally:
            path.unlink()


def main() -> None:
    folder = Path(mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    listed = Readers(folder).listed
    names = sorted(listed)

    def case(rng: np.random.Generator) -> tuple[str, str]:
        name = names[rng.integers(len(names))]
        valid, read = listed[name]
        data, change = valid[rng.integers(len(valid))], mutated
        if data[:1] in (b"{", b"[") and name != "JSONL" and rng.integers(2):
            change = mutated_json
        data = change(data, rng)

        def action() -> str:
            try:
                read(data)
            except SporeprintError as error:
                if "MemoryError" in str(error):  # of a file of some kilobytes
                    raise Wrong("it takes more memory than 1 GiB") from error
                raise
            return "value"

        return attempt(name, action)

    timed("fuzz", case, 100_000, seconds=10)


if __name__ == "__main__":
    main()
