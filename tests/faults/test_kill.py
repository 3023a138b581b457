"""`sporeprint extract`, killed again and again, ends with the store of a run that nobody disturbed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from small import noise_pictures
from sporeprint import KL, Recipe, SimCLR
from sporeprint.objectives.views.image import Patches
from sporeprint.store.reader import Store

ROWS, SHARD, KILLS = 64, 2, 10


@pytest.fixture
def source(tmp_path):
    for number, image in enumerate(noise_pictures(ROWS)):
        where = tmp_path / "pictures" / "abc"[number % 3]
        where.mkdir(parents=True, exist_ok=True)
        image.save(where / f"{number:03}.png")
    return tmp_path / "pictures"


RECIPE = Recipe(backbone="tiny", objectives=[KL(), SimCLR(augmentation=Patches(2), negatives=3)], layers=1)


def words(source, out):
    recipe = source.with_name("recipe.json")
    recipe.write_text(json.dumps(RECIPE.to_json()))
    numbers = ["--recipe", str(recipe), "--batch-size", "3", "--shard-rows", str(SHARD)]
    return ["extract", str(source), *numbers, "--out", str(out)]


# Loads torch once. Each line on stdin names a store: a whole run is one of this process, whose imports the others then
# have; one to be killed is of a process of its own, whose number is printed, and it is held up a little at each batch
# and write, so that ten kills fall inside the run wherever it is fast.
NURSERY = """
import contextlib, io, os, sys, time
from sporeprint.cli import main
from sporeprint.store import writer as store
from sporeprint.features.fungi import Fungi

compute, write_file = Fungi.compute, store.write_file

def slow_compute(self, *args):
    time.sleep(0.1)
    return compute(self, *args)

def slow_write(path, data):
    write_file(path, data)
    time.sleep(0.01)

def extract():
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 9

for line in sys.stdin:
    kind, _, out = line.strip().partition(" ")
    sys.argv[sys.argv.index("--out") + 1] = out
    if kind == "whole":
        with contextlib.redirect_stdout(io.StringIO()):
            status = extract()
        print(status, flush=True)
        continue
    child = os.fork()
    if not child:
        Fungi.compute, store.write_file = slow_compute, slow_write
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        os._exit(extract())
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def nursery(source, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY, *words(source, tmp_path / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.stdin.close()
    process.kill()
    process.wait()


def finish(nursery, out):
    print("whole", out, file=nursery.stdin, flush=True)
    assert nursery.stdout.readline() == "0\n"


def contents(folder):
    """Every file's bytes, but what a run may take: its seconds and cost, and the checksums that these go into."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == ".lock":
            continue
        data = path.read_bytes()
        if path.name in ("manifest.json", "fungi.json.record") or path.match("shards/*.json"):
            data = json.loads(data)
            taken = {key: data.pop(key) for key in ("cost", "seconds", "checksum") if key in data}
            assert len(taken) == 2
        files[path.relative_to(folder).as_posix()] = data
    return files


def shards(out):
    return len(list((out / "shards").glob("*.json")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ten_kills_leave_no_hole_no_duplicate_and_no_other_number(source, nursery, tmp_path):
    finish(nursery, tmp_path / "whole")
    whole = Store.open(tmp_path / "whole")
    out = tmp_path / "killed"
    random = np.random.default_rng(0)
    progress = []
    for number in range(KILLS):
        before, begin = shards(out), time.monotonic()
        print("killed", out, file=nursery.stdin, flush=True)
        child = int(nursery.stdout.readline())
        if number % 2:  # these fall where shards are written, however long the start takes
            while shards(out) == before and time.monotonic() - begin < 20:
                time.sleep(0.002)
        time.sleep(float(random.uniform(0.0, 0.075 if number % 2 else 0.25)))
        os.kill(child, signal.SIGKILL)
        assert int(nursery.stdout.readline()) == -signal.SIGKILL, f"over after {number} kills: {progress}"
        progress.append(shards(out))
    assert not (out / "manifest.json").exists()
    assert len(set(progress)) > 3, f"shards after each kill: {progress}; the kills have to be spread over the run"
    finish(nursery, out)

    store = Store.open(out)
    store.verify()
    assert store.digest == whole.digest
    assert store.ids == whole.ids == sorted(path.relative_to(source).as_posix() for path in source.rglob("*.png"))
    assert contents(out) == contents(tmp_path / "whole")
    rows = [pq.read_table(path).column("id").to_pylist() for path in sorted((out / "shards").glob("*.parquet"))]
    assert [len(ids) for ids in rows] == [SHARD] * (ROWS // SHARD)
    assert len({row_id for ids in rows for row_id in ids}) == ROWS
