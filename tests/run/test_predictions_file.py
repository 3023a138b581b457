"""Files of predictions: three formats that say the same, complete or absent, and nothing else is replaced."""

import csv
import json

import pyarrow.parquet as pq
import pytest

from sporeprint.errors import RecipeError, StoreError
from sporeprint.run.early_checks import check_predictions_file
from sporeprint.run.predictions_file import PredictionsFile

FIRST = {
    "id": ["a", 'b,"'],
    "label": ["x", "y\nz"],
    "probability": [0.5, 1.0],
    "answer": [None, "x"],
    "set": [[], ["x"]],
}
LATER = {"id": ["c"], "label": ["x"], "probability": [0.25], "answer": ["x"], "set": [["x", "y\nz"]]}


def written(path):
    with PredictionsFile(path) as file:
        file.write(FIRST)
        file.write(LATER)
    return path


def test_parquet_holds_the_rows_of_all_parts(tmp_path):
    table = pq.read_table(written(tmp_path / "p.parquet"))
    assert table.to_pydict() == {name: FIRST[name] + LATER[name] for name in FIRST}


def test_json_lines_hold_a_row_a_line(tmp_path):
    lines = [json.loads(line) for line in written(tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines[1] == {"id": 'b,"', "label": "y\nz", "probability": 1.0, "answer": "x", "set": ["x"]}
    assert len(lines) == 3


def test_csv_holds_sets_as_json_and_nothing_for_none(tmp_path):
    with open(written(tmp_path / "p.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == ["", "x", "x"]
    assert [json.loads(row["set"]) for row in rows] == [[], ["x"], ["x", "y\nz"]]
    assert rows[1]["id"] == 'b,"'


@pytest.mark.parametrize("first", [[None, None], [3, None]])
def test_a_column_that_begins_empty_takes_the_labels_kind(tmp_path, first):
    with PredictionsFile(tmp_path / "p.parquet") as file:
        file.write({"id": ["a", "b"], "label": [1, 2], "answer": first, "set": [[], []]})
        file.write({"id": ["c"], "label": [2], "answer": [2], "set": [[1, 2]]})
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert (table["answer"], table["set"]) == ([*first, 2], [[], [], [1, 2]])


def test_neighbours_that_are_not_there_keep_their_columns_kinds(tmp_path):
    nothing = {"neighbour_3": [None], "neighbour_3_label": [None], "neighbour_3_similarity": [None]}
    with PredictionsFile(tmp_path / "p.parquet") as file:
        file.write({"id": ["a"], "label": [1], **nothing})
    kinds = [str(kind) for kind in pq.read_schema(tmp_path / "p.parquet").types]
    assert kinds == ["string", "int64", "string", "int64", "double"]


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.jsonl"])
def test_an_error_leaves_no_file_and_the_earlier_one_as_it_was(tmp_path, name):
    def fail():
        with PredictionsFile(tmp_path / name) as file:
            file.write(LATER)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert list(tmp_path.iterdir()) == []
    before = written(tmp_path / name).read_bytes()
    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, before)]


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.jsonl"])
def test_an_earlier_file_of_predictions_may_be_replaced(tmp_path, name):
    check_predictions_file(written(tmp_path / name))
    check_predictions_file(tmp_path / f"new-{name}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "id,text\n1,a\n"),
        ("p.csv", "\0\xff"),
        ("p.jsonl", '{"id": 1}\n'),
        ("p.jsonl", "[]"),
        ("p.parquet", "PAR1"),
    ],
)
def test_a_file_of_somebody_else_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(RecipeError, match="is a file that no run of this command wrote; give another name"):
        check_predictions_file(tmp_path / name)


@pytest.mark.parametrize("name", ["p.txt", "p", "-", "p.csv.gz"])
def test_a_name_of_no_known_format_is_refused(tmp_path, name):
    with pytest.raises(RecipeError, match=r"expected a name that ends in \.parquet, \.csv or \.jsonl"):
        check_predictions_file(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(RecipeError, match="is a folder; give the name of a file"):
        check_predictions_file(tmp_path / "p.csv")


def test_what_the_system_refuses_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="was not written"):
        written(tmp_path / "file" / "p.csv")


def test_a_label_of_another_kind_in_a_later_part_is_named(tmp_path):
    def write():
        with PredictionsFile(tmp_path / "p.parquet") as file:
            file.write({"id": ["a"], "label": ["x"], "true_label": ["x"]})
            file.write({"id": ["b"], "label": ["x"], "true_label": [3]})

    with pytest.raises(StoreError, match=r"'true_label' are of different kinds .*give a name that ends in"):
        write()
    assert list(tmp_path.iterdir()) == []
