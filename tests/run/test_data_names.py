"""Data go by the name of their source, or where that is a split's, by a name that says more; never by a path."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint.data.sources import open_source
from sporeprint.run.data_names import data_names
from sporeprint.run.store_source import Rows


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def rows(source: str, store: str, shown: str | None = None) -> Rows:
    """A store made of a table. shown: the source as it is given again."""
    path = Path(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(store).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": [f"{source} {at}" for at in range(4)], "label": ["a", "b", "a", "b"]}), path)
    store_of(Path(store), open_source(path, modality="text"), {"embedding": circle(np.arange(4.0))})
    return Rows(Path(store), None if shown is None else Path(shown))


@pytest.mark.parametrize(
    ("source", "store", "shown", "name"),
    [
        ("reviews.parquet", "mine", None, "reviews.parquet"),
        ("trainspotting.parquet", "mine", None, "trainspotting.parquet"),
        ("train-00000-of-00001.parquet", "mine", None, "mine"),
        ("photos/Test.parquet", "mine", "photos/Test.parquet", "photos"),
        ("photos/train.parquet", "train.store", None, "train.store"),
        ("photos/train.parquet", "stores/flowers/train", None, "flowers"),
        ("../data/train.parquet", "mine", "../data/train.parquet", "mine"),
        ("../train.parquet", "mine", "../train.parquet", "mine"),
    ],
)
def test_data_go_by_the_name_that_says_most(source, store, shown, name):
    assert data_names([rows(source, store, shown)]) == name


def test_the_folders_of_an_absolute_path_are_not_named(tmp_path):
    given = rows(str(tmp_path / "secret" / "train.parquet"), str(tmp_path / "secret" / "train"))
    assert data_names([Rows(given.store, tmp_path / "secret" / "train.parquet")]) == "train"


def test_data_of_one_name_are_named_once():
    train = rows("photos/train.parquet", "a", "photos/train.parquet")
    test = rows("photos/test.parquet", "b", "photos/test.parquet")
    assert data_names([train, test]) == "photos"
    assert data_names([rows("photos/train.parquet", "c"), rows("photos/test.parquet", "d")]) == "c, d"
