"""Leave-one-out of many combinations, against a slow loop; and of some rows."""

import math
from collections import Counter

import numpy as np
import pytest

from small_blocks import classed_blocks, unlabelled_blocks
from sporeprint.evaluate.choice.candidates import choices
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.features.combine import Combination
from sporeprint.predictors.knn import leave_one_out, votes_of_others

pytestmark = pytest.mark.filterwarnings("error")
KS = (1, 3, 5)


def slowly(features, labels, k):
    """Whether the k nearest others vote for each row's label: plain Python, ties to the nearest, then the first row."""
    rows = [[float(x) for x in row] for row in features]
    right = []
    for at, row in enumerate(rows):
        apart = [(math.dist(row, other), i) for i, other in enumerate(rows)]
        votes = [labels[i] for _, i in sorted(pair for pair in apart if pair[1] != at)[:k]]
        counts = Counter(votes)
        most = max(counts.values())
        right.append(next(vote for vote in votes if counts[vote] == most) == labels[at])
    return right


def test_every_candidate_is_asked_what_a_slow_loop_over_its_features_asks():
    blocks = unlabelled_blocks(18)
    labels = [*"aaabbbccc", *"abcabcabc"]
    candidates = choices(list(blocks))
    actual, whiteners = leave_one_out_of(blocks, labels, candidates, KS), {}
    assert list(actual) == list(candidates)
    for name, combination in candidates.items():
        features = combination.fit(blocks, whiteners).transform(blocks)
        for k in KS:
            assert actual[name][k].tolist() == slowly(features, labels, k), (name, k)


def test_weights_given_to_blocks_and_a_fixed_rank_are_respected():
    blocks = unlabelled_blocks(20)
    labels = [*"abcd"] * 5
    odd = {
        "weighed": Combination(("kl", "embedding", "layers"), weights=(3.0, 0.5, 1.5)),
        "ranked": Combination(("embedding", "kl"), whiten=2, exponent=0.5),
        "paper": Combination(),
    }
    actual = leave_one_out_of(blocks, labels, odd, KS)
    for name, combination in odd.items():
        features = combination.fit(blocks).transform(blocks)
        assert {k: right.tolist() for k, right in actual[name].items()} == {k: slowly(features, labels, k) for k in KS}


def test_rows_without_a_label_fit_the_whitening_and_are_not_asked():
    blocks = unlabelled_blocks(30)
    labels = ["a", None, "b", float("nan"), "a", "b"] * 5
    has = np.array([label in ("a", "b") for label in labels])
    for whiten in (None, "auto"):
        combination = Combination(("embedding", "kl"), whiten)
        actual = leave_one_out_of(blocks, labels, {"it": combination}, KS)["it"]
        features = combination.fit(blocks).transform(blocks)[has]
        assert {k: right.tolist() for k, right in actual.items()} == {
            k: slowly(features, [label for label in labels if label in ("a", "b")], k) for k in KS
        }
    alone = Combination(("embedding", "kl"), "auto").fit({name: rows[has] for name, rows in blocks.items()})
    assert not np.allclose(features, alone.transform({name: rows[has] for name, rows in blocks.items()}), atol=1e-3)


def test_of_many_labelled_rows_some_are_drawn_and_ask_each_other():
    blocks = unlabelled_blocks(40)
    labels = np.array([*"abcd"] * 10)
    candidates = {"it": Combination(("embedding", "kl"), "auto")}
    actual = leave_one_out_of(blocks, labels, candidates, KS, most_rows=15, seed=4)["it"]
    rows = np.sort(np.random.default_rng(4).choice(40, 15, replace=False))
    features = candidates["it"].fit(blocks).transform(blocks)[rows]
    assert actual[3].tolist() == slowly(features, labels[rows], 3)


@pytest.mark.parametrize(
    "labels",
    [[0.0, np.nan, 1.0, 0.0, 1.0], np.array([0, np.nan, 1, 0, 1]), np.array([0, None, 1, 0, 1]), [0, None, 1, 0, 1]],
)
def test_missing_numbers_are_missing_however_they_come(labels):
    rows = {"embedding": np.array([[1, 0], [0, 1], [0, 1], [1, 0.1], [0.1, 1]], np.float32)}
    actual = leave_one_out_of(rows, labels, {"it": Combination(("embedding",))}, [1])["it"]
    assert actual[1].tolist() == [True, True, True, True]


def test_of_a_constant_block_the_majority_of_the_others_wins():
    rows = np.tile(np.array([[3.0, 4.0]], np.float32), (30, 1))
    labels = [*"abb"] * 10
    actual = leave_one_out_of({"embedding": rows}, labels, choices(["embedding"]), [1, 3])
    for right in actual.values():
        assert right[1].tolist() == right[3].tolist() == [label == "b" for label in labels]


def test_rows_that_stand_more_than_once_find_their_doubles():
    blocks = {name: np.repeat(rows, 2, axis=0) for name, rows in unlabelled_blocks(10).items()}
    actual = leave_one_out_of(blocks, np.repeat(np.arange(10), 2), choices(list(blocks)), [1])
    assert all(right[1].all() for right in actual.values())


@pytest.mark.parametrize("most", [1, 7, 29])
def test_some_rows_ask_and_all_are_neighbours(monkeypatch, most):
    monkeypatch.setattr("sporeprint.search.neighbours._QUERIES", 4)
    blocks, labels = classed_blocks(30)
    rows = np.sort(np.random.default_rng(0).choice(30, most, replace=False))
    actual = votes_of_others(blocks["embedding"], labels, rows, (1, 3, 10, 40))
    every = leave_one_out(blocks["embedding"], labels, (1, 3, 10, 40))
    assert list(actual) == [1, 3, 10]
    for k, right in actual.items():
        assert right.tolist() == every[k][rows].tolist()


def test_a_row_among_many_doubles_is_no_neighbour_of_its_own():
    features, labels = np.ones((12, 2), np.float32), np.array([0, 0, 0, *[1] * 9])
    rows = np.array([0, 2, 11])
    every = leave_one_out(features, labels, (1, 2, 3))
    actual = votes_of_others(features, labels, rows, (1, 2, 3))
    assert {k: right.tolist() for k, right in actual.items()} == {k: right[rows].tolist() for k, right in every.items()}
