import math
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from sporeprint.errors import DamagedStore, SampleError, StoreError
from sporeprint.search.exact import ExactIndex
from sporeprint.segment import bank as module
from sporeprint.segment.bank import BankWriter, MemoryBank
from sporeprint.store.tensor_file import TensorWriter

D, C = 6, 3


def patches(count, seed=0):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, D)).astype(np.float32) * 5
    return features, random.dirichlet(np.ones(C), count).astype(np.float32)


def unit(features):
    return features / np.sqrt((features.astype(float) ** 2).sum(axis=1))[:, None]


@pytest.fixture
def folder(tmp_path):
    """Two images of 4 and 3 patches, float16."""
    with BankWriter(tmp_path / "bank", D, C, 10, names=["sky", "road", "tree"], settings={"layer": 11}) as writer:
        writer.add(*patches(4, 1), "a.png", np.array([[0, 0], [0, 1], [5, 2], [7, 7]]))
        writer.add(*patches(3, 2), "b.png", np.array([[1, 0], [2, 0], [3, 0]]))
        assert len(writer) == 7
    return tmp_path / "bank"


def test_what_is_written_is_read(folder):
    bank = MemoryBank.open(folder)
    bank.verify()
    features, histograms = (np.concatenate(both) for both in zip(patches(4, 1), patches(3, 2), strict=True))
    assert bank.features.dtype == bank.histograms.dtype == np.float16
    np.testing.assert_allclose(bank.features, unit(features), atol=5e-4)
    np.testing.assert_allclose(bank.histograms, histograms, atol=5e-4)
    assert (len(bank), bank.names, bank.settings) == (7, ("sky", "road", "tree"), {"layer": 11})
    assert bank.patches().to_pylist()[2:5] == [
        {"image": "a.png", "row": 5, "column": 2},
        {"image": "a.png", "row": 7, "column": 7},
        {"image": "b.png", "row": 1, "column": 0},
    ]
    assert not bank.features.flags.writeable


def test_safetensors_reads_the_same(folder):
    bank = MemoryBank.open(folder)
    for name in ("features", "histograms"):
        with safe_open(folder / f"{name}.safetensors", "np") as file:
            assert list(file.keys()) == [name]
            assert (file.get_tensor(name) == getattr(bank, name)).all()
            assert file.get_tensor(name).dtype == np.float16


def slow_prediction(bank, query, k, temperature):
    """The k nearest by cosine, one by one; their histograms weighed by exp(cosine / temperature)."""
    cosines = [float(query @ row) / float(np.linalg.norm(query)) for row in bank.features.astype(float)]
    near = sorted(range(len(cosines)), key=lambda at: -cosines[at])[:k]
    weights = [math.exp(cosines[at] / temperature) for at in near]
    return sum(w * bank.histograms[at].astype(float) for w, at in zip(weights, near, strict=True)) / sum(weights)


@pytest.mark.parametrize("k", [1, 5, 99])
def test_predictions_equal_a_loop(k, monkeypatch):
    bank = MemoryBank.of(*patches(40))
    queries = patches(11, 3)[0]
    expected = [slow_prediction(bank, query.astype(float), k, 0.1) for query in queries]
    actual = bank.predict(queries, k, temperature=0.1)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    assert actual.dtype == np.float32
    monkeypatch.setattr(module, "_QUERIES", 4 * D)
    monkeypatch.setattr(module, "_HISTOGRAMS", 3 * min(k, 40) * C)
    assert (bank.predict(queries, k, temperature=0.1) == actual).all(), "predictions change with the chunks"


def test_a_bank_on_disk_predicts_as_the_one_in_memory(tmp_path):
    features, histograms = patches(50)
    with BankWriter(tmp_path, D, C, 50, dtype="float32") as writer:
        for at in range(0, 50, 7):
            part = slice(at, at + 7)
            writer.add(features[part], histograms[part], "image", np.argwhere(np.ones((len(features[part]), 1))))
    queries = patches(9, 3)[0]
    stored = MemoryBank.open(tmp_path)
    assert (stored.predict(queries) == MemoryBank.of(features, histograms).predict(queries)).all()
    assert stored.predict(queries * 1000) == pytest.approx(stored.predict(queries), rel=1e-4)


def test_the_given_index_is_asked():
    class Last:
        name, recall = "last", 0.0

        def search(self, queries, k):
            np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-6)
            return np.ones((len(queries), 1), np.float32), np.full((len(queries), 1), 39)

    bank = MemoryBank.of(*patches(40))
    actual = bank.predict(patches(5, 3)[0], index=Last())
    np.testing.assert_allclose(actual, np.repeat(bank.histograms[39:], 5, axis=0), rtol=1e-6)
    assert (bank.predict(bank.features, k=1, index=ExactIndex(bank.features)) == bank.histograms).all()


def good():
    return [*patches(2), "id", np.zeros((2, 2), int)]


@pytest.mark.parametrize(
    ("at", "value", "complaint"),
    [
        (0, np.ones((2, D + 1), np.float32), rf"expected floats \[P, {D}\]"),
        (0, np.ones((3, D), np.float32), r"features \[3, 6\], histograms \[2, 3\]"),
        (0, np.ones((2, D), int), "expected floats"),
        (0, np.array([[1] * D, [0] * D], np.float32), "1 of 2 features are zero"),
        (0, np.array([[np.nan] * D, [np.inf] * D], np.float32), "2 of 2 features"),
        (1, np.array([[1, 0, 0], [0, 0, 0]], np.float32), "1 of 2 histograms do not sum to 1"),
        (1, np.array([[2, -1, 0], [1, 0, 0]], np.float32), "1 of 2 histograms"),
        (1, np.full((2, C), np.nan, np.float32), "2 of 2 histograms"),
        (3, np.zeros(2, int), "row and column"),
        (3, np.zeros((2, 2)), "row and column"),
    ],
)
def test_a_patch_that_cannot_be_a_neighbour_is_refused_and_nothing_added(tmp_path, at, value, complaint):
    given = good()
    given[at] = value
    with BankWriter(tmp_path, D, C, 9) as writer:
        with pytest.raises(SampleError, match=complaint):
            writer.add(*given)
        writer.add(*good())
    bank = MemoryBank.open(tmp_path)
    assert (len(bank), bank.patches().num_rows) == (2, 2)
    bank.verify()


def test_a_bank_takes_no_more_than_its_capacity(tmp_path):
    with BankWriter(tmp_path, D, C, 3) as writer:
        writer.add(*good())
        with pytest.raises(SampleError, match="would make 4; the bank takes 3"):
            writer.add(*good())
    assert len(MemoryBank.open(tmp_path)) == 2


def test_a_finished_bank_is_not_written_over(folder):
    with pytest.raises(StoreError, match="holds a finished bank"):
        BankWriter(folder, D, C, 10)
    MemoryBank.open(folder).verify()


def test_two_writers_do_not_share_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    with BankWriter(tmp_path, D, C, 10) as writer:
        with pytest.raises(StoreError, match="written by another run"):
            BankWriter(tmp_path, D, C, 10)
        writer.add(*good())
    MemoryBank.open(tmp_path).verify()


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0}, {"classes": 0}, {"capacity": 0}, {"dtype": "int8"}, {"names": ["a"]}, {"settings": {"a": {1}}}],
)
def test_a_bank_that_cannot_be_is_refused_at_the_start(tmp_path, wrong):
    with pytest.raises(StoreError):
        BankWriter(tmp_path / "bank", **{"width": D, "classes": C, "capacity": 9, **wrong})
    assert not (tmp_path / "bank").exists()


def test_an_empty_bank_opens_and_says_so_when_asked(tmp_path):
    BankWriter(tmp_path, D, C, 5).close()
    bank = MemoryBank.open(tmp_path)
    bank.verify()
    with pytest.raises(SampleError, match="bank is empty"):
        bank.predict(patches(1)[0])


def test_after_an_exception_the_bank_is_unfinished_and_can_be_made_again(tmp_path):
    def write(failing):
        with BankWriter(tmp_path, D, C, 10) as writer:
            writer.add(*good())
            if failing:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(failing=True)
    with pytest.raises(DamagedStore, match="was not finished"):
        MemoryBank.open(tmp_path)
    write(failing=False)
    assert len(MemoryBank.open(tmp_path)) == 2


def test_a_full_disk_ends_the_bank(tmp_path, monkeypatch):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    writer = BankWriter(tmp_path, D, C, 10)
    writer.add(*good())
    with monkeypatch.context() as disk:
        disk.setattr(TensorWriter, "add", full)
        with pytest.raises(StoreError, match="No space left"):
            writer.add(*good())
    for call in (writer.close, lambda: writer.add(*good())):
        with pytest.raises(StoreError, match="begin it again"):
            call()
    with pytest.raises(DamagedStore, match="was not finished"):
        MemoryBank.open(tmp_path)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


FILES = ["features.safetensors", "histograms.safetensors", "patches.parquet", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["first byte", "last byte", "truncated", "longer", "missing"])
def test_damage_is_found(folder, name, harm):
    path = folder / name
    if harm.endswith("byte"):
        flip(path, 0 if harm == "first byte" else -1)
    elif harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] if harm == "truncated" else path.read_bytes() + b" ")
    with pytest.raises(DamagedStore, match=r"finished" if (name, harm) == (FILES[3], "missing") else name):
        MemoryBank.open(folder).verify()
    with pytest.raises(DamagedStore):
        MemoryBank.open(folder)
    if not harm.endswith("byte") or name == FILES[3]:
        with pytest.raises(DamagedStore):
            MemoryBank.open(folder, verify=False)


@pytest.mark.parametrize("at", [300, -1])
def test_a_flipped_bit_among_the_numbers_is_not_read_unless_told(folder, at):
    flip(folder / "features.safetensors", at)
    with pytest.raises(DamagedStore, match="checksum"):
        MemoryBank.open(folder)
    assert len(MemoryBank.open(folder, verify=False)) == 7


def test_every_file_is_on_the_disk_before_the_manifest_is(tmp_path, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace

    def fsync(handle):
        order.append(os.fstat(handle).st_ino)
        sync(handle)

    def commit(source, target):
        order.append("manifest")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", commit)
    with BankWriter(tmp_path, D, C, 10) as writer:
        writer.add(*good())
    early = order[: order.index("manifest")]
    assert {(tmp_path / name).stat().st_ino for name in FILES[:3]} <= set(early)


def test_a_bank_that_is_closed_stays_as_it_is(tmp_path):
    with BankWriter(tmp_path / "whole", D, C, 10) as writer:
        writer.add(*good())
        writer.close()
        writer.abandon()
    with pytest.raises(StoreError, match="is closed"):
        writer.add(*good())
    assert len(MemoryBank.open(tmp_path / "whole")) == 2
    with BankWriter(tmp_path / "left", D, C, 10) as writer:
        writer.abandon()
        writer.close()
    with pytest.raises(DamagedStore, match="was not finished"):
        MemoryBank.open(tmp_path / "left")


@pytest.mark.parametrize("name", ["bank", "bank/inside"])
def test_a_file_where_the_folder_should_be_is_told(tmp_path, name):
    (tmp_path / "bank").write_text("notes")
    with pytest.raises(StoreError, match="give another"):
        BankWriter(tmp_path / name, D, C, 10)
    assert (tmp_path / "bank").read_text() == "notes"


@pytest.mark.parametrize("name", FILES[:3])
def test_a_bank_that_could_not_be_begun_holds_no_lock(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match="was not written") as kept:
        BankWriter(tmp_path, D, C, 10)
    (tmp_path / name).rmdir()
    BankWriter(tmp_path, D, C, 10).close()
    assert kept.value.__cause__ is not None


def test_a_bank_that_could_not_be_finished_holds_no_lock(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(TensorWriter, "close", full)
        with pytest.raises(StoreError, match="No space left") as kept, BankWriter(tmp_path, D, C, 10) as writer:
            writer.add(*good())
    with BankWriter(tmp_path, D, C, 10) as writer:
        writer.add(*good())
    assert len(MemoryBank.open(tmp_path)) == 2
    assert kept.value.__cause__ is not None


@pytest.mark.parametrize("at", [20, 300])
def test_damage_after_opening_is_found(folder, at):
    bank = MemoryBank.open(folder)
    flip(folder / "features.safetensors", at)
    with pytest.raises(DamagedStore, match="features"):
        bank.verify()


def test_a_folder_without_a_bank_is_refused(tmp_path):
    with pytest.raises(DamagedStore, match="manifest"):
        MemoryBank.open(tmp_path)
    with pytest.raises(StoreError, match="RAM only"):
        MemoryBank.of(*patches(2)).verify()
    with pytest.raises(SampleError, match="2 class names"):
        MemoryBank.of(*patches(2), names=["a", "b"])


# RLIMIT_DATA bounds what a process owns, mapped files left out: those the system can take back at any time.
LARGE = """
import resource, sys, tempfile
import numpy as np
from sporeprint.segment.bank import BankWriter, MemoryBank

def owned():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024

block = np.random.default_rng(0).normal(size=(8000, 500)).astype(np.float32)
labels = np.zeros((8000, 2), np.float32)
labels[np.arange(8000), np.arange(8000) % 2] = 1
at = np.argwhere(np.ones((80, 100)))
block @ block[:9].T  # the product's own buffers
with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
    limit = owned() + 150 * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with BankWriter(folder, 500, 2, 400_000) as writer:
        for number in range(50):
            writer.add(block, labels, f"image {number}", at)
    bank = MemoryBank.open(folder)
    bank.verify()
    assert bank.features.nbytes == 400 * 10**6
    found = bank.predict(block[:16], k=50)  # the fifty copies of each
    assert (found.argmax(axis=1) == np.arange(16) % 2).all() and found.max(axis=1).min() > 0.99
    try:
        np.array(bank.features)
    except MemoryError:
        print("too large to load")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_DATA")
def test_a_bank_of_400_megabytes_is_written_and_searched_in_150(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},  # its own takes 1 GiB ahead
    )
    assert (done.returncode, done.stdout) == (0, "too large to load\n"), done.stderr
