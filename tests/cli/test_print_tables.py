"""Tables: every figure in full at any width, names folded and never cut, what is left out said in a line."""

import shlex

import pytest
from rich.cells import cell_len

from sporeprint.cli.print_tables import Column, fold, print_table, say_folded, say_note, screen_width

NAMES = ["embedding", "embedding + layers + views + gradients, white 0.5, families alike", "東京都の写真" * 5, "x" * 90]
COLUMNS = [
    Column("features"),
    Column("passes", "passes: of the backbone"),
    Column("top-1 %", "top-1: of the test rows"),
    Column("gain"),
    Column("95% interval"),
    Column("leave-one-out %", "leave-one-out: of the training rows", extra=True),
    Column("bytes", extra=True),
]
ROWS = [[name, "7.2", f"{60 + at}.5", "+11.3", "+10.1 to +16.5", "45.6", "12,345"] for at, name in enumerate(NAMES)]


@pytest.fixture
def printed(monkeypatch, capsys):
    """What a table prints, in a terminal of this width, or in a pipe."""

    def run(width, *words, **others):
        if width is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(width))
        print_table(*words, **others)
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("everything", [False, True])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(printed, width, everything):
    lines = printed(width, COLUMNS, ROWS, "A title of " + "some words " * 9, everything=everything)
    assert max(map(cell_len, lines)) <= width
    whole = "".join("".join(line[:30] for line in lines).split())
    letters = "".join("".join(lines).split())
    for name in NAMES[:2]:
        assert all(word in " ".join(lines) for word in name.split())
    assert letters.count("x") >= 90 - 2
    assert whole.count("京") >= 5
    for row in ROWS:
        for cell in row[1:5] + (row[5:] if everything else []):
            assert cell in "\n".join(lines)
    assert "…" not in letters
    assert "..." not in letters


def test_columns_without_room_stand_in_a_table_below_with_the_names_again(printed):
    lines = printed(44, COLUMNS, ROWS[:1])
    heads = [line.split()[0] for at, line in enumerate(lines[:-1]) if "features" in line]
    assert len(heads) > 1
    assert sum(line.startswith("embedding") for line in lines) == len(heads)


def test_a_pipe_gets_a_line_a_row_however_long(printed):
    lines = printed(None, COLUMNS, ROWS)
    assert screen_width() is None
    assert [sum(line.startswith(f"{name} ") for line in lines) for name in NAMES] == [2, 1, 1, 1]
    assert len(lines) == 2 + len(ROWS) + 1


def test_columns_of_figures_end_at_the_same_cell(printed):
    lines = printed(
        80, [Column("class"), Column("rows"), Column("gain")], [["a", "1", "+0.5"], ["東京", "1,000", "-10.0"]]
    )
    assert lines == [
        "class   rows   gain",
        "-------------------",
        "a          1   +0.5",
        "東京   1,000  -10.0",
    ]


def test_what_is_left_out_is_said_in_a_line_and_what_columns_mean_of_those_shown(printed):
    lines = printed(80, COLUMNS, ROWS, main=[0], everything=False)
    assert lines[-2:] == [
        "3 more rows and 2 more columns: --all",
        "passes: of the backbone; top-1: of the test rows.",
    ]
    assert not any("leave-one-out" in line for line in lines)
    assert "1 more row: --all" in printed(80, COLUMNS[:2], [row[:2] for row in ROWS], main=[0, 1, 2], everything=False)
    assert not any("--all" in line for line in printed(80, COLUMNS, ROWS, main=[0], everything=True))


def test_sentences_are_broken_at_blanks_and_longer_words_between_letters(monkeypatch, capsys):
    assert fold("one two three", 7) == ["one two", "three"]
    assert fold("one two three", 7, "  ") == ["one two", "  three"]
    assert fold("abcdefghij", 4) == ["abcd", "efgh", "ij"]
    assert fold("  5  a", 20) == ["  5  a"]
    assert fold("", 5) == [""]
    assert fold("東京都", 4) == ["東京", "都"]
    monkeypatch.setenv("COLUMNS", "30")
    say_folded("a sentence of more than thirty letters")
    assert capsys.readouterr().out == "a sentence of more than thirty\nletters\n"


@pytest.mark.parametrize("columns", ["40", "80", ""])
def test_a_command_at_the_end_of_a_note_can_be_copied(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    command = "sporeprint classify /data/train /data/test 'my model' --features layers --predictor ridge"
    say_note(f"`sporeprint classify` alone takes another; for layers with ridge: {command}")
    words, shell = capsys.readouterr().out.split("ridge:\n", 1)
    assert words.startswith("note: `sporeprint classify` alone takes")
    assert shlex.split(shell.replace("\\\n", "")) == shlex.split(command)
    assert max(map(len, shell.splitlines())) <= int(columns or 1000)
    assert len(shell.splitlines()) == {"40": 3, "80": 2, "": 1}[columns]


def test_a_note_without_a_command_is_folded_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    say_note("one class only: nothing to tell apart")
    assert capsys.readouterr().out == "note: one class only: nothing\n  to tell apart\n"
