"""What `sporeprint segment` must not overwrite, count or pass over in silence."""

import json

import numpy as np
import pytest
from PIL import Image

from small_streets import streets
from sporeprint.errors import StoreError
from sporeprint.report.palette import palette, write_mask

SMALL = ("--backbone", "tiny", "--size", "16x24", "--bank", "200", "--neighbours", "5", "--sheet", "0")
ONE = ("--features", "embedding")


@pytest.fixture
def segment(run, tmp_path):
    """Run the command on train/ and test/ in tmp_path; gives (exit status, stdout, stderr)."""
    streets(tmp_path / "train", 6)
    streets(tmp_path / "test", 3, first=50)

    def segment(*words, train="train", test="test", out="out"):
        return run("segment", tmp_path / train, tmp_path / test, "--out", tmp_path / out, *SMALL, *words)

    return segment


@pytest.mark.parametrize("name", ["masks/embedding/s50.png", "banks/mine", "sheet.png"])
def test_what_no_run_wrote_is_not_overwritten(segment, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"drawn by hand")
    status, _, err = segment(*ONE, "--masks", "--sheet", "2", "--keep-bank")
    assert status == 1
    assert f"it holds '{name.split('/')[0]}', and no result.json" in err
    assert path.read_bytes() == b"drawn by hand"


def test_leftovers_of_a_killed_run_are_taken_over(segment, tmp_path):
    (tmp_path / "out" / ".banks" / "1-1-seed-0").mkdir(parents=True)
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / "result.json.tmp").write_bytes(b"half")
    assert segment(*ONE)[0] == 0


def test_a_lock_that_cannot_be_opened_is_told_of(segment, tmp_path):
    (tmp_path / "out" / ".lock").mkdir(parents=True)
    status, _, err = segment(*ONE)
    assert status == 1
    assert "mend the permissions, or give another folder" in err


def test_a_file_in_the_place_of_the_masks_is_told_of_before_the_work(segment, tmp_path):
    assert segment(*ONE)[0] == 0
    (tmp_path / "out" / "masks").write_bytes(b"")
    status, _, err = segment(*ONE, "--seeds", "2", "--masks")
    assert status == 1
    assert "expected a folder: move it away" in err
    assert "fitting" not in err


def test_a_mask_whose_folder_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "masks").write_bytes(b"")
    with pytest.raises(StoreError, match="move away what is in its place"):
        write_mask(tmp_path / "masks" / "a" / "b.png", np.zeros((2, 2), int), palette(2))
    write_mask(tmp_path / "new" / "a" / "b.png", np.ones((2, 2), int), palette(2))
    assert np.asarray(Image.open(tmp_path / "new" / "a" / "b.png")).tolist() == [[1, 1], [1, 1]]
