"""A Fungi and a predictor as one scikit-learn pipeline, saved as one folder and loaded again."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sporeprint import DINO, KL, ClassMeans, Fungi, Recipe, Ridge, ShrunkLDA, load_pipeline, save_pipeline
from sporeprint.errors import DamagedStore, RecipeError, StoreError

LABELS = ["a", "b", "c"] * 4


def images_of(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)) for _ in range(count)]


def fitted(predictor=None, **fields):
    pipeline = make_pipeline(Fungi(Recipe("tiny", objectives=[KL()], **fields)), predictor or ShrunkLDA())
    return pipeline.fit(images_of(), LABELS)


def test_raw_images_are_fitted_and_labelled(tmp_path):
    pipeline = fitted()
    others = images_of(5, seed=1)
    features = pipeline[0].transform(others)
    assert pipeline.predict(others).tolist() == pipeline[1].predict(features).tolist()
    assert clone(pipeline).fit(images_of(), LABELS).predict(others).tolist() == pipeline.predict(others).tolist()


@pytest.mark.parametrize("predictor", [ShrunkLDA(), Ridge(), ClassMeans()])
def test_a_saved_pipeline_gives_the_same_probabilities(tmp_path, predictor):
    pipeline, others = fitted(predictor), images_of(5, seed=1)
    save_pipeline(pipeline, tmp_path / "model")
    loaded = load_pipeline(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(others), pipeline.predict_proba(others), atol=1e-6)
    assert loaded.predict(others).tolist() == pipeline.predict(others).tolist()
    assert [name for name, _ in loaded.steps] == [name for name, _ in pipeline.steps]


def test_another_process_predicts_the_same(tmp_path):
    pipeline, others = fitted(), images_of(3, seed=1)
    save_pipeline(pipeline, tmp_path / "model")
    for number, image in enumerate(others):
        image.save(tmp_path / f"{number}.png")
    code = (
        "import sys; from sporeprint import load_pipeline; from pathlib import Path; "
        "print(*load_pipeline(sys.argv[1]).predict([Path(name) for name in sys.argv[2:]]))"
    )
    words = [str(tmp_path / "model"), *(str(tmp_path / f"{number}.png") for number in range(3))]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.split() == pipeline.predict(others).tolist()


def test_a_later_pipeline_replaces_an_earlier_one_and_leaves_nothing_of_it(tmp_path):
    save_pipeline(fitted(), tmp_path / "model")
    save_pipeline(fitted(Ridge()), tmp_path / "model")
    assert isinstance(load_pipeline(tmp_path / "model")[1], Ridge)
    assert len(list((tmp_path / "model").iterdir())) == 2
    save_pipeline(fitted(Ridge()), tmp_path / "model")
    assert isinstance(load_pipeline(tmp_path / "model")[1], Ridge)


def test_an_earlier_pipeline_stays_whole_where_the_next_cannot_be_written(tmp_path):
    save_pipeline(fitted(), tmp_path / "model")
    broken = fitted()
    broken.steps[1] = ("scaler", StandardScaler().fit([[0.0], [1.0]]))
    with pytest.raises(StoreError, match="a StandardScaler cannot be saved here"):
        save_pipeline(broken, tmp_path / "model")
    assert isinstance(load_pipeline(tmp_path / "model")[1], ShrunkLDA)
    assert len(list((tmp_path / "model").iterdir())) == 2


@pytest.mark.parametrize(
    ("pipeline", "seen"),
    [
        (Pipeline([("a", StandardScaler()), ("b", ShrunkLDA())]), "StandardScaler, ShrunkLDA"),
        (make_pipeline(Fungi("tiny"), StandardScaler(), ShrunkLDA()), "Fungi, StandardScaler, ShrunkLDA"),
        (make_pipeline(Fungi("tiny")), "Fungi"),
        (ShrunkLDA(), "ShrunkLDA"),
        (LogisticRegression(), "LogisticRegression"),
    ],
)
def test_other_pipelines_are_refused_with_what_they_hold(tmp_path, pipeline, seen):
    with pytest.raises(RecipeError, match=f"this is a pipeline of: {seen}; expected two steps"):
        save_pipeline(pipeline, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_pipeline_that_is_not_fitted_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        save_pipeline(make_pipeline(Fungi("tiny"), ShrunkLDA()), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds other files \(notes.txt, ...\) and no saved pipeline"):
        save_pipeline(fitted(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(StoreError, match="is a file; give the name of a folder"):
        save_pipeline(fitted(), tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["fungi.json", "fungi.safetensors", "predictor.json", "predictor.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "remove", "cut"])
def test_damage_to_any_file_is_named(tmp_path, name, damage):
    save_pipeline(fitted(), tmp_path / "model")
    (path,) = (tmp_path / "model").glob(f"parts-*/{name}")
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedStore, match=f"is damaged: {name} .*; save it again"):
        load_pipeline(tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"steps": []}', None])
def test_a_damaged_description_is_named(tmp_path, content):
    save_pipeline(fitted(), tmp_path / "model")
    file = tmp_path / "model" / "pipeline.json"
    if content is None:
        file.write_bytes(file.read_bytes().replace(b'"fungi"', b'"fungo"', 1))
    else:
        file.write_bytes(content)
    with pytest.raises(DamagedStore, match=r"pipeline.json' is not what was written"):
        load_pipeline(tmp_path / "model")


def test_a_folder_without_a_pipeline_says_what_to_give(tmp_path):
    with pytest.raises(DamagedStore, match=r"has no pipeline.json .*; give what save_pipeline"):
        load_pipeline(tmp_path)
    with pytest.raises(DamagedStore, match="there is no folder"):
        load_pipeline(tmp_path / "gone")


def test_negatives_and_views_travel_along(tmp_path):
    recipe = Recipe("tiny", objectives=[DINO()], combination="decorrelated")
    pipeline = make_pipeline(Fungi(recipe), ShrunkLDA()).fit(images_of(), LABELS)
    save_pipeline(pipeline, tmp_path / "model")
    ids, others = ["p", "q"], images_of(2, seed=3)
    np.testing.assert_allclose(
        load_pipeline(tmp_path / "model")[0].transform(others, ids), pipeline[0].transform(others, ids), atol=1e-6
    )
