"""A predictor that was saved answers as before, in another process too; what was changed on disk is refused by name."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from small_rows import clusters
from sporeprint import KNN, ClassMeans, KNNRegressor, MixtureLDA, Probe, Ridge, RidgeRegressor, ShrunkLDA
from sporeprint.errors import DamagedStore, StoreError
from sporeprint.predictors.saved_predictor import _FILES, load_predictor, save_predictor

CLASSIFIERS = [
    KNN(), KNN(k=3, metric="cosine", vote="softmax"), ClassMeans(), ShrunkLDA(), Ridge(penalties=(1, 0.1)), Probe()
]  # fmt: skip
ROWS, LABELS = clusters(30, 4, 3, seed=0)
CODES = np.unique(LABELS, return_inverse=True)[1]

LOAD = """
import sys, numpy as np
from sporeprint.predictors.saved_predictor import load_predictor
predictor = load_predictor(sys.argv[1])
np.save(sys.argv[3], predictor.predict_proba(np.load(sys.argv[2])))
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("predictor", CLASSIFIERS)
@pytest.mark.parametrize("labels", [LABELS, CODES - 1, CODES * 2.0, CODES > 0, [f"class ü {code}" for code in CODES]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_classifier_gives_the_same_probabilities_bit_for_bit(tmp_path, predictor, labels, dtype):
    fitted = clone(predictor).fit(ROWS.astype(dtype), labels)
    save_predictor(fitted, tmp_path)
    loaded = load_predictor(tmp_path)
    assert loaded.classes_.dtype.kind == fitted.classes_.dtype.kind
    assert loaded.classes_.tolist() == fitted.classes_.tolist()
    np.testing.assert_array_equal(loaded.predict_proba(ROWS), fitted.predict_proba(ROWS))
    np.testing.assert_array_equal(loaded.predict(ROWS), fitted.predict(ROWS))
    assert loaded.get_params() == fitted.get_params()
    with pytest.raises(ValueError, match=r"has 3 features, but .* is expecting 4"):
        loaded.predict(ROWS[:, :3])


@pytest.mark.parametrize(
    "regressor", [KNNRegressor(), KNNRegressor((1, 2), "cosine", "softmax", 0.5), RidgeRegressor()]
)
@pytest.mark.parametrize("targets", [CODES * 0.3, np.stack([CODES * 0.3, ROWS[:, 0]], axis=1)])
def test_a_loaded_regressor_gives_the_same_numbers_bit_for_bit(tmp_path, regressor, targets):
    fitted = clone(regressor).fit(ROWS, targets)
    save_predictor(fitted, tmp_path)
    predicted = load_predictor(tmp_path).predict(ROWS)
    assert predicted.shape == targets.shape
    np.testing.assert_array_equal(predicted, fitted.predict(ROWS))


@pytest.mark.parametrize("predictor", CLASSIFIERS)
@pytest.mark.filterwarnings("ignore::sporeprint.errors.SporeprintWarning")
def test_a_classifier_of_one_class_or_of_one_row_a_class_is_saved_too(tmp_path, predictor):
    for labels in (["a"] * 3, ["a", "b", "c"]):
        fitted = clone(predictor).fit(ROWS[:3], labels)
        save_predictor(fitted, tmp_path)
        np.testing.assert_array_equal(load_predictor(tmp_path).predict_proba(ROWS), fitted.predict_proba(ROWS))


def test_a_loaded_mixture_answers_new_rows_as_before(tmp_path):
    fitted = MixtureLDA().fit(ROWS, np.where(np.arange(30) < 15, CODES, -1))
    save_predictor(fitted, tmp_path)
    loaded = load_predictor(tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(ROWS + 0.1), fitted.predict_proba(ROWS + 0.1))
    assert loaded.get_params() == fitted.get_params()


def test_another_process_gives_the_same_probabilities_without_torch(tmp_path):
    fitted = ShrunkLDA().fit(ROWS, LABELS)
    save_predictor(fitted, tmp_path / "saved")
    np.save(tmp_path / "rows.npy", ROWS)
    files = [tmp_path / "saved", tmp_path / "rows.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-c", LOAD, *map(os.fspath, files)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fitted.predict_proba(ROWS))


def test_saving_again_leaves_two_files_of_the_newer_predictor_next_to_what_else_is_there(tmp_path):
    (tmp_path / "fungi.json").write_text("mine")
    save_predictor(ClassMeans().fit(ROWS, LABELS), tmp_path)
    save_predictor(Ridge().fit(ROWS, LABELS), tmp_path)
    assert isinstance(load_predictor(tmp_path), Ridge)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["predictor.json", "predictor.safetensors"])
def test_every_damaged_byte_is_noticed(tmp_path, name):
    save_predictor(ClassMeans().fit(ROWS[:6, :2], LABELS[:6]), tmp_path)
    whole = (tmp_path / name).read_bytes()
    for at in range(0, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedStore):
            load_predictor(tmp_path)
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(DamagedStore):
        load_predictor(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DamagedStore, match="expected what save_predictor wrote"):
        load_predictor(tmp_path)


def edited(folder, change, arrays=None):
    """Write the predictor of a folder again, its description and arrays changed, with right checksums."""
    from safetensors.numpy import save

    body = json.loads((folder / "predictor.json").read_bytes())
    tensors = load_file(folder / "predictor.safetensors")
    change(body)
    tensors |= arrays or {}
    description = {key: value for key, value in body.items() if key not in ("tensors_sha256", "sha256")}
    for file, data in _FILES.pack(description, save(tensors)).items():
        (folder / file).write_bytes(data)


EDITS = {
    "a later format": (lambda body: body.update(format=2), {}, "has format 2; this version reads 1"),
    "a predictor of nobody": (lambda body: body.update(predictor="os"), {}, "predictor is 'os'; expected KNN or"),
    "a parameter of nobody": (lambda body: body["parameters"].update(x=1), {}, "unexpected keyword argument 'x'"),
    "classes of another number": (lambda body: body.update(classes=["a"]), {}, "coef_ has shape"),
    "classes that are numbers": (lambda body: body.update(classes=[1, 2, 3]), {}, "expected a text"),
    "another width": (lambda body: body.update(width=5), {}, "coef_ has shape"),
    "NaN": (lambda body: None, {"coef_": np.full((3, 4), np.nan)}, "or is not finite"),
    "another array": (lambda body: None, {"x": np.zeros(1)}, "its arrays are"),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_was_edited_by_hand_with_right_checksums_is_refused(tmp_path, name):
    change, arrays, message = EDITS[name]
    save_predictor(Ridge().fit(ROWS, LABELS), tmp_path)
    edited(tmp_path, change, arrays)
    with pytest.raises(DamagedStore, match=message):
        load_predictor(tmp_path)


def test_what_is_not_ours_or_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(StoreError, match="a LogisticRegression cannot be saved here; expected one of sporeprint's"):
        save_predictor(LogisticRegression().fit(ROWS, LABELS), tmp_path)
    with pytest.raises(NotFittedError):
        save_predictor(Ridge(), tmp_path)
    assert not any(tmp_path.iterdir())


def test_names_that_are_no_text_are_refused(tmp_path):
    labels = ["a", "b\ud800"] * 15
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        save_predictor(ClassMeans().fit(ROWS, labels), tmp_path)
