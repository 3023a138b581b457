"""`sporeprint segment` on pictures that any network tells apart, with the shipped backbone."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

from small_scenes import struct, table
from small_streets import VOID, street, streets
from sporeprint.run import segment as module
from sporeprint.segment.bank import MemoryBank

SMALL = ("--backbone", "tiny", "--size", "16x24", "--bank", "200", "--k", "5", "--sheet", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    streets(folder / "train", 8)
    streets(folder / "test", 5, first=50)
    streets(folder / "bare", 3, first=50, masks=False)
    return folder


@pytest.fixture
def segment(run, data, tmp_path):
    """Run the command; gives (exit status, stdout, stderr), with results in tmp_path / "out"."""

    def segment(*words, train=data / "train", test=data / "test", out=tmp_path / "out"):
        return run("segment", train, test, "--out", out, *SMALL, *words)

    return segment


def labels_of(path):
    return np.asarray(Image.open(path)).astype(int)


def test_the_figures_are_those_of_the_masks_that_it_writes(segment, data, tmp_path):
    status, out, _ = segment("--masks", "--json")
    assert status == 0
    result = json.loads(out)
    assert [row["name"] for row in result["table"]] == ["embedding", "paper", "layers", "layers + gradients"]
    for row in result["table"]:
        folder = tmp_path / "out" / "masks" / row["name"].replace(" + ", "-")
        truth, predicted = [], []
        for path in sorted((data / "test" / "masks").iterdir()):
            true, labels = labels_of(path), labels_of(folder / path.name)
            truth += true[true != VOID].tolist()
            predicted += labels[true != VOID].tolist()
        expected = jaccard_score(truth, predicted, average="macro")
        assert row["figures"]["1"]["value"] == pytest.approx(expected)
        assert expected > 0.7


def test_a_table_classes_a_sentence_and_a_sheet(segment, tmp_path):
    (tmp_path / "out" / ".banks" / "of a run that was killed").mkdir(parents=True)
    status, out, err = segment("--sheet", "3")
    assert status == 0
    assert "mIoU %" in out
    assert "1 + 1 backward" in out
    assert "embedding" in out.splitlines()[0]
    assert len(out.splitlines()[0].split()) <= 25
    assert "2 classes: 0, 1; void: 255" in err
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width == 1400
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "result.json", "sheet.png"]


def test_fractions_and_seeds_are_a_run_each_and_finished_ones_are_kept(segment, monkeypatch):
    drawn = []
    real = module.fill

    def fill(groups, scenes, ids, *rest, **others):
        drawn.append(list(ids))
        return real(groups, scenes, ids, *rest, **others)

    monkeypatch.setattr(module, "fill", fill)
    segment("--features", "embedding", "--fractions", "1/2,1/4")
    assert [len(ids) for ids in drawn] == [4, 2]
    assert drawn[0][:2] == drawn[1]
    status, out, err = segment("--features", "embedding", "--fractions", "1/2,1/4", "--seeds", "2", "--json")
    assert status == 0
    assert len(drawn) == 4
    assert set(drawn[2]) != set(drawn[0])
    assert "2 of 4 runs are in" in err
    figures = json.loads(out)["table"][0]["figures"]
    runs = [run["kinds"]["embedding"]["result"]["value"] for run in json.loads(out)["runs"]]
    assert figures["1/2"]["value"] == pytest.approx(np.mean(runs[:2]))
    assert figures["1/4"]["spread"] == pytest.approx(np.std(runs[2:], ddof=1))


def test_an_interrupted_command_keeps_what_is_done_and_goes_on(segment, monkeypatch, tmp_path):
    real, calls = module.fill, []

    def fill(*words, **others):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*words, **others)

    monkeypatch.setattr(module, "fill", fill)
    words = ("--features", "layers", "--fractions", "1,1/4", "--json")
    status, _, err = segment(*words)
    assert status == 130
    assert "the same command goes on" in err
    assert not (tmp_path / "out" / ".banks").exists()
    monkeypatch.setattr(module, "fill", real)
    _, out, _ = segment(*words)
    _, whole, _ = segment(*words, out=tmp_path / "other")
    assert json.loads(out)["runs"] == json.loads(whole)["runs"]


def test_neither_batches_nor_threads_change_a_number(segment, tmp_path):
    _, single, _ = segment("--json", "--batch-size", "1", "--workers", "0")
    _, other, _ = segment("--json", "--batch-size", "5", "--workers", "2", out=tmp_path / "other")
    single, other = (json.loads(text)["table"] for text in (single, other))
    for row, same in zip(single, other, strict=True):
        assert row["figures"]["1"]["value"] == pytest.approx(same["figures"]["1"]["value"], abs=1e-3)


def test_what_test_images_are_called_changes_no_number(segment, data, tmp_path):
    """Test images that are called as training images are not taken for them."""
    names = sorted(path.stem for path in (data / "train" / "images").iterdir())
    streets(tmp_path / "alike", 5, first=50, names=names[:5])
    streets(tmp_path / "other", 5, first=50, names=list("abcde"))
    _, single, _ = segment("--json", "--features", "paper", test=tmp_path / "alike")
    shutil.rmtree(tmp_path / "out")
    _, other, _ = segment("--json", "--features", "paper", test=tmp_path / "other")
    assert json.loads(single)["runs"] == json.loads(other)["runs"]


def test_masks_that_come_too_late_are_told_of(segment):
    segment("--features", "embedding")
    _, _, err = segment("--features", "embedding", "--masks")
    assert "no masks are written" in err


def test_another_plan_is_refused_with_what_differs(segment):
    segment("--features", "embedding")
    status, _, err = segment("--features", "embedding", "--temperature", "0.1", "--ignore", "255,3")
    assert status == 1
    assert "temperature" in err
    assert "ignore" in err
    assert "results of another plan" in err


def test_a_folder_that_holds_something_else_is_refused(segment, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("chapter 1")
    status, _, err = segment()
    assert status == 2
    assert "thesis.tex" in err


def test_banks_are_kept_when_asked_for(segment, tmp_path):
    segment("--features", "layers", "--keep-bank")
    bank = MemoryBank.open(tmp_path / "out" / "banks" / "1-1-seed-0" / "layers")
    bank.verify()
    assert len(bank) == 192  # all patches of 8 images


def test_copies_are_rows_of_their_own(segment):
    status, out, _ = segment("--flip", "--features", "copies:layers,copies: layers+gradients", "--json")
    assert status == 0
    table = {row["name"]: row for row in json.loads(out)["table"]}
    assert list(table) == ["embedding", "copies: layers", "copies: layers + gradients"]
    assert table["copies: layers"]["passes"] == "2"
    assert table["copies: layers + gradients"]["passes"] == "2 + 2 backward"


def test_auto_is_shown_and_picks_the_best(segment):
    status, out, _ = segment("--k", "auto", "--temperature", "auto", "--epochs", "2")
    assert status == 0
    assert "on training" in out
    assert "picked by the training images" in out


def test_without_masks_it_predicts(segment, data, tmp_path):
    status, out, err = segment("--features", "layers", test=data / "bare")
    assert status == 0
    assert "TEST has no masks, so this predicts only" in err
    assert "3 images were labelled" in out
    true = street(50)[1]
    predicted = labels_of(tmp_path / "out" / "masks" / "layers" / "s50.png")
    assert (predicted == true)[true != VOID].mean() > 0.85
    assert segment("--no-truth", "--seeds", "2")[0] == 2


def test_a_damaged_image_is_named_and_too_many_stop_it(segment, tmp_path):
    streets(tmp_path / "bad", 4, first=50)
    (tmp_path / "bad" / "images" / "s51.png").write_bytes(b"no picture")
    status, out, err = segment("--features", "embedding", "--json", test=tmp_path / "bad")
    assert status == 0
    assert "not read: s51 of TEST" in err
    assert json.loads(out)["runs"][0]["test_images"] == 3
    status, _, err = segment(
        "--features", "embedding", "--max-failures", "0", test=tmp_path / "bad", out=tmp_path / "o"
    )
    assert status == 1
    assert "s51" in err


def test_void_that_has_a_name_is_asked_about(segment, tmp_path):
    streets(tmp_path / "named", 3)
    (tmp_path / "named" / "classes.txt").write_text("sky\nroad\nVoid\n")
    status, _, err = segment(train=tmp_path / "named")
    assert status == 2
    assert "--ignore 2" in err


def test_a_class_that_no_training_mask_has_is_one_where_it_has_a_name(segment, tmp_path):
    streets(tmp_path / "train", 3)
    (tmp_path / "train" / "classes.txt").write_text("sky\nroad\ncar\n")
    streets(tmp_path / "test", 2, first=50)
    labels = np.array(Image.open(tmp_path / "test" / "masks" / "s50.png"))
    labels[-4:, :4] = 2
    Image.fromarray(labels).save(tmp_path / "test" / "masks" / "s50.png")
    _, out, err = segment("--features", "embedding", "--json", train=tmp_path / "train", test=tmp_path / "test")
    assert "3 classes: sky, road, car" in err
    assert json.loads(out)["table"][0]["figures"]["1"]["per_class"]["car"] == 0


def test_a_class_without_a_name_is_told_by_its_number(segment, tmp_path):
    streets(tmp_path / "train", 3)
    (tmp_path / "train" / "classes.json").write_text('{"0": "sky", "1": "road", "3": "car", "255": "border"}')
    _, _, err = segment("--features", "embedding", train=tmp_path / "train")
    assert "4 classes: sky, road, 2, car; void: 255" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--features", "colour"), "there are: embedding, paper, layers, layers + gradients"),
        (("--features", "copies: layers"), "--shifts 2"),
        (("--features", "paper", "--objectives", "none"), "need --objectives"),
        (("--objectives", "dino"), "known: kl, simclr"),
        (("--size", "17x24"), "16 x 24"),
        (("--size", "big"), "240x320"),
        (("--fractions", "0"), "above 0"),
        (("--fractions", "1/x"), "1,1/8,1/64"),
        (("--temperature", "warm"), "0.02, or auto"),
        (("--layers", "a"), "6,8,10"),
        (("--layers", "99"), "block 99"),
        (("--mask-column", "mask"), "columns"),
        (("--sampling", "all"), "is not one of 'balanced', 'uniform'"),
    ],
)
def test_misuse_says_what_to_do(segment, words, says):
    status, _, err = segment(*words)
    assert status == 2
    assert says in err


def test_a_column_that_is_not_there_is_named(segment, tmp_path):
    rows = [street(number) for number in range(4)]
    columns = {
        name: [struct(_png(pair[at])) for pair in rows] for at, name in enumerate(("image", "mask"))
    }  # fmt: skip
    source = table(tmp_path / "t.parquet", 4, **columns)
    status, _, err = segment("--mask-column", "labels", train=source, test=source)
    assert status == 2
    assert "labels" in err
    assert segment("--features", "embedding", train=source, test=source)[0] == 0


def _png(picture):
    from small_scenes import encoded

    return encoded(picture if isinstance(picture, Image.Image) else Image.fromarray(picture))


@pytest.mark.real
def test_streets_of_camvid(run, shared, tmp_path):
    """Void has a name there; the embedding's mIoU is far above that of the most frequent class alone, 0.04."""
    data = shared / "data" / "camvid"
    words = ("segment", data / "train.parquet", data / "val.parquet", "--out", tmp_path / "o")
    words += ("--backbone", shared / "models" / "deit-tiny", "--size", "128x160", "--limit", "10", "--bank", "1000")
    status, _, err = run(*words)
    assert status == 2
    assert "--ignore 11" in err
    status, out, _ = run(*words, "--ignore", "11", "--features", "layers", "--json")
    assert status == 0
    for row in json.loads(out)["table"]:
        figures = row["figures"]["1"]
        assert figures["value"] > 0.2
        assert figures["per_class"]["building"] > 0.5
