"""`sporeprint compare`, on stores made by hand: classes that a layer tells apart and the embedding does not."""

import json

import numpy as np
import pytest

from small_comparison import comparison
from small_stores import store_of
from sporeprint.cli.plain_text import AnswerLost
from sporeprint.data.sources import ListSource
from sporeprint.evaluate.choice.candidates import ALL, FREE
from sporeprint.report.samples import Samples

pytestmark = pytest.mark.usefixtures("few_penalties")
ROWS = 40


def save(folder, name, seed, labels=True):
    rng = np.random.default_rng(seed)
    classes = np.arange(ROWS) % 2
    blocks = {name: rng.standard_normal((ROWS, 2)).astype(np.float32) for name in ("embedding", "cls-2", "kl")}
    blocks["cls-2"][:, 0] += 6 * classes
    blocks = {name: block / np.linalg.norm(block, axis=1, keepdims=True) for name, block in blocks.items()}
    ids = [f"{name}{at}" for at in range(ROWS)]
    names = ["left" if number else "right" for number in classes] if labels else None
    return store_of(folder / name, ListSource(ids, labels=names, ids=ids), blocks)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    save(folder, "a", 1)
    save(folder, "b", 2)
    save(folder, "bare", 3, labels=False)
    return folder


def test_it_begins_with_the_sentence_and_writes_the_report(run, data, tmp_path):
    status, out, err = run("compare", data / "a", data / "b", "--report", tmp_path / "report")
    assert status == 0
    sentence = out.splitlines()[0]
    assert sentence.startswith("Use ")
    assert len(sentence.split()) <= 25
    assert "cls-2" in sentence
    assert f"report: {tmp_path / 'report' / 'report.html'}" in err
    page = (tmp_path / "report" / "report.html").read_text()
    assert sentence.split(":")[0] in page
    result = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert result["verdict"] == sentence
    assert {"embedding", "embedding, white", "cls-2", "paper", "decorrelated", FREE, ALL} <= {
        entry["name"] for entry in result["entries"]
    }
    everything = run("compare", data / "a", data / "b", "--all")[1]
    for row in result["entries"]:
        assert row["name"].removeprefix("chosen, ") in everything  # choices that are one and the same share a row


def test_json_is_the_comparison_and_nothing_else(run, data):
    status, out, _ = run("compare", data / "a", data / "b", "--json")
    assert status == 0
    result = json.loads(out)
    by_name = {entry["name"]: entry for entry in result["entries"]}
    assert by_name[FREE]["results"]["closed"]["gain"]["low"] > 0.1
    assert by_name[FREE]["results"]["closed"]["value"]["value"] > 0.9
    assert result["settings"]["test_rows"] == ROWS


def test_blocks_may_be_named_and_a_store_alone_is_split(run, data):
    status, out, _ = run("compare", data / "a", "--features", "kl", "--splits", "3", "--json")
    assert status == 0
    result = json.loads(out)
    assert {name for entry in result["entries"] for name in entry["blocks"]} == {"embedding", "kl"}
    assert result["settings"]["splits"] == 3
    assert result["verdict"].startswith("Use the embedding with ")


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("a", "bare"), 1, "has no labels"),
        (("a", "b", "--features", "cls-9"), 2, "has no block 'cls-9'"),
        (("a", "--test", "x.csv"), 2, "--test and --test-split belong to TEST_STORE, which is not given"),
        (("a", "b", "--label-column", "x"), 2, "--label-column needs"),
        (("nowhere", "b"), 1, "nowhere"),
        (("a", "--splits", "1"), 2, "splits"),
        (("a", "b", "--splits", "10"), 2, "leave out one of the two"),
        (("a", "--train", "x.csv"), 2, "add one of these, or leave them out"),
        (("a", "b", "--test", "x.csv"), 2, "add one of these, or leave them out"),
        (("a", "b", "--report", "a"), 2, "is a store, which nothing else is written into; name another folder"),
    ],
)
def test_what_cannot_be_compared_is_said(run, data, words, status, complaint):
    paths = [data / word if word in ("a", "b", "bare", "nowhere") else word for word in words]
    exit_code, out, err = run("compare", *paths)
    assert (exit_code, out) == (status, "")
    assert complaint in " ".join(err.split())
    assert "comparing" not in err


def test_a_store_that_is_not_whole_is_not_written_into_either(run, data, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "plan.json").write_text("{}")
    status, _, err = run("compare", data / "a", data / "b", "--report", tmp_path / "begun")
    assert (status, "is a store" in err) == (2, True)
    assert [path.name for path in (tmp_path / "begun").iterdir()] == ["plan.json"]


def found_by(monkeypatch, samples=None):
    """What the command passes on, instead of a comparison that takes its time."""
    passed = []

    def compare_stores(*words, **others):
        passed.append((words, others))
        return comparison()

    monkeypatch.setattr("sporeprint.run.early_checks._check_stores", lambda words: None)
    monkeypatch.setattr("sporeprint.run.compare_stores.check_samples", lambda *_: None)
    monkeypatch.setattr("sporeprint.run.compare_stores.compare_stores", compare_stores)
    monkeypatch.setattr("sporeprint.run.compare_stores.shown_samples", lambda *_: samples)
    return passed


@pytest.mark.parametrize(
    ("words", "wants"),
    [
        (("a", "--train", "x.csv"), "TEST_STORE, with --test"),
        (("a", "b", "--train", "x.csv"), "--test"),
        (("a", "b", "--test", "x.csv"), "--train"),
        (("a", "b"), None),
    ],
)
def test_a_report_without_the_samples_that_were_asked_for_says_so(run, tmp_path, monkeypatch, words, wants):
    found_by(monkeypatch)
    status, _, err = run("compare", *words, "--report", tmp_path)
    assert status == 0
    note = "" if wants is None else f"the report will show no samples: that needs {wants} too\n"
    assert err == f"{note}report: {tmp_path / 'report.html'}\n"


def test_a_report_with_samples_says_nothing_of_them(run, tmp_path, monkeypatch):
    found_by(monkeypatch, Samples("text"))
    _, _, err = run("compare", "a", "b", "--train", "x.csv", "--test", "y.csv", "--report", tmp_path)
    assert err == f"report: {tmp_path / 'report.html'}\n"


def test_a_store_alone_is_split_ten_times_unless_told_otherwise(run, monkeypatch):
    passed = found_by(monkeypatch)
    assert run("compare", "a")[0] == run("compare", "a", "--splits", "3")[0] == 0
    assert [words[5] for words, _ in passed] == [10, 3]


def test_a_report_is_written_also_where_the_answer_is_lost(run, data, tmp_path, monkeypatch):
    def lose(*_):
        raise AnswerLost("stdout took no more")

    monkeypatch.setattr("sporeprint.cli.print_comparison.print_comparison", lose)
    status, _, err = run("compare", data / "a", data / "b", "--report", tmp_path / "report")
    assert (status, "stdout took no more" in err) == (1, True)
    assert (tmp_path / "report" / "report.html").exists()


def test_a_report_that_cannot_be_written_is_refused_before_the_work(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr("sporeprint.run.compare_stores.compare", lambda *_, **__: pytest.fail("computed"))
    (tmp_path / "taken").write_text("a file")
    status, out, err = run("compare", data / "a", data / "b", "--report", tmp_path / "taken")
    assert (status, out) == (2, "")
    assert "taken' is a file; give the name of a folder" in err


@pytest.mark.parametrize("flag", ["--train", "--test"])
def test_one_source_alone_is_checked_too_before_anything_is_computed(run, data, tmp_path, monkeypatch, flag):
    monkeypatch.setattr("sporeprint.run.compare_stores.compare", lambda *_, **__: pytest.fail("computed"))
    status, out, err = run("compare", data / "a", data / "b", "--report", tmp_path / "report", flag, "nowhere.csv")
    assert (status, out) == (1, "")
    assert "was made of a list in memory" in err


def test_samples_of_another_source_are_refused_before_anything_is_computed(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr("sporeprint.run.compare_stores.compare", lambda *_, **__: pytest.fail("computed"))
    (tmp_path / "x.csv").write_text("text,label\none,left\n")
    status, out, err = run(
        "compare",
        data / "a",
        data / "b",
        "--report",
        tmp_path / "r",
        "--train",
        tmp_path / "x.csv",
        "--test",
        tmp_path,
    )
    assert status in (1, 2)
    assert out == ""
    assert "error:" in err
