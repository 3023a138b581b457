"""`regress --out`: a number for each row of a store, which needs no labels."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint import KNNRegressor, RidgeRegressor
from sporeprint.data.sources import ListSource

DEGREES = np.linspace(0, 60, 13)
HEIGHTS = np.sin(np.deg2rad(DEGREES)).round(4)
ASKED = [7.0, 22.0, 48.0]


def save(folder, name, labels, degrees, failed=()):
    names = [f"{name}{at}" for at in range(len(labels))]
    rng = np.random.default_rng(len(name))
    blocks = {"embedding": circle(degrees), "cls-2": circle(rng.uniform(0, 360, len(labels)))}
    return store_of(folder / name, ListSource(names, labels=labels, ids=names), blocks, failed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    save(folder, "a", HEIGHTS.tolist(), DEGREES)
    save(folder, "b", [0.1, 0.4, 0.7], ASKED)
    save(folder, "blank", [None] * 3, ASKED)
    save(folder, "part", [0.1, None, 0.7], ASKED, failed=(2,))
    save(folder, "words", ["x", "y", "z"], ASKED)
    save(folder, "pairs", [[height, -height] for height in HEIGHTS.tolist()], DEGREES)
    save(folder, "single", [0.5], [0.0])
    return folder


def predicted(run, data, train, test, out, *words):
    status, answer, err = run("regress", data / train, data / test, "--out", out, *words)
    assert status == 0, err
    with open(out, newline="") as file:
        return list(csv.DictReader(file)), answer, err


@pytest.mark.parametrize(("method", "model"), [("knn", KNNRegressor()), ("ridge", RidgeRegressor())])
def test_the_numbers_are_those_of_the_predictor(run, data, tmp_path, method, model):
    words = ("--method", method, "--features", "embedding")
    rows, answer, err = predicted(run, data, "a", "b", tmp_path / "p.csv", *words)
    expected = model.fit(circle(DEGREES), HEIGHTS).predict(circle(ASKED))
    assert [float(row["prediction"]) for row in rows] == pytest.approx(expected, abs=1e-6)
    assert [row["true_value"] for row in rows] == ["0.1", "0.4", "0.7"]
    assert (rows[0]["neighbour_1"], rows[0]["neighbour_1_label"]) == ("a1", str(HEIGHTS[1]))
    truth = np.array([0.1, 0.4, 0.7])
    r2 = 1 - ((truth - expected) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert f"{r2:.3f} on 3 labelled test rows." in answer
    assert err == ""


def test_features_are_chosen_by_leave_one_out_where_none_are_named(run, data, tmp_path):
    _, answer, _ = predicted(run, data, "a", "blank", tmp_path / "p.csv", "--method", "ridge")
    assert ": numbers of 3 rows by the embedding" in answer  # the layer says nothing
    assert answer.endswith("by leave-one-out.\n")


@pytest.mark.parametrize("nearest", ["kNN", "ridge"])
def test_the_method_is_chosen_by_leave_one_out_where_none_is_named(run, tmp_path, nearest):
    """A sine is a line in the circle's coordinates; the sign of a threefold one is not."""
    degrees = np.arange(0, 360, 5.0)
    targets = np.sin(np.deg2rad(degrees)) if nearest == "ridge" else np.sign(np.sin(3 * np.deg2rad(degrees) + 0.01))
    save(tmp_path, "train", targets.tolist(), degrees)
    save(tmp_path, "test", [None] * 3, ASKED)
    _, answer, _ = predicted(run, tmp_path, "train", "test", tmp_path / "p.csv", "--features", "embedding")
    left = {"kNN": KNNRegressor(), "ridge": RidgeRegressor()}
    losses = {
        word: ((model.leave_one_out(circle(degrees), targets) - targets) ** 2).sum() for word, model in left.items()
    }
    assert min(losses, key=losses.get) == nearest
    assert f"by the embedding with {nearest}" in answer


def test_rows_without_a_number_or_without_features_cost_only_themselves(run, data, tmp_path):
    rows, answer, err = predicted(run, data, "a", "part", tmp_path / "p.csv", "--features", "embedding")
    assert [row["true_value"] for row in rows] == ["0.1", ""]
    assert "on 1 labelled test row." in answer
    assert "left out: part2: no text" in err


def test_texts_as_test_labels_are_not_compared(run, data, tmp_path):
    rows, answer, err = predicted(run, data, "a", "words", tmp_path / "p.csv", "--features", "embedding")
    assert (len(rows), "labelled test row" in answer) == (3, False)
    assert "the predictions are not compared with the test rows' labels" in err


@pytest.mark.parametrize(("of", "kind"), [(str, "double"), (float, "double"), (round, "int64")])
def test_neighbours_have_numbers_of_their_own_kind_and_texts_as_they_are_read(run, tmp_path, of, kind):
    save(tmp_path, "t", [of(1000 * height) for height in HEIGHTS], DEGREES)
    save(tmp_path, "asked", [of(1), None, of(3)], ASKED)
    words = ("--features", "embedding", "--method", "ridge")
    assert run("regress", tmp_path / "t", tmp_path / "asked", "--out", tmp_path / "p.parquet", *words)[0] == 0
    table = pq.read_table(tmp_path / "p.parquet")
    assert (str(table["neighbour_1_label"].type), table["true_value"].to_pylist()) == (kind, [1, None, 3])


def test_numbers_have_seven_digits_whatever_their_size(run, data, tmp_path):
    for scale in (1e-9, 1e9):
        save(tmp_path, f"t{scale}", (HEIGHTS * scale).tolist(), DEGREES)
        rows, _, _ = predicted(run, tmp_path, f"t{scale}", data / "blank", tmp_path / "p.csv", "--method", "ridge")
        for row in rows:
            assert float(row["prediction"]) == float(f"{float(row['prediction']):.7g}")
            assert len(row["prediction"].partition("e")[0].replace(".", "").strip("-0")) <= 7


def test_several_targets_are_a_list(run, data, tmp_path):
    words = ("--features", "embedding", "--method", "ridge")
    assert run("regress", data / "pairs", data / "blank", "--out", tmp_path / "p.parquet", *words)[0] == 0
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    first, second = np.array(table["prediction"]).T
    assert first == pytest.approx(-second, abs=1e-6)


def test_json_has_the_figures(run, data, tmp_path):
    out = tmp_path / "p.jsonl"
    status, answer, _ = run("regress", data / "a", data / "b", "--out", out, "--features", "embedding", "--json")
    seen = json.loads(answer)
    assert (status, seen["rows"], seen["compared"]) == (0, 3, 3)
    assert seen["choice"] == "the embedding with ridge"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("a", "b", "--combination", "loo"), 2, "chooses by classes"),
        (("a", "b", "--standardise", "--method", "ridge"), 2, "without --out"),
        (("words", "b"), 1, "are texts, such as 'x'; regress needs numbers"),
        (("blank", "b"), 1, "has no labels"),
        (("single", "b"), 1, "has one labelled row; predicting numbers takes at least 2"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(run, data, tmp_path, words, status, said):
    train, test, *options = words
    ended, _, err = run("regress", data / train, data / test, "--out", tmp_path / "p.csv", *options)
    assert (ended, said in err, (tmp_path / "p.csv").exists()) == (status, True, False), err
