"""A bank edited by hand, with right checksums, is refused by name."""

import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_edits import edit, random_edit
from sporeprint.errors import DamagedStore, SporeprintError, StoreError
from sporeprint.segment.bank import KIND, BankWriter, MemoryBank
from sporeprint.store.atomic import record_of


@pytest.fixture
def folder(tmp_path):
    with BankWriter(tmp_path / "bank", 4, 3, 9, names=["sky", "road", "tree"], settings={"layer": 11}) as writer:
        for image in "ab":
            writer.add(np.eye(4)[:3], np.eye(3), image, np.zeros((3, 2), int))
    return tmp_path / "bank"


def contents(bank):
    return bank.features.tolist(), bank.histograms.tolist(), bank.names, bank.patches().to_pylist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patches": 10**15}, "header differs"),
        ({"patches": 5}, "header differs"),
        ({"patches": True}, "patches is True"),
        ({"patches": 6.0}, "patches is 6.0"),
        ({"patches": -6}, "patches is -6"),
        ({"width": 0}, "width is 0"),
        ({"classes": 10**9}, "of 1000000000 classes"),
        ({"dtype": "float64"}, "dtype is 'float64'"),
        ({"names": ["sky"]}, "names 1 of 3 classes"),
        ({"names": "abc"}, "names is 'abc'"),
        ({"files": []}, "files is"),
        ({"files": {}}, "has no 'features.safetensors'"),
        ({"settings": None}, "settings is None"),
        ({"format": 9}, "format 9"),
        ({"format": None}, "format None"),
    ],
)
def test_an_edited_manifest_is_refused(folder, change, reason):
    edit(folder / "manifest.json", KIND, lambda about: about.update(change))
    with pytest.raises(StoreError, match=reason):
        MemoryBank.open(folder)


PATCHES = {"image": ["a"] * 6, "row": pa.array([0] * 6, pa.int32()), "column": pa.array([0] * 6, pa.int32())}


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pa.table({**PATCHES, "row": pa.array([0] * 6, pa.int64())}), "of other columns"),
        (pa.table(PATCHES).slice(0, 5), "has 5 rows"),
        (pa.table({"image": PATCHES["image"]}), "of other columns"),
        (pa.table({"row": PATCHES["row"], "column": PATCHES["column"]}), "cannot be parsed"),
        (pa.table({**PATCHES, "image": ["a"] * 5 + [None]}), "missing or too long"),
        (pa.table({**PATCHES, "image": ["a" * 2**25] * 6}), "missing or too long"),
        (pa.table({**PATCHES, "image": [str(number) * 2**25 for number in range(6)]}), "has 2013"),
    ],
)
def test_patches_of_another_shape_are_refused(folder, table, reason):
    pq.write_table(table, folder / "patches.parquet", compression="zstd")
    record = record_of((folder / "patches.parquet").read_bytes())
    edit(folder / "manifest.json", KIND, lambda about: about["files"].update({"patches.parquet": record}))
    with pytest.raises(DamagedStore, match=reason):
        MemoryBank.open(folder).patches()


def test_random_edits_of_the_manifest_end_in_the_same_bank_or_a_named_error(folder, tmp_path):
    sound, draw, refused = contents(MemoryBank.open(folder)), random.Random(4), 0
    for _ in range(70):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        told = []
        try:
            edit(copy / "manifest.json", KIND, lambda about, told=told: told.append(random_edit(about, draw)))
            assert contents(MemoryBank.open(copy)) == sound or "names" in told[0], told
        except SporeprintError:
            refused += 1
    assert 15 < refused < 70
