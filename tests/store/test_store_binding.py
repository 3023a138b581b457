"""Each file of a store belongs to its plan, its place and its fit; hand edits with right checksums are refused."""

import json
import random
import shutil
import tracemalloc
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_edits import edit, random_edit
from sporeprint.errors import DamagedStore, RowFailure, SporeprintError, StoreError, StoreMismatch
from sporeprint.store.atomic import digest_of_json, record_of, seal, unseal
from sporeprint.store.reader import Store
from sporeprint.store.writer import StoreWriter

WIDTHS = {"embedding": 2, "kl": 3}


def plan(name):
    return {"source": name}


def make(folder, name="a", value=0.0, commit=True, shards=range(3), **options):
    """Row r of shard s holds `value + s` in every block."""
    with StoreWriter(folder, plan(name), shard_rows=3, **options) as writer:
        if writer.complete:
            return Store.open(folder)
        writer.write_state("heads", b"the same fit")
        for shard in shards:
            if shard not in writer.done:
                ids = [f"{shard}-{row}" for row in range(2)]
                blocks = {name: np.full((2, width), value + shard, np.float32) for name, width in WIDTHS.items()}
                writer.write_shard(shard, ids, [0, 1], blocks, [RowFailure(f"{shard}-2", "cut")], {"whole": 0.5})
        if commit:
            info = {name: {"dim": width} for name, width in WIDTHS.items()}
            return writer.commit(blocks=info, label_names=["x", "y"], cost={"seconds": {"whole": 1.5}})
    return None


def everything(store):
    store.verify()
    blocks = {name: block.tolist() for name, block in store.blocks().items()}
    return store.ids, store.labels.tolist(), blocks, store.read_state("heads"), store.failures, store.plan


@pytest.fixture
def whole(tmp_path):
    return everything(make(tmp_path / "whole"))


def move(source, target, name):
    shutil.copy(source / name, target / name)


@pytest.mark.parametrize("name", ["b", "a"])
def test_a_shard_of_another_store_of_the_same_fit_is_computed_again(tmp_path, whole, name):
    options = {} if name == "b" else {"dtype": "float16"}  # another source, another dtype
    make(tmp_path / "s", commit=False)
    make(tmp_path / "other", name, 100.0, **options)
    for suffix in ("json", "parquet"):
        move(tmp_path / "other", tmp_path / "s", f"shards/00001.{suffix}")
    with pytest.warns(UserWarning, match="shard 1 is dropped .*: it belongs to another store"):
        assert everything(make(tmp_path / "s")) == whole


def test_an_unfinished_store_whose_plan_is_anothers_keeps_no_shard_and_no_state(tmp_path):
    make(tmp_path / "s", commit=False)
    other = everything(make(tmp_path / "b", "b", 100.0))
    move(tmp_path / "b", tmp_path / "s", "plan.json")
    with pytest.raises(StoreMismatch):
        make(tmp_path / "s")
    with pytest.warns(UserWarning, match="belongs to another store") as said:
        assert everything(make(tmp_path / "s", "b", 100.0)) == other
    assert sum("is dropped" in str(each.message) for each in said) == 4


def test_a_state_record_is_of_its_store_and_its_name(tmp_path):
    make(tmp_path / "s", commit=False, shards=())
    make(tmp_path / "b", "b", commit=False, shards=())
    shutil.copytree(tmp_path / "s", tmp_path / "renamed")
    for name in ("heads", "heads.record"):
        move(tmp_path / "b", tmp_path / "s", f"state/{name}")
        (tmp_path / f"renamed/state/{name}").rename(tmp_path / "renamed/state" / name.replace("heads", "bank"))
    for folder, name, reason in (("s", "heads", "another store"), ("renamed", "bank", "another state")):
        with (
            pytest.warns(UserWarning, match=f"state '{name}' is dropped .*{reason}"),
            StoreWriter(tmp_path / folder, plan("a"), shard_rows=3) as writer,
        ):
            assert writer.read_state(name) is None


def test_shards_of_another_state_are_dropped_when_the_run_goes_on(tmp_path, whole):
    make(tmp_path / "s", commit=False)
    edit(tmp_path / "s/shards/00002.json", "shard", lambda record: record["states"].update(heads="0" * 64))
    with pytest.warns(UserWarning, match="shard 2 is dropped .* another state 'heads'"):
        assert everything(make(tmp_path / "s")) == whole


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 10**18}, "rows"),
        ({"rows": 3}, "rows"),
        ({"rows": -1}, "rows is -1; expected a count"),
        ({"rows": True}, "rows is True; expected a count"),
        ({"rows": 2.0}, "rows is 2.0; expected a count"),
        ({"bytes": "7"}, "bytes is '7'; expected a count"),
        ({"index": 2}, "it holds shard 2"),
        ({"blocks": {"embedding": 10**12, "kl": 3}}, "too short|a block 'embedding'"),
        ({"blocks": {"embedding": 2}}, "other columns"),
        ({"blocks": {"embedding": 3, "kl": 2}}, "a block 'embedding' of"),
        ({"blocks": ["embedding"]}, "blocks is .*; expected an object"),
        ({"labels": "string"}, "labels are of kind number, not string"),
        ({"failures": [{"id": 1, "reason": "x"}]}, "expected a text"),
        ({"failures": [{"id": "x", "reason": "x"}] * 9}, "9 failures"),
        ({"seconds": {"whole": "x"}}, "expected a finite number"),
        ({"truncated": 5}, "it counts"),
        ({"plan": "0" * 64}, "another store"),
    ],
)
def test_an_edited_shard_record_is_computed_again(tmp_path, whole, change, reason):
    make(tmp_path / "s", commit=False)
    edit(tmp_path / "s/shards/00001.json", "shard", lambda record: record.update(change))
    with pytest.warns(UserWarning, match=f"shard 1 is dropped .*({reason})"):
        assert everything(make(tmp_path / "s")) == whole


def shards_of(count, rows):
    return lambda manifest: manifest.update(rows=count) or manifest["shards"][0].update(rows=rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 10**15}, "it counts 1000000000000000 rows, its shards have 6"),
        ({"rows": 7}, "it counts 7 rows, its shards have 6"),
        (shards_of(10**15 + 4, 10**15), "more than the 3 rows of the plan"),
        (shards_of(7, 3), "rows; 3 were written"),
        ({"blocks": {"embedding": {"dim": 2**50}, "kl": {"dim": 3}}}, "wider than its shards' files"),
        ({"blocks": {"embedding": {"dim": 3}, "kl": {"dim": 2}}}, "a block 'embedding' of"),
        ({"blocks": {"embedding": {"dim": 2}}}, "its order of blocks"),
        ({"block_order": ["kl", "kl"]}, "its order of blocks"),
        ({"shards": []}, "its shards have 0"),
        (lambda manifest: manifest["shards"].reverse(), "not numbered"),
        (lambda manifest: manifest["shards"][1].update(index=0), "not numbered"),
        (lambda manifest: manifest["states"].update({"../heads": manifest["states"]["heads"]}), "cannot name a state"),
        ({"label_names": {"x": 1}}, "label_names is"),
        ({"label_names": ["x"]}, "label 1 has no name"),
        ({"cost": []}, r"cost is \[\]; expected an object"),
        ({"plan": "0" * 64}, "another run"),
        ({"format": 2}, "written in format 2"),
        ({"failures": [["a", "b"]]}, "expected an object"),
    ],
)
def test_an_edited_manifest_is_refused(tmp_path, change, reason):
    make(tmp_path / "s")
    apply = change if callable(change) else lambda manifest: manifest.update(change)
    edit(tmp_path / "s/manifest.json", "manifest", apply)
    tracemalloc.start()
    with pytest.raises(StoreError, match=reason):
        everything(Store.open(tmp_path / "s"))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("change", [{"dtype": "float64"}, {"shard_rows": 0}, {"plan": []}, {"dtype": ["float32"]}])
def test_an_edited_plan_is_refused_though_the_manifest_names_it(tmp_path, change):
    make(tmp_path / "s")
    edit(tmp_path / "s/plan.json", "plan", lambda header: header.update(change))
    digest = digest_of_json(unseal("plan", tmp_path / "s/plan.json"))
    edit(tmp_path / "s/manifest.json", "manifest", lambda manifest: manifest.update(plan=digest))
    with pytest.raises(DamagedStore, match=r"plan\.json' cannot be understood"):
        Store.open(tmp_path / "s")


def test_a_store_that_could_not_be_opened_is_not_committed(tmp_path):
    with StoreWriter(tmp_path / "s", plan("a")) as writer:
        writer.write_shard(0, ["r"], None, {"embedding": np.ones((1, 2))}, [], {})
        with pytest.raises(StoreError, match="could not be opened again"):
            writer.commit(blocks={"embedding": {"dim": 2}}, label_names=[1], cost={})


def replace_shard(folder, table, **written):
    """Another Parquet file instead of shard 0, with its checksum in the manifest and in its record."""
    pq.write_table(table, folder / "shards/00000.parquet", **written)
    record = record_of((folder / "shards/00000.parquet").read_bytes())
    edit(folder / "manifest.json", "manifest", lambda manifest: manifest["shards"][0].update(record))
    edit(folder / "shards/00000.json", "shard", lambda shard: shard.update(record))


def columns(ids=("0-0", "0-1"), labels=(0, 1), kind=np.float32, **blocks):
    made = {name: np.zeros((2, width), kind) for name, width in WIDTHS.items()} | blocks
    lists = {
        name: block
        if isinstance(block, (pa.Array, pa.ChunkedArray))
        else pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), block.shape[1])
        for name, block in made.items()
    }
    return pa.table({"id": pa.array(ids), "label": pa.array(labels), **lists})


PLAIN = {"use_dictionary": False, "compression": {"id": "zstd", "label": "zstd"}}
HUGE = "x" * 2**26
FOREIGN = {
    "float16 in float32": (columns(kind=np.float16), PLAIN, "a block 'embedding' of"),
    "float64": (columns(kind=np.float64), PLAIN, "a block 'embedding' of"),
    "other width": (columns(kl=np.zeros((2, 4), np.float32)), PLAIN, "a block 'kl' of"),
    "one row more": (pa.concat_tables([columns(), columns(("a", "b")).slice(0, 1)]), PLAIN, "has 3 rows"),
    "a column more": (columns().append_column("x", pa.array([1, 2])), PLAIN, "other columns"),
    "ids of numbers": (columns(ids=(1, 2)), PLAIN, "ids of int64"),
    "no id": (columns(ids=("a", None)), PLAIN, "no id of its own"),
    "an id twice": (columns(ids=("a", "a")), PLAIN, "no id of its own"),
    "NaN": (columns(kl=np.full((2, 3), np.nan, np.float32)), PLAIN, "not finite"),
    "a missing number": (
        columns(kl=pa.array([[0, None, 1], [1, 1, 1]], pa.list_(pa.float32(), 3))),
        PLAIN,
        "lacks a number",
    ),
    "labels of another kind": (columns(labels=("a", "b")), PLAIN, "labels of kind"),
    "labels that are records": (columns(labels=({"a": 1}, {"a": 2})), PLAIN, "columns|labels of type"),
    "lists of variable length": (
        columns(kl=pa.array([[1.0, 2, 3], [1, 2, 3]], pa.list_(pa.float32()))),
        PLAIN,
        "a block 'kl' of",
    ),
    "compressed numbers": (columns(), {**PLAIN, "compression": "zstd"}, "in another way"),
    "a dictionary": (columns(), {**PLAIN, "use_dictionary": True}, "in another way"),
    "ids of 128 MiB in 20 kB": (columns(ids=(HUGE, HUGE + "y")), PLAIN, "ids and labels of 1342"),
    "labels of a list of 2^24": (
        columns(labels=pa.array([[None] * 2**24, [1]], pa.list_(pa.int64()))),
        PLAIN,
        "ids and labels of 1342",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_parquet_that_the_writer_would_not_write_is_refused_before_it_is_decoded(tmp_path, whole, name):
    table, written, reason = FOREIGN[name]
    make(tmp_path / "s")
    replace_shard(tmp_path / "s", table, **written)
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(DamagedStore, match=reason):
            everything(Store.open(tmp_path / "s"))
    finally:
        pa.set_memory_pool(usual)
    assert pool.max_memory() < 2**20
    with pytest.warns(UserWarning, match="is dropped"):
        assert everything(make(tmp_path / "s")) == whole


def test_a_shard_that_repeats_a_row_of_another_is_refused(tmp_path):
    make(tmp_path / "s")
    replace_shard(tmp_path / "s", columns(ids=("a", "1-0")), **PLAIN)
    for read in (Store.verify, Store.blocks, lambda store: store.ids, lambda store: store.labels):
        with pytest.raises(DamagedStore, match="other rows than the shards hold"):
            read(Store.open(tmp_path / "s"))


def test_ids_that_no_shard_holds_are_refused_when_they_are_written(tmp_path):
    with (
        StoreWriter(tmp_path / "s", plan("a")) as writer,
        pytest.raises(StoreError, match="ids and labels of 1 rows take"),
    ):
        writer.write_shard(0, ["x" * 2**27], None, {"embedding": np.ones((1, 2))}, [], {})


SEALED = {
    "plan.json": "plan",
    "manifest.json": "manifest",
    "shards/00001.json": "shard",
    "state/heads.record": "state",
}


@pytest.mark.filterwarnings("ignore")
def test_random_hand_edits_with_right_checksums_end_in_the_same_store_or_a_named_error(tmp_path, whole):
    draw = random.Random(0)
    outcomes = {"same": 0, "refused": 0}
    for commit in (True, False):
        shutil.rmtree(tmp_path / "sound", ignore_errors=True)
        make(tmp_path / "sound", commit=commit)
        for _ in range(50):
            shutil.rmtree(tmp_path / "s", ignore_errors=True)
            shutil.copytree(tmp_path / "sound", tmp_path / "s")
            name = draw.choice([name for name in SEALED if (tmp_path / "s" / name).exists()])
            told = []
            try:
                edit(
                    tmp_path / "s" / name, SEALED[name], lambda value, told=told: told.append(random_edit(value, draw))
                )
            except StoreError:
                continue  # not JSON: no checksum
            if name == "plan.json" and commit:
                digest = digest_of_json(unseal("plan", tmp_path / "s/plan.json"))
                edit(tmp_path / "s/manifest.json", "manifest", lambda manifest, d=digest: manifest.update(plan=d))
            for attempt in (Store.open, make):
                try:
                    store = attempt(tmp_path / "s")
                    seen = everything(store)
                except SporeprintError:
                    outcomes["refused"] += 1
                    continue
                free = ("label_names", "failures", "reason", "'id'", "plan.json", "cost", "label")
                assert seen == whole or any(word in f"{name} {told}" for word in free), (name, told)
                outcomes["same"] += 1
    assert min(outcomes.values()) > 15, outcomes


def test_deep_json_with_a_right_checksum_is_refused(tmp_path):
    make(tmp_path / "s")
    for name, kind in SEALED.items():
        data = (tmp_path / "s" / name).read_bytes()
        value = unseal(kind, tmp_path / "s" / name)
        deep: object = []
        for _ in range(300):
            deep = [deep]
        (tmp_path / "s" / name).write_bytes(seal(kind, {**value, "plan": {"x": deep}}))
        if name in ("plan.json", "manifest.json"):
            with pytest.raises(DamagedStore):
                Store.open(tmp_path / "s")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                make(tmp_path / "s")
            except DamagedStore:
                assert name == "plan.json"
        (tmp_path / "s" / name).write_bytes(data)
    assert json.loads((tmp_path / "s/manifest.json").read_text())["rows"] == 6


def test_a_store_without_a_shard_promises_nothing(tmp_path):
    make(tmp_path / "s", commit=False, shards=())
    with pytest.raises(StoreError, match=r"0 shards are done .* run the same command again$"):
        Store.open(tmp_path / "s")
    with pytest.raises(StoreError, match=r"is not a store: there is no such folder"):
        Store.open(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore")
def test_random_damage_to_a_shard_with_right_checksums_is_named_or_harmless(tmp_path, whole):
    """A number that became another one is not damage that anybody can see: its checksum is right."""
    make(tmp_path / "s")
    data, draw, refused = (tmp_path / "s/shards/00000.parquet").read_bytes(), random.Random(6), 0
    for _ in range(70):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 1, 3])):
            damaged[draw.randrange(len(data))] = draw.choice([0, 127, 255, draw.randrange(256)])
        (tmp_path / "s/shards/00000.parquet").write_bytes(damaged)
        record = record_of(bytes(damaged))
        edit(tmp_path / "s/manifest.json", "manifest", lambda manifest, r=record: manifest["shards"][0].update(r))
        try:
            seen = everything(Store.open(tmp_path / "s"))
        except StoreError:
            refused += 1
            continue
        assert [len(part) for part in seen] == [len(part) for part in whole]
    assert refused > 35
