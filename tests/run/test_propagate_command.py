"""`sporeprint propagate` with the shipped backbone, on halves of black and white."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from small_scenes import encoded, struct, table
from sporeprint.data.scenes.scenes import open_scenes
from sporeprint.run.marked_images import find_marks

QUICK = ("--backbone", "tiny", "--features", "embedding", "--shifts", 1, "--no-flip")
POINTS = "10,30,dark; 50,30,light"


def halves(turned=False):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    return Image.fromarray(image.transpose(1, 0, 2) if turned else image)


@pytest.fixture
def photos(tmp_path):
    """Three images, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    halves().save(folder / "a.png")
    halves(turned=True).save(folder / "b.png")
    halves().save(folder / "more" / "c.png")
    return folder


def mask_of(path):
    return np.asarray(Image.open(path))


def given(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def vertical(left, right):
    return np.where(np.arange(64) < 32, left, right)[None].repeat(64, axis=0)


def test_points_become_masks_of_all_images(run, photos, tmp_path):
    out = tmp_path / "out"
    status, out_text, errors = run(
        "propagate", photos, "--out", out, *QUICK, "--on", "a.png", "--points", POINTS, "--json"
    )
    assert status == 0, errors
    result = json.loads(out_text)
    assert [record["id"] for record in result["images"]] == ["a", "b", "more/c"]
    assert result["labels"] == {"0": "dark", "1": "light"}
    assert (out / "classes.txt").read_text() == "dark\nlight\n"
    for name, truth in (("a", vertical(0, 1)), ("b", vertical(0, 1).T), ("more/c", vertical(0, 1))):
        mask = Image.open(out / "masks" / f"{name}.png")
        assert mask.mode == "P"
        assert (np.asarray(mask) == truth).mean() > 0.95
    for record in result["images"]:
        labels = mask_of(out / record["mask"])
        assert record["shares"]["light"] == pytest.approx((labels == 1).mean(), abs=1e-6)
        assert 0.5 <= record["confidence"] <= 1
    next_ones = [record["id"] for record in result["label_next"]]
    assert sorted(next_ones) == ["b", "more/c"]
    assert result["label_next"][0]["confidence"] <= result["label_next"][1]["confidence"]
    assert json.loads((out / "result.json").read_text()) == result
    assert Image.open(out / "sheet.png").width == 1400
    assert not (out / "confidence").exists()


def test_what_the_features_are_made_of_can_be_chosen(run, photos, tmp_path):
    masks = set()
    for number, words in enumerate([(), ("--features", "layers"), ("--features", "paper", "--scales", "1,2")]):
        out = tmp_path / f"out{number}"
        words = ("--backbone", "tiny", "--shifts", 1, "--no-flip", *words, "--on", "a", "--points", POINTS)
        status, _, errors = run("propagate", photos, "--out", out, *words, "--confidence", "--sheet", 0)
        assert status == 0, errors
        masks.add((out / "confidence" / "b.png").read_bytes())
        assert not (out / "sheet.png").exists()
    assert len(masks) == 3


def test_marked_pixels_keep_their_marks(run, photos, tmp_path):
    marks = np.full((64, 64), 255)
    marks[30:34, 5:12], marks[30:34, 50:60], marks[0, 0] = 3, 8, 8
    scribbles = given(tmp_path / "scribbles.png", marks)
    words = ("--on", "a", "--scribbles", scribbles, "--confidence")
    assert run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)[0] == 0
    labels, sure = mask_of(tmp_path / "out/masks/a.png"), mask_of(tmp_path / "out/confidence/a.png")
    assert (labels[marks != 255] == marks[marks != 255]).all()
    assert (labels == vertical(3, 8)).mean() > 0.95
    assert (sure[marks != 255] == 255).all()
    assert sure.min() < 255


def test_the_confidence_is_darkest_between_the_labels(run, photos, tmp_path):
    words = ("--on", "a", "--mask", given(tmp_path / "mask.png", vertical(0, 1)), "--confidence")
    assert run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)[0] == 0
    sure = mask_of(tmp_path / "out/confidence/more/c.png").mean(axis=0)
    assert sure[28:36].min() < sure[:16].min()


def test_the_same_command_goes_on_where_it_stopped(run, photos, tmp_path):
    out = tmp_path / "out"
    words = ("propagate", photos, "--out", out, *QUICK, "--on", "a", "--points", POINTS, "--json")
    first = json.loads(run(*words)[1])
    assert first["made"] == 3
    before = (out / "masks" / "b.png").read_bytes()
    (out / "masks" / "b.png").unlink()
    again = json.loads(run(*words)[1])
    assert (again["made"], again["kept"]) == (1, 2)
    assert again["images"] == first["images"]
    assert (out / "masks" / "b.png").read_bytes() == before
    assert json.loads(run(*words, "--temperature", "0.2")[1])["made"] == 3


def test_more_marks_make_all_masks_again(run, photos, tmp_path):
    words = ("propagate", photos, "--out", tmp_path / "out", *QUICK, "--on", "a", "--json", "--points")
    assert run(*words, POINTS)[0] == 0
    assert json.loads(run(*words, POINTS + "; 20,20,dark")[1])["made"] == 3


def test_files_of_other_settings_and_of_images_that_have_gone_are_removed(run, photos, tmp_path):
    out = tmp_path / "out"
    words = ("propagate", photos, "--out", out, *QUICK, "--on", "a", "--points", POINTS)
    assert run(*words, "--confidence")[0] == 0
    assert "removed" not in run(*words)[1]
    assert (out / "confidence" / "b.png").exists()
    (photos / "b.png").unlink()
    status, out_text, _ = run(*words)
    assert status == 0
    assert "removed: 4 files" in out_text
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == [
        "masks/a.png", "masks/more/c.png", "sheet.png",
    ]  # fmt: skip


def test_results_of_something_else_are_not_replaced(run, photos, tmp_path):
    (tmp_path / "out").mkdir()
    kept = tmp_path / "out" / "result.json"
    kept.write_text("{}")
    words = ("--backbone", "nowhere/nothing", "--on", "a", "--points", POINTS)
    status, _, errors = run("propagate", photos, "--out", tmp_path / "out", *words)
    assert status == 2
    assert "holds result.json, but no propagation.jsonl" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


def test_a_broken_link_among_the_images_does_not_hide_the_marked_one(photos, tmp_path):
    (photos / "a0.png").symlink_to(tmp_path / "gone.png")
    marks = find_marks(open_scenes(photos, masks=False), [str(photos / "b.png")], points=[POINTS])
    assert [(reference.id, reference.inside) for reference in marks.references] == [("b", True)]


def test_a_mask_read_by_the_colours_of_its_classes_keeps_these(photos, tmp_path):
    image = Image.fromarray(np.asarray(vertical(1, 0), np.uint8), "P")
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.save(tmp_path / "mask.png")
    (tmp_path / "classes.json").write_text('{"red": [255, 0, 0], "blue": [0, 0, 255]}')
    marks = find_marks(open_scenes(photos, masks=False), ["a"], masks=[tmp_path / "mask.png"])
    assert (marks.references[0].labels == vertical(0, 1)).all()
    assert (marks.names, marks.palette) == (["red", "blue"], [(255, 0, 0), (0, 0, 255)])


def test_a_mask_that_was_corrected_is_not_lost(run, photos, tmp_path):
    words = ("propagate", photos, "--out", tmp_path / "out", *QUICK, "--on", "a", "--points", POINTS)
    assert run(*words)[0] == 0
    corrected = given(tmp_path / "out" / "masks" / "b.png", vertical(1, 1))
    status, _, errors = run(*words, "--temperature", "0.2")
    assert status == 1
    assert "b.png' is not as sporeprint wrote it" in errors
    assert (mask_of(corrected) == 1).all()


def test_several_images_are_marked(run, photos, tmp_path):
    mask = given(tmp_path / "one.png", vertical(0, 255))
    other = given(tmp_path / "other.png", vertical(255, 1).T)
    words = ("--on", "a", "--mask", mask, "--on", "b", "--mask", other)
    status, out_text, errors = run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words, "--json")
    assert status == 0, errors
    assert json.loads(out_text)["references"] == ["a", "b"]
    assert (mask_of(tmp_path / "out/masks/more/c.png") == vertical(0, 1)).mean() > 0.95


def test_an_image_from_elsewhere_can_be_the_marked_one(run, photos, tmp_path):
    halves().resize((128, 96)).save(tmp_path / "elsewhere.png")
    words = ("--on", tmp_path / "elsewhere.png", "--points", "20,50,0; 100,50,1")
    assert run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)[0] == 0
    assert (mask_of(tmp_path / "out/masks/b.png") == vertical(0, 1).T).mean() > 0.95
    assert not list((tmp_path / "out/masks").glob("*elsewhere*"))


def test_a_table_whose_ids_would_lead_elsewhere(run, tmp_path):
    pictures = [struct(encoded(halves(turned))) for turned in (False, True)]
    path = table(tmp_path / "in" / "t.parquet", rows=2, image=pictures, mask=None, name=["../../x", "b"])
    words = ("--id-column", "name", "--on", "b", "--points", "30,10,0;30,50,1")
    status, _, errors = run("propagate", path, "--out", tmp_path / "deep" / "out", *QUICK, *words)
    assert status == 0, errors
    assert (tmp_path / "deep/out/masks/%2E%2E/%2E%2E/x.png").exists()
    assert not list(tmp_path.rglob("x.png"))[1:]


def test_the_colours_of_a_palette_mask_are_kept(run, photos, tmp_path):
    mask = Image.fromarray(vertical(0, 1).astype(np.uint8), "P")
    mask.putpalette([10, 200, 30, 40, 50, 60])
    mask.save(tmp_path / "mask.png")
    assert (
        run("propagate", photos, "--out", tmp_path / "out", *QUICK, "--on", "a", "--mask", tmp_path / "mask.png")[0]
        == 0
    )
    assert Image.open(tmp_path / "out/masks/b.png").getpalette()[:6] == [10, 200, 30, 40, 50, 60]


def test_an_image_that_cannot_be_read_is_named_and_left_out(run, photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no image")
    words = ("--on", "a", "--points", POINTS)
    status, out_text, errors = run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)
    assert status == 0
    assert "3 masks" in out_text
    assert "not read: broken: " in errors


def test_no_image_that_can_be_read(run, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    halves().save(tmp_path / "good.png")
    words = ("--on", tmp_path / "good.png", "--points", POINTS)
    status, _, errors = run("propagate", tmp_path / "photos", "--out", tmp_path / "out", *QUICK, *words)
    assert status == 1
    assert "none of 1 images can be read; the first, 'broken'" in errors


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("--on", "a"), 2, "none of --mask, --scribbles, --points is given"),
        (("--on", "a", "--points", POINTS, "--mask", __file__), 2, "--mask and --points of"),
        (("--on", "a", "--points", POINTS, "--points", POINTS), 2, "--on was given 1 times, marks 2 times"),
        (("--on", "z", "--points", POINTS), 2, "--on 'z' is neither an image of the 3 given nor a file; there are: "),
        (("--on", "a", "--on", "a.png", "--points", POINTS, "--points", POINTS), 2, "names one image twice"),
        (("--on", "a", "--points", "10,30,dark; 64,30,light"), 2, "point 64,30,light is outside the image of 64 x 64"),
        (
            ("--on", "a", "--points", "10,30,dark;20,30,dark"),
            2,
            "only the label dark is given; .* mark the background too$",
        ),
        (("--on", "a", "--points", POINTS, "--ignore", "0"), 2, "--ignore goes with --mask and --scribbles"),
        (("--on", "a", "--mask", "nowhere.png"), 2, "nowhere.png"),
        (("--on", "a", "--points", POINTS, "--features", "best"), 2, "features 'best'; known: all, layers"),
        (("--on", "a", "--points", POINTS, "--scales", "big"), 2, "--scales 'big'; expected numbers"),
        (("--on", "a", "--points", POINTS, "--backbone", "nowhere/nothing"), 1, "nowhere/nothing"),
    ],
)
def test_words_that_make_no_sense(run, photos, tmp_path, words, status, complaint):
    got, _, errors = run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)
    assert re.search(complaint, errors.strip()), errors
    assert got == status
    assert not (tmp_path / "out" / "masks").exists()


@pytest.mark.parametrize(
    ("values", "words", "complaint"),
    [
        (np.zeros((32, 64)), (), r"'a': the labels are 64 x 32 pixels \(width x height\), their image is 64 x 64"),
        (vertical(0, 255), (), r"only the label 0 is given, apart from what is unlabelled \(255\); .*--ignore none"),
        (vertical(0, 1), ("--ignore", "x"), "--ignore 'x'; expected label values"),
    ],
)
def test_masks_that_make_no_sense(run, photos, tmp_path, values, words, complaint):
    words = ("--on", "a", "--mask", given(tmp_path / "mask.png", values), *words)
    status, _, errors = run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)
    assert status in (1, 2)
    assert re.search(complaint, errors), errors


def test_a_mask_of_0_and_255_with_none_ignored(run, photos, tmp_path):
    words = ("--on", "a", "--mask", given(tmp_path / "mask.png", vertical(0, 255)), "--ignore", "none")
    assert run("propagate", photos, "--out", tmp_path / "out", *QUICK, *words)[0] == 0
    assert (mask_of(tmp_path / "out/masks/b.png") == vertical(0, 255).T).mean() > 0.95


def test_masks_among_the_images_are_refused(run, photos):
    words = ("--on", "a", "--points", POINTS)
    status, _, errors = run("propagate", photos, "--out", photos / "masks", *QUICK, *words)
    assert status == 2
    assert "where the masks would be taken for images" in errors
    assert "photos-masks" in errors


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['sporeprint', 'propagate', '--help']\n"
        "from sporeprint.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--scribbles" in done.stdout


def test_a_record_edited_by_hand_is_made_again(run, photos, tmp_path):
    out = tmp_path / "out"
    words = ("propagate", photos, "--out", out, *QUICK, "--on", "a.png", "--points", POINTS, "--json")
    first = json.loads(run(*words)[1])
    given(tmp_path / "secret.png", np.zeros((64, 64)))
    for change in (
        {"mask": "../secret.png"},
        {"mask": None},
        {"confidence": "sure"},
        {"confidence": True},
        {"shares": {}},
        {"shares": []},
        {"marked": 1},
    ):
        lines = [json.loads(line) for line in (out / "propagation.jsonl").read_text().splitlines()]
        (out / "propagation.jsonl").write_text("".join(json.dumps({**line, **change}) + "\n" for line in lines))
        status, again, errors = run(*words)
        assert status == 0, errors
        assert json.loads(again)["images"] == first["images"], change


def test_void_by_its_value_or_its_name_is_none_of_the_classes(run, photos, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    values = vertical(0, 1)
    values[:10], values[50:] = 255, 2
    words = ("propagate", photos, *QUICK, "--on", "a.png", "--mask", given(marks / "mask.png", values), "--json")
    (marks / "classes.txt").write_text("dark\nlight\nVoid\n")
    status, out, errors = run(*words, "--out", tmp_path / "1")
    assert status == 0, errors
    assert json.loads(out)["labels"] == {"0": "dark", "1": "light"}
    assert "left out as unlabelled, by its name: label 2 (Void); --ignore none makes it a class" in errors
    status, out, errors = run(*words, "--out", tmp_path / "2", "--ignore", "2")
    assert json.loads(out)["labels"] == {"0": "dark", "1": "light", "255": "255"}
    assert "label 255 counts as a class; if it is void, leave it out too: --ignore 2,255" in errors
    status, out, errors = run(*words, "--out", tmp_path / "3", "--ignore", "2,255")
    assert json.loads(out)["labels"] == {"0": "dark", "1": "light"}
    assert "left out" not in errors
    assert "counts as a class" not in errors
    status, out, errors = run(*words, "--out", tmp_path / "4", "--ignore", "none")
    assert json.loads(out)["labels"] == {"0": "dark", "1": "light", "2": "Void", "255": "255"}
