"""What `sporeprint segment` must not overwrite, count or pass over in silence."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from small_streets import ROAD, SKY, VOID, street, streets
from sporeprint import Dense, Fungi, Recipe, Segmenter
from sporeprint.errors import SourceError, StoreError
from sporeprint.report.palette import palette, write_mask
from sporeprint.run import segment as module
from sporeprint.run.output_folder import finished_runs
from sporeprint.run.segment_plan import TABLE, Plan
from sporeprint.run.segment_scenes import refuse_other_names
from sporeprint.segment.training import Truth

SMALL = ("--backbone", "tiny", "--size", "16x24", "--bank", "200", "--k", "5", "--sheet", "0")
ONE = ("--features", "embedding")


@pytest.fixture
def segment(run, tmp_path):
    """Run the command on train/ and test/ in tmp_path; gives (exit status, stdout, stderr)."""
    streets(tmp_path / "train", 6)
    streets(tmp_path / "test", 3, first=50)

    def segment(*words, train="train", test="test", out="out"):
        return run("segment", tmp_path / train, tmp_path / test, "--out", tmp_path / out, *SMALL, *words)

    segment.run = run
    return segment


@pytest.mark.parametrize("name", ["masks/embedding/s50.png", "banks/mine", "sheet.png"])
def test_what_no_run_wrote_is_not_overwritten(segment, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"drawn by hand")
    status, _, err = segment(*ONE, "--masks", "--sheet", "2", "--keep-bank")
    assert status == 2
    assert f"holds {name.split('/')[0]}, but no result.json" in err
    assert path.read_bytes() == b"drawn by hand"


def test_leftovers_of_a_killed_run_are_taken_over(segment, tmp_path):
    (tmp_path / "out" / ".banks" / "1-1-seed-0").mkdir(parents=True)
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / "result.json.tmp").write_bytes(b"half")
    assert segment(*ONE)[0] == 0


def test_a_lock_that_cannot_be_opened_is_told_of(segment, tmp_path):
    (tmp_path / "out" / ".lock").mkdir(parents=True)
    status, _, err = segment(*ONE)
    assert status == 1
    assert ".lock' is no file (a folder, a pipe or a device)" in err


def test_a_file_in_the_place_of_the_masks_is_told_of_before_the_work(segment, tmp_path):
    assert segment(*ONE)[0] == 0
    (tmp_path / "out" / "masks").write_bytes(b"")
    status, _, err = segment(*ONE, "--seeds", "2", "--masks")
    assert status == 1
    assert "expected a folder: move it away" in err
    assert "fitting" not in err


def test_a_mask_whose_folder_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "masks").write_bytes(b"")
    with pytest.raises(StoreError, match="move away the file of that name"):
        write_mask(tmp_path / "masks" / "a" / "b.png", np.zeros((2, 2), int), palette(2))
    write_mask(tmp_path / "new" / "a" / "b.png", np.ones((2, 2), int), palette(2))
    assert np.asarray(Image.open(tmp_path / "new" / "a" / "b.png")).tolist() == [[1, 1], [1, 1]]


def relabel(folder, *names, values):
    """Replace label values in the masks of these images, or of all."""
    for path in sorted((folder / "masks").iterdir()):
        if not names or path.stem in names:
            labels = np.array(Image.open(path))
            Image.fromarray(np.vectorize(lambda label: values.get(label, label), otypes=[np.uint8])(labels)).save(path)


@pytest.mark.parametrize(("out", "where"), [("train", "TRAIN"), ("test/results/first", "TEST")])
def test_results_do_not_go_among_the_images(segment, tmp_path, out, where):
    status, _, err = segment(*ONE, out=out)
    assert status == 2
    assert f"is inside {where}" in err
    assert f"{where.lower()}-segmented" in err
    assert not (tmp_path / "test" / "results").exists()


def test_names_of_both_sets_are_the_same(segment, tmp_path):
    (tmp_path / "train" / "classes.txt").write_text("sky\nroad\n")
    (tmp_path / "test" / "classes.txt").write_text("Sky\ntree\n")
    status, _, err = segment(*ONE)
    assert status != 0
    assert "class 1 is called 'road' in TRAIN, 'tree' in TEST" in err
    assert segment(*ONE, "--no-truth")[0] == 0
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "test" / "classes.txt").write_text("Sky\nroad\ntree\n")
    assert segment(*ONE)[0] == 0


def test_void_may_be_called_otherwise():
    train, test = SimpleNamespace(names=["void", "sky", "", "car"]), SimpleNamespace(names=["nothing", "sky", "road"])
    refuse_other_names(train, test, Truth(4, (0,)))
    with pytest.raises(SourceError, match="class 0 is called 'void' in TRAIN, 'nothing' in TEST"):
        refuse_other_names(train, test, Truth(4, (255,)))


def test_a_value_beyond_the_named_classes_is_asked_about(segment, tmp_path):
    (tmp_path / "train" / "classes.txt").write_text("sky\nroad\n")
    for name in ("train", "test"):
        relabel(tmp_path / name, values={VOID: 2})
    status, _, err = segment(*ONE)
    assert status != 0
    assert "value 2 has no name: name it" in err
    assert "--ignore 2 " in err
    assert "--classes 3 " in err
    assert "2 classes: sky, road; void: 2" in segment(*ONE, "--ignore", "2")[2]
    shutil.rmtree(tmp_path / "out")
    assert "3 classes: sky, road, 2; void: 255" in segment(*ONE, "--classes", "3")[2]


def test_test_images_that_are_training_images_are_counted(segment, tmp_path):
    """By their pixels, whatever they are called and however they are saved."""
    streets(tmp_path / "test", 2, first=4, names=["one", "other"])
    with Image.open(tmp_path / "test" / "images" / "one.png") as image:
        image.save(tmp_path / "test" / "images" / "one.bmp")
    (tmp_path / "test" / "images" / "one.png").unlink()
    status, out, err = segment("--json", "--features", "copies: layers", "--flip")
    assert status == 0
    assert "2 of 5 test images are training images too" in err
    assert json.loads(out)["runs"][0]["test_images_in_training"] == 2
    assert "2 of 5" in segment("--json", "--features", "copies: layers", "--flip")[2]


def test_test_images_that_are_new_are_not_counted(segment):
    _, out, err = segment("--json", *ONE)
    assert "training images too" not in err
    assert json.loads(out)["runs"][0]["test_images_in_training"] == 0


def test_void_test_masks_end_it_before_the_fitting(segment, tmp_path):
    relabel(tmp_path / "test", values={SKY: VOID, ROAD: VOID})
    status, _, err = segment(*ONE)
    assert status == 1
    assert "no pixel of the masks of TEST is labelled: they hold 255, and 255 are void" in err
    assert "fitting" not in err


def test_unknown_labels_of_test_masks_end_it_before_the_fitting_with_advice(segment, tmp_path):
    relabel(tmp_path / "test", values={ROAD: 4})
    status, _, err = segment(*ONE)
    assert status == 1
    assert "TEST: 2 of 3 rows cannot be read; at most 1 may fail" in err
    assert "--ignore 4,255" in err
    assert "--classes 5" in err
    assert "fitting" not in err


def test_one_unknown_label_costs_its_own_image(segment, tmp_path):
    relabel(tmp_path / "test", "s51", values={ROAD: 4})
    relabel(tmp_path / "train", "s02", values={ROAD: 4, VOID: -1 % 256})
    status, out, err = segment(*ONE, "--classes", "2", "--json")
    assert status == 0
    assert "not read: s02 of TRAIN: mask: label value 4" in err
    assert "not read: s51 of TEST: mask: label values 4; there are 2 classes" in err
    run = json.loads(out)["runs"][0]
    assert [(failure["id"], failure["where"]) for failure in run["failures"]] == [("s02", "TRAIN"), ("s51", "TEST")]
    assert (run["training_images"], run["test_images"]) == (5, 2)


def test_too_many_failures_of_training_say_so(segment, tmp_path):
    for name in ("s01", "s02"):
        (tmp_path / "train" / "images" / f"{name}.png").write_bytes(b"no picture")
    status, _, err = segment(*ONE)
    assert status == 1
    assert "TRAIN: 2 of 6 rows cannot be read" in err


def test_training_images_without_a_label_are_not_drawn(segment, tmp_path):
    """Of 6 images 5 are void all over: the one that is left is drawn, whatever the seed."""
    relabel(tmp_path / "train", *(f"s{number:02}" for number in range(5)), values={SKY: VOID, ROAD: VOID})
    status, out, err = segment(*ONE, "--fractions", "1/6", "--seeds", "3", "--json")
    assert status == 0
    assert "5 of 6 training images are void all over, and left out" in err
    assert [run["training_images"] for run in json.loads(out)["runs"]] == [1, 1, 1]


def test_an_image_that_one_group_cannot_take_is_in_no_bank(segment, tmp_path, monkeypatch):
    """Its copies of twice the size are too large, itself is not."""
    from sporeprint.features.dense import dense_engine as engine

    large = Image.new("RGB", (96, 64), (90, 160, 250))
    large.save(tmp_path / "train" / "images" / "large.png")
    Image.new("L", (96, 64), SKY).save(tmp_path / "train" / "masks" / "large.png")
    patch = 4
    monkeypatch.setattr(engine, "MOST_WITHOUT_GRADIENTS", 4 * 48 * 32 // patch**2)
    words = ("--backbone", "tiny", "--bank", "50", "--sheet", "0", "--json", "--scales", "2")
    status, out, _ = segment.run(
        "segment",
        tmp_path / "train",
        tmp_path / "test",
        "--out",
        tmp_path / "own",
        *words,
        "--features",
        "copies: layers",
    )
    assert status == 0
    run = json.loads(out)["runs"][0]
    assert run["training_images"] == 6
    assert [failure["id"] for failure in run["failures"]] == ["large"]


def test_pca_leaves_the_embedding_alone():
    plan = Plan(pca=7)
    sizes = {kind.name: kind.combination.size for kind in plan.kinds()}
    assert sizes == {"embedding": None, "paper": 7, "layers": 7, "layers + gradients": 7}
    assert plan.kinds()[0].combination == TABLE["embedding"].combination


def test_the_verdict_says_what_its_picking_leaves_open(segment):
    doubt, advice = "the interval ignores the picking", "compare with --temperature auto"
    two = ("--flip", "--features", "layers,copies: layers")
    sentence = segment(*two)[1]
    assert "picked on these images" in sentence.splitlines()[0] or "Nothing" in sentence.splitlines()[0]
    assert doubt in sentence
    assert advice in sentence
    sentence = segment(*two, "--temperature", "auto", "--all", out="auto")[1]
    assert doubt not in sentence
    assert advice not in sentence
    assert "k, T: the first run's" in " ".join(sentence.split())
    sentence = segment("--flip", "--features", "copies: embedding", out="one")[1]
    assert doubt not in sentence
    assert advice not in sentence


def test_interrupting_the_first_run_says_that_nothing_is_kept(segment, monkeypatch, tmp_path):
    def fill(*words, **others):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fill", fill)
    status, _, err = segment(*ONE)
    assert status == 130
    assert "no run had finished" in err
    assert "are kept" not in err
    assert finished_runs(tmp_path / "out") == 0
    assert finished_runs(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--features", ""), "--features '' names none"),
        (("--objectives", " ,"), "simclr, kl, or none"),
        (("--objectives", "kl,kl"), "one is there twice"),
    ],
)
def test_lists_that_say_nothing_are_refused(segment, words, says):
    status, _, err = segment(*words)
    assert status == 2
    assert says in err


def test_void_is_255_for_library_users_too():
    fungi = Fungi(Recipe(backbone="tiny", objectives=(), dense=Dense(size=(16, 24))))
    pictures, masks = zip(*(street(number) for number in range(4)), strict=True)
    (labels,) = Segmenter(fungi, bank=50, neighbours=3).fit(pictures, masks).predict([street(50)[0]])
    assert set(labels.flat) == {SKY, ROAD}
