import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import sporeprint
from small import noise_pictures, small_backbone
from sporeprint import KL, Combination, Fungi, Recipe, SimCLR, Store, knn
from sporeprint.cli import main
from sporeprint.data.sources import FolderSource
from sporeprint.objectives.views.image import Patches
from sporeprint.run.extract import extract
from sporeprint.store import reader
from sporeprint.store.atomic import seal, unseal
from sporeprint.store.writer import StoreWriter

COMMANDS = (
    "extract",
    "knn",
    "probe",
    "cluster",
    "retrieve",
    "regress",
    "analyse",
    "demonstrations",
    "info",
    "backbones",
    "demo",
)
RECIPE = Recipe(
    backbone="tiny", objectives=[KL(latent=32), SimCLR(latent=8, augmentation=Patches(2), negatives=3)], layers=1
)


def class_folders(folder, count, seed):
    for number, image in enumerate(noise_pictures(count, seed)):
        where = folder / "xyz"[number % 3]
        where.mkdir(parents=True, exist_ok=True)
        image.save(where / f"{number:02}.png")
    return folder


def save_vit(folder, seed):
    """A checkpoint as Hugging Face saves it, of random weights."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16), add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of pictures, a recipe with gradients, and stores of them: train, test (fitted from train)."""
    root = tmp_path_factory.mktemp("cli")
    class_folders(root / "pictures", 15, 0)
    class_folders(root / "others", 6, 1)
    (root / "recipe.json").write_text(json.dumps(RECIPE.to_json()))
    for words in (
        ("extract", root / "pictures", "--recipe", root / "recipe.json", "--out", root / "train"),
        ("extract", root / "others", "--fit-from", root / "train", "--out", root / "test"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["sporeprint", *map(str, words)])
            with pytest.raises(SystemExit) as caught:
                main()
        assert not caught.value.code
    return root


# Extract


def test_extract_says_what_it_made(data, run, tmp_path):
    status, out, _ = run(
        "extract", data / "pictures", "--backbone", "tiny", "--objectives", "kl", "--out", tmp_path / "s"
    )
    assert status == 0
    assert "15 rows" in out
    assert "embedding" in out
    assert "kl" in out
    store = Store.open(tmp_path / "s")
    assert store.labels.tolist() == ["x"] * 5 + ["y"] * 5 + ["z"] * 5
    assert store.plan["recipe"]["objectives"][0]["kind"] == "kl"


def test_extract_reads_a_table_by_its_columns(data, run, tmp_path):
    paths = sorted((data / "pictures").rglob("*.png"))
    columns = {
        "picture": [path.read_bytes() for path in paths],
        "kind": [path.parent.name for path in paths],
        "key": [f"k{number}" for number in range(15)],
        "other": list(range(15)),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    words = ["extract", tmp_path / "t.parquet", "--backbone", "tiny", "--objectives", "none", "--layers", "0"]
    words += ["--sample-column", "picture", "--label-column", "kind", "--id-column", "key", "--limit", "7"]
    status, out, _ = run(*words, "--out", tmp_path / "s", "--json")
    assert status == 0
    body = json.loads(out)
    assert (body["rows"], list(body["blocks"])) == (7, ["embedding"])
    store = Store.open(tmp_path / "s")
    assert store.ids == [f"k{number}" for number in range(7)]
    assert store.labels.tolist() == columns["kind"][:7]


def test_a_recipe_file_and_the_same_options_agree(data, run, tmp_path):
    words = ["extract", data / "pictures", "--backbone", "tiny", "--objectives", "kl,simclr", "--negatives", "2"]
    words += ["--dim", "10", "--layers", "2", "--seed", "4", "--pooling", "mean", "--targets", "blocks.0.mlp.fc2"]
    words += ["--projection", "tensorsketch"]
    assert run(*words, "--limit", "2", "--dtype", "float32", "--out", tmp_path / "s")[0] == 0
    expected = Recipe(
        objectives=[KL(), SimCLR(negatives=2, latent=96, augmentation=Patches(7))],
        dim=10,
        projection="tensorsketch",
        layers=2,
        seed=4,
        pooling="mean",
        targets=["blocks.0.mlp.fc2"],
        dtype="float32",
    )
    wanted = {key: value for key, value in expected.blocks_json().items() if key not in ("backbone", "views")}
    assert Store.open(tmp_path / "s").plan["recipe"] == wanted


def test_extract_without_objectives_takes_one_pass_and_says_what_the_dearer_presets_would(data, run, tmp_path):
    words = ["extract", data / "pictures", "--backbone", "tiny", "--limit", "2"]
    status, _, err = run(*words, "--out", tmp_path / "s")
    assert status == 0
    assert {block["passes"] for block in Store.open(tmp_path / "s").blocks_info.values()} == {1}
    line = "free, the default: 1 pass a row for embedding, layers, gradients; "
    balanced = 1 + 2 + 4 * (16 / 28) ** 2 + 9 * (16 / 28) ** 2
    assert f"{line}--preset balanced takes {balanced:.1f}, --preset paper takes 62\n" in err
    assert line not in run(*words, "--preset", "fast", "--out", tmp_path / "fast")[2]
    assert line not in run(*words, "--objectives", "kl", "--out", tmp_path / "kl")[2]
    assert line not in run("extract", data / "others", "--fit-from", tmp_path / "s", "--out", tmp_path / "t")[2]


def test_a_store_by_the_default_of_earlier_versions_goes_on_with_the_paper(data, run, tmp_path):
    (tmp_path / "earlier.json").write_text(json.dumps({"backbone": "tiny", "objectives": None, "combination": "paper"}))
    words = ["extract", data / "pictures", "--limit", "2", "--out", tmp_path / "s"]
    assert run(*words, "--recipe", tmp_path / "earlier.json")[0] == 0
    status, _, err = run(*words, "--backbone", "tiny")
    assert (status, "the default was the paper's: --preset paper goes on with it" in " ".join(err.split())) == (1, True)
    assert run(*words, "--backbone", "tiny", "--preset", "paper")[0] == 0


def test_the_blocks_are_those_of_the_library(data):
    store = Store.open(data / "train")
    fungi = Fungi(RECIPE).fit([data / "pictures" / row_id for row_id in store.ids], ids=store.ids)
    expected = fungi.blocks([data / "pictures" / row_id for row_id in store.ids], ids=store.ids)
    for name, values in store.blocks().items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


def test_corrupt_rows_are_printed_and_counted(data, run, tmp_path):
    class_folders(tmp_path / "p", 15, 0)
    (tmp_path / "p" / "x" / "00.png").write_bytes(b"no picture")
    words = ["extract", tmp_path / "p", "--backbone", "tiny", "--objectives", "kl", "--layers", "0"]
    status, out, err = run(*words, "--out", tmp_path / "s")
    assert status == 0
    assert "14 rows" in out
    assert "not read: x/00.png: " in err
    assert [failure["id"] for failure in json.loads(run("info", tmp_path / "s", "--json")[1])["failures"]] == [
        "x/00.png"
    ]
    assert "not read: x/00.png" in run("info", tmp_path / "s")[1]
    (tmp_path / "p" / "y" / "01.png").write_bytes(b"")
    status, _, err = run(*words, "--out", tmp_path / "s2")
    assert status == 1
    assert "x/00.png" in err
    assert "y/01.png" in err
    assert "--max-failures" in err
    assert run(*words, "--out", tmp_path / "s2", "--max-failures", "0.2")[0] == 0
    assert run(*words, "--out", tmp_path / "s3", "--max-failures", "0")[0] == 1


def test_extract_again_is_done_at_once_and_with_other_options_refused(data, run):
    words = ["extract", data / "pictures", "--recipe", data / "recipe.json"]
    assert run(*words, "--out", data / "train")[0] == 0
    status, _, err = run(
        "extract", data / "pictures", "--backbone", "tiny", "--objectives", "kl", "--out", data / "train"
    )
    assert status == 1
    assert "was made by another run, with --objectives kl,simclr, " in err
    assert "this run has --objectives kl, " in err
    assert len(err.splitlines()) < 6


def test_files_that_are_passed_over_are_counted_before_the_work_and_in_info(run, tmp_path):
    class_folders(tmp_path / "p", 3, 0)
    for number in range(5):
        (tmp_path / "p" / f"{number}.heic").write_bytes(b"")
    words = ["--backbone", "tiny", "--objectives", "none", "--layers", "0"]
    status, out, err = run("extract", tmp_path / "p", *words, "--out", tmp_path / "s")
    assert status == 0
    assert "3 rows" in out
    assert err.startswith("passed over: 5 files: 5 .heic (empty); rows are files ending in .apng .avif ")
    assert "\npassed over: 5 other files\n" in run("info", tmp_path / "s")[1]
    shutil.rmtree(tmp_path / "s")
    for path in (tmp_path / "p").glob("*.heic"):
        path.unlink()
    assert "passed over" not in run("extract", tmp_path / "p", *words, "--out", tmp_path / "s")[2]
    assert "passed over" not in run("info", tmp_path / "s")[1]


def test_what_is_logged_and_warned_of_are_plain_lines(run, tmp_path):
    class_folders(tmp_path / "p", 3, 0)
    words = ["extract", tmp_path / "p", "--backbone", "tiny", "--objectives", "none", "--layers", "0"]
    words += ["--out", tmp_path / "s"]
    assert "reading the source" not in run(*words)[2]
    assert f"{tmp_path / 's'} is complete already\n" in run(*words)[2]
    (shard,) = (tmp_path / "s" / "shards").glob("*.parquet")
    shard.write_bytes(bytes(shard.stat().st_size))
    status, _, err = run(*words)
    assert status == 0
    lines = [line for line in err.splitlines() if "shard 0 is dropped" in line]
    assert [line.partition(":")[0] for line in lines] == ["warning"]
    assert "UserWarning" not in err
    assert ".py:" not in err


# Neighbours


def test_knn_prints_the_table_of_two_stores(data, run):
    status, out, _ = run("knn", data / "train", data / "test", "--k", "1,auto", "--all")
    assert status == 0
    for row in ("embedding", "embedding + kl", "paper", "control: layers, white"):
        assert row in out
    status, out, _ = run("knn", data / "train", data / "test", "--k", "1,3,auto", "--json")
    assert status == 0
    entries = {entry["name"]: entry for entry in json.loads(out)["entries"]}
    assert set(entries["embedding"]["results"]) == {"1", "3", "auto"}
    assert entries["embedding + kl"]["passes"] == 1
    assert entries["embedding + simclr"]["passes"] == 1 + 4


def test_knn_of_named_blocks_is_the_librarys(data, run):
    train, test = Store.open(data / "train"), Store.open(data / "test")
    words = [
        "knn",
        data / "train",
        data / "test",
        "--features",
        "embedding, kl",
        "--whiten",
        "5",
        "--pca",
        "4",
        "--k",
        "3",
    ]
    status, out, _ = run(*words, "--json")
    assert status == 0
    (entry,) = json.loads(out)["entries"]
    combiner = Combination(("embedding", "kl"), whiten=5, size=4).fit(train.blocks())
    expected = knn(
        combiner.transform(train.blocks()), train.labels, combiner.transform(test.blocks()), test.labels, k=3
    )
    assert entry["results"]["3"] == json.loads(json.dumps(expected.to_json()))
    assert entry["width"] == 4


def test_a_test_store_that_drew_its_own_negatives_is_refused(data, run, tmp_path):
    assert run("extract", data / "others", "--recipe", data / "recipe.json", "--out", tmp_path / "own")[0] == 0
    status, _, err = run("knn", data / "train", tmp_path / "own")
    assert status == 1
    assert "--fit-from" in err
    assert "negatives" in err


def test_a_test_store_fitted_from_another_store_is_refused(data, run, tmp_path):
    assert run("extract", data / "others", "--recipe", data / "recipe.json", "--out", tmp_path / "third")[0] == 0
    words = ["extract", data / "others", "--fit-from", tmp_path / "third", "--out", tmp_path / "test"]
    assert run(*words)[0] == 0
    status, _, err = run("knn", data / "train", tmp_path / "test")
    assert status == 1
    assert f"--fit-from {data / 'train'}" in err
    assert run("knn", tmp_path / "third", tmp_path / "test", "--k", "1")[0] == 0


def test_stores_of_one_backbone_under_two_names_are_compared(tmp_path, run):
    backbone = small_backbone()
    for name, seed in (("train", 0), ("test", 1)):
        backbone.name = name
        source = FolderSource(class_folders(tmp_path / f"{name}-pictures", 6, seed))
        extract(source, tmp_path / name, Recipe(objectives=[KL(latent=8)], layers=0), backbone=backbone)
    assert run("knn", tmp_path / "train", tmp_path / "test", "--k", "1")[0] == 0


def store_of(folder, labels, seed):
    """Twelve rows that a plain embedding tells apart, by their label's number; None where there is none."""
    plan = {"recipe": {"seed": 0}, "resolved": {"backbone": {"name": "b"}, "device": "cpu"}}
    rng = np.random.default_rng(seed)
    centres = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])
    rows = centres[np.arange(len(labels)) % 3] + rng.standard_normal((len(labels), 3))
    with StoreWriter(folder, plan) as writer:
        writer.write_shard(0, [f"r{at}" for at in range(len(labels))], labels, {"embedding": rows}, [], {})
        info = {"embedding": {"dim": 3, "family": "embedding", "views": "whole", "passes": 1}}
        writer.commit(blocks=info, label_names=None, cost={})
    return rows.astype(np.float32)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path, run):
    labels = np.array(["x", "y", "z"] * 4, dtype=object)
    known = labels.copy()
    known[[0, 4, 5]] = None
    train, test = store_of(tmp_path / "train", list(known), 0), store_of(tmp_path / "test", [None, *labels[1:]], 1)
    status, out, _ = run("knn", tmp_path / "train", tmp_path / "test", "--k", "1,auto", "--json")
    assert status == 0
    body = json.loads(out)
    assert body["note"].endswith(
        "9 training rows, 11 test rows, 3 classes; left out, having no label: 3 training rows, 1 test row"
    )
    has = np.array([label is not None for label in known])
    plain = Combination(("embedding",)).fit({"embedding": train[has]})
    features, others = plain.transform({"embedding": train[has]}), plain.transform({"embedding": test[1:]})
    expected = knn(features, known[has].astype(str), others, labels[1:].astype(str), k=1)
    assert body["entries"][0]["results"]["1"] == json.loads(json.dumps(expected.to_json()))
    assert Store.open(tmp_path / "train").label_counts == {"different": 3, "missing": 3}


def test_a_rank_that_a_block_does_not_have_is_warned_of(data, run):
    words = ["knn", data / "train", data / "test", "--k", "1", "--json"]
    status, out, err = run(*words, "--features", "embedding", "--whiten", "500")
    assert status == 0
    assert "warning: whiten of 'embedding': 500 dimensions wanted, 15 used" in err
    assert json.loads(out)["entries"][0]["whitened"] == {"embedding": 15}
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    entries = {entry["name"]: entry for entry in json.loads(out)["entries"]}
    assert entries["embedding, white"]["whitened"] == {"embedding": 15}
    assert entries["embedding"]["whitened"] == {}


def test_knn_reads_each_shard_once(data, run, monkeypatch):
    read, real = [], reader.read_shard
    monkeypatch.setattr(reader, "read_shard", lambda path, *rest: read.append(path) or real(path, *rest))
    assert run("knn", data / "train", data / "test", "--k", "1")[0] == 0
    assert len(read) == len(set(read)) == 2


def test_of_stores_that_were_made_otherwise_the_options_that_differ_are_named(tmp_path, run):
    for seed in (0, 3):
        source = FolderSource(class_folders(tmp_path / f"pictures-{seed}", 6, seed))
        recipe = Recipe(objectives=[KL(latent=8)], layers=0, seed=seed)
        extract(source, tmp_path / str(seed), recipe, backbone=small_backbone())
    status, _, err = run("knn", tmp_path / "0", tmp_path / "3")
    assert status == 1
    assert err == (
        f"error: {tmp_path / '0'} was made with --seed 0, {tmp_path / '3'} with --seed 3: their features cannot be "
        f"compared. Make the test store with --fit-from {tmp_path / '0'}\n"
    )


def test_without_negatives_a_test_store_needs_no_fit(data, run, tmp_path):
    for name in ("pictures", "others"):
        words = ["extract", data / name, "--backbone", "tiny", "--objectives", "kl", "--layers", "0"]
        assert run(*words, "--out", tmp_path / name)[0] == 0
    assert run("knn", tmp_path / "pictures", tmp_path / "others", "--k", "1")[0] == 0
    status, _, err = run("knn", data / "train", tmp_path / "others")
    assert status == 1
    assert "with --objectives kl,simclr" in err
    assert "with --objectives kl:" in err or "with --objectives kl," in err


def test_a_saved_fungi_fits_both_stores(data, run, tmp_path):
    store = Store.open(data / "train")
    fungi = Fungi(RECIPE).fit([data / "pictures" / row_id for row_id in store.ids], ids=store.ids)
    fungi.save(tmp_path / "saved")
    assert run("extract", data / "others", "--fit-from", tmp_path / "saved", "--out", tmp_path / "test")[0] == 0
    assert run("knn", data / "train", tmp_path / "test", "--k", "1")[0] == 0  # the same draw, in both


def test_a_fits_backbone_may_lie_elsewhere_now(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("m1", 0), ("other", 1)):
        save_vit(tmp_path / name, seed)
    words = ["extract", class_folders(tmp_path / "p", 6, 0), "--layers", "0", "--objectives", "kl"]
    assert run(*words, "--backbone", "./m1", "--out", "train")[0] == 0
    (tmp_path / "m1").rename(tmp_path / "m2")
    words = ["extract", class_folders(tmp_path / "q", 6, 1), "--fit-from", "train", "--out"]
    status, _, err = run(*words, "test")
    assert status == 1
    assert "'./m1'" in err
    assert "--backbone" in err
    assert run(*words, "test", "--backbone", "./m2")[0] == 0
    assert run(*words, "chained", "--fit-from", "test")[0] == 0  # the new place is the one that is kept
    assert run("knn", "train", "test", "--k", "1")[0] == 0
    status, _, err = run(*words, "o", "--backbone", "./other")
    assert status == 1
    assert "weights" in err


@pytest.mark.parametrize("k", ["0", "-1", "best", "1,,2", "1.5"])
def test_a_k_that_is_none_is_misuse(data, run, k):
    status, _, err = run("knn", data / "train", data / "test", f"--k={k}")
    assert status == 2
    assert "--k" in err


def test_knn_needs_labels_and_known_blocks(data, run, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, image in enumerate(noise_pictures(4)):
        image.save(flat / f"{number}.png")
    assert run("extract", flat, "--fit-from", data / "train", "--out", tmp_path / "s")[0] == 0
    status, _, err = run("knn", data / "train", tmp_path / "s")
    assert status == 1
    assert "no labels" in err
    status, _, err = run("knn", data / "train", data / "test", "--features", "embedding,dino")
    assert status in (1, 2)
    assert "'dino'" in err
    assert run("knn", data / "train", data / "test", "--whiten", "3")[0] == 2


# Info, backbones


def test_info_says_what_a_store_holds(data, run):
    status, out, _ = run("info", data / "test")
    assert status == 0
    for fact in ("rows: 6 from others", "TinyViT", "simclr", "labels: 3 different", "seed: 0", "float32"):
        assert fact in out
    assert out.splitlines()[0] == "6 rows with 6 blocks of tiny; every row was read."
    assert ["simclr", "128", "4", "gradients", "simclr"] in map(
        str.split, run("info", data / "test", "--all")[1].splitlines()
    )
    body = json.loads(run("info", data / "test", "--json")[1])
    assert body["rows"] == 6
    assert body["plan"]["fit"]["from"] != "this source"
    assert "verified" not in body
    assert json.loads(run("info", data / "test", "--json", "--verify")[1])["verified"] is True
    assert "every file checked" in run("info", data / "test", "--verify")[1]


def test_info_reads_no_shard_unless_asked_to_verify(data, run, tmp_path):
    shutil.copytree(data / "test", tmp_path / "s")
    (shard,) = (tmp_path / "s" / "shards").glob("*.parquet")
    shard.write_bytes(bytes(shard.stat().st_size))
    status, out, _ = run("info", tmp_path / "s")
    assert status == 0
    assert "labels: 3 different\n" in out
    assert json.loads(run("info", tmp_path / "s", "--json")[1])["labels"] == {"different": 3, "missing": 0}
    assert run("info", tmp_path / "s", "--verify")[0] == 1


def test_a_store_of_before_labels_were_counted_opens(data, run, tmp_path):
    shutil.copytree(data / "test", tmp_path / "s")
    manifest = unseal("manifest", tmp_path / "s" / "manifest.json")
    del manifest["labels"]
    (tmp_path / "s" / "manifest.json").write_bytes(seal("manifest", manifest))
    assert "labels: not counted" in run("info", tmp_path / "s")[1]
    assert "labels: 3 different\n" in run("info", tmp_path / "s", "--verify")[1]
    old, new = (run("knn", data / "train", store, "--k", "1", "--json")[1] for store in (tmp_path / "s", data / "test"))
    assert old == new


def test_info_finds_damage_when_asked_to_verify(data, run, tmp_path):
    shutil.copytree(data / "test", tmp_path / "s")
    (shard,) = (tmp_path / "s" / "shards").glob("*.parquet")
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    status, _, err = run("info", tmp_path / "s", "--verify")
    assert status == 1
    assert shard.name in err


def test_info_of_something_else_fails_in_a_sentence(data, run, tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", data / "recipe.json"):
        status, _, err = run("info", path)
        assert status == 1
        assert err.startswith("error: ")
        assert "Traceback" not in err


def test_backbones_lists_what_is_supported(run):
    status, out, _ = run("backbones")
    assert status == 0
    for word in ("transformers", "timm", "torchvision", "any nn.Module", "tiny"):
        assert word in out
    rows = json.loads(run("backbones", "--json")[1])
    assert all({"modality", "backbones", "embedding"} == set(row) and row["embedding"] for row in rows)
    assert list(dict.fromkeys(row["modality"] for row in rows)) == ["image", "text", "audio", "any"]
    assert len(run("backbones", columns=80)[1].splitlines()) <= 24
    assert "forward_head, pre_logits" in run("backbones", "--all")[1]
    first = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert [first.count(word) for word in ("image", "text", "audio", "any")] == [1] * 4  # said once, above its rows


def test_backbones_says_what_is_found_in_one(run):
    status, out, _ = run("backbones", "tiny", "--json")
    assert status == 0
    result = json.loads(out)
    assert result["targets"] == ["blocks.5.attn.proj"]
    assert "blocks.0.mlp.fc1" in result["linear_layers"]
    folded, whole = (run("backbones", "tiny", *more, columns=80)[1] for more in ((), ("--all",)))
    assert "targets: blocks.5.attn.proj" in folded
    assert "blocks.0-5.mlp.fc1" in folded
    assert len(folded.splitlines()) <= 24
    assert all(f"linear layer: {layer}\n" in whole for layer in result["linear_layers"])
    assert max(map(len, folded.splitlines())) <= 80
    assert run("backbones", "./nowhere")[0] == 2


# Misuse


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["extract", "PICTURES", "--out", "O"], "no --backbone"),
        (
            ["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--objectives", "kl,klm"],
            "--objectives 'klm'; known: kl, dino, simclr, mlm, none; did you mean kl?",
        ),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--objectives", "kl,none"], "no objective 'none'"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--objectives", "kl,kl"], "two objectives"),
        (["extract", "PICTURES", "--out", "O", "--recipe", "RECIPE", "--backbone", "tiny"], "--recipe and --backbone"),
        (["extract", "PICTURES", "--out", "O", "--recipe", "RECIPE", "--negatives", "3"], "--recipe and --negatives"),
        (
            ["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--negatives", "3"],
            "--negatives 3, but the default",
        ),
        (
            ["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--views", "native"],
            "--views native, but the default",
        ),
        (["extract", "PICTURES", "--out", "O", "--fit-from", "TRAIN", "--seed", "3"], "leave out --seed"),
        (["extract", "NOWHERE", "--out", "O", "--backbone", "tiny"], "there is no"),
        (["extract", "RECIPE", "--out", "O", "--backbone", "tiny"], "recipe.json"),
        (["extract", "PICTURES", "--out", "O", "--recipe", "NOWHERE"], "--recipe: there is no"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--pooling", "max"], "'--pooling': 'max'"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "./nowhere"], "no folder './nowhere'"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tinny"], "did you mean tiny?"),
        (["extract", "PICTURES", "--out", "O", "--fit-from", "NOWHERE"], "--fit-from: there is no"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--dim", "0"], "--dim"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--seed", "x"], "--seed"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--limit", "0"], "--limit"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--batch-size", "0"], "--batch-size"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--shard-rows", "0"], "--shard-rows"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--store-dtype", "float8"], "float8"),
        (["extract", "PICTURES", "--out", "O", "--backbone", "tiny", "--device", "abacus"], "abacus"),
        (["extract", "PICTURES", "--backbone", "tiny"], "--out"),
        (["extract", "--out", "O", "--backbone", "tiny"], "SOURCE"),
        (["extract", "PICTURES", "--out", "O", "--frobnicate"], "--frobnicate"),
        (["grow"], "grow"),
        (["knn", "TRAIN"], "TEST_STORE"),
        (["knn", "TRAIN", "TRAIN", "--pca", "0"], "--pca"),
        (["knn", "TRAIN", "TRAIN", "--features", "kl", "--whiten", "0"], "--whiten"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--seed", "4294967296"], "--seed"),
    ],
)
def test_misuse_ends_with_status_2_and_a_reason(data, run, tmp_path, words, complaint):
    names = {
        "PICTURES": data / "pictures",
        "RECIPE": data / "recipe.json",
        "TRAIN": data / "train",
        "NOWHERE": tmp_path / "nowhere",
        "O": tmp_path / "o",
    }
    status, out, err = run(*(names.get(word, word) for word in words))
    assert (status, out) == (2, "")
    assert complaint.lower() in err.replace("\n", " ").lower()
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_failures_end_with_status_1(data, run, tmp_path):
    words = ["extract", data / "pictures", "--out", tmp_path / "o"]
    for more, complaint in [
        (["--backbone", "tiny", "--targets", "blocks.77"], "blocks.77"),
        (["--fit-from", data], "is not a store"),
    ]:
        status, out, err = run(*words, *more)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert complaint in err


@pytest.mark.parametrize(
    ("batches", "kept"), [(0, "no row is stored in '{}' yet"), (2, "4 of 15 rows are kept in '{}'; the same command")]
)
def test_an_interruption_says_what_is_kept(data, run, tmp_path, monkeypatch, batches, kept):
    compute, calls = Fungi.compute, []

    def interrupt(*args):
        calls.append(1)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(Fungi, "compute", interrupt)
    words = ["extract", data / "pictures", "--backbone", "tiny", "--objectives", "kl", "--out", tmp_path / "s"]
    status, out, err = run(*words, "--shard-rows", "2", "--batch-size", "2")
    assert (status, out) == (130, "")
    assert err.splitlines()[-1].startswith(f"interrupted: {kept.format(tmp_path / 's')}")


# Start-up


def without_torch(code):
    check = "\nimport sys; print(sorted({'torch', 'transformers', 'sklearn', 'pyarrow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_importing_the_package_imports_no_torch():
    assert without_torch("import sporeprint; dir(sporeprint); sporeprint.__version__") == ["[]"]


def test_help_imports_no_torch():
    code = f"""
import sys
from sporeprint.cli import main
for words in [["--help"], *([name, "--help"] for name in {COMMANDS!r})]:
    sys.argv = ["sporeprint", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code, words
"""
    lines = without_torch(code)
    assert lines[-1] == "[]"
    assert sum("Usage: sporeprint" in line for line in lines) == 1 + len(COMMANDS)


def test_every_public_name_can_be_had():
    for name in sporeprint.__all__:
        assert getattr(sporeprint, name).__module__.startswith("sporeprint.")
        assert name in dir(sporeprint)
    with pytest.raises(AttributeError, match="no attribute 'Mould'"):
        sporeprint.Mould  # noqa: B018
