import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sporeprint.data.images import load_image
from sporeprint.data.rows import digest_like
from sporeprint.data.sampling import Sampled
from sporeprint.data.sources import FolderSource, ListSource, Row, TableSource, open_source
from sporeprint.errors import SampleError, SourceError

SHARED = Path(__file__).parents[3] / "shared"


def png(number=0):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def red(row):
    return load_image(row.sample).getpixel((0, 0))[0]


def fill(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))


FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


def table(rows=5, features=FEATURES, **columns):
    columns = {
        "image": [{"bytes": png(row), "path": None} for row in range(rows)],
        "label": [row % 2 for row in range(rows)],
        **columns,
    }
    result = pa.table({name: values for name, values in columns.items() if values is not None})
    if features is not None:
        result = result.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    return result


def parquet(path, rows=5, row_group_size=2, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, **options), path, row_group_size=row_group_size)
    return path


def stream(path, rows, batch=3):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=batch)


# folders


def test_class_folders_give_labels_ids_and_a_fixed_order(tmp_path):
    fill(tmp_path, "b/2.png", "a/10.PNG", "a/9.jpeg", "b/deep/1.png", "top.png")
    source = open_source(tmp_path)
    rows = list(source.rows())
    assert [(row.id, row.label) for row in rows] == [
        ("a/10.PNG", "a"),
        ("a/9.jpeg", "a"),
        ("b/2.png", "b"),
        ("b/deep/1.png", "b"),
        ("top.png", None),
    ]
    assert [red(row) for row in rows] == [1, 2, 0, 3, 4]
    assert len(source) == 5
    assert source.label_names is None
    assert list(source.rows(3)) == rows[3:]


def test_other_files_are_counted_and_hidden_ones_passed_over(tmp_path):
    fill(tmp_path, "a/1.png", "a/notes.txt", "a/.2.png", ".cache/3.png", "a/._1.png")
    source = open_source(tmp_path)
    assert [row.id for row in source.rows()] == ["a/1.png"]
    assert source.describe() == {
        "kind": "folder",
        "name": tmp_path.name,
        "rows": 1,
        "columns": {"sample": None, "label": "folder", "id": "path"},
        "limit": None,
        "ignored_files": 1,
        "modality": "image",
    }


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((suffix, "JPEG") for suffix in (".jpg", ".jpeg", ".jpe", ".jfif", ".JFIF", ".jif")),
        *((suffix, "PNG") for suffix in (".png", ".apng")),
        *((suffix, "TIFF") for suffix in (".tif", ".TIFF")),
        *((suffix, "BMP") for suffix in (".bmp", ".dib")),
        *((suffix, "JPEG2000") for suffix in (".jp2", ".j2k", ".jpx", ".jpf")),
        (".pnm", "PPM"),
        (".mpo", "MPO"),
        (".gif", "GIF"),
        (".webp", "WEBP"),
    ],
)
def test_images_are_found_by_every_usual_suffix_of_their_format(tmp_path, suffix, kind):
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / f"a{suffix}", kind)
    (row,) = open_source(tmp_path).rows()
    assert (row.id, red(row) > 150) == (f"a{suffix}", True)


def test_files_that_are_not_rows_are_counted_by_suffix_and_looked_at_once(tmp_path):
    fill(tmp_path, "a/1.png", "a/without", "a/2.HEIC", "b/3.heic", "b/0.png")
    (tmp_path / "b" / "4.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "b" / "5.docx").write_bytes(b"PK\3\4")
    (tmp_path / "b" / "6.svg").write_text("<svg/>")
    (tmp_path / "b" / "7.zip").touch()
    (tmp_path / "b" / "8.x").touch()
    (tmp_path / "b" / "9.y").symlink_to("nowhere")
    (note,) = open_source(tmp_path).notes()
    assert note.startswith(
        "passed over: 9 files: 2 .heic (a PNG image), 1 without a suffix (a PNG image), 1 .docx (a ZIP archive), "
        "1 .pdf (a PDF), 1 .svg (an SVG drawing), 3 of other kinds; rows are files ending in .apng .avif "
    )
    assert note.endswith(".webp: rename or convert what should be one")
    assert Sampled(open_source(tmp_path), 1).notes() == [note]
    assert open_source(tmp_path / "a", limit=1).notes() != []
    fill(tmp_path / "alone", "a.png")
    assert open_source(tmp_path / "alone").notes() == ["no labels: the files are in no class folders"]


def test_what_class_folders_do_not_show_is_said(tmp_path):
    fill(tmp_path / "usual", "a/1.png", "b/2.png")
    assert open_source(tmp_path / "usual").notes() == []
    fill(tmp_path / "wrapped", "all/a/1.png", "all/b/2.png", "__MACOSX/a/1.png", "Thumbs.db", "desktop.ini")
    assert open_source(tmp_path / "wrapped").notes() == [
        "one class only, 'all': all files are in this folder; for the folders in it as classes give "
        f"'{tmp_path / 'wrapped' / 'all'}'"
    ]
    fill(tmp_path / "mixed", "a/x/1.png", "b/2.png", "3.png")
    for name in ("empty", ".hidden", "__MACOSX"):
        (tmp_path / "mixed" / name).mkdir()
    assert open_source(tmp_path / "mixed", limit=1).notes() == [
        "labels are the first folders: 2 classes, 'a', 'b'; those below, such as 'a/x', are none",
        "without a label, being in no class folder: 1 file, '3.png'",
        "no classes, having no files that are rows: 1 folder, 'empty'",
    ]


@pytest.mark.parametrize("names", [("Train", "TEST"), ("training", "testing"), ("train", "eval")])
def test_folders_of_splits_are_no_classes_in_any_usual_name(tmp_path, names):
    for name in names:
        fill(tmp_path / name, "a/1.png")
    with pytest.raises(SourceError, match=r"are splits: .*; choose one of them \(split, --split\)"):
        open_source(tmp_path)
    assert [row.label for row in open_source(tmp_path, split=names[0]).rows()] == ["a"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path / "elsewhere", "1.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "root")
    (tmp_path / "root/gone.png").symlink_to(tmp_path / "nowhere.png")
    rows = list(open_source(tmp_path / "root").rows())
    assert [row.id for row in rows] == ["a/1.png", "gone.png"]
    with pytest.raises(SampleError, match=r"no file 'gone\.png'"):
        load_image(rows[1].sample)


def test_a_folder_of_splits_asks_which(tmp_path):
    fill(tmp_path, "train/a/1.png", "test/a/2.png")
    with pytest.raises(SourceError, match=r"splits: \['test', 'train'\]"):
        open_source(tmp_path)
    source = open_source(tmp_path, split="test")
    assert [(row.id, row.label) for row in source.rows()] == [("a/2.png", "a")]
    with pytest.raises(SourceError, match="no split 'val'"):
        open_source(tmp_path, split="val")


def test_classes_that_are_called_like_a_split_are_classes(tmp_path):
    fill(tmp_path, "train/1.png", "ship/2.png")
    assert [row.label for row in open_source(tmp_path).rows()] == ["ship", "train"]


def put_in_place(path, data):
    """Other bytes under the same name, size and time."""
    status = path.stat()
    assert len(data) == status.st_size
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_folders_digest_follows_names_bytes_and_the_limit_and_no_time(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    first = open_source(tmp_path).digest()
    shutil.copytree(tmp_path, tmp_path / "copy/p", copy_function=shutil.copyfile)
    assert open_source(tmp_path / "copy/p").digest() == first
    shutil.rmtree(tmp_path / "copy")
    assert open_source(tmp_path, limit=1).digest() != first
    data = (tmp_path / "a/1.png").read_bytes()
    put_in_place(tmp_path / "a/1.png", data[:-1] + bytes([data[-1] ^ 1]))
    assert open_source(tmp_path).digest() != first
    put_in_place(tmp_path / "a/1.png", data)
    assert open_source(tmp_path).digest() == first
    (tmp_path / "a/1.png").rename(tmp_path / "a/3.png")
    assert open_source(tmp_path).digest() != first


# tables


def test_a_hugging_face_table_is_understood_without_options(tmp_path):
    source = open_source(parquet(tmp_path / "t.parquet"))
    rows = list(source.rows())
    assert [red(row) for row in rows] == [0, 1, 2, 3, 4]
    assert [row.id for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row.label for row in rows] == [0, 1, 0, 1, 0]
    assert source.label_names == ["cat", "dog"]
    assert source.describe() == {
        "kind": "parquet",
        "name": "t.parquet",
        "rows": 5,
        "columns": {"sample": "image", "label": "label", "id": None},
        "limit": None,
    }


@pytest.mark.parametrize("kind", ["parquet", "shards", "arrow", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("limit", [None, 1, 70, 99])
def test_every_start_gives_the_tail_of_the_same_rows(tmp_path, kind, limit):
    """Batches hold 32 rows: 75 rows in row groups, batches and shards that do not divide."""
    rows = 75
    fill(tmp_path, *(f"{row}.png" for row in range(rows)))
    if kind == "parquet":
        path = parquet(tmp_path / "t.parquet", rows, row_group_size=40)
    elif kind == "shards":
        path = tmp_path / "shards"
        path.mkdir()
        for shard, (start, stop) in enumerate([(0, 33), (33, 34), (34, 75)]):
            pq.write_table(table(rows).slice(start, stop - start), path / f"{shard}.parquet", row_group_size=7)
    elif kind == "arrow":
        path = tmp_path / "saved"
        path.mkdir()
        for shard, (start, stop) in enumerate([(0, 50), (50, 75)]):
            stream(path / f"data-{shard}.arrow", table(rows).slice(start, stop - start), batch=35)
        (path / "state.json").write_text(
            json.dumps({"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}]})
        )
    else:
        path = tmp_path / f"t.{kind}"
        with open(path, "w", newline="") as file:
            if kind == "jsonl":
                file.writelines(json.dumps({"image": f"{row}.png", "label": row % 2}) + "\n\n" for row in range(rows))
            else:
                writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
                writer.writerows([("image", "label"), *((f"{row}.png", row % 2) for row in range(rows))])
    source = open_source(path, limit=limit)
    expected = list(source.rows())
    assert len(source) == len(expected) == min(limit or rows, rows)
    assert [red(row) for row in expected] == list(range(len(source)))
    assert [int(row.label) for row in expected] == [row % 2 for row in range(len(source))]
    for start in [0, 1, 31, 32, 33, 34, 40, 50, 69, 70, 74, 75, 80]:
        assert list(source.rows(start)) == expected[start:]
    assert len({open_source(path, limit=limit).digest(), source.digest()}) == 1
    assert (source.digest() == open_source(path).digest()) == (limit is None)


def test_columns_are_found_by_type_then_by_name(tmp_path):
    picture = [png(1)]
    cases = [
        ({"a": picture, "target": ["x"]}, ("a", "target")),  # bytes
        ({"a": [{"bytes": png(1)}], "class": [1]}, ("a", "class")),
        ({"mask": picture, "image": picture, "labels": [2.5]}, ("image", "labels")),
        ({"file": ["1.png"], "n": [1]}, ("file", None)),
        ({"text": ["x"], "img": picture, "label": [[1, 2]]}, ("img", "label")),
    ]
    for number, (columns, expected) in enumerate(cases):
        path = parquet(tmp_path / f"{number}.parquet", features=None, **{"image": None, "label": None, **columns})
        chosen = open_source(path).describe()["columns"]
        assert (chosen["sample"], chosen["label"]) == expected


def test_metadata_goes_before_names(tmp_path):
    features = {"photo": {"_type": "Image"}, "kind": FEATURES["label"], "image": {"_type": "Audio"}}
    sounds = [{"bytes": b"RIFF", "path": None}] * 5
    columns = {"photo": [png(9)] * 5, "kind": [1, None, -1, 0, 0], "label": ["u"] * 5, "image": sounds}
    source = open_source(parquet(tmp_path / "t.parquet", features=features, **columns))
    assert source.describe()["columns"] == {"sample": "photo", "label": "kind", "id": None}
    assert [row.label for row in source.rows()] == [1, None, None, 0, 0]
    source = open_source(tmp_path / "t.parquet", label_column="label")
    assert source.label_names is None
    assert next(source.rows()).label == "u"
    assert next(open_source(tmp_path / "t.parquet", label_column="").rows()).label is None


def test_lists_of_class_labels_keep_their_names(tmp_path):
    features = {"image": FEATURES["image"], "label": {"_type": "List", "feature": FEATURES["label"]}}
    source = open_source(parquet(tmp_path / "t.parquet", 2, features=features, label=[[0, 1], []]))
    assert source.label_names == ["cat", "dog"]
    assert [row.label for row in source.rows()] == [[0, 1], []]


def test_ambiguous_columns_are_asked_for(tmp_path):
    path = parquet(tmp_path / "a.parquet", features=None, image=None, left=[png()] * 5, right=[png()] * 5)
    with pytest.raises(SourceError, match=r"several sample columns, \['left', 'right'\]"):
        open_source(path)
    assert open_source(path, sample_column="right").describe()["columns"]["sample"] == "right"
    features = dict.fromkeys(("coarse", "fine"), FEATURES["label"])
    path = parquet(tmp_path / "b.parquet", features=features, label=None, coarse=[0] * 5, fine=[1] * 5)
    with pytest.raises(SourceError, match=r"several label columns, \['coarse', 'fine'\]"):
        open_source(path)
    assert next(open_source(path, label_column="fine").rows()).label == 1


@pytest.mark.parametrize("option", ["sample_column", "label_column", "id_column"])
def test_a_wrong_column_name_lists_the_columns(tmp_path, option):
    path = parquet(tmp_path / "t.parquet", key=["k"] * 5)
    with pytest.raises(
        SourceError, match=r"no column 'nope'; its columns: image \(struct.*label \(int64\), key \(string"
    ):
        open_source(path, **{option: "nope"})


@pytest.mark.parametrize(
    ("ids", "reasons"),
    [
        (["a", "b", "c", "b", "e"], {3: "its id 'b' is in row 1 too; ids are unique"}),
        (["a", "b", None, "d", "e"], {2: "its id is None; an id is a text"}),
        (["a", "", "c", "d", ""], {1: "its id is ''", 4: "its id is ''"}),
        ([1, 2, 3, 4, 4], {4: "its id '4' is in row 3 too"}),
    ],
)
def test_a_row_without_an_id_of_its_own_costs_itself(tmp_path, ids, reasons):
    rows = list(open_source(parquet(tmp_path / "t.parquet", key=ids), id_column="key").rows())
    assert [row.id for row in rows] == [f"row {n}" if n in reasons else str(given) for n, given in enumerate(ids)]
    for number, row in enumerate(rows):
        if number not in reasons:
            assert red(row) == number
            continue
        with pytest.raises(SampleError) as caught:
            load_image(row.sample)
        assert reasons[number] in str(caught.value)


def test_a_column_without_any_id_is_refused(tmp_path):
    path = parquet(tmp_path / "t.parquet", key=[0.5, 1.5, 2.5, 3.5, 4.5])
    with pytest.raises(SourceError, match=r"'key' holds no ids; row 0: its id is 0\.5"):
        open_source(path, id_column="key")


def test_ids_are_read_from_their_column(tmp_path):
    path = parquet(tmp_path / "t.parquet", key=["x", "y", "z", "x", None], number=[7, 8, 9, 10, 11])
    assert [row.id for row in open_source(path, id_column="key", limit=3).rows(1)] == ["y", "z"]
    assert [row.id for row in open_source(path, id_column="number").rows()] == ["7", "8", "9", "10", "11"]


def test_a_label_outside_the_classes_costs_its_row(tmp_path):
    rows = list(open_source(parquet(tmp_path / "t.parquet", label=[0, 1, 2, -2, 0])).rows())
    assert [row.label for row in rows] == [0, 1, None, None, 0]
    for row, label in ((rows[2], 2), (rows[3], -2)):
        with pytest.raises(SampleError, match=f"label {label} is not the number of one of 2 classes"):
            load_image(row.sample)


def test_labels_of_other_types_are_refused(tmp_path):
    path = parquet(tmp_path / "t.parquet", features=None, label=[{"a": 1}] * 5)
    with pytest.raises(SourceError, match="'label' is struct"):
        open_source(path)
    assert next(open_source(path, label_column="").rows()).label is None


def test_missing_labels_are_none(tmp_path):
    path = parquet(tmp_path / "t.parquet", features=None, label=[0.5, float("nan"), None, 1.0, 2.0])
    assert [row.label for row in open_source(path).rows()] == [0.5, None, None, 1.0, 2.0]
    (tmp_path / "t.csv").write_text("image,label\na.png,x\nb.png,\n")
    assert [row.label for row in open_source(tmp_path / "t.csv").rows()] == ["x", None]


def test_paths_are_relative_to_the_table(tmp_path, monkeypatch):
    fill(tmp_path, "in/images/0.png", "in/images/1.png", "2.png")
    (tmp_path / "in/t.csv").write_text(f"file,label\nimages/1.png,a\n../2.png,b\n{tmp_path}/2.png,c\n")
    monkeypatch.chdir(tmp_path / "in/images")
    assert [red(row) for row in open_source(tmp_path / "in/t.csv").rows()] == [1, 2, 2]
    structs = [{"bytes": None, "path": "images/1.png"}, {"bytes": png(5), "path": "/etc/passwd"}]
    source = open_source(parquet(tmp_path / "in/t.parquet", 2, image=structs))
    assert [red(row) for row in source.rows()] == [1, 5]


@pytest.mark.parametrize("path", ["../2.png", "/etc/passwd", "images/../../2.png", "link/2.png"])
def test_a_structs_path_may_not_lead_out_of_the_tables_folder(tmp_path, path):
    fill(tmp_path, "2.png", "in/1.png")
    (tmp_path / "in/link").symlink_to(tmp_path)
    structs = [{"bytes": None, "path": path}, {"bytes": None, "path": "1.png"}]
    rows = list(open_source(parquet(tmp_path / "in/t.parquet", 2, image=structs)).rows())
    with pytest.raises(SampleError, match=rf"the path '{path}' leads out"):
        load_image(rows[0].sample)
    assert red(rows[1]) == 1


def test_a_missing_image_costs_its_own_row_only(tmp_path):
    structs = [None, {"bytes": None, "path": None}, {"bytes": b"broken", "path": None}, {"bytes": png(3), "path": None}]
    rows = list(open_source(parquet(tmp_path / "t.parquet", 4, image=structs)).rows())
    for row in rows[:3]:
        with pytest.raises(SampleError):
            load_image(row.sample)
    assert red(rows[3]) == 3


def test_a_tables_digest_follows_content_columns_and_named_files(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    first = open_source(path).digest()
    assert open_source(parquet(tmp_path / "copy.parquet")).digest() == first
    assert open_source(path, label_column="").digest() != first
    assert open_source(parquet(tmp_path / "other.parquet", label=[1] * 5)).digest() != first
    fill(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text("image\n1.png\n")
    before = open_source(tmp_path / "t.csv").digest()
    (tmp_path / "1.png").write_bytes(png(3) + b"0")
    assert open_source(tmp_path / "t.csv").digest() != before


def test_shards_of_one_split_are_read_in_order(tmp_path):
    for name, start in (("train-00001-of-00002", 3), ("train-00000-of-00002", 0), ("test-00000-of-00001", 9)):
        structs = [{"bytes": png(start + row), "path": None} for row in range(3)]
        parquet(tmp_path / f"data/{name}.parquet", 3, image=structs)
    with pytest.raises(SourceError, match=r"several splits, \['test', 'train'\]"):
        open_source(tmp_path)
    assert [red(row) for row in open_source(tmp_path, split="train").rows()] == [0, 1, 2, 3, 4, 5]
    assert [red(row) for row in open_source(tmp_path, split="test").rows()] == [9, 10, 11]
    with pytest.raises(SourceError, match="no split 'val'"):
        open_source(tmp_path, split="val")


@pytest.mark.parametrize("columns", [{"label": ["x"] * 5}, {"label": None}, {"features": {"label": {}}}])
def test_shards_of_different_tables_are_refused(tmp_path, columns):
    parquet(tmp_path / "0.parquet")
    parquet(tmp_path / "1.parquet", **columns)
    with pytest.raises(SourceError, match=r"1\.parquet' has columns"):
        open_source(tmp_path)


def test_a_saved_dataset_dict_asks_for_its_split(tmp_path):
    for split, rows in (("train", 4), ("test", 2)):
        folder = tmp_path / split
        folder.mkdir()
        stream(folder / "data-00000-of-00001.arrow", table(rows))
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(SourceError, match=r"splits \['train', 'test'\], not None"):
        open_source(tmp_path)
    source = open_source(tmp_path, split="test")
    assert (len(source), source.label_names) == (2, ["cat", "dog"])
    assert source.describe()["kind"] == "arrow"
    with pytest.raises(SourceError, match="not 'val'"):
        open_source(tmp_path, split="val")


def test_a_saved_dataset_cannot_name_files_elsewhere(tmp_path):
    stream(tmp_path / "outside.arrow", table())
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/state.json").write_text(json.dumps({"_data_files": [{"filename": "../outside.arrow"}]}))
    with pytest.raises(SourceError, match="expected files in its folder"):
        open_source(tmp_path / "saved")


def test_a_cell_of_a_stream_whose_offsets_point_outside_is_not_read(tmp_path):
    stream(tmp_path / "t.arrow", pa.table({"image": [b"abc", b"def"]}))
    sound, wild = (np.array([0, 3, end], dtype=np.int32).tobytes() for end in (6, 1 << 20))
    data = (tmp_path / "t.arrow").read_bytes()
    assert data.count(sound) == 1
    (tmp_path / "t.arrow").write_bytes(data.replace(sound, wild))
    first, second = open_source(tmp_path / "t.arrow").rows()
    assert first.sample == b"abc"
    with pytest.raises(SampleError, match="column 'image' is damaged"):
        load_image(second.sample)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"PAR1 not really", "cannot be read as Parquet"),
        ("t.arrow", b"", "cannot be read as an Arrow stream"),
        ("t.arrow", b"\xff\xff\xff\xff\x08\0\0\0junkjunk", "cannot be read as an Arrow stream"),
        ("t.csv", b"", "no rows"),
        ("t.csv", b"image,label\n", "no rows"),
        ("t.csv", b"image,label\na.png\n", "line 2: 1 values; the first line has 2"),
        ("t.csv", b"image,image\na,b\n", "column name twice"),
        ("t.csv", b"im\xffge\na.png\n", "cannot be read as CSV: the name of a column is not Unicode text"),
        ("t.csv", "image,label\na.png,x\n".encode("utf-16"), "its encoding is UTF-16 .* -f utf-16 -t utf-8"),
        ("t.csv", b"question;image\na;b, c\n", "one column, 'question;image', .* write it with commas"),
        ("t.tsv", b"question|image\na|b\n", r"seem to be separated by '\|': write it with commas"),
        ("t.csv", b"question\timage\na\tb\n", "give it a name that ends in .tsv"),
        ("t.csv", b"x,y\n1,2\n", "no column of images; choose one .* x .string., y"),
        ("t.jsonl", b"", "no rows"),
        ("t.jsonl", b'{"image": \n{"image": \n', "line 1, column 12: Expecting value"),
        ("t.jsonl", b"[" * 100_000, "line 1"),
        ("t.xyz", b"", "not a table that sporeprint reads; known are .parquet"),
        ("t.png", b"", "give the folder it is in"),
        ("saved/state.json", b"{}", "cannot be read"),
        ("saved/state.json", b'{"_data_files": []}', "expected files in its folder"),
        ("saved/state.json", b'{"_data_files": [{"filename": "gone.arrow"}]}', "cannot be read as an Arrow stream"),
        ("saved/dataset_dict.json", b'{"splits": 3}', "expected names"),
        ("saved/notes.txt", b"", "holds no image"),
    ],
)
def test_what_is_no_source_is_refused_with_advice(tmp_path, name, content, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(path if path.parent == tmp_path else path.parent)


def test_misuse_is_refused(tmp_path):
    path = parquet(tmp_path / "t.parquet")
    fill(tmp_path / "images", "1.png")
    cases = [
        (tmp_path / "gone", {}, "there is no"),
        (path, {"split": "train"}, "is one file"),
        (path, {"limit": 0}, "limit is 0"),
        (tmp_path / "images", {"limit": -1}, "limit is -1"),
        (tmp_path / "images", {"id_column": "x"}, "leave out id_column"),
    ]
    for where, options, message in cases:
        with pytest.raises(SourceError, match=message):
            open_source(where, **options)
    parquet(tmp_path / "empty.parquet", 0, image=pa.array([], pa.binary()), label=None)
    with pytest.raises(SourceError, match="no rows"):
        open_source(tmp_path / "empty.parquet")
    broken = table().replace_schema_metadata({"huggingface": "{"})
    pq.write_table(broken, tmp_path / "odd.parquet")
    with pytest.raises(SourceError, match="metadata cannot be read"):
        open_source(tmp_path / "odd.parquet")


def test_a_table_damaged_in_its_data_costs_its_rows(tmp_path):
    path = parquet(tmp_path / "t.parquet", 40, row_group_size=40)
    data = bytearray(path.read_bytes())
    data[4:600] = bytes(596)  # page headers and pages; the footer stays whole
    path.write_bytes(data)
    rows = list(open_source(path).rows())
    assert [row.id for row in rows] == [str(number) for number in range(40)]
    for row in rows:
        with pytest.raises(SampleError, match="row group 0 is damaged"):
            load_image(row.sample)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", None, "b", 1], "row 3 has 1, a number; row 0 has 'a', a text"),
        ([None, 1, 2.5, True], "row 3 has True, true or false; row 1 has 1, a number"),
        ([["a"], [], "a"], "row 2 has 'a', a text; row 0 has ['a'], a list"),
        ([[], [None, "a"], ["b", 2]], "row 2 has ['b', 2], a number inside; row 1 has [None, 'a'], a text inside"),
    ],
)
def test_labels_of_several_kinds_are_refused_on_opening_with_the_first_such_row(tmp_path, labels, message):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"image": "a.png", "label": label}) + "\n" for label in labels))
    for attempt in (lambda: open_source(path), lambda: ListSource(["x"] * len(labels), labels=labels)):
        with pytest.raises(SourceError, match="label") as caught:
            attempt()
        assert f": {message}; the labels of a store are of one kind" in str(caught.value)
    most = len(labels) - 1
    assert [row.label for row in open_source(path, limit=most).rows()] == labels[:most]
    assert [row.label for row in ListSource(["x"] * most, labels=labels[:most]).rows()] == labels[:most]


# lists


def test_a_list_gives_its_samples_in_order():
    source = ListSource([png(1), png(2), png(3)], labels=np.array([5, 6, 7]))
    assert list(source.rows(1)) == [Row("", png(2), 6), Row("", png(3), 7)]
    assert [row.id for row in ListSource(["x", "y"], ids=["a", "b"]).rows()] == ["a", "b"]
    assert source.describe()["rows"] == len(source) == 3


def test_every_digest_follows_the_bytes_of_files_and_knows_how_earlier_versions_took_it(tmp_path):
    fill(tmp_path, "p/1.png", "p/2.png")
    (tmp_path / "t.csv").write_text("image\np/1.png\np/2.png\n")

    def sources():
        folder = open_source(tmp_path / "p")
        return [folder, Sampled(folder, 2), open_source(tmp_path / "t.csv"), ListSource([tmp_path / "p/1.png"])]

    first, earlier = ([getattr(each, name)() for each in sources()] for name in ("digest", "earlier_digest"))
    data = (tmp_path / "p/1.png").read_bytes()
    put_in_place(tmp_path / "p/1.png", data[:-1] + bytes([data[-1] ^ 1]))
    assert not {each.digest() for each in sources()} & {*first, *earlier}
    assert [each.earlier_digest() for each in sources()] == earlier
    assert [digest_like(each, recorded) for each, recorded in zip(sources(), earlier, strict=True)] == earlier
    now = [each.digest() for each in sources()]
    for recorded in (None, "", "another"):
        assert [digest_like(each, recorded) for each in sources()] == now
    os.utime(tmp_path / "p/1.png", ns=(1, 1))
    assert [digest_like(each, recorded) for each, recorded in zip(sources(), earlier, strict=True)] == now


def test_what_is_no_file_is_not_opened_for_a_digest(tmp_path):
    fill(tmp_path, "p/1.png", "p/2.png")
    first = open_source(tmp_path / "p").digest()
    (tmp_path / "p/1.png").unlink()
    os.mkfifo(tmp_path / "p/1.png")
    assert open_source(tmp_path / "p").digest() != first


def test_a_lists_parts_must_match():
    with pytest.raises(SourceError, match="2 samples and 1 ids"):
        ListSource(["x", "y"], ids=["a"])
    with pytest.raises(SourceError, match="2 samples and 3 labels"):
        ListSource(["x", "y"], labels=[1, 2, 3])
    with pytest.raises(SourceError, match="'a' is in rows 0 and 1"):
        ListSource(["x", "y"], ids=["a", "a"])
    with pytest.raises(SourceError, match="at least one"):
        ListSource([])


def test_a_lists_digest_follows_everything_in_it(tmp_path):
    fill(tmp_path, "1.png")
    os.utime(tmp_path / "1.png", ns=(1, 1))
    array, image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), Image.new("RGB", (2, 2), "red")
    same = [png(1), tmp_path / "1.png", array, image, {"bytes": png(2), "path": None}]
    digests = {ListSource(list(same)).digest() for _ in range(2)}
    assert len(digests) == 1
    changes = [png(3), tmp_path / "2.png", array.reshape(2, 6), Image.new("RGB", (2, 2), "blue"), {"bytes": png(3)}]
    for number, change in enumerate(changes):
        digests.add(ListSource([*same[:number], change, *same[number + 1 :]]).digest())
    digests.add(ListSource(same, labels=[1] * 5).digest())
    digests.add(ListSource(same, ids=list("abcde")).digest())
    digests.add(ListSource([*same, None]).digest())
    digests.add(ListSource(same[::-1]).digest())
    assert len(digests) == 10
    with pytest.raises(SourceError, match="has no digest"):
        ListSource([object()]).digest()


def test_sources_stores_search_and_evaluation_are_imported_without_torch():
    modules = (
        "sporeprint.data.sources, sporeprint.store.writer, sporeprint.search.exact, sporeprint.evaluate.knn_accuracy"
    )
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# real data


@pytest.mark.real
@pytest.mark.parametrize(("name", "count", "classes"), [("flowers102", 890, 89), ("cifar10", 5000, 10)])
def test_real_tables_are_understood(name, count, classes):
    source = open_source(SHARED / f"data/{name}/train.parquet")
    assert isinstance(source, TableSource)
    assert (len(source), len(source.label_names)) == (count, classes)
    rows = list(source.rows())
    assert {row.label for row in rows} == set(range(classes))
    assert [row.id for row in rows] == [str(row) for row in range(count)]
    assert [row.label for row in source.rows(count - 7)] == [row.label for row in rows[-7:]]
    assert all(min(load_image(row.sample).size) >= 32 for row in rows[::50])


@pytest.mark.real
def test_a_real_folder_of_two_splits_asks_which():
    with pytest.raises(SourceError, match="several splits"):
        open_source(SHARED / "data/flowers102")
    assert len(open_source(SHARED / "data/flowers102", split="test")) == 890
    assert not isinstance(open_source(SHARED / "data/flowers102", split="test"), FolderSource)
