"""Leave-one-out of many features under many predictors, against each predictor asked by itself."""

import numpy as np
import pytest

from small_blocks import classed_blocks, unlabelled_blocks
from sporeprint.evaluate.choice.candidates import REFERENCES, choices, full_table
from sporeprint.evaluate.choice.judges import PREDICTORS
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.features.combine import Combination

pytestmark = pytest.mark.filterwarnings("error")
CLOSED = ("kNN", "class means", "LDA", "ridge")


def asked_alone(features, labels, word, groups=None):
    return PREDICTORS[word]().leave_one_out(features, labels, groups)


def assert_as_alone(outcome, features, labels, word, groups=None):
    expected = asked_alone(features, labels, word, groups)
    np.testing.assert_allclose(outcome.losses, expected.losses, atol=2e-3, err_msg=word)
    assert outcome.right.tolist() == expected.right.tolist()
    assert (outcome.value, outcome.loss) == (outcome.right.mean(), outcome.losses.mean())


@pytest.mark.parametrize("word", CLOSED)
def test_every_candidate_is_told_what_the_predictor_says_of_its_features(word):
    blocks, labels = classed_blocks(24, strength=0.7)
    candidates = {**choices(list(blocks)), **{row.name: row.combination for row in full_table(list(blocks))}}
    actual, whiteners = leave_one_out_of(blocks, labels, candidates, (word,)), {}
    assert list(actual) == list(candidates)
    for name, combination in candidates.items():
        features = combination.fit(blocks, whiteners).transform(blocks)
        assert_as_alone(actual[name][word], features, labels, word)


@pytest.mark.parametrize("word", CLOSED)
def test_more_dimensions_than_rows_and_fewer_give_what_the_predictor_says(word):
    wide = unlabelled_blocks(16, **{"embedding": 5, "cls-1": 40})
    labels = np.arange(16) % 2
    wide["cls-1"][:, 0] += 3 * labels
    for how in (Combination(("embedding",)), Combination(("embedding", "cls-1")), Combination(("cls-1",), "auto")):
        features = how.fit(wide).transform(wide)
        assert_as_alone(leave_one_out_of(wide, labels, {"it": how}, (word,))["it"][word], features, labels, word)


@pytest.mark.parametrize("word", CLOSED)
def test_rows_of_different_lengths_are_asked_as_they_are(word):
    blocks, labels = classed_blocks(24)
    blocks["kl"][::5] = 0  # a row of zeros adds nothing to the length of the joined row
    how = Combination(("embedding", "kl"))
    features = how.fit(blocks).transform(blocks)
    assert np.ptp(np.linalg.norm(features, axis=1)) > 0.3
    assert_as_alone(leave_one_out_of(blocks, labels, {"it": how}, (word,))["it"][word], features, labels, word)


@pytest.mark.parametrize("word", [*CLOSED, "probe"])
def test_rows_of_a_group_are_left_out_together(word):
    blocks, labels = classed_blocks(24)
    groups = np.repeat(np.arange(8), 3)
    how = Combination(("embedding", "kl"), "auto")
    features = how.fit(blocks).transform(blocks)
    actual = leave_one_out_of(blocks, labels, {"it": how}, (word,), groups, probed={"it"})["it"][word]
    assert_as_alone(actual, features, labels, word, groups)
    alone = leave_one_out_of(blocks, labels, {"it": how}, (word,), probed={"it"})["it"][word]
    assert not np.allclose(alone.losses, actual.losses)


def test_the_probe_is_asked_of_some_features_alone():
    blocks, labels = classed_blocks(30)
    actual = leave_one_out_of(blocks, labels, choices(list(blocks)), ("LDA", "probe"), probed=set(REFERENCES))
    assert {name for name, outcomes in actual.items() if "probe" in outcomes} == set(REFERENCES)
    assert_as_alone(
        actual["embedding"]["probe"], REFERENCES["embedding"].fit(blocks).transform(blocks), labels, "probe"
    )


def test_a_predictor_keeps_what_it_chose_and_is_not_fitted():
    blocks, labels = classed_blocks(40, strength=0.5)
    how = Combination(("embedding", "kl"))
    features = how.fit(blocks).transform(blocks)
    actual = leave_one_out_of(blocks, labels, {"it": how}, CLOSED)["it"]
    ridge, neighbours = PREDICTORS["ridge"]().fit(features, labels), PREDICTORS["kNN"]().fit(features, labels)
    assert actual["ridge"].predictor.penalties == (ridge.penalty_,)
    assert (actual["kNN"].predictor.k, actual["kNN"].predictor.vote) == (neighbours.k_, neighbours.vote_)
    assert not any(hasattr(outcome.predictor, "classes_") for outcome in actual.values())


def test_weights_given_to_blocks_and_a_fixed_rank_are_respected():
    blocks, labels = classed_blocks(30)
    odd = {
        "weighed": Combination(("kl", "embedding", "layers"), weights=(3.0, 0.5, 1.5)),
        "ranked": Combination(("embedding", "kl"), whiten=2, exponent=0.5),
        "paper": Combination(),
    }
    actual = leave_one_out_of(blocks, labels, odd, CLOSED)
    for name, combination in odd.items():
        features = combination.fit(blocks).transform(blocks)
        for word in CLOSED:
            assert_as_alone(actual[name][word], features, labels, word)


@pytest.mark.parametrize("word", CLOSED)
def test_rows_without_a_label_fit_the_whitening_and_are_not_asked(word):
    blocks, _ = classed_blocks(30)
    labels = ["a", None, "b", float("nan"), "a", "b"] * 5
    has = np.array([label in ("a", "b") for label in labels])
    known = [label for label in labels if label in ("a", "b")]
    how = Combination(("embedding", "kl"), "auto")
    features = how.fit(blocks).transform(blocks)[has]
    assert_as_alone(leave_one_out_of(blocks, labels, {"it": how}, (word,))["it"][word], features, known, word)
    alone = how.fit({name: rows[has] for name, rows in blocks.items()})
    assert not np.allclose(features, alone.transform({name: rows[has] for name, rows in blocks.items()}), atol=1e-3)


def test_of_many_labelled_rows_some_are_drawn_and_ask_each_other():
    blocks, labels = classed_blocks(40)
    how = Combination(("embedding", "kl"), "auto")
    actual = leave_one_out_of(blocks, labels, {"it": how}, ("LDA",), most_rows=15, seed=4)["it"]["LDA"]
    rows = np.sort(np.random.default_rng(4).choice(40, 15, replace=False))
    assert_as_alone(actual, how.fit(blocks).transform(blocks)[rows], labels[rows], "LDA")


@pytest.mark.parametrize(
    "labels",
    [[0.0, np.nan, 1.0, 0.0, 1.0], np.array([0, np.nan, 1, 0, 1]), np.array([0, None, 1, 0, 1]), [0, None, 1, 0, 1]],
)
def test_missing_numbers_are_missing_however_they_come(labels):
    rows = {"embedding": np.array([[1, 0], [0, 1], [0, 1], [1, 0.1], [0.1, 1]], np.float32)}
    actual = leave_one_out_of(rows, labels, {"it": Combination(("embedding",))}, ("class means",))["it"]
    assert actual["class means"].right.tolist() == [True, True, True, True]


@pytest.mark.parametrize("word", CLOSED)
def test_of_a_constant_block_the_majority_of_the_others_wins(word):
    rows = np.tile(np.array([[3.0, 4.0]], np.float32), (30, 1))
    labels = [*"abb"] * 10
    actual = leave_one_out_of({"embedding": rows}, labels, choices(["embedding"]), (word,))
    for outcome in actual.values():
        if word != "class means":  # which knows nothing of how frequent a class is
            assert outcome[word].right.tolist() == [label == "b" for label in labels]
        assert 0 <= outcome[word].loss <= 2


def test_rows_that_stand_more_than_once_find_their_doubles():
    blocks = {name: np.repeat(rows, 2, axis=0) for name, rows in unlabelled_blocks(10).items()}
    actual = leave_one_out_of(blocks, np.repeat(np.arange(10), 2), choices(list(blocks)), ("kNN",))
    assert all(outcome["kNN"].right.all() for outcome in actual.values())


@pytest.mark.parametrize("word", CLOSED)
def test_features_of_several_names_are_asked_once(word, monkeypatch):
    blocks, labels = classed_blocks(20)
    steps = []
    same = {"a": Combination(("layers",)), "b": Combination(("cls-1",)), "c": Combination(("cls-1",), "auto")}
    actual = leave_one_out_of(blocks, labels, same, (word,), progress=steps.append)
    assert actual["a"][word] is actual["b"][word]
    assert [step.split()[1] for step in steps] == ["a", "c"]
