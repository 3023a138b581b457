import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from small_stores import circle, store_of
from sporeprint.data.sampling import Sampled
from sporeprint.data.sources import open_source
from sporeprint.errors import StoreError
from sporeprint.features import saved
from sporeprint.run.store_pair import classes_hint, own_classes_note, read_pair
from sporeprint.run.store_source import Rows
from sporeprint.store.writer import StoreWriter

# Four training rows on a circle, at 0 and 5 degrees and at 90 and 95; four queries next to them.
TRAIN, TEST = [0.0, 5.0, 90.0, 95.0], [1.0, 4.0, 91.0, 94.0]


def table(path, **columns):
    pq.write_table(pa.table({"text": [f"{path.stem} {at}" for at in range(4)], **columns}), path)
    return open_source(path, modality="text", label_column="place")


@pytest.fixture
def built(tmp_path):
    """Stores whose labels are the places, and tables that also have a side, of which half the queries' are wrong."""
    names = {"place": ["low", "low", "high", "high"]}
    train = table(tmp_path / "train.parquet", **names, side=["a", "b", "a", "b"])
    test = table(tmp_path / "test.parquet", **names, side=["a", "b", "b", "a"])
    store_of(tmp_path / "a", train, {"embedding": circle(TRAIN)})
    store_of(tmp_path / "b", test, {"embedding": circle(TEST)})
    words = ["knn", tmp_path / "a", tmp_path / "b", "--features", "embedding", "--k", "1", "--json"]
    return tmp_path, words, ["--train", tmp_path / "train.parquet", "--test", tmp_path / "test.parquet"]


def accuracy(out):
    body = json.loads(out)
    (entry,) = body["entries"]
    return entry["results"]["1"]["value"], body["note"]


def test_labels_of_another_column_are_joined_by_id(run, built):
    _, words, sources = built
    status, out, err = run(*words)
    assert (status, err, accuracy(out)) == (0, "", (1.0, "b, 4 training rows, 4 test rows, 2 classes"))
    status, out, err = run(*words, *sources, "--label-column", "side")
    assert (status, err, accuracy(out)) == (0, "", (0.5, "b, 4 training rows, 4 test rows, 2 classes of 'side'"))


def test_a_sample_of_a_source_and_rows_that_failed_keep_their_labels(run, built):
    folder, words, sources = built
    train = open_source(folder / "train.parquet", modality="text", label_column="place")
    store_of(folder / "c", train, {"embedding": circle(TRAIN)}, failed=[1])
    drawn = Sampled(open_source(folder / "test.parquet", modality="text", label_column="place"), 3)
    kept = [int(row.id) for row in drawn.rows()]
    store_of(folder / "d", drawn, {"embedding": circle([TEST[at] for at in kept])})
    _, out, _ = run("knn", folder / "c", folder / "d", *words[3:], *sources, "--label-column", "side")
    # With the second training row gone, both low queries are nearest to the first, whose side is a.
    right = {0: True, 1: False, 2: False, 3: False}
    value, note = accuracy(out)
    assert value == np.mean([right[at] for at in kept])
    assert note == "b, 3 training rows, 3 test rows, 2 classes of 'side'"


def test_named_classes_are_joined_by_name_and_missing_labels_are_left_out(run, built):
    folder, words, sources = built

    def write(name, numbers, classes):
        features = {"side": {"_type": "ClassLabel", "names": classes}}
        old = pq.read_table(folder / f"{name}.parquet")
        new = old.set_column(2, "side", pa.array(numbers))
        new = new.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(new, folder / f"{name}.parquet")
        source = open_source(folder / f"{name}.parquet", modality="text", label_column="place")
        store_of(folder / f"{name}-store", source, {"embedding": circle(TRAIN if name == "train" else TEST)})

    write("train", [0, 1, 0, None], ["a", "b"])
    write("test", [1, 0, 1, 1], ["b", "a"])  # a, b, a, a
    stores = [folder / "train-store", folder / "test-store"]
    _, out, _ = run("knn", *stores, *words[3:], *sources, "--label-column", "side")
    value, note = accuracy(out)
    assert value == 1.0
    assert note == (
        "b, 3 training rows, 4 test rows, 2 classes of 'side'; left out, having no label: 1 training row, 0 test rows"
    )


def test_another_source_a_missing_column_and_half_of_the_options_are_refused(run, built):
    _, words, sources = built
    status, _, err = run(*words, *sources, "--label-column", "colour")
    assert (status, "no column 'colour'" in err) == (2, True)
    status, _, err = run(*words, *sources[:2], "--label-column", "side")
    assert (status, "--label-column needs --train and --test" in err) == (2, True)
    status, _, err = run(*words, *sources)
    assert (status, "--train and --test are for --label-column" in err) == (2, True)
    status, _, err = run(*words, *sources, "--label-column", "")
    assert (status, "names no labels" in err) == (2, True)
    swapped = ["--train", sources[3], "--test", sources[1]]
    status, _, err = run(*words, *swapped, "--label-column", "side")
    assert (status, "is not what" in err) == (2, True)


def test_class_folders_have_no_other_column(run, tmp_path):
    for name in ("low/1.txt", "high/2.txt"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(name)
    source = open_source(tmp_path / "texts", modality="text")
    store_of(tmp_path / "a", source, {"embedding": circle([0.0, 90.0])})
    texts = tmp_path / "texts"
    words = ["knn", tmp_path / "a", tmp_path / "a", "--train", texts, "--test", texts, "--label-column", "side"]
    status, _, err = run(*words)
    assert (status, "is a folder of files, which has no columns; leave out --label-column" in err) == (2, True)


def test_labels_that_share_nothing_are_refused_and_classes_without_training_rows_are_said(run, built):
    folder, words, _ = built
    for name, column in (("c", "side"), ("d", "mixed")):
        old = pq.read_table(folder / "test.parquet")
        old = old.append_column("mixed", pa.array(["low", "new", "high", "newer"])) if column == "mixed" else old
        pq.write_table(old, folder / f"{name}.parquet")
        source = open_source(folder / f"{name}.parquet", modality="text", label_column=column)
        store_of(folder / name, source, {"embedding": circle(TEST)})
    status, out, err = run(*words[:2], folder / "c", *words[3:])
    assert (status, out) == (1, "")
    assert (
        f"no label of {folder / 'c'} is a label of {folder / 'a'}: texts 'a', 'b' there, texts 'high', 'low' here"
        in err
    )
    status, out, _ = run(*words[:2], folder / "d", *words[3:])
    value, note = accuracy(out)
    assert (status, value) == (0, 0.5)
    assert note.endswith("; counted as wrong, since no training row has their label: 2 test rows")


def test_test_labels_that_look_like_those_of_training_rows_are_named(run, tmp_path):
    words = ["--features", "embedding", "--k", "1"]
    for name, place in (
        ("a", ["low", "high", "low", "high"]),
        ("b", ["low ", "high", "low", "HIGH"]),
        ("c", ["Low", "High", "Low", "High"]),
    ):
        store_of(tmp_path / name, table(tmp_path / f"{name}.parquet", place=place), {"embedding": circle(TRAIN)})
    _, out, _ = run("knn", tmp_path / "a", tmp_path / "b", *words)
    alike = "different by blanks, case or Unicode form only: 'HIGH' and 'high'; 'low ' and 'low'; write one label"
    assert f"2 test rows; labels of test rows and training rows are {alike}" in " ".join(out.split())
    status, _, err = run("knn", tmp_path / "a", tmp_path / "c", *words)
    assert (status, "'high', 'low' here; different by blanks, case" in err) == (1, True), err


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ([1, 2, 1, 2], ["1", "2", "1", "2"], "texts '1', '2' there, integers 1, 2 here"),
        (["0", "1", "2", "10"], [0, 1, 2, 10], "integers 0, 1, 2, ... there, texts '0', '1', '10', ... here"),
        ([2.0, None, 3.0, 2.0], [True, False, True, True], "booleans False, True there, numbers 2.0, 3.0 here"),
    ],
)
def test_labels_of_two_kinds_are_told_apart_where_none_is_shared(run, tmp_path, first, second, complaint):
    for name, place in (("a", first), ("b", second)):
        source = table(tmp_path / f"{name}.parquet", place=place)
        store_of(tmp_path / name, source, {"embedding": circle(TRAIN)})
    status, _, err = run("knn", tmp_path / "a", tmp_path / "b", "--features", "embedding", "--k", "1")
    assert (status, complaint in err) == (1, True), err


def test_test_rows_that_are_training_rows_are_counted_in_the_title(run, built):
    folder, words, _ = built
    message = "test rows are also training rows"
    same = run(words[0], folder / "a", folder / "a", *words[3:])[1]
    assert "both stores are the same one: every row is its own nearest" in " ".join(same.split())
    source = open_source(folder / "train.parquet", modality="text", label_column="place")
    store_of(folder / "c", source, {"embedding": circle(TRAIN)}, failed=[2])
    assert f"; 3 {message}" in run("knn", folder / "c", folder / "a", *words[3:-1])[1]
    missing = table(folder / "e.parquet", place=["low", None, "high", "high"])
    store_of(folder / "e", missing, {"embedding": circle(TRAIN)})
    same = " ".join(run("knn", folder / "e", folder / "e", *words[3:])[1].split())
    assert "left out, having no label: 1 training row, 1 test row; both stores are the same one" in same


def test_a_test_set_takes_its_columns_from_the_training_sets_store_where_it_has_them(run, tmp_path):
    columns = {"say": ["one", "two", "three"], "title": ["x"] * 3, "side": ["a", "b", "a"], "label": ["c", "d", "c"]}
    names = ("train", "same", "other")
    for name, has in zip(names, (list(columns), list(columns), ["title", "label"]), strict=True):
        pq.write_table(pa.table({column: columns[column] for column in has}), tmp_path / f"{name}.parquet")
    train = open_source(tmp_path / "train.parquet", modality="text", sample_column="say", label_column="side")
    columns_of = train.describe()["columns"]
    assert columns_of == {"sample": "say", "label": "side", "id": None}
    same = open_source(tmp_path / "same.parquet", modality="text", like=columns_of)
    assert same.describe()["columns"] == columns_of
    given = open_source(
        tmp_path / "same.parquet", modality="text", like=columns_of, sample_column="title", label_column=""
    )
    assert given.describe()["columns"] == {"sample": "title", "label": None, "id": None}
    other = open_source(tmp_path / "other.parquet", modality="text", like=columns_of)
    assert other.describe()["columns"] == {"sample": "title", "label": "label", "id": None}


@pytest.mark.parametrize("kind", [float, str])
@pytest.mark.parametrize("command", ["knn", "probe", "compare", "retrieve", "cluster", "classify"])
def test_amounts_are_refused_by_every_command_that_knows_classes(run, tmp_path, monkeypatch, kind, command):
    monkeypatch.chdir(tmp_path)
    place = [kind(value) for value in (0.5, 1.5, 2.5, 3.5)]
    store_of(tmp_path / "a", table(tmp_path / "a.parquet", place=place), {"embedding": circle(TRAIN)})
    stores = ["a"] if command == "cluster" else ["a", "a"]
    more = ["--out", "p.csv"] if command == "classify" else []
    status, out, err = run(command, *stores, *more)
    assert (status, out) == (1, "")
    hint = "a: these labels are numbers such as 0.5 (4 different ones in 4 rows), not classes; `sporeprint regress`"
    assert hint in " ".join(err.split())


@pytest.mark.parametrize("place", [[1.0, 2.0] * 2, [0.5, 1.5] * 2, ["0.5", "1.5"] * 2, [4, 3, 2, 1]])
def test_numbers_that_repeat_and_whole_ones_are_classes(run, tmp_path, place):
    store_of(tmp_path / "a", table(tmp_path / "a.parquet", place=place), {"embedding": circle(TRAIN)})
    words = [tmp_path / "a", tmp_path / "a", "--features", "embedding"]
    status, out, err = run("knn", *words, "--k", "1")
    assert (status, "regress" in out) == (0, False), err
    status, _, err = run("classify", *words, "--predictor", "lda", "--out", tmp_path / "p.csv")
    assert status == 0, err


def test_whole_numbers_of_most_rows_are_said_to_be_amounts_perhaps():
    prices = np.array([str(250_000 + 7 * at) for at in range(30)], object)
    (note,) = own_classes_note(prices)
    assert note == (
        "most rows have a number of their own as label, such as 250000: if these are amounts and not classes, "
        "`sporeprint regress` predicts them"
    )
    for labels in (np.arange(15), np.arange(30) % 10, np.array([*"abcdefghijklmnopqrstuvwxyz"])):
        assert own_classes_note(labels) == []


def with_parts(folder, **parts):
    """A store with these fitted tensors (heads, negatives), as `extract` without --fit-from makes its own."""
    source = {"kind": "list", "digest": "d", "columns": {}, "limit": None}
    backbone = {"name": "b", "class": "B", "pooling": "cls", "targets": ["l"], "weights": "w"}
    resolved = {"backbone": backbone, "dtype": "float32", "device": "cpu"}
    plan = {"recipe": {"seed": 0}, "resolved": resolved, "source": source, "fit": {"from": "this source"}}
    with StoreWriter(folder, plan) as writer:
        tensors = {name: torch.full((2,), float(value)) for name, value in parts.items()}
        for name, data in saved.pack_parts({"recipe": {}, "resolved": resolved}, tensors).items():
            writer.write_state(name, data)
        blocks = {"embedding": circle(TRAIN)}
        writer.write_shard(0, [*"wxyz"], [*"abab"], blocks, [], {})
        info = {"embedding": {"dim": 2, "family": "embedding", "views": "whole", "passes": 1}}
        writer.commit(blocks=info, label_names=None, cost={"seconds": {}, "rows": 4, "threads": 1})
    return Rows(folder)


@pytest.mark.parametrize(
    ("parts", "refused"),
    [
        ({"heads/kl": 1, "negatives/simclr": 2}, False),
        ({"heads/kl": 3, "negatives/simclr": 2}, True),
        ({"heads/kl": 1, "negatives/simclr": 3}, True),
        ({"heads/kl": 1}, True),
        ({"heads/kl": 1, "negatives/simclr": 2, "combiner/pca": 5}, False),  # how blocks are joined is no part of them
    ],
)
def test_a_test_store_with_other_heads_or_negatives_is_refused(tmp_path, parts, refused):
    train = with_parts(tmp_path / "a", **{"heads/kl": 1, "negatives/simclr": 2})
    test = with_parts(tmp_path / "b", **parts)
    if not refused:
        assert len(read_pair(train, test, lambda store: store.block_names).test_labels) == 4
        return
    with pytest.raises(StoreError, match=r"(?s)was not fitted with .* heads and negatives.* --fit-from"):
        read_pair(train, test, lambda store: store.block_names)


def test_targets_that_may_be_classes_are_said_and_others_not():
    few = "the targets are 3 whole numbers only, 0, 1, 2: if they are classes, use classify, knn or probe"
    assert classes_hint(np.array([0.0, 1, 2, 0, 1, 2])) == few
    assert "4 whole numbers only, 0, 1, 2, ...: if" in classes_hint(np.arange(4.0).repeat(2))
    for other in ([0.0, 1, 2, 3, 4, 0], [0.5, 1.5, 0.5, 1.5], np.arange(21).repeat(3), [[0, 1], [0, 1], [0, 1]]):
        assert classes_hint(np.array(other, np.float64)) == ""


def test_k_beyond_the_training_rows_is_said(run, built):
    folder, _, _ = built
    out = run("knn", folder / "a", folder / "b", "--features", "embedding", "--k", "3,4,5")[1]
    assert "k=5 is more than the 4 training rows: all of them vote" in out
