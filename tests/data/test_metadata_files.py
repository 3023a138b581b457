import io
import json
import wave

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sporeprint.data.images import load_image
from sporeprint.data.scenes.scenes import open_scenes, read_scene
from sporeprint.data.sources import open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError, SourceError


def pictures(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(path)


def write(path, rows):
    """Write rows, dicts with the same keys, as the suffix says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
        path.write_text("".join(",".join(line) + "\n" for line in lines))


def wav():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(range(200)))
    return buffer.getvalue()


def labels(source):
    return [(row.id, row.label) for row in source.rows()]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_of_a_folder_come_from_the_column_of_its_metadata_file(tmp_path, suffix):
    pictures(tmp_path, ["a.png", "deep/b.png"])
    write(
        tmp_path / f"metadata{suffix}",
        [{"file_name": "deep/b.png", "label": "dog", "kind": "x"}, {"file_name": "a.png", "label": "cat", "kind": "y"}],
    )
    source = open_source(tmp_path)
    assert labels(source) == [("deep/b.png", "dog"), ("a.png", "cat")]
    assert [load_image(row.sample).getpixel((0, 0))[0] for row in source.rows()] == [1, 0]
    assert source.describe()["columns"] == {"sample": "file_name", "label": "label", "id": "file_name"}
    assert source.notes() == []
    assert labels(open_source(tmp_path, label_column="kind")) == [("deep/b.png", "x"), ("a.png", "y")]
    assert labels(open_source(tmp_path, label_column="")) == [("deep/b.png", None), ("a.png", None)]
    assert labels(open_source(tmp_path, metadata=False)) == [("a.png", None), ("deep/b.png", "deep")]
    with pytest.raises(SourceError, match=r"has no column 'z'; its columns: file_name \(string\), label"):
        open_source(tmp_path, label_column="z")


@pytest.mark.parametrize("column", ["image_file_name", "image", "picture_file_name", "File_Name", "filename", "path"])
def test_the_column_of_files_has_any_usual_name(tmp_path, column):
    pictures(tmp_path, ["a.png"])
    write(tmp_path / "metadata.csv", [{"about": "a.png", column: "a.png", "Category": "cat"}])
    assert labels(open_source(tmp_path)) == [("a.png", "cat")]


def test_files_without_a_row_and_rows_without_a_file_are_left_out_and_said(tmp_path):
    pictures(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    rows = [("gone.png", 0), ("./a.png", 1), ("b.png", 2), ("", 3), ("lost.png", 4)]
    write(tmp_path / "metadata.csv", [{"file_name": name, "label": label} for name, label in rows])
    source = open_source(tmp_path)
    given = list(source.rows())
    assert [row.label for row in given] == ["1", "2", "3"]
    assert isinstance(given[2].sample, SampleError)
    assert source.notes() == [
        "left out, having no row in metadata.csv: 2 files, 'c.png', 'd.png'",
        "left out of metadata.csv, having no file: 2 rows, 'gone.png', 'lost.png'",
    ]
    write(tmp_path / "metadata.csv", [{"file_name": "x/a.png", "label": "1"}])
    with pytest.raises(SourceError, match=r"no row of .* names a file that is there \(1 row, 'x/a.png'\)"):
        open_source(tmp_path)


def test_several_rows_of_one_file_are_known_by_their_number(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])
    rows = [{"file_name": name, "label": label} for name, label in (("a.png", "x"), ("a.png", "y"), ("b.png", "x"))]
    write(tmp_path / "metadata.csv", rows)
    assert labels(open_source(tmp_path)) == [("0", "x"), ("1", "y"), ("2", "x")]
    write(tmp_path / "metadata.csv", [{**row, "key": f"k{at}"} for at, row in enumerate(rows)])
    assert labels(open_source(tmp_path, id_column="key"))[1] == ("k1", "y")


def test_each_split_has_its_metadata_file_or_its_part_of_the_one_above(tmp_path):
    for split in ("train", "test"):
        pictures(tmp_path / "own" / split, ["a.png"])
        write(tmp_path / "own" / split / "metadata.jsonl", [{"file_name": "a.png", "label": split.upper()}])
    pictures(tmp_path / "one", ["train/a.png", "train/b.png", "test/a.png"])
    names = ["train/a.png", "test/a.png", "train/gone.png"]
    write(tmp_path / "one" / "metadata.csv", [{"file_name": name, "label": name[0]} for name in names])
    assert labels(open_source(tmp_path / "own", split="test")) == [("a.png", "TEST")]
    assert labels(open_source(tmp_path / "one", split="test")) == [("test/a.png", "t")]
    train = open_source(tmp_path / "one", split="train")
    assert labels(train) == [("train/a.png", "t")]
    assert [note.partition(": ")[2] for note in train.notes()] == ["1 file, 'train/b.png'", "1 row, 'train/gone.png'"]
    for folder in ("own", "one"):
        with pytest.raises(SourceError, match=r"splits"):
            open_source(tmp_path / folder)


def test_without_a_column_of_labels_or_of_files_the_class_folders_decide_and_it_is_said(tmp_path):
    pictures(tmp_path, ["cat/a.png", "dog/b.png"])
    write(tmp_path / "metadata.csv", [{"file_name": "cat/a.png", "caption": "a cat"}])
    source = open_source(tmp_path)
    assert labels(source) == [("cat/a.png", "cat"), ("dog/b.png", "dog")]
    assert source.notes()[0] == (
        "metadata.csv is not used: it has no column named label, labels, class, target, category, y; choose one "
        "(--label-column) of its columns: file_name, caption"
    )
    assert labels(open_source(tmp_path, label_column="caption")) == [("cat/a.png", "a cat")]
    write(tmp_path / "metadata.csv", [{"name": "cat/a.png", "label": "a cat"}])
    source = open_source(tmp_path)
    assert labels(source) == [("cat/a.png", "cat"), ("dog/b.png", "dog")]
    assert source.notes()[0] == "metadata.csv is not used: it has no column file_name; its columns: name, label"
    with pytest.raises(SourceError, match=r"has no columns \(metadata.csv is not used: it has no column file_name"):
        open_source(tmp_path, label_column="label")


def test_two_metadata_files_are_refused(tmp_path):
    pictures(tmp_path, ["a.png"])
    for name in ("metadata.csv", "metadata.jsonl"):
        write(tmp_path / name, [{"file_name": "a.png", "label": 1}])
    with pytest.raises(SourceError, match=r"has metadata.csv and metadata.jsonl; keep one"):
        open_source(tmp_path)


def test_texts_and_sound_have_metadata_files_too(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
        (tmp_path / f"{name}.wav").write_bytes(wav())
    write(tmp_path / "metadata.csv", [{"file_name": f"{name}.txt", "label": name.upper()} for name in "ba"])
    for path, ids in ((tmp_path, ["b.txt", "a.txt"]), (tmp_path / "metadata.csv", ["0", "1"])):
        source = open_source(path, modality="text")
        assert labels(source) == [(ids[0], "B"), (ids[1], "A")]
        assert [load_text(row.sample) for row in source.rows()] == ["text b", "text a"]
    digest = source.digest()
    (tmp_path / "b.txt").write_text("another")
    assert open_source(tmp_path / "metadata.csv", modality="text").digest() != digest
    write(tmp_path / "metadata.csv", [{"file_name": "b.wav", "label": "B"}])
    sound = open_source(tmp_path, modality="audio")
    assert labels(sound) == [("b.wav", "B")]
    assert sound.notes() == ["left out, having no row in metadata.csv: 1 file, 'a.wav'"]


def test_a_metadata_file_names_images_with_their_masks(tmp_path):
    pictures(tmp_path, ["a.png"])
    Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(tmp_path / "m.png")
    write(tmp_path / "metadata.csv", [{"image_file_name": "a.png", "mask_file_name": "m.png"}])
    (scene,) = open_scenes(tmp_path)
    assert read_scene(scene)[1].tolist() == [[0, 1], [1, 0]]
