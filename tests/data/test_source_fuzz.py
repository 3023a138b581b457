"""Damaged sources of every format give rows, rows that fail, or a named error: never another library's error."""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import number_labels, read_points
from sporeprint.data.scenes.scenes import open_scenes, read_scene
from sporeprint.data.sources import open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError, SourceError

CASES = 60  # of each format
FEATURES = {"text": {"_type": "Value", "dtype": "string"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
TABLE = pa.table(
    {
        "text": ["first", 'a "quoted" one', "two\nlines", "naïve 東京", None] * 3,
        "label": [0, 1, 0, 1, -1] * 3,
        "note": pa.array(["x", "y", "x", "y", "x"] * 3).dictionary_encode(),
        "key": [str(number) for number in range(15)],
    }
).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
STRANGE = [
    *(
        b'"',
        b"\n",
        b"\r",
        b",",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"[" * 300,
        b"{",
        b"}",
        b"\\ud800",
        b"9" * 5000,
        b"-1",
    ),
    *(b"1e999", b"NaN", b"null", b'"text": ', b'{"text": 7, "label": [[1]]}', b"../", b"~/", b"https://x/y", b"\t"),
]


def as_csv(folder: Path) -> bytes:
    rows = TABLE.to_pylist()
    quoted = ((row["text"] or "").replace('"', '""') for row in rows)
    lines = (f'"{text}",{row["label"]},{row["note"]},{row["key"]}' for text, row in zip(quoted, rows, strict=True))
    return "\n".join(["text,label,note,key", *lines]).encode()


def as_jsonl(folder: Path) -> bytes:
    return "\n".join(json.dumps(row) for row in TABLE.to_pylist()).encode()


def as_parquet(folder: Path) -> bytes:
    pq.write_table(TABLE, folder / "made", row_group_size=4, compression="none")
    return (folder / "made").read_bytes()


def as_arrow(folder: Path) -> bytes:
    with pa.OSFile(str(folder / "made"), "wb") as file, pa.ipc.new_stream(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=4)
    return (folder / "made").read_bytes()


def damage(data: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.randint(1, 3)):
        at, length = dice.randrange(len(data) + 1), dice.choice([0, 1, 1, 2, 8, 40])
        replacement = dice.choice([dice.randbytes(length), dice.choice(STRANGE), b""])
        data = data[:at] + replacement + data[at + (length if dice.random() < 0.7 else 0) :]
    return data[: dice.randrange(len(data) + 1)] if dice.random() < 0.1 else data


def read(path: Path, **options: str | None) -> int:
    """The number of rows that a source says it has, after all of them were read."""
    source = open_source(path, modality="text", **options)
    assert len(source.digest()) == 32
    json.dumps(source.describe(), ensure_ascii=False).encode()
    rows = list(source.rows())
    assert len(rows) == len(source)
    for row in rows:
        row.id.encode()
        pa.array([row.label])
        json.dumps(row.label, ensure_ascii=False).encode()
        if isinstance(row.sample, SampleError):
            str(row.sample).encode()
            assert len(str(row.sample)) < 1000
        with suppress(SampleError):
            load_text(row.sample)
    return len(rows)


@pytest.mark.parametrize(
    ("name", "make"), [("t.csv", as_csv), ("t.jsonl", as_jsonl), ("t.parquet", as_parquet), ("t.arrow", as_arrow)]
)
@pytest.mark.parametrize("options", [{}, {"label_column": "note", "id_column": "key"}, {"sample_column": "note"}])
def test_a_damaged_table_gives_rows_or_a_named_error(tmp_path, name, make, options):
    whole, dice = make(tmp_path), random.Random(name)
    (tmp_path / name).write_bytes(whole)
    assert read(tmp_path / name, **options) == 15
    outcomes = set()
    for _ in range(CASES):
        (tmp_path / name).write_bytes(damage(whole, dice))
        try:
            read(tmp_path / name, **options)
            outcomes.add("rows")
        except SourceError:
            outcomes.add("refused")
    assert outcomes == {"rows", "refused"}


def test_damaged_lists_points_and_class_files_give_rows_or_a_named_error(tmp_path):
    dice = random.Random(0)
    whole = {
        "t.txt": b"a.png b.png\nc.png\td.png\n",
        "t.csv": b"image,mask\na.png,b.png\nc.png,d.png\n",
        "p.csv": b"x,y,label\n1,2,cat\n3,4,dog\n",
        "classes.json": b'{"0": "sky", "1": "sea"}',
        "state.json": b'{"_data_files": [{"filename": "a.arrow"}]}',
    }
    for _ in range(CASES):
        for name, data in whole.items():
            (tmp_path / name).write_bytes(damage(data, dice))
        for attempt in (
            lambda: check_scenes(tmp_path / "t.txt"),
            lambda: check_scenes(tmp_path / "t.csv"),
            lambda: number_labels(read_points(str(tmp_path / "p.csv"))),
            lambda: find_class_list([tmp_path]),
            lambda: open_source(tmp_path),
        ):
            with suppress(SourceError):
                attempt()


def check_scenes(path: Path) -> None:
    for scene in open_scenes(path):
        scene.id.encode()
        with pytest.raises(SampleError):
            read_scene(scene)


@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_names_of_any_bytes_in_a_folder_give_rows(tmp_path, modality):
    dice, suffix = random.Random(modality), {"image": b".png", "text": b".txt", "audio": b".wav"}[modality]
    wanted = set()
    for _ in range(CASES):
        parts = [
            bytes(set(dice.randbytes(dice.randint(1, 12))) - {0, 46, 47}) or b"x" for _ in range(dice.randint(1, 3))
        ]
        name = b"/".join(parts) + suffix
        target = os.path.join(os.fsencode(tmp_path), b"p", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(os.fsdecode(target)).write_bytes(b"x")
        wanted.add(name)
    source = open_source(tmp_path / "p", modality=modality)
    rows = list(source.rows())
    assert len(rows) == len(wanted) == len({row.id for row in rows})
    assert len(source.digest()) == 32
    for row in rows:
        row.id.encode()
        assert row.label is None or row.label.encode()
        assert isinstance(row.sample, SampleError) != (row.sample == tmp_path / "p" / row.id)
