import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint.data.sources import open_source
from sporeprint.errors import RecipeError, StoreError
from sporeprint.run.store_pair import read_pair, read_store
from sporeprint.run.store_source import Rows

LABELS = ["low", "low", "high", "high"]


def stored(folder, name, **columns):
    """A store of four texts whose source has these columns, and that source."""
    path = folder / f"{name}.parquet"
    texts = [f"{name} {at}" for at in range(4)]
    pq.write_table(pa.table({"text": texts, "place": LABELS, **columns}), path)
    source = open_source(path, modality="text", label_column="place")
    return Rows(store_of(folder / name, source, {"embedding": circle([0.0, 5.0, 90.0, 95.0])}), path)


def read(train, test, column="video", **words):
    return read_pair(train, test, lambda store: store.block_names, group_column=column, **words)


def test_groups_are_read_by_id_as_texts(tmp_path):
    pair = read(stored(tmp_path, "a", video=["x", "y", "x", "z"]), stored(tmp_path, "b", video=["p", "p", "q", "q"]))
    assert pair.groups.tolist() == ["x", "y", "x", "z"]
    assert pair.test_groups.tolist() == ["p", "p", "q", "q"]
    assert pair.labels.tolist() == LABELS
    assert pair.notes == (
        "rows of one 'video' stay together where rows are left out, split or drawn: 3 groups of training rows, "
        "2 groups of test rows",
    )


def test_integers_of_one_table_meet_those_of_another(tmp_path):
    train = stored(tmp_path, "a", video=[1, 2, 3, None])
    with (tmp_path / "b.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "place", "video"], *zip("pqrs", LABELS, "1278", strict=True)])
    source = open_source(tmp_path / "b.csv", modality="text", label_column="place")
    test = Rows(store_of(tmp_path / "b", source, {"embedding": circle([0.0, 5.0, 90.0, 95.0])}), tmp_path / "b.csv")
    pair = read(train, test)
    assert pair.groups.tolist() == ["1", "2", "3", None]
    assert any(note.startswith("2 of 4 test rows are of a group that training rows are of too") for note in pair.notes)
    assert "without a group, each a group of its own: 1 of 4 training rows" in pair.notes


def test_rows_without_a_label_take_their_group_with_them(tmp_path):
    columns = {"video": ["x", "y", "x", "z"], "side": ["l", None, "r", "r"]}
    rows = stored(tmp_path, "a", **columns)
    pair = read(rows, rows, label_column="side")
    assert (pair.labels.tolist(), pair.groups.tolist()) == (["l", "r", "r"], ["x", "x", "z"])


def test_a_class_of_one_group_is_said(tmp_path):
    rows = stored(tmp_path, "a", video=["x", "y", "z", "z"])
    single = read_store(rows, lambda store: store.block_names, None, "compare", group_column="video")
    assert single.groups.tolist() == ["x", "y", "z", "z"]
    assert any(note.startswith("classes that one group holds alone: 1;") for note in single.notes)


def test_without_the_option_there_are_no_groups(tmp_path):
    rows = stored(tmp_path, "a", video=["x", "y", "x", "z"])
    pair = read_pair(Rows(rows.store), Rows(rows.store), lambda store: store.block_names)
    assert (pair.groups, pair.test_groups) == (None, None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([[1], [2], [1], [2]], r"has a value \[1\]; a group is a text or an integer"),
        ([0.5, 1.0, 2.0, 3.0], "has a value 0.5"),
        (["x"] * 4, "all 4 rows of .* are of one group of 'video', 'x'; whole groups are left out"),
        (pa.array([None] * 4, pa.string()), "column 'video' of .* has no group for any row"),
    ],
)
def test_what_cannot_be_a_group_is_refused(tmp_path, values, complaint):
    rows = stored(tmp_path, "a", video=values)
    with pytest.raises(StoreError, match=complaint):
        read(rows, rows)


def test_groups_need_the_sources(tmp_path):
    rows = stored(tmp_path, "a", video=["x", "y", "x", "z"])
    with pytest.raises(RecipeError, match="--group-column needs --train and --test"):
        read(rows, Rows(rows.store))


def test_one_group_of_test_rows_is_no_mistake(tmp_path):
    pair = read(stored(tmp_path, "a", video=["x", "y", "x", "z"]), stored(tmp_path, "b", video=["p"] * 4))
    np.testing.assert_array_equal(pair.test_groups, ["p"] * 4)


@pytest.fixture
def clips(tmp_path):
    """Clips of one source are alike and its label is random: only the clips of a source know its label."""
    rng = np.random.default_rng(0)
    words = []
    for part, sources, first in (("train", 30, 0), ("test", 10, 100)):
        names = np.repeat(np.arange(sources), 4) + first
        labels = rng.integers(0, 2, sources)[names - first]
        blocks = {"embedding": rng.standard_normal((sources, 20))[names - first].astype(np.float32)}
        blocks["embedding"] += 0.01 * rng.standard_normal(blocks["embedding"].shape).astype(np.float32)
        path = tmp_path / f"{part}.parquet"
        texts = [f"{part} {at}" for at in range(len(names))]
        numbers = {"size": labels + 0.25}
        pq.write_table(pa.table({"text": texts, "label": labels, "clip": names, **numbers}), path)
        words.append(store_of(tmp_path / part, open_source(path, modality="text"), blocks))
    return [*words, "--train", tmp_path / "train.parquet", "--test", tmp_path / "test.parquet"]


def test_knn_leaves_out_whole_groups_where_it_chooses(run, clips):
    words = ["knn", *clips[:2], "--features", "embedding", "--k", "auto", "--json"]
    _, out, _ = run(*words)
    alone = json.loads(out)
    _, out, _ = run(*words, *clips[2:], "--group-column", "clip")
    grouped = json.loads(out)
    leaky, honest = (max(body["entries"][0]["results"]["auto"]["leave_one_out"].values()) for body in (alone, grouped))
    assert leaky == 1.0
    assert honest < 0.8
    assert "120 of 120 training rows nearly equal another one" in alone["note"]
    assert "near-duplicates" not in grouped["note"]
    assert "30 groups of training rows, 10 groups of test rows" in grouped["note"]


@pytest.mark.parametrize(
    "words",
    [
        ["probe", "--features", "embedding"],
        ["regress", "--label-column", "size", "--features", "embedding"],
        ["regress", "--label-column", "size", "--features", "embedding", "--method", "ridge"],
    ],
)
def test_probes_and_regression_take_groups(run, clips, words):
    status, out, err = run(words[0], *clips, *words[1:], "--group-column", "clip", "--json")
    assert status == 0, err
    assert "rows of one 'clip' stay together" in out
