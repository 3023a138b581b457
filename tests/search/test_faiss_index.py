import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from small_edits import edit
from sporeprint import check_index
from sporeprint.errors import DamagedStore, MissingExtra, RecipeError, StoreError, StoreMismatch
from sporeprint.search import faiss as faiss_index
from sporeprint.search.base import recall_of
from sporeprint.search.exact import ExactIndex
from sporeprint.search.indexes import make_index, open_index
from sporeprint.store.atomic import record_of

faiss = pytest.importorskip("faiss")
NAMES = ["ivf", "ivf-sq8", "ivf-sq4", "hnsw"]


def points(count, seed, width=16):
    """Points of length 1 about twenty centres."""
    centres = np.random.default_rng(0).normal(size=(20, width))
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, 20, count)] + 0.5 * random.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS = points(3000, 1)


@pytest.fixture(scope="module")
def built():
    return {(name, dtype): make_index(name, ROWS.astype(dtype)) for name in NAMES for dtype in ("float16", "float32")}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_the_promised_recall_is_kept(built, name, dtype):
    index = built[name, dtype]
    assert (index.name, index.rows.dtype) == (name, dtype)
    assert 0.95 <= index.recall <= 1
    check_index(index, index.rows, points(300, 2), recall=0.93, k=30)  # of other points: the sample's chance


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_promise_takes_more_effort(built, name):
    index = make_index(name, ROWS, recall=0.999)
    assert index.recall >= 0.999
    assert index.effort > built[name, "float32"].effort
    check_index(index, ROWS, points(200, 3), recall=0.99, k=30)


def test_the_recall_of_given_queries_can_be_promised():
    queries = np.random.default_rng(5).normal(size=(100, 16)).astype(np.float32)  # far from every centre
    index = make_index("ivf", ROWS, recall=0.98, queries=queries)
    assert index.effort > make_index("ivf", ROWS, recall=0.98).effort
    check_index(index, ROWS, queries, recall=0.98, k=30)


def test_too_few_found_is_no_recall():
    index = make_index("ivf", ROWS, k=100)  # a cell has about 55 rows; what exact search adds must not count
    assert index.effort > 1
    assert (index.found(points(100, 7), 100)[1] >= 0).mean() > 0.95


def test_no_effort_that_reaches_the_recall_is_an_error(monkeypatch):
    monkeypatch.setattr(faiss_index, "CANDIDATES", {"ivf-sq4": 1})
    monkeypatch.setattr(faiss_index, "SPARE", 0)
    with pytest.raises(RecipeError, match="nearest rows at most; 1 was promised"):
        make_index("ivf-sq4", ROWS, recall=1)


@pytest.mark.parametrize("name", NAMES)
def test_where_faiss_finds_too_few_the_search_is_exact(built, name):
    index = built[name, "float32"]
    queries = points(5, 4)
    actual, true = index.search(queries, 5000), ExactIndex(ROWS).search(queries, 5000)
    assert actual[1].shape == (5, 3000)
    assert (actual[1] == true[1]).all()
    assert name == "hnsw" or (index.found(queries, 3000)[1] < 0).any(), "else this tests nothing"
    few = make_index(name, ROWS[:3], cells=2) if name != "hnsw" else make_index(name, ROWS[:3])
    assert (few.search(queries, 9)[1] == ExactIndex(ROWS[:3]).search(queries, 9)[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_one_row(name):
    index = make_index(name, ROWS[:1])
    assert index.search(ROWS[:2], 4)[1].tolist() == [[0], [0]]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_index_and_another_one_another(built, name):
    first, again, other = (faiss.serialize_index(make_index(name, ROWS, seed).index) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_added_in_parts_are_the_same_index(monkeypatch, built):
    whole = faiss.serialize_index(built["ivf", "float16"].index)
    monkeypatch.setattr(faiss_index, "_NUMBERS", 16 * 700)
    assert np.array_equal(faiss.serialize_index(make_index("ivf", ROWS.astype(np.float16)).index), whole)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_opened_it_answers_the_same(built, name, tmp_path):
    index = built[name, "float16"]
    index.save(tmp_path)
    np.save(tmp_path / "rows.npy", index.rows)
    opened = open_index(tmp_path, np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert (opened.name, opened.recall, opened.effort) == (index.name, index.recall, index.effort)
    for kept, other in zip(opened.search(points(50, 6), 30), index.search(points(50, 6), 30), strict=True):
        assert (kept == other).all()


def test_a_saved_index_is_of_its_rows_only_and_may_be_replaced(built, tmp_path):
    built["ivf", "float32"].save(tmp_path)
    for others in (ROWS[::-1], ROWS[:-1], ROWS.astype(np.float16)):
        with pytest.raises(StoreMismatch, match="other rows"):
            open_index(tmp_path, np.ascontiguousarray(others))
    built["hnsw", "float16"].save(tmp_path)
    assert open_index(tmp_path, ROWS.astype(np.float16)).name == "hnsw"


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing", "manifest missing", "recall raised"])
def test_damage_is_found(built, tmp_path, name, harm):
    built[name, "float32"].save(tmp_path)
    (path,), about = tmp_path.glob("index-*.faiss"), tmp_path / "index.json"
    data = path.read_bytes()
    if harm == "flipped":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif harm == "truncated":
        path.write_bytes(data[:-1])
    elif harm == "recall raised":
        about.write_text(json.dumps({**json.loads(about.read_text()), "recall": 1.0}))
    else:
        (path if harm == "missing" else about).unlink()
    with pytest.raises(DamagedStore, match="json" if harm in ("manifest missing", "recall raised") else "faiss"):
        open_index(tmp_path, ROWS)


def test_a_disk_that_takes_no_index_leaves_the_older_one(built, tmp_path, monkeypatch):
    built["ivf", "float32"].save(tmp_path)
    monkeypatch.setattr(faiss, "write_index", lambda index, path: (_ for _ in ()).throw(RuntimeError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        built["hnsw", "float32"].save(tmp_path)
    assert open_index(tmp_path, ROWS).name == "ivf"


def test_threads_are_those_of_torch_while_searching_and_then_as_before(built, monkeypatch):
    import torch

    seen = []

    class Spy:
        def search(self, queries, count, params):
            seen.append(faiss.omp_get_max_threads())
            return built["ivf", "float32"].index.search(queries, count, params=params)

    index = faiss_index.FaissIndex("ivf", ROWS, Spy(), 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        outside = faiss.omp_get_max_threads()
        index.search(ROWS[:2], 3)
        make_index("hnsw", ROWS[:50])  # in one thread
        assert (seen, torch.get_num_threads(), faiss.omp_get_max_threads()) == ([2], 2, outside)
    finally:
        torch.set_num_threads(before)


def test_without_faiss_the_line_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sporeprint\[faiss\]'"):
        make_index("ivf", ROWS)
    make_index("exact", ROWS)


@pytest.mark.parametrize(
    "wrong", [{"recall": 0}, {"recall": 1.1}, {"k": 0}, {"cells": 0}, {"cells": 3001}, {"links": 1}]
)
def test_settings_that_make_no_index_are_refused(wrong):
    with pytest.raises(RecipeError, match="expected a recall in"):
        make_index("ivf", ROWS, **wrong)


def test_recall_counts_those_as_near_as_the_last_true_one():
    true = np.float32([[0.9, 0.8, 0.8], [0.5, 0.4, 0.3]])
    similarities = np.float32([[0.9, 0.8, 0.8], [0.5, 0.2, 0.1]])
    assert recall_of(similarities, true) == pytest.approx(4 / 6)


def test_a_saved_index_is_of_all_its_rows(built, tmp_path):
    built["ivf", "float32"].save(tmp_path)
    for row in (0, 1, 1234, len(ROWS) - 1):
        others = ROWS.copy()
        others[row, 3] += 1e-6
        with pytest.raises(StoreMismatch, match="other rows"):
            open_index(tmp_path, others)


def test_an_index_that_knows_its_rows_is_compared_with_all_of_them(built):
    others = ROWS.copy()
    others[1234] = others[4]
    for index in (built["ivf", "float32"], ExactIndex(ROWS)):
        assert make_index(index, ROWS.copy()) is index
        with pytest.raises(RecipeError, match="is not over these"):
            make_index(index, others)


class Ended(BaseException):
    """As SIGKILL: nothing handles it."""


def test_saving_over_a_good_one_loses_neither_wherever_it_ends(built, tmp_path, monkeypatch):
    seen = []
    for step in range(50):
        folder = tmp_path / str(step)
        built["ivf", "float32"].save(folder)
        calls = 0

        def ended(real, step=step):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > step:
                    raise Ended
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "fsync", "open"):
                patch.setattr(os, name, ended(getattr(os, name)))
            patch.setattr(type(folder), "unlink", ended(type(folder).unlink))
            try:
                built["hnsw", "float32"].save(folder)
            except Ended:
                seen.append(open_index(folder, ROWS).name)
                continue
        break
    assert open_index(folder, ROWS).name == "hnsw"
    assert len(list(folder.iterdir())) == 2
    assert set(seen) == {"ivf", "hnsw"}
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_path_that_can_be_no_folder_is_named(built, tmp_path, below):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="was not written"):
        built["ivf", "float32"].save(f"{tmp_path}/file{below}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "exact"}, "name is 'exact'"),
        ({"name": "hnsw"}, "is no index 'hnsw'"),
        ({"effort": 0}, "effort is 0"),
        ({"effort": 10**30}, "effort is 1000"),
        ({"effort": True}, "effort is True"),
        ({"recall": "1"}, "recall is '1'"),
        ({"bytes": 10**15}, "bytes; 1000000000000000 were written"),
        ({"sha256": "../../index"}, "sha256 is '../../index'"),
        ({"rows": "0" * 64}, "other rows"),
        ({"format": 1}, "format 1; this version reads 2: make it again"),
        ({"format": None}, "format None"),
    ],
)
def test_an_edited_description_is_refused(built, tmp_path, change, reason):
    built["ivf", "float32"].save(tmp_path)
    edit(tmp_path / "index.json", faiss_index.KIND, lambda about: about.update(change))
    with pytest.raises(StoreError, match=reason):
        open_index(tmp_path, ROWS)


@pytest.mark.parametrize("name", ["ivf", "hnsw"])
def test_an_index_of_other_rows_in_its_place_is_refused_though_the_checksum_is_right(built, tmp_path, name):
    make_index("ivf" if name == "hnsw" else "hnsw", ROWS).save(tmp_path / "other kind")
    make_index(name, ROWS[:2000]).save(tmp_path / "fewer")
    for other in ("other kind", "fewer"):
        folder = tmp_path / f"made of {other}"
        built[name, "float32"].save(folder)
        (theirs,) = (tmp_path / other).glob("*.faiss")
        record = record_of(theirs.read_bytes())
        (folder / theirs.name).write_bytes(theirs.read_bytes())
        edit(folder / "index.json", faiss_index.KIND, lambda about, record=record: about.update(record))
        with pytest.raises(DamagedStore, match=f"is no index '{name}' of 3000 rows"):
            open_index(folder, ROWS)


@pytest.mark.skipif(not hasattr(faiss, "set_deserialization_vector_byte_limit"), reason="an earlier faiss")
@pytest.mark.parametrize(("name", "at"), [("ivf", 93), ("hnsw", 37)])
def test_a_length_of_terabytes_is_refused_before_room_is_made(built, tmp_path, name, at):
    """Bytes `at` are of the length of a vector."""
    built[name, "float32"].save(tmp_path)
    (path,) = tmp_path.glob("*.faiss")
    data = bytearray(path.read_bytes())
    data[at : at + 4] = b"\xff\xff\xff\x00"
    record = record_of(bytes(data))
    (tmp_path / f"index-{record['sha256'][:16]}.faiss").write_bytes(data)
    edit(tmp_path / "index.json", faiss_index.KIND, lambda about: about.update(record))
    limit = faiss.get_deserialization_vector_byte_limit()
    with pytest.raises(StoreError, match="this faiss cannot read"):
        open_index(tmp_path, ROWS)
    assert faiss.get_deserialization_vector_byte_limit() == limit


def test_a_name_that_no_folder_can_have_is_named(tmp_path, built):
    with pytest.raises(StoreError, match="was not written: embedded null"):
        built["ivf", "float32"].save(tmp_path / "a\0b")


def test_threads_that_read_indexes_leave_the_limits_of_faiss_as_they_were():
    limits = {"vector_byte": 2**40, "loop": 2**41}
    library = SimpleNamespace(
        **{f"get_deserialization_{name}_limit": partial(limits.get, name) for name in limits},
        **{f"set_deserialization_{name}_limit": partial(limits.__setitem__, name) for name in limits},
    )
    before, seen = dict(limits), []

    def read(size):
        with faiss_index._bounded(library, size):
            time.sleep(0.005)
            seen.append((size, *limits.values()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(1, 21)))
    assert sorted(seen) == [(size, size, size) for size in range(1, 21)]
    assert limits == before
