"""`sporeprint compare`, on stores made by hand: classes that a layer tells apart and the embedding does not."""

import json

import numpy as np
import pytest

from small_stores import store_of
from sporeprint.data.sources import ListSource
from sporeprint.evaluate.measure import ALL, FREE

ROWS = 40


def save(folder, name, seed, labels=True):
    rng = np.random.default_rng(seed)
    classes = np.arange(ROWS) % 2
    blocks = {one: rng.standard_normal((ROWS, 2)).astype(np.float32) for one in ("embedding", "cls-2", "kl")}
    blocks["cls-2"][:, 0] += 6 * classes
    blocks = {one: block / np.linalg.norm(block, axis=1, keepdims=True) for one, block in blocks.items()}
    ids = [f"{name}{at}" for at in range(ROWS)]
    names = ["left" if one else "right" for one in classes] if labels else None
    return store_of(folder / name, ListSource(ids, labels=names, ids=ids), blocks)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    save(folder, "a", 1)
    save(folder, "b", 2)
    save(folder, "bare", 3, labels=False)
    return folder


def test_it_ends_in_the_sentence_and_writes_the_report(run, made, tmp_path):
    status, out, err = run("compare", made / "a", made / "b", "--report", tmp_path / "report")
    assert status == 0
    said = out.strip().splitlines()[-1]
    assert said.startswith("Use ")
    assert "cls-2" in said
    assert f"report: {tmp_path / 'report' / 'report.html'}" in err
    page = (tmp_path / "report" / "report.html").read_text()
    assert said.split(":")[0] in page
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert found["verdict"] == said
    assert {"embedding", "embedding, white 1", "cls-2", "paper", "decorrelated", FREE, ALL} <= {
        one["name"] for one in found["entries"]
    }
    for one in found["entries"]:
        assert one["name"] in out


def test_json_is_the_comparison_and_nothing_else(run, made):
    status, out, _ = run("compare", made / "a", made / "b", "--json")
    assert status == 0
    found = json.loads(out)
    by_name = {one["name"]: one for one in found["entries"]}
    assert by_name[FREE]["gain"]["low"] > 0.1
    assert by_name[FREE]["value"]["value"] > 0.9
    assert found["settings"]["test_rows"] == ROWS


def test_blocks_may_be_named_and_a_store_alone_is_split(run, made):
    status, out, _ = run("compare", made / "a", "--blocks", "kl", "--splits", "3", "--json")
    assert status == 0
    found = json.loads(out)
    assert {name for one in found["entries"] for name in one["blocks"]} == {"embedding", "kl"}
    assert found["settings"]["splits"] == 3
    assert found["verdict"].startswith("Use the embedding alone")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("a", "bare"), 1, "has no labels"),
        (("a", "b", "--blocks", "cls-9"), 2, "no block or family 'cls-9'"),
        (("a", "--test", "x.csv"), 2, "--test and --test-split are of TEST_STORE, which is not given"),
        (("a", "b", "--label-column", "x"), 2, "--label-column needs"),
        (("nowhere", "b"), 1, "nowhere"),
        (("a", "--splits", "1"), 2, "splits"),
    ],
)
def test_what_cannot_be_compared_is_said(run, made, words, status, told):
    paths = [made / word if word in ("a", "b", "bare", "nowhere") else word for word in words]
    found, out, err = run("compare", *paths)
    assert (found, out) == (status, "")
    assert told in err
