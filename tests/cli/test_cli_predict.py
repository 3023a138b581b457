"""`classify --save` and `predict`: a model labels new files as `classify` labels their store."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from sporeprint import KL, Fungi, Recipe, SimCLR, load_pipeline, open_source
from sporeprint.cli.app import app
from sporeprint.objectives.views.image import Patches
from sporeprint.run import predict as predict_module
from sporeprint.run.classify import classify_stores
from sporeprint.run.combination_flags import wanted
from sporeprint.run.saved_classifier import load_classifier, save_classifier
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store


def picture(label, rng):
    """A noisy picture that is bright on the left for "left", on the right for "right", and dark for "dark"."""
    image = rng.normal(60, 25, (40, 40, 3))
    image[:, :20] += 120 * (label == "left")
    image[:, 20:] += 120 * (label == "right")
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label in ("left", "right", "dark"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                picture(label, rng).save(folder / split / label / f"{label}-{number}.png")
    return folder


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    """The photos' stores, a model, and what classify says of the test store."""
    folder = tmp_path_factory.mktemp("made")

    def sporeprint(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done

    recipe = Recipe(backbone="tiny", objectives=[KL(), SimCLR(augmentation=Patches(2), negatives=4)])
    (folder / "recipe.json").write_text(json.dumps(recipe.to_json()))
    sporeprint("extract", photos / "train", "--out", folder / "train", "--recipe", folder / "recipe.json")
    sporeprint("extract", photos / "test", "--out", folder / "test", "--fit-from", folder / "train")
    words = ("--features", "layers", "--whiten", "auto", "--exponent", "0.5", "--predictor", "lda", "--probabilities")
    done = sporeprint(
        "classify", folder / "train", folder / "test", "--out", folder / "p.csv", "--save", folder / "model", *words,
        "--abstain", "0.2",
    )  # fmt: skip
    return folder, done


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_gives_what_classify_gives_for_the_same_rows(run, photos, made, tmp_path):
    folder, _ = made
    words = ("--probabilities", "--abstain", "0.2")
    status, answer, err = run("predict", folder / "model", photos / "test", "--out", tmp_path / "p.csv", *words)
    assert status == 0, err
    expected, seen = rows_of(folder / "p.csv"), rows_of(tmp_path / "p.csv")
    assert list(seen[0]) == list(expected[0])
    for row, other in zip(seen, expected, strict=True):
        for name in row:
            if name.startswith("probability") or name.endswith("similarity"):
                assert float(row[name]) == pytest.approx(float(other[name]), abs=2e-5)
            else:
                assert row[name] == other[name], name
    assert "12 rows labelled by layers, white 0.5, with LDA; 100.0% right of 12 labelled rows." in answer


def test_the_size_of_the_model_is_said_with_how_it_is_used(made):
    folder, done = made
    size = sum(path.stat().st_size for path in (folder / "model").rglob("*") if path.is_file()) / 2**20
    assert f"{folder / 'model'}: a model of {size:.1f} MiB; `sporeprint predict" in " ".join(done.stdout.split())


def test_objectives_that_no_feature_needs_are_left_out(made):
    folder, _ = made
    assert {"kl", "simclr"} <= set(Store.open(folder / "train").block_names)
    (parts,) = (folder / "model").glob("parts-*")
    fungi = Fungi.load(parts)
    assert (fungi.recipe.objectives, fungi.negatives, fungi.heads) == ((), {}, {})


def test_objectives_that_features_need_come_along_with_their_negatives(run, photos, made, tmp_path):
    folder, _ = made
    words = ("--features", "embedding,simclr", "--predictor", "ridge")
    out = ("--out", tmp_path / "p.csv")
    assert run("classify", folder / "train", folder / "test", *out, "--save", tmp_path / "model", *words)[0] == 0
    (parts,) = (tmp_path / "model").glob("parts-*")
    fungi = Fungi.load(parts)
    assert ([one.name for one in fungi.recipe.objectives], list(fungi.negatives)) == (["simclr"], ["simclr"])
    assert run("predict", tmp_path / "model", photos / "test", "--out", tmp_path / "q.csv")[0] == 0
    labels, others = ([row["label"] for row in rows_of(tmp_path / name)] for name in ("p.csv", "q.csv"))
    assert labels == others


def test_python_loads_the_same_model(photos, made):
    folder, _ = made
    images = sorted((photos / "test" / "left").iterdir())
    assert load_pipeline(folder / "model").predict(images).tolist() == ["left"] * 4


def test_a_model_remembers_the_column_that_its_labels_came_from(made, tmp_path):
    store = Rows(made[0] / "train")
    found = classify_stores(store, None, wanted("embedding"), "class-means")
    for name, column in (("a", None), ("b", "side")):
        save_classifier(tmp_path / name, found.store, found.classifier, column)
    assert [load_classifier(tmp_path / name).columns.get("label") for name in ("a", "b")] == [None, "side"]


def test_a_model_is_made_without_rows_to_label(run, made, tmp_path):
    folder, _ = made
    words = ("--features", "embedding", "--predictor", "class-means")
    status, answer, _ = run("classify", folder / "train", "--save", tmp_path / "model", *words)
    assert status == 0
    assert answer.startswith("the embedding with class means: ")
    assert "right by leave-one-out of 30 rows." in answer


def test_a_model_that_learned_from_unlabelled_rows_is_saved_with_them(run, photos, made, tmp_path):
    folder, _ = made
    words = ("--features", "embedding", "--pca", "8", "--unlabelled", "--out", tmp_path / "p.csv")
    status, answer, _ = run("classify", folder / "train", folder / "test", "--save", tmp_path / "model", *words)
    assert (status, "with LDA and unlabelled rows (EM)" in answer) == (0, True)
    status, answer, _ = run("predict", tmp_path / "model", photos / "test", "--out", tmp_path / "q.csv")
    assert (status, "with LDA and unlabelled rows (EM)" in answer) == (0, True)
    for row, other in zip(rows_of(tmp_path / "p.csv"), rows_of(tmp_path / "q.csv"), strict=True):
        assert row["label"] == other["label"]
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=2e-5)


def test_files_without_labels_are_labelled_and_unreadable_ones_named(run, photos, made, tmp_path):
    folder, _ = made
    (tmp_path / "new").mkdir()
    for number in range(3):
        Image.open(photos / "test" / "left" / f"left-{number}.png").save(tmp_path / "new" / f"{number}.png")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    status, answer, err = run("predict", folder / "model", tmp_path / "new", "--out", tmp_path / "p.csv")
    rows = rows_of(tmp_path / "p.csv")
    assert (status, [row["label"] for row in rows]) == (0, ["left"] * 3)
    assert "true_label" not in rows[0]
    assert "left out: broken.png: " in err
    assert f"{tmp_path / 'p.csv'}: 3 rows labelled by layers, white 0.5, with LDA." in answer


def test_too_many_unreadable_files_stop_it_and_no_file_is_left(run, photos, made, tmp_path):
    folder, _ = made
    (tmp_path / "new").mkdir()
    Image.open(photos / "test" / "left" / "left-0.png").save(tmp_path / "new" / "good.png")
    for number in range(2):
        (tmp_path / "new" / f"{number}.png").write_bytes(b"no image")
    words = ("predict", folder / "model", tmp_path / "new", "--out", tmp_path / "p.csv")
    status, _, err = run(*words)
    assert (status, "2 of 3 rows cannot be read; at most 1 may fail" in err) == (1, True)
    assert "a fraction of the rows: it is 0.01, and one row always may fail" in err
    assert not (tmp_path / "p.csv").exists()
    assert run(*words, "--max-failures", "0.7")[0] == 0
    assert [row["id"] for row in rows_of(tmp_path / "p.csv")] == ["good.png"]


def test_rows_are_labelled_in_parts_and_their_ends_change_nothing(run, photos, made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.setattr(predict_module, "_TOGETHER", 5)
    words = ("--out", tmp_path / "p.parquet", "--batch-size", "2", "--workers", "2")
    assert run("predict", folder / "model", photos / "test", *words)[0] == 0
    table = pq.read_table(tmp_path / "p.parquet").to_pylist()
    expected = rows_of(folder / "p.csv")
    for name in ("id", "label", "true_label", "neighbour_1"):
        assert [row[name] for row in table] == [row[name] for row in expected]


def test_a_table_is_read_as_the_training_rows_were(run, photos, made, tmp_path):
    folder, _ = made
    images = [path.read_bytes() for path in sorted((photos / "test" / "right").iterdir())]
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None} for data in images]}), tmp_path / "new.parquet")
    status, _, _ = run("predict", folder / "model", tmp_path / "new.parquet", "--out", tmp_path / "p.jsonl", "--json")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert (status, [line["label"] for line in lines]) == (0, ["right"] * 4)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("gone", "test"), 1, "there is no folder"),
        (("train", "test"), 1, "has no pipeline.json"),
        (("model", "nowhere"), 2, "there is no"),
        (("model", "test", "--abstain", "0.01"), 2, "takes at least 99 labelled training rows, and there are 30"),
        (("model", "test", "--backbone", "hugging"), 1, "hugging"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(run, photos, made, tmp_path, words, status, said):
    folder, _ = made
    model, source, *options = words
    ended, _, err = run("predict", folder / model, photos / source, "--out", tmp_path / "p.csv", *options)
    assert (ended, said in err, (tmp_path / "p.csv").exists()) == (status, True, False), err


def test_a_model_is_not_saved_among_other_files(run, made, tmp_path):
    folder, _ = made
    (tmp_path / "mine.txt").write_text("")
    words = ("--features", "embedding", "--predictor", "class-means")
    status, _, err = run("classify", folder / "train", "--save", tmp_path, *words)
    assert (status, "holds other files (mine.txt, ...)" in err) == (2, True)


def test_a_fresh_run_is_not_said_to_go_on(made, photos, tmp_path):
    steps = []
    model = load_classifier(made[0] / "model")
    source = open_source(photos / "test", modality="image", like=model.columns)
    predict_module.predict_rows(model, source, tmp_path / "p.csv", progress=lambda *step: steps.append(step))
    assert steps[0] == ("rows", 0, 12)
    assert steps[-1] == ("rows", 12, 12)
