"""Any byte of any file of a store damaged: the same numbers, or an error that names the damage; never other numbers."""

import shutil
import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sporeprint.errors import RowFailure, SporeprintError
from sporeprint.store.reader import Store
from sporeprint.store.writer import StoreWriter

PLAN = {"recipe": {"seed": 0, "dim": 2}, "source": "digest"}
BLOCKS = {"embedding": 3, "dino.views": 2}


def make(folder, shards=3, commit=True):
    with StoreWriter(folder, PLAN, shard_rows=4) as writer:
        if writer.complete:
            return
        writer.write_state("heads.safetensors", bytes(range(64)))
        for shard in range(shards):
            if shard not in writer.done:
                rng = np.random.default_rng(shard)
                blocks = {name: rng.standard_normal((3, width)) for name, width in BLOCKS.items()}
                ids = [f"row {shard}/{row}" for row in range(3)]
                writer.write_shard(shard, ids, [shard, None, 0], blocks, [RowFailure(f"bad {shard}", "cut")], {})
        if commit:
            info = {name: {"dim": width} for name, width in BLOCKS.items()}
            writer.commit(blocks=info, label_names=["a", "b", "c"], cost={})


def everything(folder):
    """All that a store says: (ids, labels, numbers, state, failures, plan)."""
    store = Store.open(folder)
    blocks = {name: block.tolist() for name, block in store.blocks().items()}
    return store.ids, store.labels.tolist(), blocks, store.read_state("heads.safetensors"), store.failures, store.plan


def files(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


@cache
def sound(commit=True):
    folder = Path(mkdtemp(prefix="sound-store-"))
    make(folder, shards=3 if commit else 2, commit=commit)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _clean():
    yield
    for commit in (True, False):
        shutil.rmtree(sound(commit))
    sound.cache_clear()


@st.composite
def damages(draw, commit=True):
    """(file, its new bytes or None for a deleted file): one flip, overwrite, cut, removal, insertion, addition."""
    folder = sound(commit)
    name = draw(st.sampled_from(files(folder)))
    data = (folder / name).read_bytes()
    at = draw(st.integers(0, len(data) - 1))
    end = min(len(data), at + draw(st.integers(1, 40)))
    noise = draw(st.binary(min_size=1, max_size=12))
    kind = draw(st.sampled_from(["flip", "overwrite", "cut", "remove", "insert", "append", "swap", "delete"]))
    other = (folder / draw(st.sampled_from(files(folder)))).read_bytes()
    return name, {
        "flip": data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :],
        "overwrite": data[:at] + noise + data[at + len(noise) :],
        "cut": data[:at],
        "remove": data[:at] + data[end:],
        "insert": data[:at] + noise + data[at:],
        "append": data + noise,
        "swap": other,
        "delete": None,
    }[kind]


def damaged_copy(commit, damage, into):
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(sound(commit), into)
    name, data = damage
    if data is None:
        (into / name).unlink()
    else:
        (into / name).write_bytes(data)


@settings(max_examples=100, deadline=None)
@given(damage=damages())
def test_a_damaged_store_gives_the_same_numbers_or_a_named_error(damage, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    damaged_copy(True, damage, folder)
    try:
        seen = everything(folder)
    except SporeprintError:
        return
    assert seen == everything(sound())


@pytest.mark.parametrize("name", files(sound()))
def test_every_file_that_is_read_is_checked(name, tmp_path):
    """The sidecars and the state's record are the writer's: a complete store does not need them."""
    damaged_copy(True, (name, (sound() / name).read_bytes()[:-1]), tmp_path / "s")
    if name.endswith(".record") or (name.startswith("shards/") and name.endswith(".json")):
        assert everything(tmp_path / "s") == everything(sound())
    else:
        with pytest.raises(SporeprintError, match=Path(name).name):
            everything(tmp_path / "s")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), commit=st.booleans())
def test_a_run_that_meets_damage_ends_in_the_identical_store_or_refuses(data, commit, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "resumed"
    damage = data.draw(damages(commit))
    damaged_copy(commit, damage, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            make(folder)
        except SporeprintError:
            assert damage[0] == "plan.json"  # nothing says what the store holds
            return
    assert everything(folder) == everything(sound())
    names = ["manifest.json", "plan.json", *(f"shards/0000{shard}.parquet" for shard in range(3))]
    for name in names:
        assert (folder / name).read_bytes() == (sound() / name).read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", files(sound()))
def test_a_sound_file_in_another_ones_place_is_damage(name, tmp_path):
    for other in set(files(sound())) - {name}:
        for change in (everything, make):
            damaged_copy(True, (name, (sound() / other).read_bytes()), tmp_path / "s")
            try:
                change(tmp_path / "s")
            except SporeprintError:
                assert change is everything or name == "plan.json"
            else:
                assert everything(tmp_path / "s") == everything(sound())
