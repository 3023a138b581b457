import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_blocks import classed_blocks
from small_stores import store_of
from sporeprint.cli.option_pairs import split_pairs
from sporeprint.data.sources import open_source

pytestmark = pytest.mark.usefixtures("few_penalties")
NAMES = ("embedding", "kl")


@pytest.fixture
def pairs(tmp_path):
    """Two backbones' stores of 36 training rows and 30 test rows; the second tells the classes apart."""
    words = []
    for which, strength in (("weak", 0.3), ("strong", 3.0)):
        for part, rows, seed in (("train", 36, 0), ("test", 30, 9)):
            blocks, labels = classed_blocks(rows, seed=seed, names=NAMES, embedding=strength)
            path = tmp_path / f"{part}.parquet"
            clips = [f"{part} {at // 3}" for at in range(rows)]
            texts = [f"{part} text {at}" for at in range(rows)]
            pq.write_table(pa.table({"text": texts, "label": labels, "clip": clips}), path)
            words.append(store_of(tmp_path / f"{which}-{part}", open_source(path, modality="text"), blocks))
    return words


def test_with_says_which_backbone_to_use(run, pairs):
    status, out, err = run("compare", *pairs[:2], "--with", *pairs[2:], "--json")
    assert status == 0, err
    body = json.loads(out)
    assert [entry["name"] for entry in body["backbones"]] == ["b (weak-train)", "b (strong-train)"]
    assert body["chosen"] == "b (strong-train)"
    status, out, _ = run("compare", *pairs[:2], "--with", *pairs[2:])
    assert status == 0
    assert out.startswith("Use b (strong-train): ")
    assert "2 backbones, 36 training rows, 30 test rows, 3 classes" in " ".join(out.split())
    for cell in ("[", "*", "passes", "rows/s"):
        assert cell in out


def test_groups_and_report_are_of_the_chosen_backbone(run, pairs, tmp_path):
    sources = ["--train", tmp_path / "train.parquet", "--test", tmp_path / "test.parquet", "--group-column", "clip"]
    report = tmp_path / "report"
    status, out, err = run("compare", *pairs[:2], *sources, "--with", *pairs[2:], "--report", report)
    assert status == 0, err
    assert "rows of one 'clip' stay together" in " ".join(out.split())
    body = json.loads((report / "comparison.json").read_text())
    assert body["verdict"].startswith("Use b (strong-train): ")
    assert [backbone["name"] for backbone in body["backbones"]] == ["b (weak-train)", "b (strong-train)"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (lambda p: [p[0], "--with", *p[2:]], "give TEST_STORE"),
        (lambda p: [*p[:2], "--with", p[2], "--json"], "--with takes two stores"),
        (lambda p: [*p[:2], "--with", *p[2:], "--shots", "2"], "leave out --shots"),
        (lambda p: [p[0], "--shots", "2"], "needs TEST_STORE"),
        (lambda p: [*p[:2], "--draws", "2"], "--draws goes with --shots"),
    ],
)
def test_what_does_not_go_together_is_refused(run, pairs, words, complaint):
    status, _, err = run("compare", *words(pairs))
    assert (status, complaint in " ".join(err.split())) == (2, True), err


def test_stores_of_other_rows_are_refused(run, pairs, tmp_path):
    others = []
    for part, rows in (("train", 36), ("test", 30)):
        blocks, labels = classed_blocks(rows, names=NAMES)
        texts = [f"{part} text {at}" for at in range(rows)]
        labels = np.minimum(labels, 2 if part == "train" else 1)
        pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / f"other-{part}.parquet")
        source = open_source(tmp_path / f"other-{part}.parquet", modality="text")
        others.append(store_of(tmp_path / f"other-{part}", source, blocks))
    status, _, err = run("compare", *pairs[:2], "--with", *others)
    assert status == 1
    assert "test row '2' is labelled 2 with b (weak-train), 1 with b (other-train)" in " ".join(err.split())


def test_shots_on_the_command_line(run, pairs):
    status, out, err = run("compare", *pairs[2:], "--shots", "4", "--draws", "2", "--json")
    assert status == 0, err
    body = json.loads(out)
    assert body["verdict"].startswith("4 labels a class: ")
    assert (body["settings"]["shots"], body["settings"]["draws"]) == (4, 2)


def test_pairs_are_split_for_typer():
    for words, split in [
        ("a b --with c d --json", "a b --with c --with d --json"),
        ("--with c d --with e f", "--with c --with d --with e --with f"),
        ("a --with c", "a --with c"),
        ("a --with c --json", "a --with c --json"),
        ("-- --with c d", "-- --with c d"),
    ]:
        assert split_pairs(words.split()) == split.split()
