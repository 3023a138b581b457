import json

import pytest

from small_scenes import COLOURS, fill, table
from sporeprint.data.scenes.scenes import open_scenes
from sporeprint.errors import SourceError
from sporeprint.run.segment_plan import Plan


@pytest.mark.parametrize("feature", ["mask", "classes"])
def test_class_names_come_from_the_schema_but_not_from_another_column(tmp_path, feature):
    named = {feature: {"_type": "ClassLabel", "names": ["sky", "road"]}}
    assert open_scenes(table(tmp_path / "t.parquet", features=named)).names == ["sky", "road"]
    other = {"scene": {"_type": "ClassLabel", "names": ["beach"]}}
    assert open_scenes(table(tmp_path / "u.parquet", features=other, scene=[0] * 5)).names is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "sky\nroad\ncar\n"),
        ("classes.json", '["sky", "road", "car"]'),
        ("classes.json", '{"1": "road", "0": "sky", "2": "car"}'),
        ("classes.json", json.dumps(COLOURS)),
        ("classes.json", json.dumps({"colours": COLOURS})),
    ],
)
@pytest.mark.parametrize("where", [".", "..", "../.."])
def test_a_list_of_classes_in_or_beside_the_folder_names_them(tmp_path, file, text, where):
    folder = fill(tmp_path / "data" / "set", train__images="a.png", train__masks="a.png")
    (folder / "train" / where / file).write_text(text)
    scenes = open_scenes(folder, split="train")
    assert scenes.names == ["sky", "road", "car"]
    assert scenes.describe()["classes"] == file
    colours = [tuple(colour) for colour in COLOURS.values()]
    assert scenes.palette() == (colours if "10" in text else None)


@pytest.mark.parametrize(
    ("file", "text"), [("classes.json", '{"0": "sky", "3": "car"}'), ("classes.txt", "sky\n\n\ncar\n")]
)
def test_a_value_between_others_may_have_no_name(tmp_path, file, text):
    (fill(tmp_path, images="a.png", masks="a.png") / file).write_text(text)
    assert open_scenes(tmp_path).names == ["sky", "", "", "car"]


def test_a_name_for_the_void_value_makes_no_classes(tmp_path):
    folder = fill(tmp_path, images="a.png b.png", masks="a.png b.png")
    (folder / "classes.json").write_text('{"0": "sky", "1": "road", "255": "border"}')
    scenes = open_scenes(folder)
    assert Plan().classes_of(scenes, (255,), scenes.names) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read"),
        ('{"sky": 3}', "expected a list of names"),
        ('{"99999999": "sky"}', "expected a list of names"),
        ('["sky", 3]', "the name of class 1 is 3"),
        ('{"sky": [1, 2, 3], "sky": [4, 5, 6]}', "the key 'sky' twice"),
        ('{"sky": [1, 2, 3], "road": [1, 2, 3]}', "one colour to two classes"),
        ('["sky", "car", "sky"]', "both class 0 and class 2 'sky'"),
        ('{"7": "sky", "3": "sky"}', "both class 3 and class 7 'sky'"),
        ('["sky", ""]', "the name of class 1 is ''"),
    ],
)
def test_a_list_of_classes_that_is_none_is_named(tmp_path, text, message):
    (fill(tmp_path, images="a.png", masks="a.png") / "classes.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_scenes(tmp_path)
