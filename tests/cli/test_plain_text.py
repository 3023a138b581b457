"""Nothing but text reaches a terminal, a pipe or a page, whatever names, labels, paths and reasons hold."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import pytest
from rich.cells import cell_len

from small import noise_pictures
from small_stores import store_of
from sporeprint.cli import main
from sporeprint.cli.console import Working
from sporeprint.cli.plain_text import PlainText, plain_streams
from sporeprint.cli.print_tables import Column, print_table
from sporeprint.data.sources import open_source
from sporeprint.features.progress import ProgressLine
from sporeprint.values import printable

pytestmark = pytest.mark.usefixtures("few_penalties")
HOSTILE = (
    "[/b]",
    "[red]x",
    "[link=https://evil.example]click[/link]",
    ":smile: [bold",
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[1;1H",
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x9b31mred\x90q\x9c",
    "z\rfaked",
    "a\nfaked: all is well",
    "x\x00\x08\x7f\t\x0b\x0c\x85y",
    "\u202eabc\u2066\u200f\u061c",
    "line\u2028and\u2029paragraph",
    "half \ud83d",
    "<script>alert(1)</script>",
    '"onload="alert(1)',
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "e\u0301\u0302\u0303 combined",
    "\u6771\u4eac\u90fd",
    "\u05e9\u05dc\u05d5\u05dd",
    "l" * 10_000,
)
ROWS = 3 * len(HOSTILE)


class Terminal(io.StringIO):
    def __init__(self, encoding="utf-8"):
        super().__init__()
        self.spoken = encoding

    @property
    def encoding(self):
        return self.spoken

    def isatty(self):
        return True

    def write(self, text):
        text.encode(self.encoding)
        return super().write(text)


def unsafe(text):
    """The characters that do more than stand there, by the tables of Unicode."""
    turns = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return {
        letter
        for letter in text
        if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in turns
    }


def of_terminal(text):
    """What stands on a terminal: lines of progress are written over each other."""
    return "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))


def storable(label):
    return label.replace("\ud83d", "?")


def make_store(folder, seed):
    rng = np.random.default_rng(seed)
    classes = np.arange(ROWS) % len(HOSTILE)
    blocks = {name: rng.standard_normal((ROWS, 4)).astype(np.float32) for name in ("embedding", "cls-2")}
    blocks["cls-2"] += 3 * np.eye(len(HOSTILE))[classes][:, :4].astype(np.float32)
    blocks = {name: block / np.linalg.norm(block, axis=1, keepdims=True) for name, block in blocks.items()}
    labels = [storable(HOSTILE[number]) for number in classes]
    texts = [f"{label[:50]} {seed} {at}" for at, label in enumerate(labels)]
    ids = [f"{label[:200]}-{seed}-{at}" for at, label in enumerate(labels)]
    lines = [json.dumps({"id": i, "text": t, "label": n}) for i, t, n in zip(ids, texts, labels, strict=True)]
    table = folder.with_suffix(".jsonl")
    table.write_text("\n".join(lines) + "\n")
    source = open_source(table, sample_column="text", label_column="label", id_column="id", modality="text")
    return store_of(folder, source, blocks, failed=(3, 7, 8, 9, 11))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return make_store(folder / "train", 1), make_store(folder / "test", 2)


@pytest.fixture
def on_terminal(monkeypatch):
    """Run a command line in a terminal of 80 columns; gives (exit status, stdout, stderr)."""

    def run(*words, encoding="utf-8"):
        out, err = Terminal(encoding), Terminal(encoding)
        monkeypatch.setattr(sys, "argv", ["sporeprint", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, out.getvalue(), err.getvalue()

    return run


COMMANDS = (
    ("knn", "--k", "1"),
    ("probe",),
    ("retrieve",),
    ("analyse",),
    ("compare",),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_labels_of_any_kind_go_through_every_table(on_terminal, stores, words):
    for more in ((), ("--json",)):
        status, out, err = on_terminal(words[0], *stores, *words[1:], *more)
        assert status == 0, err
        assert unsafe(out) <= {"\n"}
        assert unsafe(of_terminal(err)) <= {"\n"}
    if words[0] in ("analyse", "compare"):
        assert {"[/b]", "[red]x", HOSTILE[2], HOSTILE[9]} <= set(_labels(json.loads(out)))


def _labels(result):
    return [change["label"] for change in result["classes"]]


def test_classes_keep_their_names_and_tables_their_columns_at_80(on_terminal, stores):
    _, out, _ = on_terminal("analyse", *stores)
    table = out[out.index("Classes that gain") :]
    assert max(map(cell_len, table.splitlines())) <= 80
    named = [label for label in HOSTILE if printable(label)[:20] in table]
    assert len(named) >= 8
    assert "llll" * 100 not in "".join(out.split())


@pytest.mark.parametrize("words", [("cluster", "--starts", "1"), ("compare", "--splits", "2"), ("regress",)])
def test_commands_of_one_store_say_nothing_but_text(on_terminal, stores, words):
    given = stores if words[0] == "regress" else stores[:1]
    status, out, err = on_terminal(words[0], *given, *words[1:])
    assert status == (words[0] == "regress"), err
    assert unsafe(out) <= {"\n"}
    assert unsafe(of_terminal(err)) <= {"\n"}
    assert "faked" not in [line[:5] for line in (out + err).splitlines()]
    assert "llll" * 200 not in err


def test_prompts_say_and_write_nothing_but_text(on_terminal, stores, tmp_path):
    train, test = stores
    sources = ("--train", train.with_suffix(".jsonl"), "--test", test.with_suffix(".jsonl"))
    hostile_path = tmp_path / "p\x1b]0;title\x07.jsonl"
    status, out, err = on_terminal("demonstrations", *stores, *sources, "--out", hostile_path)
    assert status == 0, err
    assert unsafe(out + of_terminal(err)) <= {"\n"}
    assert unsafe(hostile_path.read_text()) <= {"\n"}
    assert len(hostile_path.read_text().splitlines()) == ROWS - 5


def test_names_of_files_reach_no_terminal_as_they_are(on_terminal, tmp_path):
    (tmp_path / "pictures" / "[/b]").mkdir(parents=True)
    for number, image in enumerate(noise_pictures(6, 0)):
        image.save(tmp_path / "pictures" / "[/b]" / f"{number}.png")
    for name in ("x\x1b]0;title\x07\x1b[2Jy.png", "z\rfaked line.png", "a\nfaked: all is well.png", "\u202egnp.png"):
        (tmp_path / "pictures" / "[/b]" / name).write_bytes(b"\x1b[31mbroken\x07")
    words = ("extract", tmp_path / "pictures", "--backbone", "tiny", "--objectives", "none", "--layers", "0")
    status, out, err = on_terminal(*words, "--out", tmp_path / "o\x1b[2J", "--max-failures", "1")
    assert status == 0, err
    assert unsafe(out + of_terminal(err)) <= {"\n"}
    assert len([line for line in err.split("\n") if line.startswith("not read: ")]) == 4
    assert "x\\u001b]0;title\\u0007\\u001b[2Jy.png" in err
    assert "z\\rfaked line.png" in err
    assert "a\\nfaked: all is well.png" in err
    _, out, _ = on_terminal("info", tmp_path / "o\x1b[2J", "--verify", "--all")
    assert unsafe(out) <= {"\n"}
    assert len([line for line in out.split("\n") if line.startswith("not read: ")]) == 4
    _, out, _ = on_terminal("info", tmp_path / "o\x1b[2J", "--json")
    assert {"z\rfaked line.png", "\u202egnp.png"} <= {row["id"][5:] for row in json.loads(out)["failures"]}


@pytest.mark.parametrize(
    "words",
    [
        ("knn", "a", "b", "c\x1b]0;title\x07"),
        ("knn", "a\x1b[2J", "b"),
        ("knn", "a", "b", "--k", "\x1b[31m"),
        ("knn", "a", "b", "--vote", "[/b]\x1b[31m"),
        ("knn", "a", "b", "--\x1b[31m"),
        ("\x1b[31m[/b]",),
        ("extract", "a", "--out", "b", "--backbone", "x\x1b[31m\nfaked"),
        ("backbones", "[/b]\x1b]0;title\x07"),
        ("info", "\ud83d\u202e"),
        ("compare", "a\nfaked", "b"),
        ("segment", "a\x07", "b", "--backbone", "tiny", "--out", "c"),
        ("propagate", "a\x07", "--backbone", "tiny", "--on", "\x1b[2J", "--out", "c", "--points", "\x1b[2J"),
        ("demonstrations", "a", "b", "--train", "\x1b[2J", "--test", "d", "--out", "e"),
        ("--help",),
        ("knn", "--help"),
    ],
)
def test_what_is_typed_wrongly_comes_back_as_text(on_terminal, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, err = on_terminal(*words)
    assert unsafe(out + of_terminal(err)) <= {"\n"}
    assert not [line for line in err.split("\n") if line.startswith("faked")]


def test_warnings_logs_and_tracebacks_are_text_and_their_later_lines_are_indented(on_terminal, monkeypatch):
    def command(*_, **__):
        warnings.warn("\x1b[2Ja\nerror: faked\u202e", stacklevel=1)
        logging.getLogger("sporeprint").info("%s", "\x07b\nerror: faked")
        logging.getLogger("other.library").warning("\x1b[2Jc")
        print("\x1b[2Jd\x9b")
        raise ZeroDivisionError("\x1b]0;title\x07")

    monkeypatch.setattr("sporeprint.run.demo.demo", command)
    status, out, err = on_terminal("demo")
    assert status == 1
    assert unsafe(out + err) <= {"\n"}
    assert "warning: \\u001b[2Ja\n  error: faked\\u202e\n\\u0007b\n  error: faked\n" in err
    assert "ZeroDivisionError: \\u001b]0;title\\u0007" in err


def test_json_holds_every_label_as_it_was(on_terminal, monkeypatch):
    monkeypatch.setattr("sporeprint.run.store_info.SUPPORTED", [(label, "", "") for label in HOSTILE])
    for encoding in ("utf-8", "ascii", "latin-1"):
        _, out, _ = on_terminal("backbones", "--json", encoding=encoding)
        assert unsafe(out) <= {"\n"}
        assert [row["modality"] for row in json.loads(out)] == list(HOSTILE)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "shift_jis"])
def test_an_encoding_without_the_letters_stops_no_command(on_terminal, stores, encoding):
    status, _, err = on_terminal("analyse", *stores, encoding=encoding)
    assert status == 0, err
    assert on_terminal("knn", "--help", encoding=encoding)[0] == 0
    assert on_terminal("info", "\u6771", encoding=encoding)[0] == 1


def test_a_stream_passes_on_lines_and_no_other_control():
    terminal, file = Terminal(), io.StringIO()
    for text in ("a\nb\n", "\rnow", "no\rt", "\n\r", "\x1b[31m"):
        PlainText(terminal).write(text)
        PlainText(file).write(text)
    assert terminal.getvalue() == "a\nb\n\rnowno\\rt\n\\r\\u001b[31m"
    assert file.getvalue() == "a\nb\n\\rnowno\\rt\n\\r\\u001b[31m"
    assert not hasattr(PlainText(terminal), "buffer")


def test_streams_are_put_back_also_after_an_error_unless_others_took_their_place(monkeypatch):
    before = sys.stdout, sys.stderr
    with pytest.raises(AttributeError), plain_streams():
        sys.stdout.buffer.write(b"\x1b")
    assert (sys.stdout, sys.stderr) == before
    other = io.StringIO()
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with plain_streams():
        sys.stderr = other
    assert sys.stderr is other


def test_tables_line_up_whatever_the_letters_take(monkeypatch):
    for encoding in ("utf-8", "ascii"):
        terminal = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", PlainText(terminal))
        monkeypatch.setenv("COLUMNS", "80")
        rows = [[label, str(number)] for number, label in enumerate(HOSTILE)]
        print_table([Column("[b]class\x07"), Column("rows\n")], rows, "[red]t\x1b[2J\n")
        lines = [line for line in terminal.getvalue().split("\n") if line.strip()]
        assert lines[0] == "[red]t\\u001b[2J\\n"
        assert "[b]class\\u0007" in terminal.getvalue()
        if encoding == "utf-8":
            ends = [line for line in lines[3:] if cell_len(line) == cell_len(lines[2])]
            assert [int(line.split()[-1]) for line in ends] == list(range(len(HOSTILE)))
            assert max(map(cell_len, lines)) <= 80


def test_progress_is_rewritten_without_escape_sequences(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", PlainText(terminal))
    monkeypatch.setenv("COLUMNS", "40")
    with Working() as working:
        working("[/b]\x1b[2J " + "long " * 30)
        working("b")
    line = ProgressLine()
    line.every_s = 0
    line("rows", 0, 10)
    line("rows", 10, 10)
    shown = terminal.getvalue()
    assert unsafe(shown) <= {"\n", "\r"}
    assert all(cell_len(part) < 40 for part in shown.replace("\n", "\r").split("\r"))
    assert screen(shown).startswith("10 of 10 rows")


def screen(text):
    """What a terminal of one line shows after this."""
    cells, at = [], 0
    for letter in text:
        if letter == "\r":
            at = 0
            continue
        if letter == "\n":
            break
        cells[at : at + 1] = letter
        at += 1
    return "".join(cells).rstrip()


def test_a_real_terminal_gets_no_escape_sequence(stores):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from sporeprint.cli import main; main()", "analyse", *map(str, stores)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 65536):
                seen += part
        assert process.wait(timeout=60) == 0
    os.close(ours)
    assert b"Classes that gain" in seen
    assert unsafe(of_terminal(seen.decode().replace("\r\n", "\n"))) <= {"\n"}
