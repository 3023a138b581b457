import codecs
import json
import os
from enum import Enum
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sporeprint.data import texts
from sporeprint.data.texts import MAX_BYTES, SUFFIXES, load_text, text_digest
from sporeprint.errors import SampleError


def reason(sample):
    with pytest.raises(SampleError) as caught:
        load_text(sample)
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # it is stored
    return message


def written(folder, data, name="a.txt"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "text", ["One sentence.", "  spaces stay \r\n", "naïve 你好 \N{MUSHROOM}", "x", "tab\there", "a\ufeffb"]
)
def test_every_kind_of_sample_gives_the_same_text_unchanged(tmp_path, text):
    data = text.encode()
    for sample in (text, np.str_(text), data, bytearray(data), memoryview(data), written(tmp_path, data)):
        loaded = load_text(sample)
        assert loaded == text
        assert type(loaded) is str


@given(st.text())
@settings(max_examples=200)
def test_a_text_and_its_bytes_are_loaded_alike_or_refused_alike(text):
    if not text.strip():
        assert "expected a text" in reason(text)
        assert "expected a text" in reason(text.encode())
    else:
        assert load_text(text) == text
        if "\0" not in text and not text.startswith("\ufeff"):
            assert load_text(text.encode()) == text


@given(st.binary(max_size=40))
@settings(max_examples=200)
def test_any_bytes_are_a_text_or_a_sample_error(data):
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        readable = "\0" not in body.decode() and body.decode().strip()
    except UnicodeDecodeError:
        readable = False
    if readable:
        assert load_text(data) == body.decode()
    else:
        reason(data)


def test_a_str_is_never_a_path(tmp_path, monkeypatch):
    written(tmp_path, b"inside", "a.txt")
    monkeypatch.chdir(tmp_path)
    assert load_text("a.txt") == "a.txt"
    assert load_text(Path("a.txt")) == "inside"
    assert load_text(PurePosixPath("a.txt")) == "inside"


def test_an_heir_of_str_gives_its_value():
    class Colour(str, Enum):
        RED = "red"

    assert type(load_text(Colour.RED)) is str
    assert load_text(Colour.RED) == "red"


def test_one_byte_order_mark_is_taken_off_files_and_bytes(tmp_path):
    data = codecs.BOM_UTF8 + "Straße".encode()
    assert load_text(data) == load_text(written(tmp_path, data)) == "Straße"
    assert load_text(codecs.BOM_UTF8 + data) == "\ufeffStraße"


def test_the_digest_is_blake2b_of_the_utf8():
    import hashlib

    assert text_digest("naïve") == hashlib.blake2b(b"na\xc3\xafve", digest_size=16).hexdigest()
    assert len(text_digest("")) == 32
    assert text_digest("a") != text_digest("a ")


@pytest.mark.parametrize("blank", ["", " ", "\n\t \r\n", "\u3000\u2003\xa0", "\x1c\x85"])
def test_blank_texts_are_refused_as_str_bytes_and_file(tmp_path, blank):
    expected = "empty (0" if not blank else "nothing but whitespace"
    for sample in (blank, blank.encode(), written(tmp_path, blank.encode())):
        assert expected in reason(sample)


def test_a_file_of_a_byte_order_mark_alone_is_refused(tmp_path):
    assert "expected a text" in reason(written(tmp_path, codecs.BOM_UTF8))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"caf\xe9 noir", "not UTF-8 (byte 0xe9 at position 3: invalid continuation byte)"),
        (codecs.BOM_UTF8 + b"caf\xe9 noir", "not UTF-8 (byte 0xe9 at position 3: invalid continuation byte)"),
        (b"cut \xe2\x82", "unexpected end of data"),
        (b"\xed\xa0\x80", "not UTF-8"),  # a surrogate, encoded
        ("text".encode("utf-16"), "UTF-16"),
        (codecs.BOM_UTF16_BE + "text".encode("utf-16-be"), "UTF-16"),
        ("text".encode("utf-32"), "UTF-32"),
        (codecs.BOM_UTF32_BE + "text".encode("utf-32-be"), "UTF-32"),
        ("text".encode("utf-16-le"), "UTF-16LE"),
        (b"\x7fELF\0\0", "a zero byte at 4"),
    ],
)
def test_what_is_not_utf8_is_refused(tmp_path, data, expected):
    message = reason(data)
    assert message.startswith("these bytes: ")
    assert expected in message
    message = reason(written(tmp_path, data))
    assert message.startswith("'a.txt': ")
    assert expected in message


def test_lone_surrogates_are_refused_with_their_place():
    assert "lone surrogate at character 3" in reason("ab \ud83d cd")
    assert load_text("ab \N{GRINNING FACE}") == "ab \N{GRINNING FACE}"


def test_limits_hold_for_files_bytes_and_str_at_their_last_byte(tmp_path, monkeypatch):
    assert MAX_BYTES == 67_108_864
    monkeypatch.setattr(texts, "MAX_BYTES", 8)
    for text, fits in (("12345678", True), ("123456789", False), ("123456é", True), ("1234567é", False)):
        for sample in (text, text.encode(), written(tmp_path, text.encode())):
            if fits:
                assert load_text(sample) == text
            else:
                assert "9 bytes" in reason(sample)
                assert "at most 8" in reason(sample)


def test_a_large_file_is_refused_unread(tmp_path, monkeypatch):
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: it takes no room on disk
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("it was opened"))
    assert "'large.txt' has 67,108,865 bytes" in reason(tmp_path / "large.txt")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices here")
def test_folders_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path, tmp_path / "pipe.txt", Path("/dev/zero"), Path("/dev/null")):
        assert "is not a file (a folder, a pipe or a device)" in reason(path)


def test_reasons_name_the_file_and_no_folder_of_this_machine(tmp_path):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    folder = tmp_path / "secret"
    folder.mkdir()
    file = written(folder, b"\xff", "bad\nname.txt")
    for path, expected in (
        (folder / "gone.txt", "there is no file 'gone.txt'"),
        (loop, "'loop.txt' cannot be opened"),
        (file, r"'bad\nname.txt': not UTF-8"),
        (file / "below.txt", "'below.txt' cannot be opened"),
        (folder / ("n" * 300), "cannot be opened"),
        (folder / "nul\0.txt", r"'nul\x00.txt' cannot be opened"),
        (folder / "surrogate\udcff.txt", r"'surrogate\udcff.txt'"),
    ):
        message = reason(path)
        assert expected in message
        assert str(tmp_path) not in message
        assert "secret" not in message


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (None, "null (an empty cell)"),
        (float("nan"), "NaN (an empty cell"),
        (np.float32("nan"), "NaN (an empty cell"),
        (3, "a number of type int"),
        (True, "a number of type bool"),
        (np.float64(0.5), "a number of type float64"),
        (["a", "b"], "a value of type list"),
        ({"text": "a"}, "a value of type dict"),
        (np.array(["a"]), "a value of type ndarray"),
    ],
)
def test_what_is_no_text_is_refused_with_its_type(sample, expected):
    assert expected in reason(sample)


def test_numbers_are_to_be_converted():
    assert "convert it: str(number)" in reason(7)


def test_reasons_can_be_stored_as_json():
    assert json.loads(json.dumps(reason("\udcff"))) == reason("\udcff")


def test_suffixes_are_lower_case_and_leave_readme_md_out():
    assert sorted(SUFFIXES) == [".markdown", ".md", ".rst", ".text", ".txt"]
