import numpy as np
import pyarrow as pa
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.evaluate.probe import probe
from sporeprint.predictors import checks
from sporeprint.predictors.checks import check_directions, features_of, label_array, labels_of
from sporeprint.predictors.lda import ShrunkLDA


def test_a_mapped_file_is_not_copied(tmp_path):
    train = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(10, 3))
    assert np.shares_memory(features_of(train, "train"), train)


def test_rows_that_are_not_finite_are_counted_over_all_chunks(monkeypatch):
    monkeypatch.setattr(checks, "_NUMBERS", 8)
    rows = np.zeros((50, 4), np.float32)
    rows[[0, 13, 49], [1, 2, 3]] = np.nan, np.inf, -np.inf
    with pytest.raises(SampleError, match="3 of 50 train rows are NaN or infinite"):
        features_of(rows, "train")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (np.zeros((3, 0)), r"shape \(3, 0\); expected \[rows, width\]"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.zeros(3), r"shape \(3,\)"),
        ([["a"]], "train features are of type <U1; expected numbers"),
        (np.zeros((2, 2), complex), "train features are of type complex128"),
    ],
)
def test_what_is_not_rows_of_numbers_is_refused(rows, complaint):
    with pytest.raises(SampleError, match=complaint):
        features_of(rows, "train")


def test_rows_without_a_direction_are_counted():
    rows = np.array([[0.0, 0.0], [0.0, 1e-300], [0.0, 0.0]])
    with pytest.raises(SampleError, match="2 of 3 query rows are all 0, which have no cosine; drop them"):
        check_directions(rows, "query")
    check_directions(rows[1:2], "query")


LABELS = ["a", "b", "a"]


@pytest.mark.parametrize(
    "labels",
    [
        tuple(LABELS),
        iter(LABELS),
        np.array(LABELS)[:, None],
        np.array(LABELS, dtype=object),
        pa.array(LABELS),
        pa.chunked_array([LABELS[:1], LABELS[1:]]),
        pa.table({"label": LABELS}),
    ],
)
def test_labels_of_every_library_are_one_array(labels):
    assert labels_of(labels, 3, "train").tolist() == LABELS


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array(["a", None, "b"]), "1 of 3 train labels are missing"),
        (["a", float("nan"), "b"], "1 of 3 train labels are missing"),
        (["a", 1, "b"], "train labels are of different kinds"),
        ([["a"], ["b"], ["a", "b"]], "or lists; expected one string or number a row"),
        (np.array([["a", "b"]] * 3), r"have shape \(3, 2\) for 3 rows; expected one label a row"),
        ({"a": 1}, "labels is a dict"),
        (set(LABELS), "a set has no order"),
        (pa.table({"label": LABELS, "n": [1, 2, 3]}), r"labels is a Table with 2 columns \('label', 'n'\)"),
    ],
)
def test_labels_that_are_not_one_a_row_are_refused(labels, message):
    with pytest.raises(SampleError, match=message):
        labels_of(labels, 3, "train")


def test_columns_of_pandas_and_polars_are_labels():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    frame = pd.DataFrame({"label": LABELS})
    for labels in (frame, frame["label"], frame["label"].astype("category"), pl.Series(LABELS)):
        assert labels_of(labels, 3, "train").tolist() == LABELS
    assert label_array(pd.Series(["a", None], dtype="string")).tolist() == ["a", None]
    assert label_array(pd.Series([1, 2], dtype="Int64")).dtype == int


@pytest.mark.parametrize("function", [knn, probe, lambda *sets: ShrunkLDA().fit(*sets[:2])])
def test_amounts_are_no_classes(function):
    rows = np.eye(30)
    for different in (30, 16):
        labels = np.linspace(0, 1, different)[np.arange(30) % different]
        with pytest.raises(
            SampleError, match=rf"{different} different ones in 30 rows\), not classes; `sporeprint reg"
        ):
            function(rows, labels, rows, labels)
    for labels in ([0.5, 1.5, 2.5] * 10, (np.arange(30) % 15 / 10).tolist(), [f"250.{at % 25}" for at in range(30)]):
        function(rows, labels, rows, labels)


def test_few_rows_of_classes_that_are_broken_numbers_are_drawn():
    labels = np.arange(60) % 6 / 2
    rows = np.eye(6)[np.arange(60) % 6]
    assert probe(rows, labels, rows, labels, shots=1).value == 1
