"""`classify`, on stores made by hand: points of a circle, whose labels and neighbours are known."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint import select
from sporeprint.data.sources import ListSource, open_source
from sporeprint.evaluate.choice.judges import CHOSEN, PREDICTORS
from sporeprint.predictors.class_means import ClassMeans
from sporeprint.predictors.conformal import least_probability
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.unlabelled import with_unlabelled
from sporeprint.store.reader import Store

TRAIN = [0.0, 5.0, 10.0, 90.0, 95.0, 100.0]
PLACES = ["low"] * 3 + ["high"] * 3
TEST = [2.0, 97.0, 46.0]


def save(folder, name, labels, degrees, blocks=("embedding",), failed=()):
    names = [f"{name}{at}" for at in range(len(labels))]
    return store_of(
        folder / name, ListSource(names, labels=labels, ids=names), {block: circle(degrees) for block in blocks}, failed
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    save(folder, "a", PLACES, TRAIN, ("embedding", "cls-2"))
    save(folder, "b", ["low", "high", "high"], TEST, ("embedding", "cls-2"))
    save(folder, "blank", [None] * 3, TEST, ("embedding", "cls-2"))
    save(folder, "part", ["low", None, "high"], TEST, ("embedding", "cls-2"))
    save(folder, "strange", ["low", "up", "high"], TEST, ("embedding", "cls-2"))
    save(folder, "numbers", [0, 1, 1], TEST, ("embedding", "cls-2"))
    save(folder, "lists", [["low"], ["high"], ["high"]], TEST, ("embedding", "cls-2"))
    save(folder, "holes", ["low", "high", "high"], TEST, ("embedding", "cls-2"), failed=(1,))
    save(folder, "some", [*PLACES[:4], None, None], TRAIN, ("embedding", "cls-2"))
    save(folder, "one", ["low"] * 6, TRAIN, ("embedding", "cls-2"))
    save(folder, "single", ["low", "low", "low", "low", "low", "high"], TRAIN, ("embedding", "cls-2"))
    save(folder, "heights", [0.5, 1.5, 2, 3, 4, 5], TRAIN, ("embedding", "cls-2"))
    save(folder, "two", ["low", "high"], [0.0, 90.0], ("embedding", "cls-2"))
    rng = np.random.default_rng(0)
    degrees = [*rng.normal(20, 25, 60), *rng.normal(80, 25, 60)]
    save(folder, "many", ["low"] * 60 + ["high"] * 60, degrees, ("embedding", "cls-2"))
    save(folder, "narrow", PLACES[:3], TEST)
    return folder


def stored_features(folder):
    return Store.open(folder).blocks(["embedding"])["embedding"]


FIXED = ("--features", "embedding", "--predictor", "class-means")


def predicted(run, data, train, test, out, *words):
    status, answer, err = run("classify", data / train, data / test, "--out", out, *(words or FIXED))
    assert status == 0, err
    with open(out, newline="") as file:
        return list(csv.DictReader(file)), answer, err


def test_each_row_has_its_label_its_probability_and_its_nearest_training_rows(run, data, tmp_path):
    rows, answer, err = predicted(run, data, "a", "b", tmp_path / "p.csv")
    assert [row["id"] for row in rows] == ["b0", "b1", "b2"]
    assert [row["label"] for row in rows] == ["low", "high", "low"]  # 46 is nearer to 5 than to 95
    assert [row["true_label"] for row in rows] == ["low", "high", "high"]
    first = rows[0]
    assert [first[f"neighbour_{place}"] for place in (1, 2, 3)] == ["a0", "a1", "a2"]
    assert [first[f"neighbour_{place}_label"] for place in (1, 2, 3)] == ["low"] * 3
    cosines = [float(first[f"neighbour_{place}_similarity"]) for place in (1, 2, 3)]
    assert cosines == pytest.approx(np.cos(np.deg2rad([2, 3, 8])), abs=1e-3)
    expected = ClassMeans().fit(circle(TRAIN), PLACES).predict_proba(circle(TEST)).max(axis=1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-3)
    assert answer.startswith(
        f"{tmp_path / 'p.csv'}: 3 rows labelled by the embedding with class means; 100.0% right by "
    )
    assert answer.endswith("leave-one-out, 66.7% on 3 labelled test rows.\n")
    assert err == ""


def test_the_rows_to_label_need_no_labels(run, data, tmp_path):
    rows, answer, err = predicted(run, data, "a", "blank", tmp_path / "p.csv")
    assert [row["label"] for row in rows] == ["low", "high", "low"]
    assert "true_label" not in rows[0]
    assert (answer.endswith("100.0% right by leave-one-out.\n"), err) == (True, "")


def test_accuracy_is_of_the_rows_that_have_a_label(run, data, tmp_path):
    rows, answer, _ = predicted(run, data, "a", "part", tmp_path / "p.csv")
    assert [row["true_label"] for row in rows] == ["low", "", "high"]
    assert "50.0% on 2 labelled test rows" in answer


def test_a_class_that_no_training_row_has_is_said(run, data, tmp_path):
    rows, answer, err = predicted(run, data, "a", "strange", tmp_path / "p.csv")
    assert {row["label"] for row in rows} == {"low", "high"}
    assert "33.3% on 3 labelled test rows" in answer
    assert err == "counted as wrong, since no training row has their label: 1 test row\n"


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("numbers", "no label of the test rows (integers 0, 1) is one of the training rows (texts 'high', 'low')"),
        ("lists", "the labels of the test rows are lists"),
    ],
)
def test_labels_of_another_kind_are_said_and_the_predictions_written(run, data, tmp_path, test, said):
    rows, answer, err = predicted(run, data, "a", test, tmp_path / "p.csv")
    assert [row["label"] for row in rows] == ["low", "high", "low"]
    assert "test row" not in answer
    assert err.startswith(said)


def test_rows_without_features_are_named_and_left_out(run, data, tmp_path):
    rows, _, err = predicted(run, data, "a", "holes", tmp_path / "p.csv")
    assert [row["id"] for row in rows] == ["holes0", "holes2"]
    assert err == "left out: holes1: no text\n"


def test_training_rows_without_a_label_are_left_out_and_counted(run, data, tmp_path):
    rows, _, err = predicted(run, data, "some", "b", tmp_path / "p.csv")
    assert "some4" not in {row["neighbour_1"] for row in rows}
    assert err.splitlines()[0] == "left out, having no label: 2 training rows"


def test_a_class_of_one_row_is_said(run, data, tmp_path):
    _, _, err = predicted(run, data, "single", "b", tmp_path / "p.csv")
    assert err == "1 class with one row only, which leave-one-out counts as wrong\n"


def test_fewer_than_three_training_rows_leave_neighbours_empty(run, data, tmp_path):
    rows, _, _ = predicted(run, data, "two", "b", tmp_path / "p.csv")
    assert (rows[0]["neighbour_2"], rows[0]["neighbour_3"], rows[0]["neighbour_3_similarity"]) == ("two1", "", "")


def test_training_rows_that_are_asked_about_are_said(run, data, tmp_path):
    _, _, err = predicted(run, data, "a", "a", tmp_path / "p.csv")
    assert "both stores are the same one" in err


def test_probabilities_add_a_column_for_each_class_and_add_up_to_one(run, data, tmp_path):
    rows, _, _ = predicted(run, data, "many", "b", tmp_path / "p.csv", "--predictor", "lda", "--probabilities")
    for row in rows:
        assert float(row["probability_low"]) + float(row["probability_high"]) == pytest.approx(1, abs=1e-5)
        assert max(float(row["probability_low"]), float(row["probability_high"])) == float(row["probability"])


def test_abstaining_gives_sets_and_an_answer_where_one_label_is_left(run, data, tmp_path):
    words = ("--features", "embedding", "--predictor", "lda", "--abstain", "0.1", "--probabilities")
    rows, answer, _ = predicted(run, data, "many", "b", tmp_path / "p.csv", *words)
    sizes = [len(json.loads(row["set"])) for row in rows]
    for row, size in zip(rows, sizes, strict=True):
        assert row["answer"] == (row["label"] if size == 1 else "")
    counted = f"{sizes.count(1)} rows have one label, {sizes.count(2)} several, {sizes.count(0)} none"
    assert f"At an error of 0.1, {counted}; " in answer
    held = np.mean([row["true_label"] in json.loads(row["set"]) for row in rows])
    assert f"{held:.1%} of 3 sets hold the true label" in answer


def test_an_error_that_too_few_rows_can_hold_is_refused_with_how_many_are_needed(run, data, tmp_path):
    status, _, err = run("classify", data / "a", data / "b", "--out", tmp_path / "p.csv", *FIXED, "--abstain", "0.05")
    assert (status, (tmp_path / "p.csv").exists()) == (2, False)
    assert "an error of 0.05 takes at least 19 labelled training rows, and there are 6" in err


@pytest.mark.parametrize("error", ["0", "1", "5", "-0.1", "nan"])
def test_an_error_that_is_no_fraction_is_refused(run, data, tmp_path, error):
    status, _, err = run("classify", data / "a", data / "b", "--out", tmp_path / "p.csv", *FIXED, "--abstain", error)
    assert (status, f"--abstain {error}; expected the share of sets" in err, "above 0 and below 1" in err) == (
        2,
        True,
        True,
    )


def test_all_three_formats_hold_the_same_predictions(run, data, tmp_path):
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        assert run("classify", data / "a", data / "b", "--out", tmp_path / name, *FIXED)[0] == 0
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()] == table
    rows = predicted(run, data, "a", "b", tmp_path / "p.csv")[0]
    assert rows == [{name: str(value) for name, value in row.items()} for row in table]


def test_json_says_what_the_sentence_says(run, data, tmp_path):
    out = tmp_path / "p.csv"
    status, answer, _ = run("classify", data / "a", data / "b", "--out", out, *FIXED, "--json")
    seen = json.loads(answer)
    assert (status, seen["out"], seen["rows"], seen["training_rows"]) == (0, str(out), 3, 6)
    assert (seen["choice"], seen["leave_one_out"], seen["compared"]) == ("the embedding with class means", 1.0, 3)
    assert seen["accuracy"] == pytest.approx(2 / 3)


def test_unlabelled_rows_take_part_and_the_answer_says_so(run, data, tmp_path):
    words = ("--features", "embedding", "--predictor", "lda", "--unlabelled")
    rows, answer, _ = predicted(run, data, "many", "a", tmp_path / "p.csv", *words, "--abstain", "0.2")
    labels = Store.open(data / "many").labels
    decided = with_unlabelled(stored_features(data / "many"), labels, stored_features(data / "a"))
    assert decided.used
    assert [row["label"] for row in rows] == decided.predictions.tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(decided.probabilities.max(axis=1), abs=1e-6)
    least = least_probability(np.sort(decided.left_out.probabilities[np.arange(120), decided.left_out.codes]), 0.2)
    assert [len(json.loads(row["set"])) for row in rows] == (decided.probabilities >= least).sum(axis=1).tolist()
    said = " ".join(answer.split())
    assert "6 rows labelled by the embedding with LDA and unlabelled rows (EM); " in said
    assert f"{decided.after:.1%} right with labels hidden" in said
    assert decided.why in said


def test_without_the_flag_unlabelled_rows_take_no_part(run, data, tmp_path):
    words = ("--features", "embedding", "--predictor", "lda")
    rows, answer, _ = predicted(run, data, "many", "a", tmp_path / "p.csv", *words)
    lda = ShrunkLDA().fit(stored_features(data / "many"), Store.open(data / "many").labels)
    expected = lda.predict_proba(stored_features(data / "a")).max(axis=1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-6)
    assert "nlabelled" not in answer


def test_rows_that_cannot_be_shown_to_do_no_harm_are_not_used(run, data, tmp_path):
    _, answer, _ = predicted(run, data, "a", "many", tmp_path / "p.csv", *FIXED, "--unlabelled")
    said = " ".join(answer.split())
    assert "Unlabelled rows are not used: 6 labels of 2 classes are too few to see harm by" in said
    assert "labelled by the embedding with class means" in said


def test_unlabelled_rows_do_not_go_with_groups(run, data, tmp_path):
    words = ("--unlabelled", "--group-column", "label", "--train", "x")
    status, _, err = run("classify", data / "a", data / "b", "--out", tmp_path / "p.csv", *words)
    assert (status, "leave out --group-column" in " ".join(err.split())) == (2, True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Four rows of each of two classes, 150 to label; a layer of more numbers than that says as much, or more."""
    folder = tmp_path_factory.mktemp("wide")
    for kind, layer, seed in (("weak", 1.0, 3), ("strong", 2.0, 4)):
        rng = np.random.default_rng(seed)
        for part, rows in (("train", 8), ("test", 150)):
            codes = np.arange(rows) % 2
            sides, name = 2 * codes[:, None] - 1, f"{kind}-{part}"
            embedding = rng.normal(size=(rows, 20)) + 0.5 * sides
            others = 0.3 * rng.normal(size=(rows, 250))
            last = np.concatenate([others, layer * sides + 0.5 * rng.normal(size=(rows, 1))], axis=1)
            source = ListSource([f"{name}{at}" for at in range(rows)], labels=np.array(["no", "yes"])[codes].tolist())
            store_of(folder / name, source, {"embedding": embedding.astype("f4"), "cls-2": last.astype("f4")})
    return folder


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_unlabelled_rows_take_part_by_narrow_features_where_these_do_no_worse(run, wide, tmp_path, kind):
    stores = f"{kind}-train", f"{kind}-test", tmp_path / "p.csv"
    plain, plain_answer, _ = predicted(run, wide, *stores, "--seed", "0")
    rows, answer, _ = predicted(run, wide, *stores, "--unlabelled")
    assert ("cls-2" if kind == "strong" else "embedding + layers") + " with LDA" in plain_answer
    said = " ".join(answer.split())
    if kind == "strong":
        assert rows == plain
        assert "Unlabelled rows are not used, they harm: of 8 labels, hidden in turn" in said
        assert said.endswith("They were tried by embedding, which is narrow enough.")
        return
    assert "150 rows labelled by the embedding with LDA and unlabelled rows (EM)" in said
    right, plain_right = (sum(row["label"] == row["true_label"] for row in table) for table in (rows, plain))
    assert right > plain_right


@pytest.mark.parametrize("predictor", ["knn", "ridge", "class-means", "probe"])
def test_unlabelled_rows_are_tried_by_narrow_features_whatever_the_predictor(run, wide, tmp_path, predictor):
    rows, answer, _ = predicted(
        run, wide, "strong-train", "strong-test", tmp_path / "p.csv", "--unlabelled", "--predictor", predictor
    )
    assert len(rows) == 150
    assert "Unlabelled rows are" in " ".join(answer.split())


def test_named_features_that_are_too_wide_are_refused_with_narrower_ones(run, wide, tmp_path):
    words = ("--features", "layers", "--unlabelled")
    said = " ".join(predicted(run, wide, "weak-train", "weak-test", tmp_path / "p.csv", *words)[1].split())
    assert "features of 251 numbers are wider than the 158 rows in all" in said
    assert "--features embedding is narrow enough." in said


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("a",), 2, "give TEST_STORE and --out FILE for predictions, or --save FOLDER for a model"),
        (("a", "b"), 2, "TEST_STORE and --out go together"),
        (("a", "--out", "p.csv"), 2, "give TEST_STORE and --out FILE"),
        (("a", "b", "--out", "p.txt"), 2, "expected a name that ends in .parquet, .csv or .jsonl"),
        (("blank", "b", "--out", "p.csv"), 1, "has no labels; extract it from a labelled source"),
        (("one", "b", "--out", "p.csv"), 1, "are of one class, texts 'low': there is nothing to tell apart"),
        (("heights", "b", "--out", "p.csv"), 1, "`sporeprint regress` predicts numbers"),
        (("lists", "b", "--out", "p.csv"), 1, "has lists of labels; classify needs one a row"),
        (("a", "b", "--out", "p.csv", "--features", "gradients"), 2, "no block of the family 'gradients'"),
        (("a", "b", "--out", "p.csv", "--label-column", "x"), 2, "--label-column needs --train"),
        (("a", "b", "--out", "p.csv", "--predictor", "svm"), 2, "predictor"),
        (("a", "gone", "--out", "p.csv"), 1, "is not a store: there is no such folder"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(run, data, tmp_path, monkeypatch, words, status, said):
    monkeypatch.chdir(tmp_path)
    stores = [data / word if word in ("a", "b", "blank", "one", "heights", "lists", "gone") else word for word in words]
    ended, _, err = run("classify", *stores)
    assert (ended, said in err, list(tmp_path.iterdir())) == (status, True, []), err


def test_features_and_predictor_are_those_that_select_chooses(run, data, tmp_path):
    store = Store.open(data / "many")
    chosen = select(store.blocks(), store.labels)
    _, answer, _ = predicted(run, data, "many", "b", tmp_path / "p.csv", "--seed", "0")
    assert f" labelled by {chosen.title};" in answer


@pytest.mark.parametrize("word", ["knn", "class-means", "lda", "ridge", "probe"])
def test_a_named_predictor_answers_and_probabilities_are_its_own(run, data, tmp_path, word):
    words = ("--features", "embedding", "--predictor", word)
    rows, answer, _ = predicted(run, data, "many", "b", tmp_path / "p.csv", *words)
    title = answer.partition(" labelled by the embedding with ")[2].partition(";")[0]
    assert title.removeprefix("a ").lower().replace(" ", "-").startswith(word)
    assert ("right in five folds" in answer) == (word == "probe")
    labels = Store.open(data / "many").labels
    model = PREDICTORS[{"knn": "kNN", "lda": "LDA"}.get(word, word.replace("-", " "))]()
    rows_of_train = Store.open(data / "many").blocks(["embedding"])["embedding"]
    model.leave_one_out(rows_of_train, labels)
    expected = model.predict_proba(circle(TEST)).max(axis=1)
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=2e-6)


def test_of_named_features_the_predictor_with_the_least_loss_answers(run, data, tmp_path):
    _, answer, _ = predicted(run, data, "many", "b", tmp_path / "p.csv", "--features", "embedding")
    rows, labels = Store.open(data / "many").blocks(["embedding"])["embedding"], Store.open(data / "many").labels
    losses = {word: PREDICTORS[word]().leave_one_out(rows, labels).losses.mean() for word in CHOSEN}
    assert f" labelled by the embedding with {min(losses, key=losses.__getitem__)}" in answer


def test_test_rows_that_clearly_break_what_training_rows_promise_are_said(run, data, tmp_path):
    """Where 30 of 60 test rows have the other label, neither leave-one-out nor the stated error holds."""
    degrees = [*np.linspace(0, 20, 60), *np.linspace(80, 100, 60)]
    save(tmp_path, "train", ["low"] * 60 + ["high"] * 60, degrees)
    save(tmp_path, "like", ["low"] * 30 + ["high"] * 30, degrees[30:90])
    save(tmp_path, "other", ["high"] * 15 + ["low"] * 15 + ["high"] * 30, degrees[30:90])
    words = (*FIXED, "--abstain", "0.05")
    assert predicted(run, tmp_path, "train", "like", tmp_path / "p.csv", *words)[2] == ""
    said = predicted(run, tmp_path, "train", "other", tmp_path / "p.csv", *words)[2].splitlines()
    assert said[0].startswith(
        "the test rows are right clearly less often than held-out training rows (75.0% of 60, 100.0%"
    )
    assert said[0].endswith("then give --group-column")
    assert said[1].startswith("clearly fewer sets hold the true label than an error of 0.05 allows (")


def test_labels_that_no_training_row_has_break_no_promise(run, data, tmp_path):
    save(tmp_path, "train", ["low"] * 60 + ["high"] * 60, [*np.linspace(0, 20, 60), *np.linspace(80, 100, 60)])
    save(tmp_path, "new", ["up"] * 50 + ["low"] * 10, np.linspace(0, 20, 60))
    err = predicted(run, tmp_path, "train", "new", tmp_path / "p.csv")[2]
    assert err == "counted as wrong, since no training row has their label: 50 test rows\n"


def test_near_duplicates_are_said(run, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(20, 32)), 2, axis=0).astype("f4")
    for name, block in (("train", rows), ("test", rows[:6] + 1e-4), ("far", rng.normal(size=(6, 32)).astype("f4"))):
        source = ListSource(
            [f"{name}{at}" for at in range(len(block))], labels=[f"{at // 2 % 2}" for at in range(len(block))]
        )
        store_of(tmp_path / name, source, {"embedding": block})
    said = predicted(run, tmp_path, "train", "test", tmp_path / "p.csv")[2]
    assert "near-duplicates: 40 of 40 training rows nearly equal another one, 6 of 6 test rows nearly equal a" in said
    assert "test rows" not in predicted(run, tmp_path, "train", "far", tmp_path / "p.csv")[2].partition("near-dup")[2]


def test_whole_groups_are_left_out(run, tmp_path):
    """Every row has a twin in its group, and groups have labels of their own: alone, no row says anything."""
    rng = np.random.default_rng(0)
    degrees = np.repeat(rng.uniform(0, 360, 20), 2)
    labels, groups = np.repeat(["x", "y"] * 10, 2).tolist(), np.repeat(np.arange(20), 2).tolist()
    names = [f"text {at}" for at in range(40)]
    table = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"text": name, "label": label, "video": f"v{group}"})
        for name, label, group in zip(names, labels, groups, strict=True)
    ]
    table.write_text("\n".join(lines))
    store_of(tmp_path / "train", open_source(table, modality="text"), {"embedding": circle(degrees)})
    save(tmp_path, "b", ["x", "y", "y"], TEST)
    words = ("--features", "embedding", "--predictor", "knn", "--json")
    alone = run("classify", tmp_path / "train", tmp_path / "b", "--out", tmp_path / "p.csv", *words)
    together = run(
        "classify", tmp_path / "train", tmp_path / "b", "--out", tmp_path / "p.csv", *words, "--group-column", "video",
        "--train", table,
    )  # fmt: skip
    assert (alone[0], together[0]) == (0, 0), together[2]
    assert json.loads(alone[1])["leave_one_out"] > 0.9
    assert json.loads(together[1])["leave_one_out"] < 0.8
    (note,) = json.loads(together[1])["notes"]
    assert note.endswith("stay together where rows are left out, split or drawn: 20 groups of training rows")
    words = (*words[:-1], "--group-column", "video", "--train", table, "--test", table)
    (tmp_path / "t2").mkdir()
    store_of(tmp_path / "t2" / "test", open_source(table, modality="text"), {"embedding": circle(degrees + 1)})
    shared = run("classify", tmp_path / "train", tmp_path / "t2" / "test", "--out", tmp_path / "p.csv", *words)
    assert "% right by leave-one-group-out, " in shared[1]
    assert "40 of 40 test rows are of a group that training rows are of too" in shared[2]
