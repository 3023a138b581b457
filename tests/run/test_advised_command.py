"""Where `compare` advises other features than `classify` chooses, its note has the command that gives them."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_blocks import classed_blocks
from small_stores import store_of
from sporeprint.data.sources import open_source
from sporeprint.evaluate.choice.candidates import ALL
from sporeprint.evaluate.choice.verdict import pair
from sporeprint.run.advised_command import classify_note
from sporeprint.run.compare_stores import compare_stores
from sporeprint.run.store_source import Rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training store whose layer tells classes apart, and a test store whose layer does not."""
    folder = tmp_path_factory.mktemp("stores")
    for name, rows, seed, layer in (("train", 60, 0, 3.0), ("test", 45, 9, 0.0)):
        blocks, labels = classed_blocks(rows, seed, ("embedding", "cls-2"), **{"embedding": 1.2, "cls-2": layer})
        path = folder / f"{name}.parquet"
        labels = np.array([*"xyz"])[labels]
        pq.write_table(pa.table({"text": [f"{name} {at}" for at in range(rows)], "label": labels}), path)
        store_of(folder / name, open_source(path, modality="text"), blocks)
    return folder


@pytest.fixture(scope="module")
def compared(folder):
    return compare_stores(Rows(folder / "train"), Rows(folder / "test"))


def note_of(compared, folder, advised=None, test="test", **columns):
    rows = [None if name is None else Rows(folder / name, folder / f"{name}.parquet") for name in ("train", test)]
    return " ".join(classify_note(compared, advised or compared.advised, *rows, **columns))


def answered(run, words, tmp_path):
    words = [tmp_path / "p.csv" if word == "predictions.csv" else word for word in words]
    status, out, err = run(*words, "--json")
    assert status == 0, err
    return json.loads(out)["accuracy"]


def test_the_command_gives_what_is_advised_and_classify_alone_another(run, folder, tmp_path, compared):
    own = compared.entry(ALL)
    assert compared.verdict.startswith("Use the embedding")
    (note,) = [note for note in compared.notes if "sporeprint classify" in note]
    chooses, command = note.split("; for ")
    assert chooses == f"`sporeprint classify` alone takes the training rows' choice, {pair(own)}"
    words, command = command.split(": ", 1)
    assert words == pair(compared.advised)
    sporeprint, *words = shlex.split(command)
    assert (sporeprint, answered(run, words, tmp_path)) == ("sporeprint", compared.advised.value.value)
    assert answered(run, words[:5], tmp_path) == own.value.value != compared.advised.value.value


def test_where_both_take_the_same_there_is_no_command(folder, compared):
    assert note_of(compared, folder, compared.entry(ALL)) == ""


def test_of_some_blocks_the_command_names_them_and_the_columns_go_with_it(folder, compared):
    some = replace(compared, analysis=replace(compared.analysis, blocks={"embedding": None}))
    note = note_of(some, folder, some.entry("embedding, white 0.5"), label_column="label", group_column="text")
    assert note.startswith("`sporeprint classify` alone chooses among all blocks of the store; for the embedding, ")
    sources = f"--train {folder / 'train.parquet'} --test {folder / 'test.parquet'} --label-column label"
    assert f"{sources} --group-column text --features embedding --whiten auto --exponent 0.5 --predictor " in note


def test_without_a_test_store_the_command_saves_a_model(folder, compared):
    note = note_of(compared, folder, test=None)
    assert f"sporeprint classify {folder / 'train'} --save model --features embedding" in note
