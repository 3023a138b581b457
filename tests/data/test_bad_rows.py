"""One bad row costs one row, whatever is wrong with it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sporeprint.data import formats, text_tables
from sporeprint.data.audio import load_audio
from sporeprint.data.files import CellPath
from sporeprint.data.images import load_image
from sporeprint.data.parquet_footer import chunks_of
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import Point, number_labels, read_points
from sporeprint.data.scenes.masks import read_mask
from sporeprint.data.scenes.scenes import find_classes, open_scenes, read_scene
from sporeprint.data.sources import ListSource, open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import SampleError, SourceError


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def reason(sample: object, load=load_text) -> str | None:
    """Why a sample cannot be read, None where it can."""
    try:
        load(sample)
    except SampleError as error:
        return str(error)
    return None


def outcome(path: Path, **options: object) -> list[tuple[str, str | None, object]]:
    """Id, text (None where it fails) and label of each row."""
    rows = open_source(path, modality="text", **options).rows()
    return [(row.id, row.sample if reason(row.sample) is None else None, row.label) for row in rows]


def reasons(path: Path, **options: object) -> list[str | None]:
    return [reason(row.sample) for row in open_source(path, modality="text", **options).rows()]


@pytest.mark.parametrize("load", [load_text, load_image, load_audio, read_mask])
def test_a_reason_in_the_place_of_a_sample_is_raised(load):
    with pytest.raises(SampleError, match="the reason"):
        load(SampleError("the reason"))


# CSV


CSV_ROWS = {
    "a value more": ("a,x,y", "line 3: 3 values; the first line has 2"),
    "a value less": ("a", "line 3: 1 values; the first line has 2"),
    "Latin-1": (
        b"caf\xe9,x",
        r"column 'text' is not Unicode text \(a byte that is not UTF-8 at character 3\); "
        r"its encoding is not UTF-8, perhaps Latin-1 or Windows-1252: convert it \(iconv -f cp1252 -t utf-8 ",
    ),
    "Latin-1 in the label": (b"a,caf\xe9", r"column 'label' is not Unicode text \(a byte that"),
    "no text": (",x", "empty cell"),
    "an open quote": ('"a,x', "line 3: a quote is not closed"),
    "an open quote in the label": ('a,"x', "line 3: a quote is not closed"),
}


@pytest.mark.parametrize("name", CSV_ROWS)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_bad_row_of_a_csv_costs_itself(tmp_path, name, after):
    row, expected = CSV_ROWS[name]
    content = [b"text,label", b"first,x", row if isinstance(row, bytes) else row.encode()]
    (tmp_path / "t.csv").write_bytes(b"\n".join([*content, *([b"next,y"] * after), b""]))
    assert outcome(tmp_path / "t.csv") == [
        ("0", "first", "x"),
        ("1", None, "x" if name in ("no text", "Latin-1") else None),
        *((str(2 + number), "next", "y") for number in range(after)),
    ]
    assert re.search(expected, reasons(tmp_path / "t.csv")[1])


def test_a_quote_that_closes_in_a_later_row_takes_no_row_with_it(tmp_path):
    path = lines(tmp_path / "t.csv", "text,label", '"open,x', '"whole",y', "plain,z", '"two\nlines",w')
    assert outcome(path) == [("0", None, None), ("1", "whole", "y"), ("2", "plain", "z"), ("3", "two\nlines", "w")]


def test_a_row_over_several_lines_with_a_value_too_many_is_one_row(tmp_path):
    path = lines(tmp_path / "t.csv", "text,label", '"a\nb",x,y', "c,z")
    assert outcome(path) == [("0", None, None), ("1", "c", "z")]


@pytest.mark.parametrize("limit", [10, 131_072])
def test_a_long_field_is_read_whatever_limit_the_process_has_set_and_leaves_it(tmp_path, limit):
    path = lines(tmp_path / "t.csv", "text,label", f"{'word ' * 28_000},a", "b,c")
    before = csv.field_size_limit(limit)
    try:
        assert [len(text) for _, text, _ in outcome(path)] == [140_000, 1]
        assert csv.field_size_limit() == limit
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_beyond_the_bound_costs_its_row_and_is_never_held(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(text_tables, "LONGEST", 100_000)
    long = "x" * 20_000_000
    if kind == "csv":
        path = lines(tmp_path / "t.csv", "text,label", "a,x", f"{long},y", f'"{long}",y', "b,z")
    else:
        rows = ({"text": text, "label": label} for text, label in [("a", "x"), (long, "y"), (long, "y"), ("b", "z")])
        path = lines(tmp_path / "t.jsonl", *rows)
    tracemalloc.start()
    rows = outcome(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [("0", "a", "x"), ("1", None, None), ("2", None, None), ("3", "b", "z")]
    assert "has more than 100,000 characters" in reasons(path)[1]
    assert peak < 5_000_000


def test_a_row_of_many_lines_beyond_the_bound_costs_its_lines_only(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "LONGEST", 1000)
    path = lines(tmp_path / "t.csv", "text,label", '"open,x', *["row,y"] * 400)
    assert outcome(path) == [("0", None, None), *((str(at), "row", "y") for at in range(1, 401))]


def test_an_open_quote_before_many_short_lines_holds_no_more_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "LONGEST", 500_000)
    path = lines(tmp_path / "t.csv", "text,label", '"open,x', *["a,b"] * 100_000)
    assert largest_held(lambda: open_source(path, modality="text")) < 3_000_000


LINES = [
    *("a,b", "", " ", ",", "a", 'a"b,c', '"a"b,c', '"a,b"', '"a ""b"" c",d', '"', '""', '"a', 'b"', 'a"b,"c', "a,\0"),
    *('x\x0by,"\x85"', "a\tb", "'a,b'", "\\,b", '"a"\t"b"', '"a" ,b', ' "a",b'),
]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="csv takes zero bytes from Python 3.11 on")
@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_on_one_line_is_what_csv_reads(separator, end):
    for line in LINES:
        expected = next(csv.reader([line + end], delimiter=separator))
        try:
            next(csv.reader([line + end], delimiter=separator, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue  # a quote is open: not one line
        assert next(text_tables._csv_rows(iter([line + end, "next,row\n"]), separator)) == (1, expected)


@pytest.mark.parametrize("labels", [["a", "b"], [1, 2], [1.5, None], [True, False]])
def test_a_jsonl_file_whose_labels_are_of_one_type_is_read_once_when_it_is_opened(tmp_path, monkeypatch, labels):
    read = []
    monkeypatch.setattr(text_tables, "parse_json", lambda text, **hooks: read.append(text) or json.loads(text, **hooks))
    path = lines(tmp_path / "t.jsonl", *({"text": "a", "label": label} for label in labels))
    assert len(open_source(path, modality="text")) == len(read) == 2


def test_quotes_that_never_match_end_in_an_error_and_not_in_endless_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(text_tables, "LONGEST", 1000)
    path = lines(tmp_path / "t.csv", "text,label", *['a","'] * 5000)
    with pytest.raises(SourceError, match="cannot be read as CSV: quotes are not closed, in line"):
        open_source(path, modality="text")


# JSON lines

JSON_ROWS = {
    "cut short": ('{"text": "a", ', "line 2, column [0-9]+: .*; expected one JSON object on each line"),
    "no object": ("[1, 2]", "line 2: a list; expected one JSON object"),
    "a text": ('"a"', "line 2: a str; expected one JSON object"),
    "deep": ('{"text": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 2: .*nested"),
    "a lone surrogate": (
        '{"text": "a\\ud800", "label": "x"}',
        r"'text' is not Unicode text \(a lone surrogate at character 1\); half of a character is escaped",
    ),
    "a number": ('{"text": 7, "label": "x"}', "got a number of type int"),
    "a list": ('{"text": ["a"], "label": "x"}', "got a value of type list"),
    "huge": ('{"text": 1' + "0" * 5000 + "}", "an integer of 5,001 digits"),
    "no text": ('{"label": "x"}', "got null"),
}
LABELS = {
    "beyond 64 bits": ("9223372036854775808", [1, 2], "label 9223372036854775808 does not fit into 64 bits"),
    "below 64 bits": ("-9223372036854775808", [1, 2], "does not fit into 64 bits"),
    "of 5,000 digits": ("9" * 5000, [1, 2], "an integer of 5,000 digits"),
    "beyond a float": ("9007199254740993", [1.5, 2], "does not fit into a float"),
    "a lone surrogate": ('"\\udc00"', ["x", "y"], "not Unicode text"),
    "a lone surrogate in a list": ('["\\udc00"]', [["x"], ["y"]], "label .* is not Unicode text .*half of a character"),
    "an object": ('{"a": 1}', ["x", "y"], r"label \{'a': 1\} is not text, a number or a list"),
    "an object in a list": ('[{"a": 1}]', [["x"], ["y"]], "is not text, a number or a list"),
}


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("name", JSON_ROWS)
def test_a_bad_row_of_json_lines_costs_itself_wherever_it_is(tmp_path, name, at):
    row, expected = JSON_ROWS[name]
    rows = [json.dumps({"text": "good", "label": "y"})] * 3
    path = lines(tmp_path / "t.jsonl", *rows[:at], row, *rows[at:])
    found = outcome(path)
    assert [text for _, text, _ in found] == ["good"] * at + [None] + ["good"] * (3 - at)
    assert [label for _, text, label in found if text] == ["y"] * 3
    assert re.search(expected.replace("line 2", f"line {at + 1}"), reasons(path)[at])


def test_a_byte_that_is_not_utf8_costs_the_row_whose_value_it_is_in(tmp_path):
    rows = [
        b'{"text": "a", "note": "caf\xe9"}',
        b'{"text": "caf\xe9"}',
        b'{"text": "b"}',
        b'{"te\xe9xt": 1, "text": "c"}',
    ]
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(rows))
    assert [text for _, text, _ in outcome(tmp_path / "t.jsonl")] == ["a", None, "b", "c"]
    assert "a byte that is not UTF-8 at character 3" in reasons(tmp_path / "t.jsonl")[1]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("name", LABELS)
def test_a_label_that_no_store_holds_costs_its_row(tmp_path, name, at):
    label, others, expected = LABELS[name]
    rows = [{"text": "good", "label": other} for other in others]
    path = lines(tmp_path / "t.jsonl", *rows[:at], f'{{"text": "bad", "label": {label}}}', *rows[at:])
    good = [("good", other) for other in others]
    assert [row[1:] for row in outcome(path)] == [*good[:at], (None, None), *good[at:]]
    assert re.search(expected, reasons(path)[at])


@pytest.mark.parametrize(
    "value", ['"\\ud83d"', "1" + "0" * 30, "9" * 5000, "1e999", "{}", '{"\\ud83d": "\\ud83d"}', "[[], 1, null]", "NaN"]
)
def test_a_column_that_is_not_used_decides_nothing_even_in_the_first_row(tmp_path, value):
    rows = [
        f'{{"author": {value}, "text": "a", "label": "x", "\\ud83d": 1}}',
        '{"text": "b", "label": "y", "author": 1}',
    ]
    assert outcome(lines(tmp_path / "t.jsonl", *rows)) == [("0", "a", "x"), ("1", "b", "y")]


@pytest.mark.parametrize("first", ["7", '["x"]', '{"bytes": "x"}', "null", "true", '"\\ud83d"'])
def test_the_first_row_does_not_decide_which_column_has_the_texts(tmp_path, first):
    rows = [f'{{"words": {first}, "n": 0}}', '{"words": "a", "n": 1}', '{"words": "b", "n": 2}']
    assert [text for _, text, _ in outcome(lines(tmp_path / "t.jsonl", *rows))] == [None, "a", "b"]


def test_a_table_without_one_line_that_can_be_read_says_why(tmp_path):
    for name, expected in (("t.csv", "line 2: 1 values"), ("t.jsonl", "line 1, column 1: Expecting")):
        with pytest.raises(SourceError, match=expected):
            open_source(lines(tmp_path / name, "text,label", "a"), modality="text")
    with pytest.raises(SourceError, match="no column of texts"):
        open_source(lines(tmp_path / "u.jsonl", {"": "x"}), modality="text")


def test_an_id_that_is_none_costs_its_row(tmp_path):
    given = ["a", "b\ud800", "", None, 3, True, ["c"], "a", "3", 10**30]
    path = lines(tmp_path / "t.jsonl", *({"text": "t", "key": one} for one in given))
    found = outcome(path, id_column="key")
    good = {0: "a", 4: "3", 9: str(10**30)}
    assert [row[0] for row in found] == [good.get(at, f"row {at}") for at in range(10)]
    assert [row[1] for row in found] == ["t" if at in good else None for at in range(10)]


# Parquet and Arrow


def stream(folder: Path, table: pa.Table) -> Path:
    folder.mkdir()
    with pa.OSFile(str(folder / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
    return folder


def damaged(*values: bytes) -> pa.Array:
    """Strings, of which some are not UTF-8."""
    plain = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(plain), plain.buffers())


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("form", ["plain", "dictionary", "note"])
def test_bytes_that_are_not_utf8_in_a_column_of_strings_cost_their_row(tmp_path, kind, form):
    texts = damaged(b"a", b"caf\xe9", b"b")
    if form == "dictionary":
        texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), texts)
    columns = {"text": texts} if form != "note" else {"note": texts, "text": ["a", "x", "b"]}
    table = pa.table({**columns, "label": [0, 1, 2]})
    if kind == "arrow":
        path = stream(tmp_path / "s", table)
    else:
        path = tmp_path / "t.parquet"
        pq.write_table(table, path, store_schema=form != "dictionary")
    found = outcome(path, sample_column="text")
    assert [row[1] for row in found] == ["a", "x" if form == "note" else None, "b"]
    if form != "note":
        assert "column 'text' is" in reasons(path, sample_column="text")[1]


@pytest.mark.parametrize("last", [2**63, 2**64 - 1])
def test_an_unsigned_label_that_is_too_large_costs_its_row(tmp_path, last):
    pq.write_table(pa.table({"text": ["a", "b"], "label": pa.array([1, last], pa.uint64())}), tmp_path / "t.parquet")
    assert outcome(tmp_path / "t.parquet") == [("0", "a", 1), ("1", None, None)]


@pytest.mark.parametrize("byte", [b"\xff", b"\0", b"q"])
@pytest.mark.parametrize("group", [0, 2, 3])
def test_a_damaged_page_costs_the_rows_of_its_row_group(tmp_path, group, byte):
    path = tmp_path / "t.parquet"
    table = pa.table({"text": [f"text {row}" for row in range(40)], "label": list(range(40))})
    pq.write_table(table, path, row_group_size=10, use_dictionary=False)
    at = pq.read_metadata(path).row_group(group).column(0).data_page_offset
    data = path.read_bytes()
    path.write_bytes(data[:at] + byte * 12 + data[at + 12 :])
    bad = range(10 * group, 10 * group + 10)
    expected = [(str(row), *((None, None) if row in bad else (f"text {row}", row))) for row in range(40)]
    assert outcome(path) == expected
    source = open_source(path, modality="text")
    for start in (5, 10, 25, 39):
        assert [(row.id, row.label) for row in source.rows(start)] == [(name, label) for name, _, label in expected][
            start:
        ]
    for why in [why for why in reasons(path) if why]:
        assert re.fullmatch(rf"row group {group} is damaged \([\w :'-.]+\); write it again", why)
        assert "q" not in why.partition(":")[2]
        assert why.isascii()


def test_a_page_that_is_damaged_later_in_a_row_group_costs_no_row_before_its_batch(tmp_path):
    path = tmp_path / "t.parquet"
    texts = [f"{row:05}" * 20 for row in range(4000)]
    pq.write_table(
        pa.table({"text": texts}),
        path,
        use_dictionary=False,
        compression=None,
        data_page_size=10_000,
        write_batch_size=100,
    )
    data = path.read_bytes()
    at = data.index(texts[3000].encode())
    start = data.rindex(b"\x15\x00\x15", 0, at)  # the header of its page
    path.write_bytes(data[:start] + b"\xff" * 12 + data[start + 12 :])
    found = [row[1] for row in outcome(path)]
    given = found.index(None)
    assert 2800 < given <= 3000
    assert found == texts[:given] + [None] * (4000 - given)


def test_columns_whose_names_are_not_utf8_are_refused_by_name(tmp_path):
    pq.write_table(pa.table({"teQt": ["a"], "text": ["b"]}), tmp_path / "t.parquet", store_schema=False)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(b"teQt", b"te\xfft"))
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        open_source(tmp_path / "t.parquet", modality="text")


@pytest.mark.parametrize(
    "info",
    ['{"info":' + "[" * 200_000, '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["\\ud800"]}}}}'],
)
def test_hugging_face_metadata_that_cannot_be_used_is_refused(tmp_path, info):
    table = pa.table({"image": [b"a"], "label": [0]}).replace_schema_metadata({b"huggingface": info.encode()})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="'huggingface' metadata cannot be read"):
        open_source(tmp_path / "t.parquet")


def shared(rows: int, size: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([b"\0" * size], pa.binary()))


def largest_held(work) -> int:
    """The most bytes that Python and Arrow hold during `work`, about."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    work()
    held = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - before
    tracemalloc.stop()
    return held


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_rows_that_share_a_large_value_are_held_one_at_a_time(tmp_path, kind):
    rows, size = 40, 20 * 2**20
    table = pa.table({"image": shared(rows, size), "label": ["a"] * rows})
    if kind == "arrow":
        path = stream(tmp_path / "s", table)
    else:
        path = tmp_path / "t.parquet"
        pq.write_table(table, path, compression="zstd", use_dictionary=["image"], store_schema=False)
        assert os.path.getsize(path) < 5000
    del table
    given = open_source(path, sample_column="image").rows()
    assert largest_held(lambda: [next(given) for _ in range(3)]) < formats.BATCH_BYTES + 8 * size
    assert len(next(given).sample) == size


def batches(path, columns):
    """How many rows of each row group are decoded at a time."""
    with open(path, "rb") as raw:
        rows = [pq.read_metadata(path).row_group(at).num_rows for at in range(pq.read_metadata(path).num_row_groups)]
        groups = zip(chunks_of(raw), rows, strict=True)
        return [formats._batch_size(raw, chunks, count, columns) for chunks, count in groups]


@pytest.mark.parametrize("dictionary", [True, False])
def test_rows_are_decoded_many_at_a_time_however_large_their_row_group_is(tmp_path, dictionary):
    texts = [f"{row:08}" * 125 for row in range(100_000)]  # 1000 letters each: a dictionary of a megabyte, then plain
    pq.write_table(pa.table({"text": texts}), tmp_path / "t.parquet", use_dictionary=dictionary)
    assert batches(tmp_path / "t.parquet", ["text"]) == [formats.BATCH]


@pytest.mark.parametrize(("size", "expected"), [(1, 32), (3, 20), (15, 4), (60, 1)])
def test_fewer_rows_are_decoded_at_a_time_where_they_share_a_large_value(tmp_path, size, expected):
    table = pa.table({"image": shared(16, size * 2**20), "label": ["a"] * 16})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd", use_dictionary=["image"], store_schema=False)
    assert batches(tmp_path / "t.parquet", ["image", "label"]) == [expected]
    assert batches(tmp_path / "t.parquet", ["label"]) == [formats.BATCH]


def test_a_row_group_that_inflates_a_thousandfold_costs_its_rows_and_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BOMB_BYTES", 2**20)
    large = pa.table({"text": ["word " * 40_000] * 10, "label": ["a"] * 10})
    small = pa.table({"text": ["b"] * 10, "label": ["c"] * 10})
    with pq.ParquetWriter(tmp_path / "t.parquet", large.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(large)
        writer.write_table(small)
    found = outcome(tmp_path / "t.parquet")
    assert [row[1:] for row in found] == [(None, None)] * 10 + [("b", "c")] * 10
    assert "row group 0 takes 2,000," in reasons(tmp_path / "t.parquet")[0]
    assert [row.id for row in open_source(tmp_path / "t.parquet", modality="text").rows(7)] == list(
        map(str, range(7, 20))
    )


# paths


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (" hf/0.png", "there is no file ' hf/0.png'; it begins or ends with a space"),
        ("hf/0.png ", "there is no file 'hf/0.png '; it begins or ends with a space"),
        ("~/x.png", "there is no file '~/x.png'; '~' is not expanded"),
        ("hf\\0.png", r"there is no file 'hf\\0.png'; it has backslashes"),
        ("a/b/c.png", "there is no file 'a/b/c.png'; check the path"),
        ("https://example.org/a/0.png?token=secret", "'https://example.org/a/0.png' is a web address"),
        ("s3://bucket/0.png", "'s3://bucket/0.png' is a web address"),
        ("hf://datasets/a/0.png", "'hf://datasets/a/0.png' is a web address"),
        ("/nowhere/of/mine/0.png", "there is no file '.../0.png'; check"),
        ("C:\\Users\\me\\0.png", "there is no file '.../0.png'; it has backslashes"),
        ("x" * 300, f"'{'x' * 200}'... cannot be opened: File name too long"),
        ("a\0b.png", r"'a\x00b.png' cannot be opened"),
        ("folder", "'folder' is not a file"),
        ("", "got null"),
    ],
)
def test_a_path_is_named_as_it_stands_in_the_cell(tmp_path, cell, expected):
    (tmp_path / "folder").mkdir()
    rows = [{"image": cell or None}, {"image": "other.png"}]
    (row, _) = open_source(lines(tmp_path / "t.jsonl", *rows)).rows()
    message = reason(row.sample, load_image)
    assert expected.replace("\\0.png", "\\\\0.png") in message or expected in message
    assert str(tmp_path) not in message
    assert "secret" not in message
    assert "nowhere" not in message
    assert "Users" not in message


ADDRESSES = {
    "s3://bucket/0.png": "s3://bucket/0.png",
    "https://example.org/pkg@1.0/0.png": "https://example.org/pkg@1.0/0.png",
    "https://user:pw@example.org/a/0.png?tok=SECRET#frag": "https://example.org/a/0.png",
    "https://user:p@w@example.org:80/0.png#SECRET?frag": "https://example.org:80/0.png",
    " ftp://user@example.org": "ftp://example.org",
    "HTTPS://example.org?SECRET@x": "HTTPS://example.org",
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("load", [load_image, load_audio, read_mask])
def test_a_web_address_is_called_so_and_named_without_its_secrets(tmp_path, load, address):
    expected = f"{ADDRESSES[address]!r} is a web address; sporeprint reads files: download it and give its path"
    for sample in (address, {"path": address}, CellPath(tmp_path, address)):
        if load is not read_mask or isinstance(sample, str):
            assert reason(sample, load) == expected


def test_a_web_address_that_was_made_a_path_is_named_without_its_secrets():
    message = reason(Path("https://user:pw@example.org/a/0.png?tok=SECRET"), load_image)
    assert message.startswith("'https:/example.org/a/0.png' is a web address")


def test_a_file_whose_name_is_not_unicode_costs_itself(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    (tmp_path / "p/a").mkdir(parents=True)
    os.makedirs(os.fsencode(tmp_path / "p") + b"/\xfe")
    for name in (b"a/1.png", b"a/\xff.png", b"\xfe/2.png"):
        with open(os.fsencode(tmp_path / "p") + b"/" + name, "wb") as file:
            file.write(buffer.getvalue())
    source = open_source(tmp_path / "p")
    rows = list(source.rows())
    assert [(row.id, row.label) for row in rows] == [("a/1.png", "a"), ("a/\\xff.png", None), ("\\xfe/2.png", None)]
    assert [reason(row.sample, load_image) is None for row in rows] == [True, False, False]
    assert "its name is not Unicode text: a byte that" in reason(rows[1].sample, load_image)
    assert source.digest() == open_source(tmp_path / "p").digest()
    assert json.dumps(source.describe(), ensure_ascii=False).encode()


def test_a_source_whose_own_name_is_not_unicode_is_described(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.csv")
    Path(path).write_text("text,label\na,b\n")
    assert open_source(path, modality="text").describe()["name"] == "t\\xff.csv"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.arrow"])
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="is not a file"):
        open_source(tmp_path / name)


def test_a_link_in_a_circle_costs_its_row(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "c").symlink_to(tmp_path / "c")
    rows = list(open_source(tmp_path, modality="text").rows())
    assert [(row.id, reason(row.sample) is None) for row in rows] == [("a.txt", False), ("b.txt", True)]


# lists


def test_a_label_of_a_list_that_no_store_holds_costs_its_row():
    bad = [2**63, "\ud800", {"a": 1}, [1, 2**64], np.datetime64("2020-01-01"), b"x"]
    for label in bad:
        good = [1, 2] if not isinstance(label, (str, list)) else ["x", "y"] if isinstance(label, str) else [[1], [2]]
        rows = list(ListSource(["a", "b", "c"], labels=[good[0], label, good[1]]).rows())
        assert [row.label for row in rows] == [good[0], None, good[1]]
        assert [reason(row.sample) is None for row in rows] == [True, False, True]


def test_labels_of_numpy_and_tuples_are_as_pythons_own():
    given = ListSource(["a", "b"], labels=[np.int64(1), np.int32(2)])
    assert [(type(row.label), row.label) for row in given.rows()] == [(int, 1), (int, 2)]
    assert given.digest() == ListSource(["a", "b"], labels=[1, 2]).digest()
    assert [row.label for row in ListSource(["a"], labels=[(1, 2)]).rows()] == [[1, 2]]


# images with masks


def test_a_line_of_a_list_that_is_none_costs_its_scene(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / name)
    (tmp_path / "t.txt").write_bytes(b"a.png a.png\nb.png b.png b.png\ncaf\xe9.png a.png\nb.png b.png\n")
    scenes = list(open_scenes(tmp_path / "t.txt"))
    assert [scene.id for scene in scenes] == ["a", "line 2", "line 3", "b"]
    assert read_scene(scenes[3])[1].tolist() == [[0, 1]]
    for scene, expected in ((scenes[1], "line 2: .*expected an image and its mask"), (scenes[2], "a byte that")):
        with pytest.raises(SampleError, match=expected):
            read_scene(scene)
    assert len(open_scenes(tmp_path / "t.txt").digest()) == 32
    (tmp_path / "u.txt").write_text("a b c\n")
    with pytest.raises(SourceError, match="line 1: 'a b c'; expected an image and its mask"):
        open_scenes(tmp_path / "u.txt")


def test_a_bad_row_of_a_table_of_scenes_costs_its_scene(tmp_path):
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "a.png")
    path = lines(tmp_path / "t.csv", "image,mask", "a.png,a.png", "a.png,a.png,x", "a.png,b.png", "a.png,a.png")
    scenes = open_scenes(path)
    assert [reason(scene, read_scene) is None for scene in scenes] == [True, False, False, True]
    assert reason(scenes[2], read_scene).startswith("mask: there is no file 'b.png'")
    assert find_classes(scenes, ()) == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x,y,label\n1,2," + "a" * 200_000 + "\n", "is not CSV"),
        ("x,y\n" + "1" * 90_000 + ",2\n", "has the columns"),
        ("x,y,label\n" + "z" * 90_000 + ",2,a\n", "expected x,y,label"),
    ],
)
def test_points_that_cannot_be_read_are_refused_in_a_short_message(tmp_path, content, expected):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(SourceError, match=expected) as caught:
        read_points(str(tmp_path / "p.csv"))
    assert len(str(caught.value)) < 600


def test_numbers_of_five_thousand_digits_are_no_labels(tmp_path):
    with pytest.raises(SourceError, match="expected 0 to 255"):
        number_labels([Point(0, 0, "9" * 5000)])
    (tmp_path / "classes.json").write_text(json.dumps({"9" * 5000: "a"}))
    with pytest.raises(SourceError, match="expected a list of names"):
        find_class_list([tmp_path])
    (tmp_path / "classes.json").write_text(json.dumps({"0" * 500 + "1": "a"}))
    assert find_class_list([tmp_path]).names == ["", "a"]
    (tmp_path / "classes.json").write_text('["a", "\\ud800"]')
    with pytest.raises(SourceError, match="the name of class 1 is"):
        find_class_list([tmp_path])


@pytest.mark.parametrize("split", ["..", "../elsewhere", "/etc"])
def test_a_saved_split_may_not_lead_out_of_its_folder(tmp_path, split):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(SourceError, match="which is no folder in it"):
        open_source(tmp_path)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_of_objects_is_a_table_too(tmp_path, indent):
    rows = [{"text": "a", "label": "x"}, 7, {"text": "b", "label": "y"}]
    (tmp_path / "t.json").write_text("\ufeff" + json.dumps(rows, indent=indent))
    source = open_source(tmp_path / "t.json", modality="text")
    assert [(row.id, row.label) for row in source.rows()] == [("0", "x"), ("1", None), ("2", "y")]
    assert "item 1 is a JSON int; expected an object" in reasons(tmp_path / "t.json")[1]
    (tmp_path / "t.json").write_text(json.dumps(rows, indent=indent)[:-3])
    with pytest.raises(SourceError, match=r"is a JSON array that is damaged \(.*\); write one JSON object on"):
        open_source(tmp_path / "t.json", modality="text")


def test_a_broken_line_of_json_is_named_by_one_line_and_its_column(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": "b" 3}\n')
    reason = "line 2, column 14: Expecting ',' delimiter; expected one JSON object on each line"
    assert reasons(tmp_path / "t.jsonl") == [None, reason]
