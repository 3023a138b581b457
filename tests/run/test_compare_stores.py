import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from small_stores import circle, store_of
from sporeprint.data.sources import open_source
from sporeprint.errors import RecipeError, SampleError, SourceError, StoreError
from sporeprint.evaluate.choice.candidates import ALL, FREE
from sporeprint.features import saved
from sporeprint.run.compare_stores import compare_stores, shown_samples
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store
from sporeprint.store.writer import StoreWriter

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("few_penalties")]
PLACES = ["low", "high"] * 6


def table(path, **columns):
    texts = [f"{path.stem} {at}" for at in range(len(next(iter(columns.values()))))]
    pq.write_table(pa.table({"text": texts, **columns}), path)
    return open_source(path, modality="text", label_column="place")


def blocks_of(seed):
    """An embedding that knows nothing of the place, and a gradient whose halves of the circle are the places."""
    rng = np.random.default_rng(seed)
    angles = np.where(np.arange(12) % 2, 180.0, 0.0) + rng.uniform(-40, 40, 12)
    return {"embedding": circle(rng.uniform(0, 360, 12)), "kl": circle(angles), "cls-2": circle(rng.uniform(0, 9, 12))}


@pytest.fixture
def data(tmp_path):
    """Two stores whose labels are the places, and tables that also have a side."""
    sides = [["a", "b", "b"][at % 3] for at in range(12)]
    train = table(tmp_path / "train.parquet", place=PLACES, side=sides)
    test = table(tmp_path / "test.parquet", place=PLACES, side=sides[::-1])
    store_of(tmp_path / "a", train, blocks_of(0))
    store_of(tmp_path / "b", test, blocks_of(1))
    return tmp_path


def test_two_stores_are_compared_and_what_helps_is_found(data):
    comparison = compare_stores(Rows(data / "a"), Rows(data / "b"))
    assert (comparison.settings["backbone"], comparison.settings["recipe seed"]) == ("b", 0)
    assert (comparison.settings["train_rows"], comparison.settings["test_rows"]) == (12, 12)
    assert "precision" not in comparison.settings
    assert comparison.settings["data"] == "a, b"
    assert comparison.entry("kl alone").value.value == 1.0
    assert "kl" in comparison.entry(ALL).blocks
    assert comparison.entry(ALL).combination == comparison.entry(FREE).combination
    assert list(comparison.analysis.blocks) == ["embedding", "kl", "cls-2"]
    assert comparison.notes[0].startswith("embedding + layers + gradients: 24 bytes a row")
    assert comparison.changed
    for change in comparison.changed:
        assert change.label == PLACES[int(change.id)] == PLACES[change.row]
    json.dumps(comparison.to_json(), allow_nan=False)


def test_blocks_and_families_can_be_named_and_the_embedding_is_always_there(data):
    for words, names in (("cls-2", ["embedding", "cls-2"]), ("gradients, kl", ["embedding", "kl"])):
        comparison = compare_stores(Rows(data / "a"), Rows(data / "b"), blocks=words)
        assert list(comparison.analysis.blocks) == names
    with pytest.raises(RecipeError, match="has no block of the family 'views'; there are: embedding, kl, cls-2"):
        compare_stores(Rows(data / "a"), Rows(data / "b"), blocks="kl,views")


def test_one_store_is_split(data):
    comparison = compare_stores(Rows(data / "a"), splits=2, seed=4)
    assert (comparison.settings["splits"], comparison.settings["seed"]) == (2, 4)
    assert any("no test set" in note for note in comparison.notes)
    assert shown_samples(comparison, Rows(data / "a", data / "train.parquet"), None) is None
    assert comparison == compare_stores(Rows(data / "a"), splits=2, seed=4)


def test_labels_of_another_column_are_compared(data):
    rows = (
        Rows(data / "a", data / "train.parquet"),
        Rows(data / "b", data / "test.parquet"),
    )
    comparison = compare_stores(*rows, label_column="side")
    assert {change.label for change in comparison.classes} == {"a", "b"}
    assert {change.label: change.count for change in comparison.classes} == {"a": 4, "b": 8}
    assert comparison.settings["labels"] == "side"
    with pytest.raises(RecipeError, match="--label-column needs --train and --test: the source"):
        compare_stores(rows[0], Rows(data / "b"), label_column="side")
    with pytest.raises(SourceError, match="no column 'colour'"):
        compare_stores(*rows, label_column="colour")
    with pytest.raises(RecipeError, match="a split goes with the source"):
        compare_stores(Rows(data / "a", split="train"), rows[1])


def test_rows_of_both_stores_are_told(data):
    source = open_source(data / "train.parquet", modality="text", label_column="place")
    store_of(data / "c", source, blocks_of(0), failed=[2, 5])
    comparison = compare_stores(Rows(data / "c"), Rows(data / "a"))
    assert comparison.notes[0] == "10 test rows are also training rows"


def test_of_a_store_compared_with_itself_the_verdict_is_that_it_says_nothing(data):
    comparison = compare_stores(Rows(data / "a"), Rows(data / "a"))
    assert comparison.verdict == (
        "Both stores are the same one: every row is its own nearest, and the figures say nothing."
    )


def test_rows_without_a_label_and_labels_without_training_rows_are_told(data):
    train = table(data / "some.parquet", place=[None, None, *PLACES[2:]])
    test = table(data / "other.parquet", place=["new", None, "newer", *PLACES[3:]])
    store_of(data / "c", train, blocks_of(0))
    store_of(data / "d", test, blocks_of(1))
    comparison = compare_stores(Rows(data / "c"), Rows(data / "d"))
    assert (comparison.settings["train_rows"], comparison.settings["test_rows"]) == (10, 11)
    assert comparison.notes[:2] == (
        "left out, having no label: 2 training rows, 1 test row",
        "counted as wrong, since no training row has their label: 2 test rows",
    )
    assert all(entry.value.value <= 9 / 11 for entry in comparison.entries)
    ids = {neighbour.id for change in comparison.changed for neighbour in change.neighbours_after}
    assert ids
    assert not {"0", "1"} & ids


def test_labels_that_cannot_be_compared_are_refused(data):
    store_of(data / "none", table(data / "none.parquet", place=[None] * 12), blocks_of(0))
    with pytest.raises(StoreError, match="has no labels"):
        compare_stores(Rows(data / "none"))
    with pytest.raises(StoreError, match="has no labels"):
        compare_stores(Rows(data / "a"), Rows(data / "none"))
    store_of(data / "far", table(data / "far.parquet", place=["near", "far"] * 6), blocks_of(1))
    with pytest.raises(StoreError, match="texts 'far', 'near' there, texts 'high', 'low' here"):
        compare_stores(Rows(data / "a"), Rows(data / "far"))
    store_of(data / "lists", table(data / "lists.parquet", place=[["x"], ["x", "y"]] * 6), blocks_of(1))
    for rows in ((Rows(data / "lists"),), (Rows(data / "a"), Rows(data / "lists"))):
        with pytest.raises(StoreError, match="has lists of labels; compare needs one a row"):
            compare_stores(*rows)
    store_of(data / "each", table(data / "each.parquet", place=[f"p{at}" for at in range(12)]), blocks_of(1))
    with pytest.raises(SampleError, match="none of 12 classes has two rows"):
        compare_stores(Rows(data / "each"))


def test_one_class_is_told(data):
    store_of(data / "same", table(data / "same.parquet", place=["low"] * 12), blocks_of(1))
    note = "one class only: nothing to tell apart"
    for rows in ((Rows(data / "same"),), (Rows(data / "same"), Rows(data / "b"))):
        assert note in compare_stores(*rows, blocks="kl", splits=2).notes


def test_every_step_is_said_as_it_begins(data):
    steps = []
    result = compare_stores(Rows(data / "a"), Rows(data / "b"), blocks="kl", progress=steps.append)
    names = [entry.name for entry in result.entries]
    said = [f"test rows: {name} ({at} of {len(names)})" for at, name in enumerate(names, 1)]
    assert steps[-len(said) - 1 :] == [*said, "intervals, and what the blocks share"]
    choosing = steps[: -len(said) - 1]
    assert choosing[0].startswith("choosing: embedding (1 of ")
    assert len(choosing) > 5
    assert all(step.startswith("choosing: ") for step in choosing)


def test_the_steps_of_a_split_are_numbered(data):
    steps = []
    compare_stores(Rows(data / "a"), blocks="kl", splits=2, progress=steps.append)
    for number in (1, 2):
        assert any(step.startswith(f"split {number} of 2: test rows: embedding (1 of ") for step in steps)
    assert steps[-1] == "intervals, and what the blocks share"


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread of cpu"), (2, "2 threads of cpu")])
def test_threads_are_counted_in_english(data, monkeypatch, threads, words):
    store = Store.open(data / "a")
    store.cost = {"threads": threads}
    monkeypatch.setattr(Store, "open", lambda _: store)
    comparison = compare_stores(Rows(data / "a"), blocks="kl", splits=2)
    assert comparison.settings["rows/s"] == f"measured while extracting, on {words}, whatever else ran"


def test_labels_that_are_numbers_to_predict_name_regress(data):
    for name, place in (("c", [0.25 + at for at in range(12)]), ("d", [0.5, 1.5] * 6)):
        store_of(data / name, table(data / f"{name}.parquet", place=place), blocks_of(1))
    hint = r"c: these labels are numbers such as 0.25 \(12 different ones in 12 rows\), not classes"
    for stores in ([Rows(data / "c")], [Rows(data / "c"), Rows(data / "d")]):
        with pytest.raises(StoreError, match=hint):
            compare_stores(*stores)
    assert "regress" not in " ".join(compare_stores(Rows(data / "d"), splits=2).notes)


def test_stores_that_were_made_otherwise_are_refused(data):
    source = open_source(data / "test.parquet", modality="text", label_column="place")
    store_of(data / "sound", source, blocks_of(1), modality="audio")
    with pytest.raises(StoreError, match=r"holds texts, .* sounds: they cannot be compared"):
        compare_stores(Rows(data / "a"), Rows(data / "sound"))
    with pytest.raises(StoreError, match="is not a store"):
        compare_stores(Rows(data / "a"), Rows(data / "nowhere"))


def with_state(folder, heads):
    """A store of one state, of its own heads, as `extract` without --fit-from makes it."""
    source = {"kind": "list", "digest": "d", "columns": {}, "limit": None}
    backbone = {"name": "b", "class": "B", "pooling": "cls", "targets": ["l"], "weights": "w"}
    resolved = {"backbone": backbone, "dtype": "float32", "device": "cpu"}
    plan = {"recipe": {"seed": 0}, "resolved": resolved, "source": source, "fit": {"from": "this source"}}
    with StoreWriter(folder, plan) as writer:
        for name, data in saved.pack_parts(
            {"recipe": {}, "resolved": resolved}, {"head": torch.full((2,), float(heads))}
        ).items():
            writer.write_state(name, data)
        blocks = {"embedding": circle([0.0, 90.0, 5.0, 95.0])}
        writer.write_shard(0, [*"wxyz"], [*"abab"], blocks, [], {})
        info = {"embedding": {"dim": 2, "family": "embedding", "views": "whole", "passes": 1}}
        writer.commit(blocks=info, label_names=None, cost={"seconds": {}, "rows": 4, "threads": 1})
    return folder


def test_a_test_store_with_heads_of_its_own_is_refused(tmp_path):
    stores = [Rows(with_state(tmp_path / str(at), heads)) for at, heads in enumerate((1, 1, 2))]
    assert compare_stores(*stores[:2]).settings["test_rows"] == 4
    with pytest.raises(StoreError, match="--fit-from"):
        compare_stores(stores[0], stores[2])


def test_samples_are_found_for_the_rows_that_are_shown(data):
    rows = (
        Rows(data / "a", data / "train.parquet"),
        Rows(data / "b", data / "test.parquet"),
    )
    comparison = compare_stores(*rows)
    samples = shown_samples(comparison, *rows)
    assert samples.modality == "text"
    assert samples.test == {change.id: f"test {change.id}" for change in comparison.changed}
    near = {near.id for row in comparison.changed for near in row.neighbours_before + row.neighbours_after}
    assert samples.train == {row: f"train {row}" for row in near}
    assert shown_samples(comparison, rows[0], Rows(data / "b")) is None
    with pytest.raises(SourceError, match="is not what"):
        shown_samples(comparison, Rows(data / "a", data / "test.parquet"), rows[1])
