import numpy as np
import pytest

from sporeprint.evaluate.near_duplicates import near_duplicates


def random_rows(count, width=64, seed=0):
    """Rows far from the origin, as of a network whose embeddings have a mean: all cosines are near 1 as they are."""
    return (np.random.default_rng(seed).standard_normal((count, width)) + 10).astype(np.float32)


def plain(rows, queries=None, near=0.98):
    """All pairs in float64."""
    centre = rows.mean(axis=0, dtype=np.float64)

    def directions(array):
        apart = array - centre
        return apart / np.linalg.norm(apart, axis=1, keepdims=True)

    cosines = directions(rows if queries is None else queries) @ directions(rows).T
    if queries is None:
        np.fill_diagonal(cosines, -1)
    return int((cosines.max(axis=1) > near).sum())


def counts(found):
    return found.found, found.looked


def test_rows_that_are_all_but_the_same_are_found_and_others_are_not():
    rows = random_rows(200)
    assert counts(near_duplicates(rows)) == (0, 200)
    rows[7], rows[150] = rows[3], rows[4] + 0.01
    assert counts(near_duplicates(rows)) == (4, 200)
    queries = random_rows(50, seed=1)
    queries[[0, 9, 10]] = rows[[3, 20, 199]]
    assert counts(near_duplicates(rows, queries)) == (3, 50)


@pytest.mark.parametrize("near", [0.1, 0.3, 0.4])
def test_chunks_find_what_all_pairs_have(monkeypatch, near):
    rows, queries = random_rows(300), random_rows(40, seed=1)
    monkeypatch.setattr("sporeprint.evaluate.near_duplicates._NUMBERS", 5000)
    assert near_duplicates(rows, near=near).found == plain(rows, near=near) > 0
    assert near_duplicates(rows, queries, near).found == plain(rows, queries, near)


def test_of_very_many_rows_evenly_spaced_ones_are_looked_at(monkeypatch):
    rows = np.repeat(random_rows(300), 2, axis=0)
    rows[300:] = random_rows(300, seed=1)  # duplicates in the first half alone
    monkeypatch.setattr("sporeprint.evaluate.near_duplicates._MOST_PRODUCTS", 600 * 64 * 150)
    assert counts(near_duplicates(rows)) == (75, 150)


def test_few_dimensions_and_broken_or_lonely_rows_have_none():
    assert counts(near_duplicates(random_rows(100, width=8))) == (0, 100)
    assert counts(near_duplicates(random_rows(1))) == (0, 1)
    assert near_duplicates(np.ones((5, 32), np.float32)).found == 0
    rows = random_rows(10)
    rows[1], rows[2, 0] = rows[0], np.nan
    assert near_duplicates(rows).found == 0
