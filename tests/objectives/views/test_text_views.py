import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sporeprint.errors import RecipeError
from sporeprint.objectives.views.text import Deletions, kept_words
from sporeprint.values import from_json, to_json


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


class Script:
    """A generator that gives what is written."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size):
        taken, self.draws = self.draws[:size], self.draws[size:]
        return np.array(taken)


@pytest.mark.parametrize(
    ("draws", "expected"),
    [  # p = 0.1; one draw a word, then the one that rescues
        ([0.05, 0.5, 0.9, 0.0], "b c"),
        ([0.5, 0.09, 0.02, 0.0], "a"),
        ([0.1, 0.0999, 0.1, 0.0], "a c"),  # deleted below p, kept at p
        ([0.5, 0.6, 0.7, 0.0], "b c"),  # none deleted: the first third of the last draw deletes the first
        ([0.5, 0.6, 0.7, 0.34], "a c"),
        ([0.5, 0.6, 0.7, 0.999], "a b"),
        ([0.0, 0.01, 0.02, 0.0], "a"),  # all deleted: the last draw says which stays
        ([0.0, 0.01, 0.02, 0.5], "b"),
        ([0.0, 0.01, 0.02, 0.999], "c"),
    ],
)
def test_draws_delete_words_by_the_rules(draws, expected):
    assert Deletions(1, 0.1).texts("a b c", Script(*draws)) == [expected]


def test_every_view_takes_its_own_four_draws_of_three_words():
    script = Script(0.05, 0.5, 0.9, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.01, 0.5, 77)
    assert Deletions(3, 0.1).texts("a b c", script) == ["b c", "a c", "a b"]
    assert script.draws == [77]


def test_the_largest_draw_names_a_word_for_every_count():
    largest = math.nextafter(1.0, 0.0)
    for words in (*range(2, 300), 2**10, 2**16 - 1, 2**16 + 1):
        kept = kept_words(np.array([0.5] * words + [largest]), 0.1)
        assert np.flatnonzero(~kept).tolist() == [words - 1]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), min_size=2, max_size=12),
    st.floats(0.001, 0.999),
    st.integers(0, 2**32),
)
def test_every_view_is_a_proper_part_of_the_words_in_order(words, probability, seed):
    text = " ".join(words)
    views = Deletions(6, probability).texts(text, rng(seed))
    assert len(views) == 6
    for view in views:
        kept = view.split(" ")
        assert 1 <= len(kept) < len(words)
        left = iter(words)
        assert all(word in left for word in kept)  # each is found behind the one before


def within(count, trials, probability):
    """Five standard deviations of a binomial count: a fair draw is outside once in two million times."""
    return abs(count - trials * probability) < 5 * math.sqrt(trials * probability * (1 - probability))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.95])
def test_three_words_go_as_often_as_the_rule_says(probability):
    p, trials = probability, 6000
    counts = Counter(Deletions(trials, p).texts("a b c", rng()))
    one_gone = p * (1 - p) ** 2 + (1 - p) ** 3 / 3
    two_gone = p**2 * (1 - p) + p**3 / 3
    assert set(counts) == {"a b", "a c", "b c", "a", "b", "c"}
    for view, count in counts.items():
        assert within(count, trials, one_gone if " " in view else two_gone), view


def test_of_many_words_each_goes_with_the_probability():
    words = [f"w{number}" for number in range(200)]  # none or all go once in a billion views
    views = [view.split() for view in Deletions(400, 0.1).texts(" ".join(words), rng())]
    gone = 400 * 200 - sum(map(len, views))
    assert within(gone, 400 * 200, 0.1)
    kept = Counter(word for view in views for word in view)
    assert all(within(400 - kept[word], 400, 0.1) for word in words)


def test_two_words_are_each_alone_half_of_the_time():
    counts = Counter(Deletions(4000, 0.1).texts("left right", rng()))
    assert set(counts) == {"left", "right"}
    assert within(counts["left"], 4000, 0.5)


@pytest.mark.parametrize("text", ["two words", "What is the tallest building in Japan ?", "one", "w " * 500])
def test_the_first_views_are_those_of_fewer_views(text):
    twelve = Deletions(12).texts(text, rng())
    for views in (1, 2, 11):
        assert Deletions(views).texts(text, rng()) == twelve[:views]


def test_the_same_generator_gives_the_same_views_and_another_gives_others():
    text = " ".join("abcdefghijklmnopqrstuvwxyz")
    assert Deletions().texts(text, rng()) == Deletions().texts(text, rng())
    assert Deletions().texts(text, rng()) != Deletions().texts(text, rng(1))
    assert len(set(Deletions().texts(text, rng()))) > 6


@pytest.mark.parametrize("text", ["word", "  word\n", "我喜欢蘑菇", "", "zero\u200bwidth"])
def test_one_word_stays_itself_and_takes_no_draw(text):
    assert Deletions(3).texts(text, Script()) == [text] * 3


def test_any_whitespace_parts_words_and_one_space_joins_them():
    draws = [0.5, 0.5, 0.5, 0.5, 0.05, 0.0]
    assert Deletions(1, 0.1).texts(" a\u3000b\t\nc\xa0\u2003d  e\r\n", Script(*draws)) == ["a b c d"]


def test_views_are_what_preprocess_makes_of_the_texts():
    assert Deletions(12)("some few words here", str.upper, rng()) == [
        view.upper() for view in Deletions(12).texts("some few words here", rng())
    ]


def test_nothing_is_drawn_from_the_global_generator():
    before = str(np.random.get_state())  # noqa: NPY002
    Deletions().texts("some few words here", rng())
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_the_papers_numbers_are_the_defaults():
    assert (Deletions().views, Deletions().probability) == (12, 0.1)


@pytest.mark.parametrize("augmentation", [Deletions(), Deletions(3, 0.25)])
def test_json_and_back(augmentation):
    data = json.loads(json.dumps(to_json(augmentation)))
    assert data == {"kind": "deletions", "views": augmentation.views, "probability": augmentation.probability}
    assert from_json(data) == augmentation


@pytest.mark.parametrize("views", [0, -1, 1.5, "3", None, True])
def test_views_that_cannot_be_are_refused(views):
    with pytest.raises(RecipeError, match=r"views=.*at least 1"):
        Deletions(views=views)


@pytest.mark.parametrize("probability", [0, 1, 0.0, 1.0, -0.1, 1.1, float("nan"), "0.1", None, True])
def test_probabilities_that_cannot_be_are_refused(probability):
    with pytest.raises(RecipeError, match=r"probability=.*above 0 and below 1"):
        Deletions(probability=probability)


def test_views_are_made_of_the_uncut_words_and_cut_themselves():
    small_text = pytest.importorskip("small_text")
    from sporeprint.backbones.inputs.tokens import Tokens

    tokens = Tokens(small_text.wordpiece(), max_length=5)  # CLS, three words, SEP
    ids = {"cat": 7, "dog": 8, "sat": 9, "ran": 10}
    script = Script(0.05, 0.5, 0.9, 0.7, 0.0, 0.5, 0.5, 0.5, 0.05, 0.0)  # the first word goes; the last word goes
    views = Deletions(2, 0.1)("cat dog sat ran", tokens, script)
    assert views[0]["input_ids"] == [2, ids["dog"], ids["sat"], ids["ran"], 3]  # the fourth word moves up
    assert views[1]["input_ids"] == [2, ids["cat"], ids["dog"], ids["sat"], 3]
    assert tokens("cat dog sat ran") == views[1]
