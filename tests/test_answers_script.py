"""benchmarks/answers.py: what is chosen on the training rows, and how the aims are summed up."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sporeprint import Combination, Ridge

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import answers
import answers_tried


@pytest.fixture
def pair() -> answers.Pair:
    """The layers hold the class, the embedding holds noise; every row of training comes again as a row of test."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    pair = object.__new__(answers.Pair)
    layers = np.eye(3)[labels] + 0.05 * rng.normal(size=(60, 3))
    pair.train = {"embedding": rng.normal(size=(60, 4)), "cls-1": layers}
    pair.train = {name: block.astype(np.float32) for name, block in pair.train.items()}
    pair.test = {"embedding": pair.train["embedding"][::-1], "cls-1": pair.train["cls-1"]}
    pair.labels, pair.test_labels = labels, labels.copy()
    pair.name, pair.whiteners = "made", {}
    return pair


def test_only_the_labelled_rows_answer(pair: answers.Pair) -> None:
    right = pair.right(Combination(("layers",)), Ridge(), np.flatnonzero(pair.labels != 2))
    assert right.tolist() == (pair.labels != 2).tolist()


def test_layers_that_hold_the_class_win_under_every_judge_and_are_chosen(pair: answers.Pair) -> None:
    figure = answers.figures(pair, None, 1)
    assert {figure["values"][f"layers | {judge}"][0] for judge in ("kNN", "closed form", "probe")} == {100.0}
    assert figure["values"]["choice"] == [100.0]
    assert figure["values"]["reference"][0] < 70  # of noise: a third is chance
    assert "cls-1" in figure["chosen"]["choice"][0] or "layers" in figure["chosen"]["choice"][0]
    value, low, high = figure["gains"]["reference"]
    assert value == pytest.approx(100 - figure["values"]["reference"][0])
    assert low <= value <= high
    assert "views | kNN" not in figure["values"]  # there are none


def test_few_shot_figures_are_of_as_many_draws(pair: answers.Pair) -> None:
    figure = answers.figures(pair, 5, 3)
    assert {len(values) for values in figure["values"].values()} == {3}
    assert figure["train"] == 15


def test_the_aims_are_the_mean_and_the_worst_gain_without_the_sets_that_were_tuned_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved = [
        {"set": name, "shots": None, "gains": {"kNN on the raw embedding": [knn, 0, 0], "reference": [gain, 0, 0]}}
        for name, knn, gain in (("a", 6.0, 3.0), ("b", 2.0, -1.0), ("tuned", 10.0, 10.0))
    ]
    answers.show_aims(saved, ["tuned"])
    lines = capsys.readouterr().out.splitlines()
    assert "| all | 2 untouched | kNN on the raw embedding | +4.0 | +2.0 (b) |" in lines
    assert "| all | 2 untouched | reference | +1.0 | -1.0 (b) |" in lines
    assert "| all | 3 all | reference | +4.0 | -1.0 (b) |" in lines


def test_a_table_shows_each_set_its_features_and_what_was_chosen(
    pair: answers.Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.show([answers.figures(pair, None, 1)])
    lines = capsys.readouterr().out.splitlines()
    assert "| made | layers | 100.0 | 100.0 | 100.0 |" in lines
    assert [line.split(" | ")[1] for line in lines if line.startswith("| made")][:4] == [
        "embedding",
        "layers",
        "all",
        answers.percent(answers.figures(pair, None, 1)["values"][answers.KNN_RAW]),
    ]


def test_the_most_frequent_choice_of_the_draws_is_shown() -> None:
    assert answers.often(["a", "b", "b"]) == "b: 2 of 3 draws"
    assert answers.often(["a"]) == "a"
    assert answers.percent([50.0, 60.0]) == "55.0 ± 7.1"


def test_rules_are_judged_by_what_they_choose(pair: answers.Pair) -> None:
    gains = answers_tried.gains(pair, np.arange(60))
    reference = answers.figures(pair, None, 1)["values"]["reference"][0]
    every = answers_tried.Rule(answers_tried.EVERY, 1)
    assert gains[every] == pytest.approx(100 - reference)
    assert gains[answers_tried.Rule((), None, answers_tried.LAYERS)] > 0
    assert str(every) == "kNN or LDA or ridge or class means, from the reference, guard 1"


def test_a_rule_stays_where_nothing_is_better_by_its_guard(pair: answers.Pair) -> None:
    pair.train["cls-1"] = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    gains = answers_tried.gains(pair, np.arange(60))
    lda = {rule.guard: gain for rule, gain in gains.items() if rule.start == answers_tried.RAW and rule.words}
    assert lda[2] == gains[answers_tried.Rule((), None, answers_tried.RAW)]
