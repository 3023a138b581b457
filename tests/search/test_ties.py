import numpy as np
import pytest

from sporeprint.search import ties
from sporeprint.search.ties import Nearest, tied_neighbours


def found(train, queries, k, metric="euclidean", own=None, values=None):
    """{query: {row: (distance, share of k places)}}"""
    answers = {}
    values = np.arange(len(train)) if values is None else values
    for near in tied_neighbours(train, queries, k, values, metric, own):
        for query, rows, distances, places in zip(near.queries, near.rows, near.distances, near.places(k), strict=True):
            answers[int(query)] = {
                int(row): (float(apart), pytest.approx(float(place)))
                for row, apart, place in zip(rows, distances, places, strict=True)
                if place
            }
    return answers


def slowly(train, queries, k, own=None):
    """As `found`, one query at a time: whole numbers, so that equal distances are equal."""
    answers = {}
    for number, query in enumerate(queries):
        apart = {
            row: float(np.sqrt(((train[row] - query) ** 2).sum()))
            for row in range(len(train))
            if own is None or row != own[number]
        }
        limit = sorted(apart.values())[min(k, len(apart)) - 1]
        nearer = sum(distance < limit for distance in apart.values())
        tied = sum(distance == limit for distance in apart.values())
        shares = {row: 1.0 if apart[row] < limit else min(1.0, (k - nearer) / tied) for row in apart}
        answers[number] = {row: (apart[row], shares[row]) for row in apart if apart[row] <= limit}
    return answers


@pytest.mark.parametrize("pairs", [50, 2**20])
@pytest.mark.parametrize("k", [1, 2, 5, 30, 100])
def test_rows_as_near_as_the_last_share_its_place(k, pairs, monkeypatch):
    monkeypatch.setattr(ties, "_PAIRS", pairs)
    monkeypatch.setattr("sporeprint.search.neighbours._QUERIES", 8)
    rng = np.random.default_rng(k)
    train, queries = rng.integers(-2, 3, (90, 2)).astype(np.float64), rng.integers(-2, 3, (20, 2)).astype(np.float64)
    queries[::3] += 0.25
    assert found(train, queries, k) == slowly(train, queries, k)
    own = rng.integers(0, 90, 20)
    assert found(train, train[own], k, own=own) == slowly(train, train[own], k, own)


def test_distinct_rows_at_one_distance_are_all_found():
    train = np.concatenate([np.eye(200), -np.eye(200)])  # from the origin all tie
    assert found(train, np.zeros((1, 200)), 3) == {0: dict.fromkeys(range(400), (1.0, 3 / 400))}


def test_one_row_stands_for_duplicates_of_its_value():
    train, values = np.array([[1.0], [0.0], [1.0], [1.0], [1.0], [0.0], [5.0]]), np.array(list("abaabba"))
    assert found(train, [[1.0]] @ np.eye(1), 2, values=values)[0] == {0: (0.0, 1.5), 4: (0.0, 0.5)}
    assert found(train, train[[4, 2]], 3, own=np.array([4, 2]), values=values) == {
        0: {0: (0.0, 3.0)},
        1: {0: (0.0, 2.0), 4: (0.0, 1.0)},
    }


def test_rows_of_zeros_are_as_far_from_every_row_by_cosine():
    train = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert found(train, [[0.0, 0.0]] @ np.eye(2), 2, "cosine")[0] == dict.fromkeys(range(5), (1.0, 0.4))
    assert found(train, train[[1]], 2, "cosine", np.array([1]))[0] == dict.fromkeys((0, 2, 3, 4), (1.0, 0.5))


@pytest.mark.parametrize("known", [False, True], ids=["ties found for each k", "ties found once"])
def test_shares_add_up_to_the_places_that_there_are(known):
    distances = np.array([[0.0, 1.0, 1.0, 1.0, np.inf], [0.0, 0.0, 2.0, 3.0, 3.0]])
    near = Nearest(np.arange(2), np.zeros((2, 5), int), distances, np.isfinite(distances).astype(int))
    near = near.with_ties() if known else near
    np.testing.assert_allclose(near.places(2), [[1, 1 / 3, 1 / 3, 1 / 3, 0], [1, 1, 0, 0, 0]])
    np.testing.assert_allclose(near.places(9), [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    np.testing.assert_allclose(near.first(3).places(2), [[1, 1 / 3, 1 / 3, 1 / 3], [1, 1, 0, 0]])
    np.testing.assert_allclose(near.first(1).places(1), [[1, 0], [0.5, 0.5]])
