import json
import os
import random
from hashlib import sha256
from pathlib import PurePosixPath

import numpy as np
import pytest

from small_edits import edit, random_edit
from sporeprint.errors import StoreError
from sporeprint.run.output_folder import (
    KIND,
    LOG,
    MaskLog,
    SegmentFolder,
    is_of_propagate,
    mask_name,
    refuse_foreign,
)


@pytest.mark.parametrize(
    ("row_id", "name"),
    [
        ("a", "a.png"),
        ("sub/a.b", "sub/a.b.png"),
        ("été", "été.png"),
        ("..", "%2E%2E.png"),
        ("../../etc/x", "%2E%2E/%2E%2E/etc/x.png"),
        ("/etc/x", "%/etc/x.png"),
        ("C:\\x", "C%3A%5Cx.png"),
        ("a%2E", "a%252E.png"),
        ("a\0b", "a%00b.png"),
        ("", "%.png"),
    ],
)
def test_an_id_never_leads_out_of_its_folder(row_id, name):
    assert mask_name(row_id) == name
    assert not PurePosixPath(name).is_absolute()
    assert ".." not in PurePosixPath(name).parts


@pytest.mark.parametrize("image_id", ["../../up", "/etc/passwd", "a/../b", "..", "", "a" * 300, "C:\\x", "ü/ö"])
def test_masks_stay_in_their_folder(image_id, tmp_path):
    path = (tmp_path / "masks" / mask_name(image_id)).resolve()
    assert tmp_path / "masks" in path.parents
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_no_two_ids_share_a_mask():
    ids = ["a/b", "a%2Fb", "a//b", "a/./b", "a/../b", "a", "a.png", "a" * 300, "a" * 301, "..", "%2E%2E", ".", "%"]
    assert len({mask_name(name) for name in ids}) == len(ids)


@pytest.mark.parametrize("letter", ["a", "é", "日", "%", "a/", "\udce9"])
def test_ids_too_long_for_a_name_are_cut_and_stay_apart(tmp_path, letter):
    ends = ["", "x", "y", "/x", "/y"]
    names = {mask_name(letter * 3000 + end) for end in ends}
    assert len(names) == len(ends)
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".tmp").touch()
        assert ".." not in PurePosixPath(name).parts
    assert mask_name("é" * 75) == "é" * 75 + ".png"


@pytest.mark.parametrize("name", ["result.json", "sheet.png", "classes.txt", "masks"])
def test_a_folder_of_something_else_is_refused(tmp_path, name):
    refuse_foreign(tmp_path / "new", LOG, is_of_propagate)
    (tmp_path / ".lock").touch()
    refuse_foreign(tmp_path, LOG, is_of_propagate)
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=f"holds {name}, but no propagation.jsonl: .*another --out"):
        refuse_foreign(tmp_path, LOG, is_of_propagate)
    (tmp_path / LOG).touch()
    refuse_foreign(tmp_path, LOG, is_of_propagate)


def test_what_other_settings_wrote_is_removed_but_not_what_was_corrected(tmp_path):
    old = MaskLog(tmp_path, "one")
    for name in "abc":
        old.write({"id": name}, {f"masks/{name}.png": b"old", f"confidence/sub/{name}.png": b"old"})
    assert old.remove_stale() == 0
    (tmp_path / "masks/b.png").write_bytes(b"corrected")
    (tmp_path / "masks/mine.png").write_bytes(b"mine")
    new = MaskLog(tmp_path, "two")
    new.write({"id": "a"}, {"masks/a.png": b"new"})
    assert new.remove_stale() == 4
    assert not (tmp_path / "confidence").exists()
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.png", "b.png", "mine.png"]
    assert MaskLog(tmp_path, "two").remove_stale() == 0


def test_files_of_the_same_settings_stay_where_fewer_are_asked_for(tmp_path):
    MaskLog(tmp_path, "one").write({"id": "a"}, {"masks/a.png": b"x", "confidence/a.png": b"y"})
    log = MaskLog(tmp_path, "one")
    log.write({"id": "a"}, {"masks/a.png": b"x"})
    assert log.remove_stale() == 0
    assert (tmp_path / "confidence/a.png").read_bytes() == b"y"


@pytest.mark.parametrize("name", ["outside.txt", "masks/../outside.txt", "../out/outside.txt"])
def test_a_log_from_elsewhere_removes_nothing_else(tmp_path, name):
    folder = tmp_path / "out"
    (folder / "masks").mkdir(parents=True)
    (folder / "outside.txt").write_bytes(b"kept")
    line = {"id": "a", "fingerprint": "zero", "files": {name: sha256(b"kept").hexdigest()}}
    (folder / LOG).write_text(json.dumps(line) + "\n")
    assert MaskLog(folder, "one").remove_stale() == 0
    assert (folder / "outside.txt").exists()


def written(folder, fingerprint="one"):
    log = MaskLog(folder, fingerprint)
    log.write({"id": "a", "confidence": 0.5}, {"masks/a.png": b"first"})
    return log


def test_what_was_written_is_known_again(tmp_path):
    written(tmp_path)
    again = MaskLog(tmp_path, "one")
    assert again.record("a", ["masks/a.png"]) == {"id": "a", "confidence": 0.5}
    assert again.record("b", ["masks/b.png"]) is None
    assert again.record("a", ["masks/a.png", "confidence/a.png"]) is None
    assert MaskLog(tmp_path, "two").record("a", ["masks/a.png"]) is None


def test_a_file_that_was_removed_is_made_again(tmp_path):
    written(tmp_path)
    (tmp_path / "masks" / "a.png").unlink()
    again = MaskLog(tmp_path, "one")
    again.refuse_changed(["masks/a.png"])
    assert again.record("a", ["masks/a.png"]) is None


def test_other_settings_replace_what_was_written_and_take_it_back(tmp_path):
    written(tmp_path)
    other = MaskLog(tmp_path, "two")
    other.refuse_changed(["masks/a.png"])
    other.write({"id": "a"}, {"masks/a.png": b"second"})
    assert MaskLog(tmp_path, "two").record("a", ["masks/a.png"]) == {"id": "a"}
    assert MaskLog(tmp_path, "one").record("a", ["masks/a.png"]) is None
    MaskLog(tmp_path, "one").refuse_changed(["masks/a.png"])


def test_a_file_that_was_corrected_by_hand_is_not_replaced(tmp_path):
    written(tmp_path)
    (tmp_path / "masks" / "a.png").write_bytes(b"corrected")
    with pytest.raises(StoreError, match=r"masks/a.png' is not as sporeprint wrote it.*another --out"):
        MaskLog(tmp_path, "one").refuse_changed(["masks/a.png"])


def test_files_of_others_are_not_replaced(tmp_path):
    (tmp_path / "masks").mkdir()
    for name in "ab":
        (tmp_path / "masks" / f"{name}.png").write_bytes(b"truth")
    with pytest.raises(StoreError, match="and 1 more files are not as sporeprint wrote"):
        MaskLog(tmp_path, "one").refuse_changed(["masks/a.png", "masks/b.png", "masks/c.png"])


def test_a_run_that_was_stopped_between_the_log_and_the_file(tmp_path):
    written(tmp_path)
    (tmp_path / "masks" / "a.png").write_bytes(b"older")
    (tmp_path / LOG).write_text(
        json.dumps({"id": "a", "fingerprint": "zero", "files": {"masks/a.png": sha256(b"older").hexdigest()}})
        + "\n"
        + (tmp_path / LOG).read_text()
    )
    again = MaskLog(tmp_path, "one")
    again.refuse_changed(["masks/a.png"])
    assert again.record("a", ["masks/a.png"]) is None


def test_a_torn_line_costs_its_own_image_only(tmp_path):
    written(tmp_path)
    with open(tmp_path / LOG, "a") as log:
        log.write('{"id": "b", "fing')
    again = MaskLog(tmp_path, "one")
    again.write({"id": "c"}, {"masks/sub/c.png": b"third"})
    last = MaskLog(tmp_path, "one")
    assert last.record("a", ["masks/a.png"])
    assert last.record("c", ["masks/sub/c.png"])
    assert last.record("b", ["masks/b.png"]) is None


LINES = {
    "deep": "[" * 200_000 + "]" * 200_000,
    "a list": "[]",
    "a NUL": '{"files":{"masks/a\\u0000b":"DIGEST"},"fingerprint":"y","id":"a"}',
    "half a character": '{"files":{"masks/\\ud800":"DIGEST"},"fingerprint":"y","id":"a"}',
    "files that are a list": '{"files":["masks/a"],"fingerprint":"y","id":"a"}',
    "a digest that is a number": '{"files":{"masks/a.png":7},"fingerprint":"x","id":"a"}',
    "an id that is a list": '{"files":{},"fingerprint":"x","id":["a"]}',
    "no fingerprint": '{"files":{"masks/a.png":"DIGEST"},"id":"a"}',
    "the folder itself": '{"files":{"masks":"DIGEST"},"fingerprint":"y","id":"a"}',
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_nobody_wrote_is_no_record_and_removes_nothing_else(tmp_path, name):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(b"a")
    (tmp_path / "secret.png").write_bytes(b"a")
    digest = sha256(b"a").hexdigest()
    (tmp_path / LOG).write_text(LINES[name].replace("DIGEST", digest) + "\n")
    log = MaskLog(tmp_path, "x")
    assert log.record("a", ["masks/a.png"]) is None
    assert log.remove_stale() == 0
    assert (tmp_path / "masks/a.png").exists()


RUN = {
    "fraction": "1",
    "seed": 0,
    "training_images": 8,
    "test_images": 5,
    "test_images_in_training": 0,
    "failures": [{"id": "a", "reason": "cut", "where": "TEST"}],
    "kinds": {
        "embedding": {
            "passes": "1",
            "width": 4,
            "patches": 9,
            "chosen": {"neighbours": 5, "temperature": 0.02, "score": None, "pixels": 0},
            "result": {
                "value": 0.5,
                "spread": None,
                "settings": {},
                "iou": [0.5, None],
                "names": ["x", "y"],
                "accuracy": 0.5,
                "mean_class_accuracy": 0.5,
                "images": 5,
                "pixels": 9,
                "confusion": [[1, 2], [3, 3]],
                "values": [],
            },
            "gain": {"value": 0.1, "low": 0, "high": 0.2, "level": 0.95, "difference": True},
            "by_gradients": None,
        }
    },
}


def test_a_result_edited_by_hand_is_the_same_or_refused(tmp_path):
    with SegmentFolder(tmp_path, {"a": 1}) as folder:
        folder.add("1, 0", RUN)
    whole, draw, refused = (tmp_path / "result.json").read_bytes(), random.Random(5), 0
    for _ in range(300):
        (tmp_path / "result.json").write_bytes(whole)
        try:
            edit(tmp_path / "result.json", KIND, lambda stored: random_edit(stored, draw))
            with SegmentFolder(tmp_path, {"a": 1}) as folder:
                for run in folder.runs.values():
                    assert {*RUN} - {"test_images_in_training"} <= {*run}
                    for kind in run["kinds"].values():
                        assert f"{kind['chosen']['temperature']:g} {kind['width']:,}"
                        assert "result" not in kind or np.array(kind["result"]["confusion"], np.int64).ndim == 2
        except StoreError:
            refused += 1
    assert 150 < refused < 300


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    (tmp_path / "masks").mkdir()
    os.mkfifo(tmp_path / "masks/a.png")
    with pytest.raises(StoreError, match="it is no file"):
        MaskLog(tmp_path, "x").refuse_changed(["masks/a.png"])
    os.mkfifo(tmp_path / "result.json")
    with pytest.raises(StoreError, match="it is no file"), SegmentFolder(tmp_path, {"a": 1}):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_pipe_in_the_place_of_the_log_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / LOG)
    with pytest.raises(StoreError, match="it is no file"):
        MaskLog(tmp_path, "x")
