"""The answer of `knn` and its like, and the rows that are shown with it."""

import pytest

from sporeprint.cli.print_scores import few_shot_draws, print_scores
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.table import Entry
from sporeprint.features.combine import Combination


class Top1(Result):
    k, mean_per_class, mean_per_class_spread, leave_one_out = 5, 0.5, None, {5: 0.4}


def row(name, value, role="combined", **how):
    combination = Combination((name.split(",")[0],), **how)
    return Entry(name, role, combination, combination.blocks, 8, 1, results={"auto": Top1(value)})


ENTRIES = [row("embedding", 0.6, "embedding"), *(row(f"cls-{at}", 0.5, "control") for at in range(9))]
HALF = row("embedding, white 0.5", 0.75, "embedding", whiten="auto", exponent=0.5)
ENTRIES.append(HALF)


@pytest.mark.parametrize("chosen", [HALF, None])
def test_the_row_that_the_answer_names_is_always_shown(capsys, monkeypatch, chosen):
    monkeypatch.setenv("COLUMNS", "200")
    print_scores("kNN", ENTRIES, "knn", chosen)
    first, *lines = capsys.readouterr().out.splitlines()
    assert "75.0%, +15.0 points over the embedding's 60.0%" in first
    (shown,) = [line.split() for line in lines if line.startswith(HALF.name)]
    assert shown[-4:] == ["1", "75.0", "+15.0", "5"]
    assert ("(chosen)" in shown) == (chosen is HALF)
    assert any(line.startswith("8 more rows") for line in lines)


def test_the_best_of_the_tested_rows_is_said_to_be_no_choice(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_scores("kNN", ENTRIES, "knn")
    sentence = capsys.readouterr().out.splitlines()[0]
    figures = "top-1 75.0%, +15.0 points over the embedding's 60.0%"
    assert sentence == f"Best of 11 on the tested rows, not a choice: embedding, white 0.5, {figures}."
    longest = row("embedding + layers + views + gradients, white 0.5", 0.9)
    print_scores("kNN", [*ENTRIES, longest], "knn")
    assert len([word for word in capsys.readouterr().out.splitlines()[0].split() if word != "+"]) <= 25


def test_the_embedding_stays_where_it_was_chosen_or_nothing_is_higher(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_scores("kNN", ENTRIES, "knn", ENTRIES[0])
    print_scores("kNN", ENTRIES[:-1], "knn")
    out = capsys.readouterr().out
    assert out.startswith("The embedding alone has top-1 60.0%; leave-one-out on the training rows finds nothing")
    assert "\nNone of 9 others has more than the embedding: top-1 60.0%.\n" in out


def test_one_row_a_class_is_one_row():
    assert few_shot_draws({"shots": 1, "draws": 1}) == ["one draw of 1 row a class"]
    assert few_shot_draws({"shots": 2, "draws": 1}) == ["one draw of 2 rows a class"]


@pytest.mark.parametrize(("name", "begins"), [("kl", "kl: top-1"), ("embedding", "Embedding: top-1")])
def test_a_sentence_that_begins_with_a_block_names_it_as_it_is(capsys, monkeypatch, name, begins):
    monkeypatch.setenv("COLUMNS", "200")
    print_scores("kNN", [row(name, 0.5)], "knn")
    assert capsys.readouterr().out.startswith(begins)
