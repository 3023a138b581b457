import json
import os
import resource
import shutil
import signal
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sporeprint.errors import DamagedStore, RowFailure, StoreError, StoreMismatch
from sporeprint.store import reader
from sporeprint.store.atomic import seal, write_file
from sporeprint.store.plan import differences
from sporeprint.store.reader import Store
from sporeprint.store.writer import StoreWriter

PLAN = {"recipe": {"seed": 0, "objectives": [{"name": "kl", "temperature": 15.0}]}, "source": "abc"}
NAMES = ["embedding", "dino", "dino.views", "kl@blocks.1-2"]
INFO = {name: {"dim": 3 + number, "family": "test"} for number, name in enumerate(NAMES)}


def numbers(shard, name, rows=4):
    return np.random.default_rng([shard, NAMES.index(name)]).standard_normal((rows, INFO[name]["dim"]), np.float32)


def put(writer, shard, **changes):
    """Shard `shard`: four rows "s-0" ... "s-3", of which the last failed."""
    row = {
        "ids": [f"{shard}-{number}" for number in range(3)],
        "labels": [shard, 1, 0],
        "blocks": {name: numbers(shard, name, 3) for name in NAMES},
        "failures": [RowFailure(f"{shard}-3", "cut short")],
        "seconds": {"decode": 0.1},
    }
    return writer.write_shard(shard, **{**row, **changes})


def make(folder, shards=3, plan=PLAN, cost=None, **options):
    with StoreWriter(folder, plan, shard_rows=4, **options) as writer:
        if writer.complete:
            return Store.open(folder)
        writer.write_state("negatives.safetensors", b"bank")
        for shard in range(shards):
            if shard not in writer.done:
                put(writer, shard)
        return writer.commit(blocks=INFO, label_names=["zero", "one", "two"], cost=cost or {})


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_what_was_written_is_read_back(tmp_path):
    store = make(tmp_path / "s", cost={"seconds": 1.5})
    for opened in (store, Store.open(tmp_path / "s")):
        assert len(opened) == 9
        assert opened.ids == [f"{shard}-{row}" for shard in range(3) for row in range(3)]
        assert opened.labels.tolist() == ["zero", "one", "zero", "one", "one", "zero", "two", "one", "zero"]
        assert opened.block_names == NAMES
        assert opened.plan == PLAN
        assert opened.cost == {"seconds": 1.5}
        assert opened.failures == [RowFailure(f"{shard}-3", "cut short") for shard in range(3)]
        assert opened.read_state("negatives.safetensors") == b"bank"
        opened.verify()
        blocks = opened.blocks()
        assert list(blocks) == NAMES
        for name in NAMES:
            expected = np.concatenate([numbers(shard, name, 3) for shard in range(3)])
            assert blocks[name].dtype == np.float32
            np.testing.assert_array_equal(blocks[name], expected)


def test_some_blocks_are_read_without_the_others_whose_names_they_begin(tmp_path):
    blocks = make(tmp_path / "s").blocks(["dino"])
    assert list(blocks) == ["dino"]
    assert blocks["dino"].shape == (9, 4)
    np.testing.assert_array_equal(blocks["dino"][3:6], numbers(1, "dino", 3))


def test_shards_are_iterated_one_at_a_time(tmp_path):
    store = make(tmp_path / "s")
    shards = list(store.iter_blocks(["embedding"]))
    assert [ids[0] for ids, _, _ in shards] == ["0-0", "1-0", "2-0"]
    assert shards[2][1] == ["two", "one", "zero"]
    np.testing.assert_array_equal(shards[1][2]["embedding"], numbers(1, "embedding", 3))


def test_the_layout_is_plain_parquet_and_json(tmp_path):
    make(tmp_path / "s")
    assert list(contents(tmp_path / "s")) == [
        "manifest.json",
        "plan.json",
        *(f"shards/0000{shard}.{suffix}" for shard in range(3) for suffix in ("json", "parquet")),
        "state/negatives.safetensors",
        "state/negatives.safetensors.record",
    ]
    table = pq.read_table(tmp_path / "s/shards/00001.parquet")
    assert table.schema.names == ["id", "label", *NAMES]
    assert table.schema.field("dino.views").type.list_size == 5
    assert table.column("label").to_pylist() == [1, 1, 0]
    data = (tmp_path / "s/shards/00001.parquet").read_bytes()
    shard = json.loads((tmp_path / "s/manifest.json").read_text())["shards"][1]
    assert (shard["bytes"], shard["sha256"]) == (len(data), sha256(data).hexdigest())


def test_equal_runs_give_equal_bytes_but_for_cost_and_seconds(tmp_path):
    first, second = make(tmp_path / "a", cost={"s": 1}), make(tmp_path / "b", cost={"s": 2})
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {name for name in a if a[name] != b[name]} == {"manifest.json"}
    assert first.digest == second.digest
    assert first.digest != make(tmp_path / "c", shards=2).digest


def test_float16_stores_half_the_numbers_and_reads_them_as_float32(tmp_path):
    store = make(tmp_path / "s", dtype="float16")
    block = store.blocks(["embedding"])["embedding"]
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block[:3], numbers(0, "embedding", 3).astype(np.float16).astype(np.float32))
    column = pq.read_table(tmp_path / "s/shards/00000.parquet").schema.field("embedding")
    assert column.type.value_type == pa.float16()


@pytest.mark.parametrize(
    ("first", "second", "names", "expected"),
    [
        ([1, 0, 2], [0, None, 1], ["a", "b", "c"], ["b", "a", "c", "a", None, "b"]),
        ([None] * 3, [1, 2, 0], None, [None, None, None, 1, 2, 0]),
        ([1, 2, 3], [0.5, 1, 2], None, [1.0, 2.0, 3.0, 0.5, 1.0, 2.0]),
        (["x", "y", "z"], ["x", "x", "x"], None, ["x", "y", "z", "x", "x", "x"]),
        ([[0, 1], [1], []], [[], [], []], ["a", "b"], [["a", "b"], ["b"], [], [], [], []]),
        ([[0, 1], [1, 1], [0, 0]], [[2, 2]] * 3, None, [[0, 1], [1, 1], [0, 0], [2, 2], [2, 2], [2, 2]]),
        (np.array([3, 4, 5], np.int32), [np.int64(1)] * 3, None, [3, 4, 5, 1, 1, 1]),
        (None, None, ["a"], None),
    ],
)
def test_labels_of_every_kind_come_back(tmp_path, first, second, names, expected):
    with StoreWriter(tmp_path / "s", {}) as writer:
        put(writer, 0, labels=first)
        put(writer, 1, labels=second)
        labels = writer.commit(blocks=INFO, label_names=names, cost={}).labels
    assert (None if labels is None else labels.tolist()) == expected
    assert labels is None or labels.shape == (6,)


def test_labels_are_counted_without_reading_a_shard(tmp_path, monkeypatch):
    read: list[object] = []
    monkeypatch.setattr(reader, "read_shard", lambda *given: read.append(given))
    with StoreWriter(tmp_path / "s", {}) as writer:
        put(writer, 1, labels=[0.5, 1, None])
    with StoreWriter(tmp_path / "s", {}) as writer:
        put(writer, 0, labels=[1, 2, 3])
        put(writer, 2, labels=[None, None, None])
        writer.commit(blocks=INFO, label_names=None, cost={})
    assert Store.open(tmp_path / "s").label_counts == {"different": 4, "missing": 4}
    assert read == []
    with StoreWriter(tmp_path / "lists", {}) as writer:
        put(writer, 0, labels=[[0, 1], [1], [np.int64(1)]])
        assert writer.commit(blocks=INFO, label_names=None, cost={}).label_counts == {"different": 2, "missing": 0}


def test_a_label_without_a_name_is_refused(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        put(writer, 0, labels=[0, 1, -1])
        store = writer.commit(blocks=INFO, label_names=["a", "b"], cost={})
    with pytest.raises(StoreError, match="label -1 has no name"):
        _ = store.labels


def test_a_shard_of_failures_only_is_kept(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.write_shard(0, [], [], {}, [RowFailure("x", "gone")], {})
        put(writer, 1)
        store = writer.commit(blocks=INFO, label_names=None, cost={})
    assert store.blocks()["dino"].shape == (3, 4)
    assert store.failures[0] == RowFailure("x", "gone")


def test_an_interrupted_run_goes_on_and_gives_the_identical_store(tmp_path):
    make(tmp_path / "whole")
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        writer.write_state("negatives.safetensors", b"bank")
        put(writer, 1)
    (tmp_path / "s/shards/00002.parquet.tmp").write_bytes(b"half")
    (tmp_path / "s/manifest.json.tmp").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"1 shards are done.*run the same command again"):
        Store.open(tmp_path / "s")
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        assert writer.read_state("negatives.safetensors") == b"bank"
        assert writer.done.keys() == {1}
        assert (writer.done[1].rows, writer.done[1].seconds) == (3, {"decode": 0.1})
        assert writer.done[1].failures == (RowFailure("1-3", "cut short"),)
        assert not writer.complete
    make(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_rows_that_were_too_long_are_counted_over_all_shards_and_runs(tmp_path):
    counts = [2, 0, 3]
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        assert put(writer, 1, truncated=counts[1]).truncated == 0
        assert put(writer, 2, truncated=counts[2]).truncated == 3
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        assert {index: shard.truncated for index, shard in writer.done.items()} == {1: 0, 2: 3}
        put(writer, 0, truncated=counts[0])
        store = writer.commit(blocks=INFO, label_names=None, cost={})
    assert store.truncated == Store.open(tmp_path / "s").truncated == 2 + 0 + 3
    assert make(tmp_path / "other").truncated == 0


def test_a_store_of_before_cut_rows_were_counted_has_none(tmp_path, monkeypatch):
    def without(kind, value):
        return seal(kind, {key: item for key, item in value.items() if key != "truncated"})

    with monkeypatch.context() as patch:
        patch.setattr("sporeprint.store.writer.seal", without)
        with StoreWriter(tmp_path / "half", PLAN, shard_rows=4) as writer:
            put(writer, 1, truncated=3)
        make(tmp_path / "s")
    assert "truncated" not in json.loads((tmp_path / "s/manifest.json").read_text())
    assert Store.open(tmp_path / "s").truncated == 0
    with StoreWriter(tmp_path / "half", PLAN, shard_rows=4) as writer:
        assert writer.done[1].truncated == 0


def test_a_complete_store_is_left_alone(tmp_path):
    make(tmp_path / "s")
    before = contents(tmp_path / "s")
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        assert writer.complete
        assert writer.read_state("negatives.safetensors") == b"bank"
        writer.write_state("negatives.safetensors", b"bank")
        with pytest.raises(StoreError, match="complete"):
            put(writer, 3)
        with pytest.raises(StoreError, match="complete"):
            writer.write_state("negatives.safetensors", b"other")
    assert contents(tmp_path / "s") == before


@pytest.mark.parametrize("lost", [["plan.json"], ["plan.json", "manifest.json"]])
def test_a_lost_plan_is_said_and_the_advice_works(tmp_path, lost):
    whole = contents(make(tmp_path / "s").folder)
    for name in lost:
        (tmp_path / "s" / name).unlink()
    for attempt in [make, *([Store.open] if len(lost) == 1 else [])]:
        with pytest.raises(DamagedStore, match=r"plan\.json' is missing, so nothing says .*; move '.*s' away"):
            attempt(tmp_path / "s")
    assert contents(tmp_path / "s") == {name: data for name, data in whole.items() if name not in lost}
    (tmp_path / "s").rename(tmp_path / "away")
    make(tmp_path / "s")
    assert contents(tmp_path / "s") == whole


def test_a_parquet_without_its_sidecar_is_computed_again(tmp_path):
    make(tmp_path / "s")
    whole = contents(tmp_path / "s")
    (tmp_path / "s/manifest.json").unlink()
    (tmp_path / "s/shards/00001.json").unlink()
    with pytest.warns(UserWarning, match="shard 1 is dropped"):
        make(tmp_path / "s")
    assert contents(tmp_path / "s") == whole


def test_running_again_repairs_a_damaged_complete_store(tmp_path):
    make(tmp_path / "s")
    whole = contents(tmp_path / "s")
    for name in ("shards/00001.parquet", "state/negatives.safetensors", "manifest.json"):
        data = bytearray(whole[name])
        data[len(data) // 2] ^= 1
        (tmp_path / "s" / name).write_bytes(data)
        with pytest.warns(UserWarning, match="is not what was written"):
            make(tmp_path / "s")
        assert contents(tmp_path / "s") == whole


def test_shards_of_another_state_are_dropped(tmp_path):
    with StoreWriter(tmp_path / "s", PLAN) as writer:
        writer.write_state("bank", b"one")
        put(writer, 0)
        with pytest.warns(UserWarning, match="another state 'bank'"):
            writer.write_state("bank", b"two")
        assert writer.done == {}
        put(writer, 0)
        assert writer.commit(blocks=INFO, label_names=None, cost={}).read_state("bank") == b"two"


def test_two_shards_of_one_row_are_never_both_kept(tmp_path):
    """As two runs leave them that wrote at once on a file system without locks."""
    for folder, index in (("a", 0), ("b", 1)):
        with StoreWriter(tmp_path / folder, PLAN) as writer:
            put(writer, index, ids=["x", "y", "z"])
    for suffix in ("json", "parquet"):
        shutil.copy(tmp_path / f"b/shards/00001.{suffix}", tmp_path / "a/shards")
    with (
        pytest.warns(UserWarning, match="shard 1 is dropped.*repeats rows"),
        StoreWriter(tmp_path / "a", PLAN) as writer,
    ):
        assert writer.done.keys() == {0}


def test_a_state_that_vanished_stops_the_commit(tmp_path):
    with StoreWriter(tmp_path / "s", PLAN) as writer:
        writer.write_state("bank", b"one")
        put(writer, 0)
    (tmp_path / "s/state/bank").unlink()
    with pytest.warns(UserWarning, match="state 'bank' is dropped"):
        writer = StoreWriter(tmp_path / "s", PLAN)
    with writer:
        assert writer.read_state("bank") is None
        with pytest.raises(StoreError, match="computed with states \\['bank'\\]"):
            writer.commit(blocks=INFO, label_names=None, cost={})


def test_another_plan_is_refused_with_every_difference(tmp_path):
    make(tmp_path / "s")
    before = contents(tmp_path / "s")
    other = {"recipe": {"seed": 1, "objectives": [{"name": "kl", "temperature": 7}]}, "limit": "x" * 99}
    with pytest.raises(StoreMismatch) as caught:
        StoreWriter(tmp_path / "s", other, dtype="float16", shard_rows=4)
    lines = str(caught.value).splitlines()[1:-1]
    assert [line.strip() for line in lines] == [
        f'limit: store has nothing, this run has "{"x" * 56}...',
        "recipe.objectives[0].temperature: store has 15.0, this run has 7",
        "recipe.seed: store has 0, this run has 1",
        'source: store has "abc", this run has nothing',
        'store.dtype: store has "float32", this run has "float16"',
    ]
    assert contents(tmp_path / "s") == before


OTHER = {"recipe": {"seed": 1}, "source": "abc"}


def go_on(folder, plan, shards=2):
    """As `extract` does: a state of this plan, which is used as it is where it is there; then the shards."""
    with StoreWriter(folder, plan, shard_rows=4) as writer:
        state = writer.read_state("bank")
        if state is None:
            state = json.dumps(plan["recipe"]).encode()
            writer.write_state("bank", state)
        for shard in range(shards):
            if shard not in writer.done:
                put(writer, shard, labels=[len(state)] * 3)
        return writer.commit(blocks=INFO, label_names=None, cost={}) if shards else None


def test_a_plan_that_stored_no_row_gives_way_with_its_states_and_that_is_said(tmp_path, caplog):
    go_on(tmp_path / "whole", OTHER)
    assert caplog.text == ""
    caplog.set_level("INFO", "sporeprint")
    go_on(tmp_path / "s", PLAN, shards=0)
    (tmp_path / "s/state/more").write_bytes(b"without a record, as a kill leaves it")
    go_on(tmp_path / "s", OTHER)
    assert "s' was begun by another run, which stored no row" in caplog.text
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("left", ["shards/00000.json", "shards/00000.parquet", "manifest.json"])
def test_a_plan_never_gives_way_where_anything_of_its_rows_is_left(tmp_path, left):
    go_on(tmp_path / "s", PLAN)
    for name in contents(tmp_path / "s"):
        if name not in (left, "plan.json") and not name.startswith("state"):
            (tmp_path / "s" / name).unlink()
    before = contents(tmp_path / "s")
    with pytest.raises(StoreMismatch, match="made by another run"):
        go_on(tmp_path / "s", OTHER)
    assert contents(tmp_path / "s") == before


def test_a_plan_gives_way_only_under_a_lock(tmp_path, monkeypatch):
    go_on(tmp_path / "s", PLAN, shards=0)
    before = contents(tmp_path / "s")
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4), pytest.raises(StoreError, match="being written by another"):
        go_on(tmp_path / "s", OTHER)
    monkeypatch.setattr("sporeprint.store.writer.lock", lambda path: None)  # as where a file system has no locks
    with pytest.raises(StoreMismatch, match="made by another run"):
        go_on(tmp_path / "s", OTHER)
    assert contents(tmp_path / "s") == before


def test_what_only_tells_people_something_is_kept_and_not_compared(tmp_path):
    def plan(name, ignored, weights="w"):
        backbone = {"name": name, "class": name.title(), "weights": weights}
        return {"resolved": {"backbone": backbone}, "source": {"digest": "d", "ignored_files": ignored}}

    with StoreWriter(tmp_path / "s", plan("first", 0), shard_rows=4) as writer:
        writer.write_state("negatives.safetensors", b"bank")
        put(writer, 0)
    store = make(tmp_path / "s", shards=2, plan=plan("second", 3))
    assert store.plan == plan("first", 0)
    Store.open(tmp_path / "s").verify()
    with pytest.raises(StoreMismatch, match=r"resolved\.backbone\.weights") as caught:
        make(tmp_path / "s", plan=plan("second", 3, "v"))
    assert "name" not in str(caught.value)


def test_differences_see_types_and_lengths():
    assert differences({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}) == []
    assert differences({"a": 1}, {"a": True}) == ["a: store has 1, this run has true"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: store has [1], this run has [1, 2]"]
    assert differences({"a": {"b": 1}}, {"a": 3}) == ['a: store has {"b": 1}, this run has 3']
    assert differences({"a": {}}, {}) == ["a: store has {}, this run has nothing"]


def test_a_folder_of_other_things_is_refused_untouched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"not empty and not a store.*notes\.txt"):
        StoreWriter(tmp_path, PLAN)
    assert os.listdir(tmp_path) == ["notes.txt"]
    with pytest.raises(StoreError, match="is a file"):
        StoreWriter(tmp_path / "notes.txt", PLAN)


def test_two_writers_at_once_are_refused(tmp_path):
    with StoreWriter(tmp_path / "s", PLAN), pytest.raises(StoreError, match="another run"):
        StoreWriter(tmp_path / "s", PLAN)
    StoreWriter(tmp_path / "s", PLAN).close()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_never_stored(tmp_path, value):
    blocks = {name: numbers(0, name, 3) for name in NAMES}
    blocks["dino"][1, 2] = value
    with StoreWriter(tmp_path / "s", PLAN) as writer:
        with pytest.raises(StoreError, match=r"block 'dino', row '0-1'.*not finite"):
            put(writer, 0, blocks=blocks)
        assert writer.done == {}
    assert "shards/00000.parquet" not in contents(tmp_path / "s")


def test_numbers_too_large_for_float16_are_never_stored(tmp_path):
    with StoreWriter(tmp_path / "s", PLAN, dtype="float16") as writer:
        writer.write_shard(0, ["a"], None, {"x": np.array([[65504.0]])}, [], {})
        with pytest.raises(StoreError, match=r"row 'b'.*too large for float16"):
            writer.write_shard(1, ["b"], None, {"x": np.array([[65520.0]])}, [], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["1-0", "0-1", "1-2"]}, "'0-1' stands in shard 0 and 1"),
        ({"ids": ["1-0", "1-1", "1-0"]}, "'1-0' stands in shard 1 and 1"),
        ({"ids": ["1-0", "", "1-2"]}, "'' cannot be a row's id"),
        ({"ids": ["1-0", 7, "1-2"]}, "7 cannot be a row's id"),
        ({"ids": ["1-0", "\ud800", "1-2"]}, "cannot be a row's id"),
        ({"labels": [1, 2]}, "3 ids and 2 labels"),
        ({"labels": ["a", "b", "c"]}, "labels of kind string"),
        ({"labels": ["a", 1, 2]}, "labels cannot be stored together"),
        ({"labels": [{"a": 1}] * 3}, "expected str, int, float or list"),
        ({"blocks": {"embedding": np.ones((3, 3))}}, "shard 1 has blocks"),
        ({"blocks": {"embedding": np.ones((2, 3))}}, r"is \[2, 3\]"),
        ({"blocks": {"embedding": np.ones((3, 3), int)}}, "int64; expected floats"),
        ({"blocks": {"id": np.ones((3, 3))}}, "'id' cannot name a block"),
        ({"failures": [RowFailure("x", "")] * 2}, "has 5 rows; the plan says 4"),
    ],
)
def test_rows_that_do_not_fit_the_store_are_refused(tmp_path, changes, message):
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        put(writer, 0)
        before = contents(tmp_path / "s")
        with pytest.raises(StoreError, match=message):
            put(writer, 1, **changes)
        assert contents(tmp_path / "s") == before


def test_a_commit_that_does_not_match_the_shards_is_refused(tmp_path):
    with StoreWriter(tmp_path / "s", PLAN) as writer:
        with pytest.raises(StoreError, match="not written"):
            writer.commit(blocks=INFO, label_names=None, cost={})
        put(writer, 1)
        with pytest.raises(StoreError, match=r"shards \[0\] are not written"):
            writer.commit(blocks=INFO, label_names=None, cost={})
        put(writer, 0)
        with pytest.raises(StoreError, match="written already"):
            put(writer, 0)
        with pytest.raises(StoreError, match="the commit names"):
            writer.commit(blocks={"embedding": {"dim": 3}}, label_names=None, cost={})
        with pytest.raises(StoreError, match="JSON"):
            writer.commit(blocks=INFO, label_names=None, cost={"seconds": float("nan")})
        writer.commit(blocks=INFO, label_names=None, cost={})


@pytest.mark.parametrize("name", ["../plan.json", "a/b", ".hidden", "", "x.tmp", "x.record", "a\n"])
def test_a_state_cannot_be_named_out_of_its_folder(tmp_path, name):
    with StoreWriter(tmp_path / "s", PLAN) as writer, pytest.raises(StoreError, match="cannot name a state"):
        writer.write_state(name, b"")


def test_reading_what_is_not_there_says_what_is(tmp_path):
    with pytest.raises(StoreError, match="is not a store"):
        Store.open(tmp_path / "nowhere")
    store = make(tmp_path / "s")
    with pytest.raises(StoreError, match="no block 'kl'; there are: embedding, dino"):
        store.blocks(["kl"])
    with pytest.raises(StoreError, match="no state 'heads'"):
        store.read_state("heads")


@pytest.mark.parametrize("name", ["shards/00001.parquet", "state/negatives.safetensors"])
def test_opening_notices_a_missing_or_short_file_before_anything_is_read(tmp_path, name):
    make(tmp_path / "s")
    path = tmp_path / "s" / name
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DamagedStore, match=f"{path.name}' has {whole - 1} bytes; {whole} were written; run the command"
    ):
        Store.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(DamagedStore, match=f"{path.name}' is missing; run the command"):
        Store.open(tmp_path / "s")


def test_a_store_of_a_later_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("sporeprint.store.plan.FORMAT", 2)
        patch.setattr("sporeprint.store.writer.FORMAT", 2)
        make(tmp_path / "s")
    for use in (lambda: Store.open(tmp_path / "s"), lambda: make(tmp_path / "s")):
        with pytest.raises(StoreMismatch, match="format 2; this version reads 1"):
            use()


def test_a_plan_of_another_run_beside_the_manifest_is_noticed(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b", plan={"recipe": {"seed": 9}})
    shutil.copy(tmp_path / "a/plan.json", tmp_path / "b/plan.json")
    with pytest.raises(DamagedStore, match="another run"):
        Store.open(tmp_path / "b")


def test_a_full_disk_leaves_no_half_file_and_the_run_can_go_on(tmp_path):
    make(tmp_path / "whole")
    with StoreWriter(tmp_path / "s", PLAN, shard_rows=4) as writer:
        writer.write_state("negatives.safetensors", b"bank")
        put(writer, 0)
        before = contents(tmp_path / "s")
        limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
        try:
            with pytest.raises(StoreError, match=r"00001\.parquet' was not written.*run the same command again"):
                put(writer, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert contents(tmp_path / "s") == before
    make(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def killed_at(step, run, *args):
    """`run(*args)` in a process that dies at its `step`-th fsync, rename or removal; whether it died."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left = [step]

    def dying(call):
        def counted(*args):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return call(*args)

        return counted

    os.fsync, os.replace, Path.unlink = dying(os.fsync), dying(os.replace), dying(Path.unlink)
    try:
        run(*args)
    finally:
        os._exit(0)


@pytest.mark.filterwarnings("ignore")
def test_a_run_killed_at_any_write_resumes_to_the_identical_store(tmp_path):
    make(tmp_path / "whole")
    whole, step = contents(tmp_path / "whole"), 0
    while killed_at(step, make, tmp_path / str(step)):
        if not (tmp_path / str(step) / "manifest.json").exists():
            with pytest.raises(StoreError):
                Store.open(tmp_path / str(step))
        make(tmp_path / str(step))
        assert contents(tmp_path / str(step)) == whole
        step += 1
    assert step == 30  # ten files, each: fsync, rename, fsync of the folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("then", [PLAN, OTHER])
def test_a_run_killed_while_its_plan_takes_anothers_place_leaves_a_folder_for_one_of_them(tmp_path, then):
    go_on(tmp_path / "whole", then)
    whole, step, died = contents(tmp_path / "whole"), 0, True
    while died:
        folder = tmp_path / str(step)
        go_on(folder, PLAN, shards=0)
        died = killed_at(step, go_on, folder, OTHER, 0)
        go_on(folder, then)
        assert contents(folder) == whole
        step += 1
    assert step == 13  # two removals, fsync of the folder; then three files; then it is not killed


def test_nothing_is_warned_about_in_a_sound_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path / "s")
        StoreWriter(tmp_path / "s", PLAN, shard_rows=4).close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
def test_a_pipe_in_the_place_of_the_lock_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(StoreError, match=r"\.lock' is no file"):
        StoreWriter(tmp_path, {"a": 1})


def test_a_plan_that_could_not_be_opened_again_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(StoreError, match="'fit' is one of `extract`, but it has no 'recipe'"):
        StoreWriter(tmp_path / "s", {"fit": 3})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["a\0b", "a\0b/c"])
def test_a_name_that_no_folder_can_have_is_named(tmp_path, name):
    with pytest.raises(StoreError, match=r"cannot be written: embedded null (byte|character).*; give another folder"):
        make(tmp_path / name)


def test_a_name_that_no_file_can_have_is_named(tmp_path):
    with pytest.raises(StoreError, match="was not written: embedded null"):
        write_file(tmp_path / "a\0b", b"")


def test_lists_that_differ_beyond_what_is_shown_are_told_by_their_kinds():
    kl = {"augmentation": {"kind": "whole", "note": "x" * 50}, "kind": "kl"}
    (line,) = differences({"o": [kl, {"kind": "dino"}]}, {"o": [kl]})
    assert line == "o: store has kl, dino, this run has kl"
