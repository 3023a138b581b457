import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_stores import circle, store_of
from sporeprint import Combination, Template, demonstrations
from sporeprint.data.sampling import Sampled
from sporeprint.data.sources import ListSource, open_source

TEXTS = ["zero", "sixty", "broken", "ninety", "half a turn"]
LABELS = ["a", "b", "a", "c", "b"]
DEGREES = [0.0, 60.0, 0.0, 90.0, 180.0]


def write(path, texts, labels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"text": texts} if labels is None else {"text": texts, "label": labels}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def stores(tmp_path):
    """Stores of five training rows, of which the third failed, and two queries; and how to ask for prompts."""
    train = write(tmp_path / "train.parquet", TEXTS, LABELS)
    test = write(tmp_path / "test.parquet", ["at zero", "at eighty"], ["a", None])
    store_of(tmp_path / "a", open_source(train, modality="text"), {"embedding": circle(DEGREES)}, failed=[2])
    store_of(tmp_path / "b", open_source(test, modality="text"), {"embedding": circle([0.0, 80.0])})
    words = ["demonstrations", tmp_path / "a", tmp_path / "b", "--train", train, "--test", test]
    return tmp_path, [*words, "--out", tmp_path / "p.jsonl"]


def lines(folder):
    return [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()]


def test_the_prompts_of_a_tiny_store_are_those_made_by_hand(run, stores):
    folder, words = stores
    (folder / "t.txt").write_text("{text}={label};\n---\n{text}=\n")
    status, out, err = run(*words, "--k", "3", "--template", folder / "t.txt")
    assert (status, err) == (0, "left out, not read: 1 training rows, 0 test rows\n")
    assert out == f"{folder / 'p.jsonl'}: 2 prompts, neighbours by embedding\n"
    first, second = lines(folder)
    distances = first.pop("distances"), second.pop("distances")
    apart = np.deg2rad([[90, 60, 0], [80, 20, 10]])
    np.testing.assert_allclose(distances, 2 * np.sin(apart / 2), atol=1e-6)
    assert first == {
        "id": "0",
        "query": "at zero",
        "prompt": "ninety=c;\nsixty=b;\nzero=a;\nat zero=",
        "answer": "a",
        "ids": ["3", "1", "0"],
        "labels": ["c", "b", "a"],
        "left_out": 0,
    }
    assert second == {
        "id": "1",
        "query": "at eighty",
        "prompt": "zero=a;\nsixty=b;\nninety=c;\nat eighty=",
        "answer": None,
        "ids": ["0", "1", "3"],
        "labels": ["a", "b", "c"],
        "left_out": 0,
    }


def test_a_folder_is_no_file_to_write(run, stores):
    folder, words = stores
    status, _, err = run(*words[:-1], folder)
    assert (status, err.startswith(f"error: --out '{folder}' is a folder; give the name of a file")) == (2, True), err


def test_gradients_count_as_much_as_the_embedding_and_layers_not_at_all_unless_named(run, tmp_path):
    source = open_source(write(tmp_path / "t.parquet", list("wxyz"), list("wxyz")), modality="text")
    places = {"embedding": [60.0, 0.0, 90.0, 30.0], "kl": [0.0, 90.0, 60.0, 180.0], "cls-2": [90.0, 60.0, 0.0, 180.0]}
    store_of(tmp_path / "a", source, {name: circle(degrees) for name, degrees in places.items()})
    query = open_source(write(tmp_path / "q.parquet", ["q"]), modality="text")
    store_of(tmp_path / "b", query, {name: circle([0.0]) for name in places})
    words = ["demonstrations", tmp_path / "a", tmp_path / "b", "--train", tmp_path / "t.parquet"]
    words += ["--test", tmp_path / "q.parquet", "--out", tmp_path / "p.jsonl", "--order", "nearest_first", "--k", "3"]
    assert run(*words)[0] == 0
    (line,) = lines(tmp_path)
    assert line["ids"] == ["0", "1", "2"]
    np.testing.assert_allclose(line["distances"], [1, 2**0.5, 3**0.5], atol=1e-6)
    assert line["answer"] is None
    assert run(*words, "--features", "cls-2")[0] == 0
    assert lines(tmp_path)[0]["ids"] == ["2", "1", "0"]
    assert run(*words, "--features", "embedding")[0] == 0
    assert lines(tmp_path)[0]["ids"] == ["1", "3", "0"]


def test_the_options_are_the_librarys(run, tmp_path):
    rng = np.random.default_rng(0)
    blocks = [{name: rng.standard_normal((rows, 6)) for name in ("embedding", "kl")} for rows in (20, 3)]
    blocks = [{name: block.astype(np.float32) for name, block in blocks_of.items()} for blocks_of in blocks]
    labels = [LABELS[at % 3] for at in range(20)]
    texts = [f"text {at}" for at in range(20)]
    train = open_source(write(tmp_path / "t.parquet", texts, labels), modality="text")
    test = open_source(write(tmp_path / "q.parquet", ["q", "r", "text 7"]), modality="text")
    store_of(tmp_path / "a", train, blocks[0])
    store_of(tmp_path / "b", test, blocks[1])
    words = ["demonstrations", tmp_path / "a", tmp_path / "b", "--train", tmp_path / "t.parquet"]
    words += ["--test", tmp_path / "q.parquet", "--out", tmp_path / "p.jsonl", "--json", "--k", "5"]
    status, out, err = run(*words, "--choose", "balanced", "--features", "kl, embedding", "--whiten", "4", "--pca", "3")
    assert status == 0
    note = "1 queries are also training rows, character by character; those rows are not shown"
    expected = {"out": str(tmp_path / "p.jsonl"), "prompts": 3, "blocks": ["kl", "embedding"], "notes": [note]}
    assert (json.loads(out), err) == (expected, note + "\n")
    combiner = Combination(("kl", "embedding"), 4, 3).fit(blocks[0])
    features = [combiner.transform(blocks_of) for blocks_of in blocks]
    wanted = demonstrations(features[0], texts, labels, features[1], ["q", "r", "text 7"], 5, "balanced")
    assert [line["prompt"] for line in lines(tmp_path)] == [prompt.prompt for prompt in wanted]
    assert [line["ids"] for line in lines(tmp_path)] == [[str(row) for row in prompt.rows] for prompt in wanted]
    assert [line["left_out"] for line in lines(tmp_path)] == [0, 0, 1]


def test_labels_have_the_stores_names_and_rows_without_one_are_left_out_and_said(run, stores):
    folder, words = stores
    features = {"label": {"_type": "ClassLabel", "names": ["ant", "bee", "cow"]}}
    named = pa.table({"text": TEXTS, "label": [1, 0, 0, None, -1]})
    named = named.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(named, folder / "train.parquet")
    shutil.rmtree(folder / "a")
    source = open_source(folder / "train.parquet", modality="text")
    store_of(folder / "a", source, {"embedding": circle(DEGREES)})
    (folder / "t.txt").write_text("{labels}:\n---\n{text}={label};\n---\n{text}=")
    status, _, err = run(*words, "--template", folder / "t.txt")
    assert (status, err) == (0, "left out, having no label: 2 training rows\n")
    first = lines(folder)[0]
    assert first["ids"] == ["1", "0", "2"]  # the third is in the first's place, and before it by its text
    assert first["prompt"] == "ant, bee, cow:\nsixty=ant;\nzero=bee;\nbroken=ant;\nat zero="


@pytest.mark.parametrize(
    "options", [{"limit": 3}, {"label_column": "", "sample_column": "other"}, {"id_column": "key"}]
)
def test_sources_are_opened_as_the_store_was_made(run, tmp_path, options):
    columns = {"text": list("abcdef"), "other": list("uvwxyz"), "key": [f"k{at}" for at in range(6)], "label": [1] * 6}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    train = open_source(tmp_path / "t.parquet", modality="text", **{**options, "label_column": None})
    test = Sampled(open_source(tmp_path / "t.parquet", modality="text", **options), 2, seed=3)
    store_of(tmp_path / "a", train, {"embedding": circle(np.arange(len(train)))})
    store_of(tmp_path / "b", test, {"embedding": circle([0.2, 1.2])})
    words = ["demonstrations", tmp_path / "a", tmp_path / "b", "--train", tmp_path / "t.parquet"]
    assert run(*words, "--test", tmp_path / "t.parquet", "--out", tmp_path / "p.jsonl", "--k", "2")[0] == 0
    rows = list(test.rows())
    assert [line["id"] for line in lines(tmp_path)] == [row.id for row in rows]
    assert [line["query"] for line in lines(tmp_path)] == [row.sample for row in rows]
    texts = {row.id: row.sample for row in train.rows()}
    for line in lines(tmp_path):
        shown = "".join(f"Text: {texts[row_id]}\nLabel: 1\n\n" for row_id in line["ids"])
        assert line["prompt"] == f"{shown}Text: {line['query']}\nLabel:"


def test_class_folders_of_texts_are_read_and_may_have_moved(run, tmp_path):
    for name in ("good/1.txt", "good/2.txt", "bad/3.txt"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {path.stem}")
    source = open_source(tmp_path / "texts", modality="text")
    store_of(tmp_path / "a", source, {"embedding": circle([0.0, 60.0, 90.0])})
    (tmp_path / "texts").rename(tmp_path / "moved")
    words = ["demonstrations", tmp_path / "a", tmp_path / "a", "--train", tmp_path / "moved"]
    assert run(*words, "--test", tmp_path / "moved", "--k", "1", "--out", tmp_path / "p.jsonl")[0] == 0
    assert lines(tmp_path)[0]["prompt"] == "Text: this is 1\nLabel: good\n\nText: this is 3\nLabel:"
    assert [line["left_out"] for line in lines(tmp_path)] == [1, 1, 1]  # its own text is never shown


# Refusals


def test_another_source_than_the_stores_is_refused_by_what_differs(run, stores):
    folder, words = stores
    write(folder / "train.parquet", [*TEXTS[:4], "a half turn"], LABELS)
    status, _, err = run(*words)
    assert status == 2
    assert (
        f"'{folder / 'train.parquet'}' is not what {folder / 'a'} was made of: give the source 'train.parquet'" in err
    )
    write(folder / "train.parquet", TEXTS[:4], LABELS[:4])
    status, _, err = run(*words)
    assert (status, "source.rows: the store has 5, it has 4" in err) == (2, True)
    pq.write_table(pa.table({"sentence": TEXTS}), folder / "train.parquet")
    status, _, err = run(*words)
    assert (
        status,
        f"was made from 'train.parquet' (parquet); '{folder / 'train.parquet'}' cannot be opened so: " in err,
    ) == (2, True)
    assert "no column 'text'" in err
    assert not (folder / "p.jsonl").exists()


@pytest.mark.parametrize(
    ("more", "status", "complaint"),
    [
        (["--choose", "best"], 2, "'--choose': 'best' is not one of 'nearest', 'balanced'"),
        (["--order", "any"], 2, "'--order': 'any' is not one of 'nearest_last', 'nearest_first'"),
        (["--k", "0"], 2, "--k"),
        (["--features", "dino"], 2, "no block 'dino'"),
        (["--template", "BROKEN"], 2, "{colour}"),
        (["--template", "NOWHERE"], 2, "--template: there is no"),
        (["--train-split", "train"], 2, "is one file"),
        (["--out", "BELOW_A_FILE"], 2, "is a file"),
    ],
)
def test_misuse_is_refused_with_a_reason(run, stores, more, status, complaint):
    folder, words = stores
    (folder / "broken.txt").write_text("{text} {label} {colour}\n---\n{text}")
    (folder / "file").write_text("")
    places = {"BROKEN": folder / "broken.txt", "NOWHERE": folder / "nowhere"}
    places["BELOW_A_FILE"] = folder / "file" / "nowhere"
    seen, out, err = run(*words, *(places.get(word, word) for word in more))
    assert (seen, out) == (status, "")
    assert complaint in err
    assert "Traceback" not in err
    assert not (folder / "p.jsonl").exists()


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_stores_without_texts_are_refused(run, stores, modality):
    folder, words = stores
    for name, degrees in (("a", DEGREES), ("b", [0.0, 80.0])):
        shutil.rmtree(folder / name)
        source = open_source(words[4 if name == "a" else 6], modality="text")
        store_of(folder / name, source, {"embedding": circle(degrees)}, modality=modality)
    status, _, err = run(*words)
    assert status == 1
    assert f"{folder / 'a'} was made by a backbone for {modality}; give a store of texts" in err


def test_stores_of_lists_and_stores_that_do_not_go_together_are_refused(run, stores):
    folder, words = stores
    store_of(folder / "c", ListSource(TEXTS, labels=LABELS), {"embedding": circle(DEGREES)})
    status, _, err = run(words[0], folder / "c", *words[2:])
    assert (status, "was made of a list in memory; use sporeprint.demonstrations" in err) == (1, True)
    store_of(folder / "d", open_source(words[6], modality="text"), {"embedding": circle([0.0, 9.0])}, modality="image")
    status, _, err = run(*words[:2], folder / "d", *words[3:])
    assert (status, "holds texts" in err and "images: they cannot be compared" in err) == (1, True)


def test_a_training_store_needs_one_label_a_row(run, stores):
    folder, words = stores
    for labels, complaint in ((None, "has no labels"), ([["a"], ["b"], [], ["c"], ["b", "c"]], "lists of labels")):
        train = write(folder / "train.parquet", TEXTS, labels)
        shutil.rmtree(folder / "a")
        store_of(folder / "a", open_source(train, modality="text"), {"embedding": circle(DEGREES)})
        status, _, err = run(*words)
        assert (status, complaint in err) == (1, True)


def test_the_template_is_public():
    assert Template("{text}{label}", "{text}").prompt([("t", "l")], "q", ["l"]) == "tlq"
