import numpy as np
import pytest
from PIL import Image

from sporeprint.data.scenes.marks import UNLABELLED, Point, number_labels, point_labels, read_marks, read_points
from sporeprint.errors import SourceError

THREE = [Point(3, 4, "sky"), Point(10, 2, "old wall"), Point(0, 0, "sky")]


def test_points_in_a_line():
    assert read_points("3,4,sky; 10, 2 , old wall;0.9,0.2,sky;") == THREE


def test_one_point_in_a_line():
    assert read_points("3,4,1") == [Point(3, 4, "1")]


@pytest.mark.parametrize(
    "text",
    [
        "x,y,label\n3,4,sky\n10,2,old wall\n0,0,sky\n",
        "label,note,Y,X\nsky,a,4,3\nold wall,b,2,10\n\nsky,,0,0\n",
        "3,4,sky\n10,2,old wall\n0,0,sky",
        "\ufeffx,y,label\r\n3,4,sky\r\n10,2,old wall\r\n0,0,sky\r\n",
    ],
)
def test_points_in_a_file(tmp_path, text):
    (tmp_path / "a, b, c; d.csv").write_text(text, encoding="utf-8")
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    assert read_points(str(tmp_path / "points.csv")) == THREE
    assert read_points(str(tmp_path / "a, b, c; d.csv")) == THREE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3,4;5,6,sky", "point '3,4': expected x,y,label"),
        ("a,4,sky;", "point 'a,4,sky': expected x,y,label"),
        ("3,nan,sky;", "expected x,y,label"),
        ("3,4,;", "expected x,y,label"),
        ("nowhere.csv", "'nowhere.csv': there are no such points"),
    ],
)
def test_broken_points(text, message):
    with pytest.raises(SourceError, match=message):
        read_points(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,label\n1,2,3\n", "has the columns a, b, label; expected x, y and label"),
        ("x,y,label\n1,2\n", "point 1, '1,2': expected x,y,label"),
        ("x,y,label\n1,2,0\n7,u,0\n", "point 2, '7,u,0'"),
    ],
)
def test_broken_files_of_points(tmp_path, text, message):
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_points(str(tmp_path / "points.csv"))


def test_a_picture_given_as_points(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "mask.png")
    with pytest.raises(SourceError, match="is not text"):
        read_points(str(tmp_path / "mask.png"))


def points(*labels):
    return [Point(at, 0, label) for at, label in enumerate(labels)]


def test_names_are_numbered_as_they_come():
    assert number_labels(points("sky", "road", "sky")) == ({"sky": 0, "road": 1}, ["sky", "road"])


def test_names_that_are_known_keep_their_numbers():
    assert number_labels(points("road"), ["sky", "tree", "road"]) == ({"road": 2}, ["sky", "tree", "road"])


def test_numbers_stay():
    assert number_labels(points("7", "0")) == ({"7": 7, "0": 0}, None)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["sky", "1"], None, r"numbers \(1\) and names \(sky\)"),
        (["sea"], ["sky", "road"], "'sea' is not among the classes: sky, road"),
        (["256"], None, "label 256; expected 0 to 255"),
    ],
)
def test_labels_that_make_no_sense(labels, names, message):
    with pytest.raises(SourceError, match=message):
        number_labels(points(*labels), names)


def test_a_point_is_a_pixel():
    labels = point_labels([Point(2, 1, "a"), Point(0, 0, "b"), Point(2, 1, "a")], {"a": 5, "b": 0}, (3, 2))
    assert labels.tolist() == [[0, -1, -1], [-1, -1, 5]]


@pytest.mark.parametrize("at", [(3, 0), (0, 2), (-1, 0), (0, -1)])
def test_a_point_outside(at):
    with pytest.raises(SourceError, match=r"outside the image of 3 x 2 pixels; x goes from 0 to 2, y from 0"):
        point_labels([Point(*at, "a")], {"a": 0}, (3, 2))


def test_a_pixel_of_two_labels():
    with pytest.raises(SourceError, match="pixel 1,1 has two labels"):
        point_labels([Point(1, 1, "a"), Point(1, 1, "b")], {"a": 0, "b": 1}, (3, 2))


def test_a_mask_without_its_ignored_values(tmp_path):
    Image.fromarray(np.array([[0, 3], [255, 0]], np.uint8)).save(tmp_path / "mask.png")
    assert read_marks(tmp_path / "mask.png", (255,)).tolist() == [[0, 3], [UNLABELLED, 0]]
    assert read_marks(tmp_path / "mask.png", (0, 3)).tolist() == [[UNLABELLED] * 2, [255, UNLABELLED]]


def test_a_mask_in_colours_that_classes_json_names(tmp_path):
    Image.new("RGB", (1, 1), (4, 5, 6)).save(tmp_path / "mask.png")
    with pytest.raises(SourceError, match=r"is in colour .* classes\.json"):
        read_marks(tmp_path / "mask.png", ())
    (tmp_path / "classes.json").write_text('{"sky": [1, 2, 3], "road": [4, 5, 6]}')
    assert read_marks(tmp_path / "mask.png", ()).tolist() == [[1]]


def test_labels_that_no_mask_can_hold(tmp_path):
    Image.fromarray(np.array([[300]], np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(SourceError, match="the label 300; expected 0 to 255"):
        read_marks(tmp_path / "mask.png", ())
