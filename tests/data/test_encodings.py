import pytest

from sporeprint.data.encodings import not_utf8, read_utf8, wide_encoding
from sporeprint.data.scenes.class_lists import find_class_list
from sporeprint.data.scenes.marks import read_points
from sporeprint.data.sources import open_source
from sporeprint.data.texts import load_text
from sporeprint.errors import RecipeError, SampleError, SourceError
from sporeprint.run.recipe_options import read_recipe

CP1252 = r"its encoding is not UTF-8, perhaps Latin-1 or Windows-1252: convert it \(iconv -f cp1252 -t utf-8 OLD"
WIDE = {  # encoding -> what a message says of it
    "utf-16": r"its encoding is UTF-16 \(it has a byte order mark\), not UTF-8: convert it \(iconv -f utf-16 -t",
    "utf-16-le": r"its encoding is UTF-16LE \(it has zeros in every second byte\), not UTF-8: .* -f utf-16le -t",
    "utf-16-be": r"its encoding is UTF-16BE \(it has zeros in every second byte\), not UTF-8: .* -f utf-16be -t",
    "utf-32": r"its encoding is UTF-32 \(it has a byte order mark\), not UTF-8: .* -f utf-32 -t",
}


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_a_table_in_a_wide_encoding_is_refused_with_what_converts_it(tmp_path, encoding, name):
    text = '{"text": "a", "label": "b"}\n' if name == "t.jsonl" else "text,label\na,b\n"
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(SourceError, match=WIDE[encoding]):
        open_source(tmp_path / name, modality="text")


@pytest.mark.parametrize("encoding", WIDE)
def test_a_text_in_a_wide_encoding_says_what_converts_it(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("some words".encode(encoding))
    with pytest.raises(SampleError, match=r"^'a.txt': " + WIDE[encoding]):
        load_text(tmp_path / "a.txt")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_texts_of_one_byte_a_letter_say_what_converts_them(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("caf\u00e9".encode(encoding))
    with pytest.raises(SampleError, match=r"^'a.txt': not UTF-8 \(byte 0xe9 at position 3: .*\); " + CP1252):
        load_text(tmp_path / "a.txt")
    for name, text in (("t.csv", "text,label\ncaf\u00e9,b\n"), ("t.jsonl", '{"text": "caf\u00e9", "label": "b"}\n')):
        (tmp_path / name).write_bytes(text.encode(encoding))
        (row,) = open_source(tmp_path / name, modality="text").rows()
        with pytest.raises(SampleError, match=r"column 'text' is not Unicode text .* at character 3\); " + CP1252):
            load_text(row.sample)


def test_binary_and_short_files_are_in_no_wide_encoding():
    for start in (b"", b"\0", b"a\0", b"\0" * 64, b"ab\0c", b"plain text", "caf\u00e9".encode()):
        assert wide_encoding(start) is None


def test_class_lists_points_and_recipes_say_what_converts_them(tmp_path):
    for encoding, wanted in (("latin-1", CP1252), ("utf-16", WIDE["utf-16"])):
        for name in ("classes.txt", "classes.json", "points.csv", "recipe.json"):
            (tmp_path / name).write_bytes('["caf\u00e9"]'.encode(encoding))
        with pytest.raises(SourceError, match=wanted):
            find_class_list([tmp_path])
        (tmp_path / "classes.json").unlink()
        with pytest.raises(SourceError, match=wanted):
            find_class_list([tmp_path])
        with pytest.raises(SourceError, match=wanted):
            read_points(str(tmp_path / "points.csv"))
        with pytest.raises(RecipeError, match=wanted):
            read_recipe(tmp_path / "recipe.json")


def test_small_files_are_read_as_text_with_any_line_ends_and_mark(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\x0bthree\rfour\n")
    assert read_utf8(tmp_path / "a") == "one\ntwo\x0bthree\nfour\n"
    with pytest.raises(UnicodeDecodeError) as caught:
        b"ab\x80".decode()
    assert not_utf8(caught.value).startswith("not UTF-8 (byte 0x80 at position 2: invalid start byte); ")
