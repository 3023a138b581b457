import json
import logging
import os
import pickle
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from PIL import Image

from small import noise_pictures, small_backbone
from sporeprint import KL, Fungi, Recipe, SimCLR, Store, open_source
from sporeprint.backbones.precision import VARIABLE
from sporeprint.data.rows import ReadAgain
from sporeprint.data.sources import ListSource
from sporeprint.errors import (
    DamagedStore,
    RecipeError,
    SourceError,
    SporeprintWarning,
    StoreError,
    StoreMismatch,
    TooManyFailures,
)
from sporeprint.objectives.views.image import Patches
from sporeprint.run import extract as run_extract
from sporeprint.run.extract import Settings, extract
from sporeprint.run.store_info import cost_lines

RECIPE = Recipe(objectives=[KL(latent=24), SimCLR(latent=8, augmentation=Patches(2), negatives=3)], layers=1)
SMALL = Settings(batch_size=2, shard_rows=3)


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


@pytest.fixture(scope="module")
def pictures():
    return noise_pictures(11)


@pytest.fixture
def folder(tmp_path, pictures):
    """Eleven pictures in three class folders."""
    for number, image in enumerate(pictures):
        where = tmp_path / "pictures" / "abc"[number % 3]
        where.mkdir(parents=True, exist_ok=True)
        image.save(where / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def table(tmp_path, folder):
    """The same as a Parquet table with Hugging Face's struct of bytes and named integer labels."""
    paths = sorted(folder.rglob("*.png"))
    struct = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    labels = pa.array(["abc".index(path.parent.name) for path in paths], pa.int64())
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    table = pa.table({"image": struct, "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "pictures.parquet")
    return tmp_path / "pictures.parquet"


def contents(store_folder):
    """Every file but what a run's cost may differ in."""
    files = {}
    for path in sorted(store_folder.rglob("*")):
        if path.is_dir() or path.name == ".lock":
            continue
        data = path.read_bytes()
        if path.suffix in (".json", ".record"):
            body = json.loads(data)
            for key in ("cost", "seconds", "checksum"):
                body.pop(key, None)
            data = body if path.parent.name != "state" or path.suffix == ".record" else data
        files[path.relative_to(store_folder).as_posix()] = data
    return files


def test_the_time_of_drawing_negatives_is_kept_also_where_the_run_is_interrupted(
    tmp_path, folder, backbone, monkeypatch
):
    draw = Fungi.draw_negatives

    def slowly(self, *words):
        time.sleep(0.3)
        draw(self, *words)

    monkeypatch.setattr(Fungi, "draw_negatives", slowly)
    with monkeypatch.context() as patch:
        patch.setattr("sporeprint.run.extract._write_shards", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    monkeypatch.setattr(Fungi, "draw_negatives", lambda *_: pytest.fail("drawn again"))
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    assert 0.3 <= store.cost["seconds"]["negatives"] < 30
    (said,) = [line for line in cost_lines(store) if "negatives" in line]
    assert said == f"time to draw negatives: {store.cost['seconds']['negatives']:.1f} s, once, before the rows"
    other = extract(
        open_source(folder), tmp_path / "other", fit_from=tmp_path / "out", backbone=backbone, settings=SMALL
    )
    assert "negatives" not in other.cost["seconds"]
    assert not [line for line in cost_lines(other) if "negatives" in line]


def raise_interrupt(*_):
    raise KeyboardInterrupt


def test_info_says_how_times_were_measured(tmp_path, folder, backbone):
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    threads = {1: "1 thread", 3: "3 threads"}
    for count, words in threads.items():
        store.cost["threads"] = count
        lines = list(cost_lines(store))
        said = f"times: measured while extracting, on {words} of cpu, whatever else ran"
        assert f"{said}, reading and decoding rows left out" in lines
        assert not [line for line in lines if "rows/s" in line and "threads" in line]


def test_a_folder_of_class_folders_becomes_a_store_of_its_blocks(tmp_path, folder, backbone):
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    ids = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert store.ids == ids
    assert store.labels.tolist() == [row_id[0] for row_id in ids]
    assert store.failures == []
    store.verify()
    fungi = Fungi(RECIPE, backbone=backbone)
    expected = fungi.fit_blocks([folder / row_id for row_id in ids], ids=ids)
    blocks = store.blocks()
    assert list(blocks) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(blocks[name], values, atol=1e-5, err_msg=name)
        assert store.blocks_info[name]["dim"] == values.shape[1]
    assert store.blocks_info["simclr"]["passes"] == 4
    assert {"whole", "simclr", "projection"} <= set(store.cost["seconds"])
    assert store.cost["rows"] == 11


def test_a_table_gives_the_same_blocks_under_its_own_ids_and_label_names(tmp_path, folder, table, backbone):
    recipe = Recipe(objectives=[KL(latent=24)], layers=1)  # no draw, so ids change nothing
    first = extract(open_source(folder), tmp_path / "one", recipe, backbone=backbone)
    other = extract(open_source(table), tmp_path / "other", recipe, backbone=backbone)
    assert other.labels.tolist() == first.labels.tolist()
    assert other.label_names == ["a", "b", "c"]
    assert len(set(other.ids)) == 11
    for name, values in first.blocks().items():
        np.testing.assert_allclose(other.blocks()[name], values, atol=1e-5)


def test_unlabelled_lists_become_stores_too(tmp_path, pictures, backbone):
    store = extract(ListSource(pictures), tmp_path / "out", RECIPE, backbone=backbone)
    assert store.labels is None
    assert len(set(store.ids)) == 11


def test_equal_pictures_of_a_list_are_rows_of_their_own_with_the_same_blocks(tmp_path, pictures, backbone, monkeypatch):
    source = ListSource([pictures[at] for at in (0, 1, 0, 2, 3, 0, 1)])
    settings = Settings(batch_size=2, shard_rows=2)
    whole = extract(source, tmp_path / "whole", RECIPE, backbone=backbone, settings=settings)
    zero, first_id = whole.ids[0], whole.ids[1]
    assert whole.ids == [zero, first_id, f"{zero}-2", whole.ids[3], whole.ids[4], f"{zero}-3", f"{first_id}-2"]
    for values in whole.blocks().values():
        np.testing.assert_allclose(values[[2, 5, 6]], values[[0, 0, 1]], atol=1e-5)
    with monkeypatch.context() as patch:
        failing_at(patch, 4)
        with pytest.raises(OSError, match="the lights"):
            extract(source, tmp_path / "cut", RECIPE, backbone=backbone, settings=settings)
    (tmp_path / "cut" / "shards" / "00001.json").unlink()
    with pytest.warns(UserWarning, match="shard 1 is dropped"):
        again = extract(source, tmp_path / "cut", RECIPE, backbone=backbone, settings=settings)
    assert again.ids == whole.ids


def test_every_file_of_a_store_is_json_parquet_or_safetensors(tmp_path, folder, backbone, monkeypatch):
    """So that nothing in it can run code: a file of torch.save is a zip, one of pickle neither of the three."""

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    extract(open_source(folder), tmp_path / "test", fit_from=tmp_path / "out", backbone=backbone)
    read = {
        ".json": lambda path: json.loads(path.read_text()),
        ".record": lambda path: json.loads(path.read_text()),
        ".parquet": lambda path: pq.read_table(path),
        ".safetensors": lambda path: safetensors.numpy.load(path.read_bytes()),
    }
    seen = [path for path in store.folder.rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.suffix for path in seen} == set(read)
    for path in seen:
        assert len(read[path.suffix](path)) > 0, path


def failing_at(monkeypatch, call):
    """Make the so-many-th batch fail."""
    real, calls = Fungi.compute, []

    def compute(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise OSError("the lights went out")
        return real(self, *args)

    monkeypatch.setattr(Fungi, "compute", compute)
    return calls


@pytest.mark.parametrize("call", [1, 2, 3, 5, 7])
def test_an_interrupted_run_goes_on_to_the_same_store(tmp_path, folder, backbone, monkeypatch, call):
    whole = extract(open_source(folder), tmp_path / "whole", RECIPE, backbone=backbone, settings=SMALL)
    with monkeypatch.context() as patch:
        failing_at(patch, call)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "cut", RECIPE, backbone=backbone, settings=SMALL)
    with pytest.raises(StoreError, match="incomplete"):
        Store.open(tmp_path / "cut")
    with monkeypatch.context() as patch:
        calls = failing_at(patch, 0)
        again = extract(open_source(folder), tmp_path / "cut", RECIPE, backbone=backbone, settings=SMALL)
    # Shards of 3, 3, 3 and 2 rows in batches of two: 7 batches; a shard is done when both of its batches are.
    assert len(calls) == 7 - (call - 1) // 2 * 2
    assert again.digest == whole.digest
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.filterwarnings("ignore:.*checksum differs")
@pytest.mark.parametrize("shard", [0, 1, 3])
def test_a_damaged_shard_is_computed_again_and_no_other(tmp_path, folder, backbone, monkeypatch, shard):
    whole = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    before = contents(tmp_path / "out")
    path = tmp_path / "out" / "shards" / f"0000{shard}.parquet"
    path.write_bytes(path.read_bytes()[:-9] + b"otherwise")
    calls = failing_at(monkeypatch, 0)
    with pytest.warns(UserWarning, match=f"shard {shard} is dropped"):
        again = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    assert len(calls) == (1 if shard == 3 else 2)
    assert again.digest == whole.digest
    assert contents(tmp_path / "out") == before


def test_the_negatives_are_drawn_once_and_read_back(tmp_path, folder, backbone, monkeypatch):
    with monkeypatch.context() as patch:
        failing_at(patch, 3)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)

    def refuse(*args):
        raise AssertionError("drawn again")

    monkeypatch.setattr(Fungi, "draw_negatives", refuse)
    assert len(extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)) == 11


def test_a_complete_store_is_given_back_without_work(tmp_path, folder, backbone, monkeypatch):
    first = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    failing_at(monkeypatch, 1)
    assert extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone).digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in before if path.name != ".lock"} == {
        path: time for path, time in before.items() if path.name != ".lock"
    }


def test_another_batch_size_or_worker_count_may_go_on(tmp_path, folder, backbone, monkeypatch):
    whole = extract(open_source(folder), tmp_path / "whole", RECIPE, backbone=backbone, settings=SMALL)
    with monkeypatch.context() as patch:
        failing_at(patch, 4)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "cut", RECIPE, backbone=backbone, settings=SMALL)
    other = Settings(batch_size=5, workers=3, shard_rows=3)
    again = extract(open_source(folder), tmp_path / "cut", RECIPE, backbone=backbone, settings=other)
    assert again.ids == whole.ids
    for name, values in whole.blocks().items():
        np.testing.assert_allclose(again.blocks()[name], values, atol=1e-5)


# A test set


def test_a_test_set_uses_the_training_runs_heads_and_negatives(tmp_path, folder, pictures, backbone):
    train = extract(open_source(folder), tmp_path / "train", RECIPE, backbone=backbone)
    fungi = Fungi(RECIPE, backbone=backbone).fit([folder / row_id for row_id in train.ids], ids=train.ids)
    fungi.save(tmp_path / "saved")
    source = ListSource(pictures[:4], ids=["p", "q", "r", "s"])
    expected = fungi.blocks(pictures[:4], ids=["p", "q", "r", "s"])
    for number, fit_from in enumerate(("train", "saved")):
        store = extract(source, tmp_path / f"out-{number}", fit_from=tmp_path / fit_from, backbone=backbone)
        for name, values in store.blocks().items():
            np.testing.assert_allclose(values, expected[name], atol=1e-5, err_msg=name)
    own = extract(source, tmp_path / "own", RECIPE, backbone=backbone)
    assert np.abs(own.blocks()["simclr"] - expected["simclr"]).max() > 0.01


def test_a_chain_of_fits_keeps_the_first_ones_state(tmp_path, folder, pictures, backbone):
    extract(open_source(folder), tmp_path / "train", RECIPE, backbone=backbone)
    source = ListSource(pictures[:4], ids=["p", "q", "r", "s"])
    fitted = extract(source, tmp_path / "one", fit_from=tmp_path / "train", backbone=backbone)
    two = extract(source, tmp_path / "two", fit_from=tmp_path / "one", backbone=backbone)
    for name, values in fitted.blocks().items():
        np.testing.assert_array_equal(two.blocks()[name], values)


def test_a_recipe_that_differs_from_the_fits_is_refused(tmp_path, folder, backbone):
    extract(open_source(folder), tmp_path / "train", RECIPE, backbone=backbone)
    for other, named in ((Recipe(objectives=RECIPE.objectives, layers=2), "layers=1"), (Recipe(seed=3), "objectives")):
        with pytest.raises(StoreMismatch, match=named):
            extract(open_source(folder), tmp_path / "o", other, fit_from=tmp_path / "train", backbone=backbone)
    same = extract(open_source(folder), tmp_path / "same", RECIPE, fit_from=tmp_path / "train", backbone=backbone)
    assert len(same) == 11


def test_a_fit_of_other_weights_is_refused(tmp_path, folder, backbone):
    extract(open_source(folder), tmp_path / "train", RECIPE, backbone=backbone)
    with pytest.raises(StoreMismatch, match="weights"):
        extract(open_source(folder), tmp_path / "o", fit_from=tmp_path / "train", backbone=small_backbone(seed=1))


@pytest.mark.parametrize("name", ["nowhere", "pictures"])
def test_a_fit_from_something_else_is_named(tmp_path, folder, backbone, name):
    with pytest.raises(StoreError, match=name):
        extract(open_source(folder), tmp_path / "o", fit_from=tmp_path / name, backbone=backbone)


def test_a_damaged_fit_is_never_used(tmp_path, folder, backbone):
    extract(open_source(folder), tmp_path / "train", RECIPE, backbone=backbone)
    path = tmp_path / "train" / "state" / "fungi.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedStore, match=r"fungi\.safetensors"):
        extract(open_source(folder), tmp_path / "o", fit_from=tmp_path / "train", backbone=backbone)


# Refusals


def test_a_store_of_another_run_is_refused_with_what_differs(tmp_path, folder, pictures, backbone):
    out = tmp_path / "out"
    extract(open_source(folder), out, RECIPE, backbone=backbone, settings=SMALL)
    before = contents(out)
    other_recipe = Recipe(objectives=[KL(latent=24, temperature=15.0), RECIPE.objectives[1]], layers=1, seed=5)
    for complaint, source, arguments in [
        (
            r"(?s)recipe\.objectives\[0\]\.temperature: .* 1, .* 15\b.*recipe\.seed: .* 0, .* 5",
            folder,
            {"recipe": other_recipe},
        ),
        (r"resolved\.backbone\.weights", folder, {"backbone": small_backbone(seed=1)}),
        (r"resolved\.backbone\.pooling", folder, {"backbone": small_backbone(pooling="mean")}),
        (r"store\.shard_rows: .* 3, .* 5", folder, {"settings": Settings(shard_rows=5)}),
        (r"store\.dtype: .*float32.*float16", folder, {"settings": Settings(shard_rows=3, dtype="float16")}),
        (r"source\.rows: .* 11, .* 4", ListSource(pictures[:4]), {}),
        (r"fit\.from: .*this source", folder, {"recipe": None, "fit_from": out}),
    ]:
        source = source if isinstance(source, ListSource) else open_source(source)
        given = {"recipe": RECIPE, "backbone": backbone, "settings": SMALL, **arguments}
        with pytest.raises(StoreMismatch, match=complaint):
            extract(source, out, **given)
    assert contents(out) == before


def test_changed_data_are_noticed(tmp_path, folder, backbone):
    extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone)
    path = next(folder.rglob("*.png"))
    noise_pictures(1, seed=9)[0].save(path)
    with pytest.raises(StoreMismatch, match=r"source\.digest"):
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone)


def test_a_file_replaced_by_one_of_the_same_size_and_time_between_kill_and_resume_is_noticed(
    tmp_path, folder, backbone, monkeypatch
):
    for path in list(folder.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    with monkeypatch.context() as patch:
        failing_at(patch, 3)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    path = sorted(folder.rglob("*.bmp"))[-1]
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-9] + bytes(9))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StoreMismatch, match=r"source\.digest"):
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    path.write_bytes(data)  # at another time
    made = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    assert len(made) == 11


def test_a_backbone_under_another_name_goes_on(tmp_path, folder, backbone, monkeypatch):
    with monkeypatch.context() as patch:
        failing_at(patch, 3)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    moved = small_backbone()
    moved.name = "elsewhere"
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=moved, settings=SMALL)
    assert len(store) == 11
    assert store.plan["resolved"]["backbone"]["name"] == backbone.name != "elsewhere"


def test_a_store_inside_its_own_source_goes_on(tmp_path, folder, backbone, monkeypatch):
    with monkeypatch.context() as patch:
        failing_at(patch, 3)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), folder / "out", RECIPE, backbone=backbone, settings=SMALL)
    assert open_source(folder).describe()["ignored_files"] > 0
    assert len(extract(open_source(folder), folder / "out", RECIPE, backbone=backbone, settings=SMALL)) == 11


# Rows that cannot be read


def test_corrupt_rows_are_named_and_the_others_are_as_they_would_be(tmp_path, folder, backbone):
    kl = Recipe(objectives=[KL(latent=24)], layers=1)
    whole = extract(open_source(folder), tmp_path / "whole", kl, backbone=backbone)
    (folder / "a" / "00.png").write_bytes((folder / "a" / "00.png").read_bytes()[:60])
    (folder / "b" / "04.png").write_bytes(b"")
    settings = Settings(batch_size=2, shard_rows=3, max_failures=0.2)
    store = extract(open_source(folder), tmp_path / "out", kl, backbone=backbone, settings=settings)
    assert [failure.id for failure in store.failures] == ["a/00.png", "b/04.png"]
    assert all(failure.reason for failure in store.failures)
    assert store.ids == [row_id for row_id in whole.ids if row_id not in ("a/00.png", "b/04.png")]
    assert store.labels.tolist() == [row_id[0] for row_id in store.ids]
    kept = [whole.ids.index(row_id) for row_id in store.ids]
    np.testing.assert_allclose(store.blocks()["kl"], whole.blocks()["kl"][kept], atol=1e-5)


def test_too_many_corrupt_rows_stop_the_run_and_a_larger_allowance_goes_on(tmp_path, folder, backbone):
    for name in ("a/00.png", "b/04.png", "c/08.png"):
        (folder / name).write_bytes(b"no picture")
    with pytest.raises(
        TooManyFailures, match=r"2 of 11 rows cannot be read; at most 1 may fail \(a/00.png: .*; b/04.png: "
    ) as caught:
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    assert [failure.id for failure in caught.value.failures] == ["a/00.png", "b/04.png"]
    more = Settings(batch_size=2, shard_rows=3, max_failures=0.3)
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=more)
    assert [failure.id for failure in store.failures] == ["a/00.png", "b/04.png", "c/08.png"]
    none = Settings(max_failures=0.0)
    with pytest.raises(TooManyFailures, match="3 of 11 rows cannot be read; at most 0 may fail"):
        extract(open_source(folder), tmp_path / "strict", RECIPE, backbone=backbone, settings=none)


def test_a_shard_may_fail_whole_but_not_the_store(tmp_path, folder, backbone):
    for path in sorted(folder.rglob("*.png"))[:3]:
        path.write_bytes(b"no picture")
    lenient = Settings(batch_size=2, shard_rows=3, max_failures=1.0)
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=lenient)
    assert (len(store), len(store.failures)) == (8, 3)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(StoreError, match="none of the 11 rows"):
        extract(open_source(folder), tmp_path / "none", RECIPE, backbone=backbone, settings=lenient)


def test_where_every_row_fails_the_first_reasons_are_said(tmp_path, folder, backbone):
    (folder / "t.csv").write_text("image,label\nhf\\0.png,a\nhttps://example.org/1.png,b\n")
    lenient = Settings(max_failures=1.0)
    with pytest.raises(StoreError, match=r"has features \(0: there is no file 'hf.*0\.png'.*; 1: .* is a web address"):
        extract(open_source(folder / "t.csv"), tmp_path / "out", RECIPE, backbone=backbone, settings=lenient)


def test_what_was_computed_before_too_many_rows_failed_is_kept(tmp_path, folder, backbone, monkeypatch):
    for name in ("a/03.png", "a/06.png"):
        (folder / name).write_bytes(b"no picture")
    settings = {"batch_size": 1, "shard_rows": 4}
    with pytest.raises(TooManyFailures, match="2 of 11 rows"):
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=Settings(**settings))
    calls = failing_at(monkeypatch, 0)
    more = Settings(**settings, max_failures=0.2)
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=more)
    assert (len(store), len(store.failures)) == (9, 2)
    assert len(calls) == 7


def test_a_first_shard_without_any_readable_row_leaves_the_folder_free_for_the_mended_source(
    tmp_path, folder, backbone
):
    whole = {path: path.read_bytes() for path in (folder / name for name in ("a/00.png", "a/03.png", "a/06.png"))}
    for path in whole:
        path.write_bytes(b"no picture")
    with pytest.raises(TooManyFailures, match="3 of 11 rows"):
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    for path, data in whole.items():
        path.write_bytes(data)
    assert len(extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)) == 11


def test_the_samples_of_a_shard_are_not_held_together(tmp_path, pictures, backbone):
    class Counted(ListSource):
        alive = most = 0

        def rows(self, start=0):
            for row in super().rows(start):
                sample = row.sample.copy()
                Counted.alive += 1
                weakref.finalize(sample, lambda: setattr(Counted, "alive", Counted.alive - 1))
                Counted.most = max(Counted.most, Counted.alive)
                yield replace(row, sample=sample)
                del sample, row

    settings = Settings(batch_size=1, shard_rows=256)
    recipe = Recipe(objectives=[], layers=1)
    extract(Counted(pictures), tmp_path / "out", recipe, backbone=backbone, settings=settings)
    assert Counted.most <= 6


def test_large_samples_are_read_again_for_the_same_negatives(tmp_path, table, backbone, monkeypatch):
    store = extract(open_source(table), tmp_path / "held", RECIPE, backbone=backbone)
    monkeypatch.setattr(run_extract, "LARGE_BYTES", 10)
    read, number_of = [], ReadAgain.read
    monkeypatch.setattr(ReadAgain, "read", lambda self: read.append(self.number) or number_of(self))
    again = extract(open_source(table), tmp_path / "again", RECIPE, backbone=backbone)
    assert len(read) >= 3
    np.testing.assert_array_equal(again.blocks()["simclr"], store.blocks()["simclr"])


def test_a_source_that_has_fewer_rows_than_it_said_is_refused(tmp_path, pictures, backbone):
    source = ListSource(pictures)
    source.rows = lambda start=0: iter(list(ListSource(pictures[:5]).rows(start)))
    with pytest.raises(SourceError, match="has 5 rows; it said 11"):
        extract(source, tmp_path / "out", Recipe(objectives=[], layers=1), backbone=backbone, settings=SMALL)


def test_float16_stores_are_near_and_say_so(tmp_path, folder, backbone):
    full = extract(open_source(folder), tmp_path / "full", RECIPE, backbone=backbone)
    half = extract(
        open_source(folder), tmp_path / "half", RECIPE, backbone=backbone, settings=Settings(dtype="float16")
    )
    assert (full.dtype, half.dtype) == ("float32", "float16")
    for name, values in full.blocks().items():
        np.testing.assert_allclose(half.blocks()[name], values, atol=1e-3)


def test_progress_counts_rows_and_starts_where_the_run_does(tmp_path, folder, backbone, monkeypatch):
    seen = []
    with monkeypatch.context() as patch:
        failing_at(patch, 5)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    extract(
        open_source(folder),
        tmp_path / "out",
        RECIPE,
        backbone=backbone,
        settings=SMALL,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [("rows", done, 11) for done in (6, 8, 9, 11)]


class AtOnce:
    """A timer whose time is over when it is started."""

    def __init__(self, seconds, call, arguments):
        self.start = lambda: call(*arguments)
        self.cancel = lambda: None


def test_each_long_reading_of_the_source_is_said(tmp_path, folder, backbone, caplog, monkeypatch):
    monkeypatch.setattr("sporeprint.run.extract.threading.Timer", AtOnce)
    caplog.set_level("INFO", "sporeprint")
    for recipe, expected in (
        (RECIPE, ["digest", "negatives"]),
        (Recipe(objectives=[KL(latent=24)], layers=1), ["digest"]),
    ):
        caplog.clear()
        extract(open_source(folder), tmp_path / f"out-{len(expected)}", recipe, backbone=backbone)
        lines = [line for line in caplog.messages if line.startswith("reading the source (11 rows)")]
        assert [word for line in lines for word in ("digest", "negatives") if word in line] == expected


def test_the_plan_holds_no_folder_of_this_machine(tmp_path, folder, backbone):
    store = extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone)
    for name in ("plan.json", "manifest.json", "state/fungi.json"):
        assert str(tmp_path) not in (store.folder / name).read_text()


def test_no_gradients_no_negatives(tmp_path, folder, backbone):
    store = extract(open_source(folder), tmp_path / "out", Recipe(objectives=[], layers=1), backbone=backbone)
    assert store.block_names == ["embedding", "cls-2", "patches-2"]
    assert torch.is_grad_enabled()


def test_failures_of_an_earlier_run_count_against_a_smaller_allowance(tmp_path, folder, backbone, monkeypatch):
    (folder / "a" / "00.png").write_bytes(b"no picture")
    with monkeypatch.context() as patch:
        failing_at(patch, 4)
        with pytest.raises(OSError, match="the lights"):
            extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=SMALL)
    none = Settings(batch_size=2, shard_rows=3, max_failures=0.0)
    with pytest.raises(TooManyFailures, match="1 of 11 rows cannot be read; at most 0 may fail"):
        extract(open_source(folder), tmp_path / "out", RECIPE, backbone=backbone, settings=none)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"shard_rows": 0}, {"workers": -1}, {"dtype": "float8"}])
def test_settings_that_cannot_be_are_refused_before_any_work(wrong):
    with pytest.raises(RecipeError, match="expected"):
        Settings(**wrong)


class Stopped(Exception):
    """A run that ends between two shards."""


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
@pytest.mark.parametrize("whole", [True, False], ids=["complete", "interrupted"])
def test_dtype_auto_goes_on_as_it_began_on_another_machine(tmp_path, pictures, backbone, monkeypatch, began, whole):
    def make(out, recipe=RECIPE, progress=lambda what, done, total: None):
        source = ListSource(pictures, ids=[f"{at:02}" for at in range(len(pictures))])
        return extract(source, tmp_path / out, recipe, backbone=backbone, settings=SMALL, progress=progress)

    def stop(what, done, total):
        if what == "rows" and done > 4:
            raise Stopped

    other = {"float32": "bfloat16", "bfloat16": "float32"}[began]
    monkeypatch.setenv(VARIABLE, began)
    make("plain")
    if whole:
        make("out")
    else:
        with pytest.raises(Stopped):
            make("out", progress=stop)
    monkeypatch.setenv(VARIABLE, other)
    make("out")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert Store.open(tmp_path / "out").plan["resolved"]["dtype"] == began
    with pytest.raises(StoreMismatch, match=f'recipe.dtype: store has "auto", this run has "{other}"'):
        make("out", replace(RECIPE, dtype=other))


@pytest.mark.parametrize("long", [True, False])
def test_reading_a_source_for_its_digest_is_announced_where_it_takes_long(tmp_path, pictures, backbone, caplog, long):
    class Waits(ListSource):
        def digest(self):
            assert not long or announced.wait(30)
            return super().digest()

    class Hears(logging.Handler):
        def emit(self, record):
            announced.set()

    announced, log = threading.Event(), logging.getLogger(run_extract.__name__)
    log.addHandler(handler := Hears())
    caplog.set_level(logging.INFO)
    try:
        extract(Waits(pictures[:3]), tmp_path / "out", Recipe(objectives=[], layers=1), backbone=backbone)
    finally:
        log.removeHandler(handler)
    assert ("reading the source (3 rows) for its digest ..." in caplog.messages) == long


def test_labels_that_look_alike_are_told_once_and_stay(tmp_path, pictures, backbone):
    source = ListSource(pictures[:4], labels=["cat", "cat ", "dog", "cat"])
    with pytest.warns(SporeprintWarning, match=r"are taken as different: 'cat' and 'cat '; if") as caught:
        store = extract(source, tmp_path / "out", Recipe(objectives=[], layers=1), backbone=backbone)
    assert len([warning for warning in caught if "taken as different" in str(warning.message)]) == 1
    assert store.labels.tolist() == ["cat", "cat ", "dog", "cat"]
    named = ListSource(pictures[:2], labels=[0, 1], label_names=["cat", "Cat"])
    with pytest.warns(SporeprintWarning, match=r"'Cat' and 'cat'"):
        extract(named, tmp_path / "named", Recipe(objectives=[], layers=1), backbone=backbone)


def test_an_item_that_a_dataset_cannot_give_costs_its_own_row(tmp_path, pictures, backbone):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, at):
            if at == 3:
                raise OSError("broken")
            return pictures[at], 0

    store = extract(ListSource(Broken()), tmp_path / "out", RECIPE, backbone=backbone)
    assert len(store) == 5
    assert [(failure.id, failure.reason) for failure in store.failures] == [
        ("row 3", "the dataset cannot give item 3: broken")
    ]
    again = extract(ListSource(Broken()), tmp_path / "out", RECIPE, backbone=backbone)
    assert again.ids == store.ids


def test_a_dataset_of_sound_rate_and_labels_has_a_digest():
    def digest(rate_hz, label):
        return ListSource(TorchItems([(torch.zeros(1, 8), rate_hz, label, 0)])).digest()

    assert digest(16_000, "a") == digest(16_000, "b") != digest(8_000, "a")


class TorchItems(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, at):
        return self.items[at]
