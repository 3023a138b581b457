import gzip
import io
import json
import os
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sporeprint.data.audio import Clip, load_audio
from sporeprint.data.formats import ParquetTable
from sporeprint.data.sources import ListSource, open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError, SourceError

SHARED = Path(__file__).parents[3] / "shared"
TEXTS = ["How far is it?", "cats/1.png", "naïve 東京", "How far is it?"]
LABELS = ["NUM", "ENTY", "LOC", "NUM"]


def parquet(path, features=None, **columns):
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=3)
    return path


def saved(folder, **columns):
    """As `datasets` saves it."""
    folder.mkdir()
    table = pa.table(columns)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def columns(source):
    chosen = source.describe()["columns"]
    return chosen["sample"], chosen["label"]


# texts


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "saved"])
def test_a_table_of_texts_gives_the_strings_themselves_though_they_look_like_paths(tmp_path, kind):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").write_bytes(b"no text")
    if kind == "parquet":
        path = parquet(tmp_path / "t.parquet", text=TEXTS, label=LABELS)
    elif kind == "saved":
        path = saved(tmp_path / "s", text=TEXTS, label=LABELS)
    elif kind == "jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)]
        path = write(tmp_path / "t.jsonl", "\n".join(lines))
    else:
        between = "," if kind == "csv" else "\t"
        rows = [("text", "label"), *zip(TEXTS, LABELS, strict=True)]
        path = write(tmp_path / f"t.{kind}", "".join(between.join(row) + "\n" for row in rows))
    source = open_source(path, modality="text")
    rows = list(source.rows())
    assert [load_text(row.sample) for row in rows] == TEXTS
    assert [row.label for row in rows] == LABELS
    assert [row.id for row in rows] == ["0", "1", "2", "3"]  # equal texts are rows of their own
    assert source.label_names is None
    assert list(source.rows(2)) == rows[2:]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sentence": ["a"], "other": ["b"], "label": [1]}, ("sentence", "label")),
        ({"title": ["a"], "text": ["b"]}, ("text", None)),
        ({"utterance": ["a"], "n": [1], "target": ["x"]}, ("utterance", "target")),  # the only one that is no label
        ({"label": ["a"], "utterance": ["b"]}, ("utterance", "label")),
        ({"text": [7], "utterance": ["b"]}, ("utterance", None)),  # a number is not a text, whatever its name
        ({"image": [b"x"], "caption": ["b"]}, ("caption", None)),
        ({"utterance": pa.array(["a"], pa.large_string()), "class": [0]}, ("utterance", "class")),
        ({"utterance": ["a"], "intent": pa.array(["x"]).dictionary_encode()}, ("utterance", None)),
    ],
)
def test_the_column_of_texts_is_found_by_type_and_name(tmp_path, given, expected):
    assert columns(open_source(parquet(tmp_path / "t.parquet", **given), modality="text")) == expected


def test_several_columns_of_texts_are_asked_for_but_not_those_that_an_option_names(tmp_path):
    path = parquet(tmp_path / "t.parquet", left=["a"], right=["b"], intent=["x"], key=["k"])
    with pytest.raises(SourceError, match=r"several sample columns, \['left', 'right', 'intent', 'key'\]; choose one"):
        open_source(path, modality="text")
    with pytest.raises(
        SourceError, match=r"several sample columns, \['left', 'right'\]; choose one \(sample_column, --"
    ):
        open_source(path, modality="text", label_column="intent", id_column="key")
    source = open_source(path, modality="text", sample_column="right", label_column="intent", id_column="key")
    (row,) = source.rows()
    assert (row.id, row.sample, row.label) == ("k", "b", "x")
    path = parquet(tmp_path / "u.parquet", utterance=["a"], intent=["x"])
    assert columns(open_source(path, modality="text", label_column="intent")) == ("utterance", "intent")
    path = parquet(tmp_path / "v.parquet", title=["a"], body=["x"])
    assert columns(open_source(path, modality="text", label_column="title")) == ("body", "title")


def test_features_tell_texts_from_classes(tmp_path):
    features = {
        "text": {"_type": "Value", "dtype": "string"},
        "coarse": {"_type": "ClassLabel", "names": ["u", "v"]},
        "label-text": {"_type": "Value", "dtype": "string"},
    }
    path = parquet(tmp_path / "t.parquet", features, **{"label-text": ["v"], "coarse": [1], "text": ["a"]})
    source = open_source(path, modality="text")
    assert columns(source) == ("text", "coarse")
    assert source.label_names == ["u", "v"]


def test_a_table_without_texts_lists_its_columns(tmp_path):
    path = parquet(tmp_path / "t.parquet", image=[b"x"], label=["cat"])
    with pytest.raises(SourceError, match=r"no column of texts; .*: image \(binary\), label \(string\); if they hold"):
        open_source(path, modality="text")
    path = parquet(tmp_path / "u.parquet", text=["x"], label=["cat"])
    for modality, kind in (("image", "images"), ("audio", "sound")):
        with pytest.raises(SourceError, match=rf"no column of {kind}; .*: text \(string\), label \(string\)"):
            open_source(path, modality=modality)


def test_an_empty_cell_costs_its_own_row_only(tmp_path):
    write(tmp_path / "t.csv", 'text,label\nfine,x\n,x\n"  ",x\nalso fine,y\n')
    rows = list(open_source(tmp_path / "t.csv", modality="text").rows())
    for row, reason in zip(rows[1:3], ("empty cell", "nothing but whitespace"), strict=True):
        with pytest.raises(SampleError, match=reason):
            load_text(row.sample)
    assert [load_text(rows[at].sample) for at in (0, 3)] == ["fine", "also fine"]


def test_class_folders_of_text_files(tmp_path):
    write(tmp_path / "pos" / "2.txt", "good")
    write(tmp_path / "neg" / "1.TXT", "bad")
    write(tmp_path / "README.md", "no sample")
    source = open_source(tmp_path, modality="text")
    assert [(row.id, load_text(row.sample), row.label) for row in source.rows()] == [
        ("neg/1.TXT", "bad", "neg"),
        ("pos/2.txt", "good", "pos"),
    ]
    assert (source.describe()["modality"], source.describe()["ignored_files"]) == ("text", 1)


@pytest.mark.parametrize(
    ("sample", "label"),
    [("Text", "Label"), ("Message", "Category"), (" text", " class"), ("Review", "y"), ("comment", "TARGET")],
)
def test_columns_are_found_whatever_their_case_and_blanks(tmp_path, sample, label):
    write(tmp_path / "t.csv", f"other,{label},{sample}\na,b,c\n")
    columns = open_source(tmp_path / "t.csv", modality="text").describe()["columns"]
    assert columns == {"sample": sample, "label": label, "id": None}


def test_a_column_of_the_very_name_comes_first(tmp_path):
    write(tmp_path / "t.csv", "Text,text,TEXT\na,b,c\n")
    assert open_source(tmp_path / "t.csv", modality="text").describe()["columns"]["sample"] == "text"


def test_labels_that_are_not_found_or_may_be_lists_are_said(tmp_path):
    write(tmp_path / "t.csv", "id,text,mood\n1,a,b;c\n2,d,e|f\n3,g,\n")
    path = tmp_path / "t.csv"
    assert open_source(path, modality="text", id_column="id").notes() == [
        "no labels: no column is named label, labels, class, target, category, y; others (--label-column): mood"
    ]
    assert open_source(path, modality="text", label_column="").notes() == []
    (note,) = open_source(path, modality="text", label_column="mood").notes()
    assert note.startswith("labels such as 'b;c' are taken as one label each; for several labels a row write lists, ")
    write(path, "text,label\na,\"['x', 'y']\"\nb,z\n")
    assert open_source(path, modality="text").notes() == []
    assert len(open_source(path, modality="text", limit=1).notes()) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_compressed_tables_are_read_as_they_are(tmp_path, name):
    text = {".csv": "text,label\na,b\n", ".tsv": "text\tlabel\na\tb\n"}.get(name[1:], '{"text": "a", "label": "b"}\n')
    packed = gzip.compress(text.encode())
    (tmp_path / f"{name}.gz").write_bytes(packed)
    (row,) = open_source(tmp_path / f"{name}.gz", modality="text").rows()
    assert (row.sample, row.label) == ("a", "b")
    (tmp_path / f"{name}.gz").write_bytes(packed[:-9])
    with pytest.raises(SourceError, match=r"cannot be read as .*: Compressed file ended before"):
        open_source(tmp_path / f"{name}.gz", modality="text")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("t.xlsx", "save the sheet as CSV in UTF-8"),
        ("t.zip", "unpack it, and give the folder or the table"),
        ("t.parquet.gz", "unpack it"),
        ("t.pkl", "can run code: write a Parquet file"),
        ("t.h5", "write a Parquet file"),
        ("t.txt", "where each line is a text, a CSV or JSON lines file with a column 'text'"),
        ("t.xyz", "known are .parquet, .csv, .tsv, .jsonl, .ndjson, .json, .arrow, and .csv.gz"),
    ],
)
def test_what_is_no_table_says_what_to_do(tmp_path, name, advice):
    write(tmp_path / name, "x")
    with pytest.raises(SourceError, match=r"is not a table that sporeprint reads; ") as caught:
        open_source(tmp_path / name, modality="text")
    assert advice in str(caught.value)


def test_tables_in_a_folder_are_named_and_opened_by_their_split(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / "a" / f"{split}.csv", f"text,label\n{split},b\n")
        write(tmp_path / "b" / "data" / f"{split}.jsonl", f'{{"text": "{split}"}}\n')
    with pytest.raises(SourceError, match=r"for a table give its path: 'test.csv', 'train.csv'"):
        open_source(tmp_path / "a", modality="text")
    for folder in ("a", "b"):
        (row,) = open_source(tmp_path / folder, split="train", modality="text").rows()
        assert row.sample == "train"


def test_every_plain_text_suffix_is_a_row_but_a_readme_about_the_folder(tmp_path):
    for name in ("Readme.txt", "README.md", "a.md", "a.text", "a.rst", "deep/README.md"):
        write(tmp_path / name, "words")
    source = open_source(tmp_path, modality="text")
    assert [row.id for row in source.rows()] == ["a.md", "a.rst", "a.text", "deep/README.md"]
    assert source.notes()[0].startswith("without a label, being in no class folder: 3 files, 'a.md', ")
    assert source.notes()[-1].startswith("passed over: 2 files: 1 .md (about the folder), 1 .txt (about the folder); ")


def test_a_folder_of_another_modality_says_what_it_holds(tmp_path):
    write(tmp_path / "a" / "1.txt", "x")
    write(tmp_path / "a" / "2.txt", "x")
    write(tmp_path / "a" / "3.pdf", "x")
    with pytest.raises(
        SourceError,
        match=r"no image \(3 files: 2 .txt \(text\), 1 .pdf \(text\); for text files use",
    ):
        open_source(tmp_path)
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "1.PNG", "x")
    with pytest.raises(
        SourceError,
        match=r"no text \(1 file: 1 .png .*; for image files .*\); expected .* .txt,",
    ):
        open_source(tmp_path / "b", modality="text")


def test_the_digest_of_texts_follows_their_content_and_no_time(tmp_path):
    path = write(tmp_path / "t.csv", "text\n1.txt\n")
    named = write(tmp_path / "1.txt", "x")
    first = open_source(path, modality="text").digest()
    as_paths = open_source(path, modality="image", sample_column="text").digest()
    os.utime(path, ns=(1, 1))
    named.write_text("longer")
    assert open_source(path, modality="text").digest() == first
    assert open_source(path, modality="image", sample_column="text").digest() != as_paths
    assert as_paths != first
    write(path, "text\n2.txt\n")
    assert open_source(path, modality="text").digest() != first


def test_the_digest_of_a_folder_of_texts_follows_their_content_and_no_time(tmp_path):
    for name in ("a/1.txt", "b/2.txt"):
        write(tmp_path / "p" / name, "same length")
    first = open_source(tmp_path / "p", modality="text").digest()
    os.utime(tmp_path / "p/a/1.txt", ns=(1, 1))
    assert open_source(tmp_path / "p", modality="text").digest() == first
    status = os.stat(tmp_path / "p/b/2.txt")
    write(tmp_path / "p/b/2.txt", "SAME LENGTH")
    os.utime(tmp_path / "p/b/2.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = open_source(tmp_path / "p", modality="text").digest()
    assert changed != first
    assert open_source(tmp_path / "p", modality="text", limit=1).digest() not in (first, changed)
    (tmp_path / "p/b/2.txt").rename(tmp_path / "p/b/3.txt")
    assert open_source(tmp_path / "p", modality="text").digest() not in (first, changed)


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"text": ["a"]}, {"id_column": "text"}, "no column of texts but 'text', its id_column; leave that out"),
        (
            {"text": ["a"], "tag": ["b"], "n": [1], "label": [2]},
            {"id_column": "text", "label_column": "tag"},
            "but 'tag', its label_column and 'text', its id_column; choose one (sample_column, --sample-column) of: n ",
        ),
        (
            {"n": [1], "m": [2]},
            {"id_column": "n"},
            "texts; choose one (sample_column, --sample-column) of: n (int64), m (int64); if",
        ),
    ],
)
def test_a_column_of_texts_that_an_option_takes_is_said_and_not_offered(tmp_path, table, options, message):
    path = parquet(tmp_path / "t.parquet", **table)
    with pytest.raises(SourceError) as caught:
        open_source(path, modality="text", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("form", ["parquet", "saved", "jsonl"])
def test_a_tables_digest_follows_the_files_that_its_structs_name_and_no_others(tmp_path, form):
    named, held = {"bytes": None, "path": "x.wav"}, {"bytes": b"RIFF", "path": "y.wav"}
    if form == "jsonl":
        rows = [{"path": "x.wav"}, {"array": [0.5], "sampling_rate": 8000, "path": "y.wav"}]
        path = write(tmp_path / "t.jsonl", "".join(json.dumps({"audio": row}) + "\n" for row in rows))
    else:
        table = parquet(tmp_path / "t.parquet", audio=[held, named])
        path = table if form == "parquet" else saved(tmp_path / "s", audio=[held, named])
    folder = path if form == "saved" else tmp_path
    for name in ("x.wav", "y.wav"):
        write(folder / name, "first")
    first = open_source(path, modality="audio").digest()
    write(folder / "y.wav", "another sound")
    assert open_source(path, modality="audio").digest() == first
    write(folder / "x.wav", "another sound")
    assert open_source(path, modality="audio").digest() != first
    alone = open_source(path, modality="audio", limit=1).digest()
    write(folder / "x.wav", "a third sound")
    assert (open_source(path, modality="audio", limit=1).digest() == alone) == (form != "jsonl")


def test_the_digest_of_a_table_whose_structs_hold_everything_is_as_it_ever_was(tmp_path):
    path = parquet(tmp_path / "t.parquet", audio=[{"bytes": b"RIFF", "path": "x.wav"}], label=["a"])
    data, chosen = path.read_bytes(), json.dumps(["parquet", "audio", "label", "", None])
    known = blake2b(f"{chosen}\n{len(data)}\n".encode() + data, digest_size=16).hexdigest()
    assert open_source(path, modality="audio").digest() == known


@pytest.mark.parametrize("groups", [1, 2])
def test_statistics_say_that_structs_hold_everything_so_that_no_sample_is_decoded(tmp_path, monkeypatch, groups):
    rows = [{"bytes": b"RIFF", "path": "x.wav"}, {"bytes": b"RIFF", "path": None}]
    path = parquet(tmp_path / "t.parquet", audio=rows)
    pq.write_table(pq.read_table(path), path, row_group_size=2 // groups)
    source = open_source(path, modality="audio")
    monkeypatch.setattr(ParquetTable, "values", lambda *_: pytest.fail("a sample was decoded"))
    assert len(source.digest()) == 32
    for row in rows:
        lacking = [other | {"bytes": None} if other is row else other for other in rows]
        pq.write_table(pa.table({"audio": lacking}), path, row_group_size=2 // groups)
        assert not ParquetTable([path]).holds_all("audio.bytes")
    pq.write_table(pa.table({"audio": rows}), path, write_statistics=False)
    assert not ParquetTable([path]).holds_all("audio.bytes")
    assert not ParquetTable([path]).holds_all("audio.array")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_among_texts_is_digested_without_waiting(tmp_path):
    write(tmp_path / "1.txt", "x")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    source = open_source(tmp_path, modality="text")
    assert len(source.digest()) == 32
    for row in list(source.rows())[1:]:
        with pytest.raises(SampleError):
            load_text(row.sample)


# sound


def sound(seconds=0.1, rate_hz=8000, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate_hz)).astype(np.float32)


def encoded(kind="WAV", **options):
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(**options), 8000, format=kind)
    return buffer.getvalue()


def test_class_folders_of_sound(tmp_path):
    for name in ("dog/1.wav", "dog/2.FLAC", "cat/3.ogg", "cat/4.mp3", "cat/5.txt", "dog/cover.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(path.suffix[1:].upper()) if path.suffix not in (".txt", ".jpg") else b"x")
    source = open_source(tmp_path, modality="audio")
    assert [(row.id, row.label) for row in source.rows()] == [
        ("cat/3.ogg", "cat"),
        ("cat/4.mp3", "cat"),
        ("dog/1.wav", "dog"),
        ("dog/2.FLAC", "dog"),
    ]
    assert all(load_audio(row.sample).rate_hz == 8000 for row in source.rows())
    assert source.describe()["ignored_files"] == 2
    assert len(open_source(tmp_path, modality="text")) == 1
    assert len(open_source(tmp_path)) == 1


AUDIO = {"_type": "Audio"}
DIGIT = {"_type": "ClassLabel", "names": ["zero", "one"]}
SPEAKER = {"_type": "ClassLabel", "names": ["ann", "bob"]}


def test_audio_structs_are_found_by_feature_and_among_two_classes_the_label_is_called_so(tmp_path):
    structs = [{"bytes": encoded(seed=seed), "path": f"{seed}.wav"} for seed in range(3)]
    features = {"speaker": SPEAKER, "clip": AUDIO, "other": {"_type": "Value"}, "label": DIGIT}
    given = {"speaker": [1, 1, 0], "clip": structs, "other": [b"x"] * 3, "label": [0, 1, -1]}
    path = parquet(tmp_path / "t.parquet", features, **given)
    source = open_source(path, modality="audio")
    assert columns(source) == ("clip", "label")
    assert (source.label_names, [row.label for row in source.rows()]) == (["zero", "one"], [0, 1, None])
    for seed, row in enumerate(source.rows()):
        np.testing.assert_allclose(load_audio(row.sample).samples, sound(seed=seed), atol=1e-4)
    source = open_source(path, modality="audio", label_column="speaker")
    assert (source.label_names, [row.label for row in source.rows()]) == (["ann", "bob"], [1, 1, 0])
    with pytest.raises(SourceError, match=r"no column of texts; .* clip \(struct"):
        open_source(path, modality="text")
    with pytest.raises(SourceError, match=r"no column 'singer'; its columns: speaker \(int64\), clip"):
        open_source(path, modality="audio", label_column="singer")


def test_two_classes_of_other_names_are_asked_for(tmp_path):
    structs = [{"bytes": b"x", "path": None}]
    features = {"audio": AUDIO, "digit": DIGIT, "speaker": SPEAKER}
    path = parquet(tmp_path / "t.parquet", features, audio=structs, digit=[0], speaker=[1])
    with pytest.raises(SourceError, match=r"several label columns, \['digit', 'speaker'\]"):
        open_source(path, modality="audio")


def test_a_table_names_sound_files_beside_it_and_its_digest_follows_them(tmp_path):
    (tmp_path / "clips").mkdir()
    clip = tmp_path / "clips" / "1.wav"
    clip.write_bytes(encoded())
    path = write(tmp_path / "t.csv", "file,label\nclips/1.wav,x\nclips/2.wav,y\n")
    source = open_source(path, modality="audio")
    rows = list(source.rows())
    np.testing.assert_allclose(load_audio(rows[0].sample).samples, sound(), atol=1e-4)
    with pytest.raises(SampleError, match=r"2\.wav"):
        load_audio(rows[1].sample)
    before = source.digest()
    clip.write_bytes(encoded(seconds=0.2))
    assert open_source(path, modality="audio").digest() != before


def test_categories_of_paths_are_paths_whose_files_are_digested(tmp_path):
    clip = tmp_path / "1.wav"
    clip.write_bytes(encoded())
    path = parquet(tmp_path / "t.parquet", file=pa.array(["1.wav"]).dictionary_encode())
    source = open_source(path, modality="audio")
    assert len(load_audio(next(source.rows()).sample).samples) == 800
    before = source.digest()
    clip.write_bytes(encoded(seconds=0.2))
    assert open_source(path, modality="audio").digest() != before


# lists


def test_lists_of_texts_and_of_sound_have_a_digest():
    clip = sound()
    kinds = [
        ["a text", "a text" * 1000, "nul \0", "lone \ud800"],
        [(clip, 8000), (clip, 16000), (clip[1:], 8000)],
        [Clip(clip, 8000), Clip(clip, None), Clip(clip[1:], 8000)],
        [{"array": clip, "sampling_rate": 8000}, {"array": clip, "sampling_rate": 16000}],
    ]
    digests = [ListSource([sample]).digest() for samples in kinds for sample in samples]
    assert len(set(digests)) == len(digests) == 12
    assert ListSource([(clip.copy(), 8000)]).digest() == ListSource([(clip, 8000)]).digest()
    assert ListSource([Clip(clip.copy(), 8000)]).digest() == ListSource([Clip(clip, 8000)]).digest()


# real data


@pytest.mark.real
@pytest.mark.parametrize(("name", "count", "classes"), [("trec", 5452, 6), ("banking77", 10003, 77)])
def test_real_tables_of_texts_are_understood(name, count, classes):
    source = open_source(SHARED / f"data/{name}/train.parquet", modality="text")
    assert columns(source) == ("text", "label")
    assert (len(source), len(source.label_names)) == (count, classes)
    rows = list(source.rows())
    assert {row.label for row in rows} == set(range(classes))
    assert all(load_text(row.sample) for row in rows)


@pytest.mark.real
def test_a_real_table_of_sound_has_two_labels():
    path = SHARED / "data/spoken_digits/train.parquet"
    source = open_source(path, modality="audio")
    assert columns(source) == ("audio", "label")
    assert {row.label for row in source.rows()} == set(range(10))
    assert {load_audio(row.sample).rate_hz for row in list(source.rows())[::100]} == {8000}
    other = open_source(path, modality="audio", label_column="speaker")
    assert (len(other.label_names), {row.label for row in other.rows()}) == (6, set(range(6)))
    assert other.digest() != source.digest()
    with pytest.raises(SourceError, match="no column of images"):
        open_source(path)
