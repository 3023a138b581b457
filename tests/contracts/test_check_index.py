import numpy as np
import pytest

from sporeprint import check_index
from sporeprint.search.exact import ExactIndex


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    rows, queries = random.normal(size=(300, 8)), random.normal(size=(40, 8))
    return tuple((one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in (rows, queries))


class Broken:
    """Exact search, and then `harm`."""

    name, recall = "broken", 1.0

    def __init__(self, rows, harm):
        self.rows, self.exact, self.harm = rows, ExactIndex(rows), harm

    def search(self, queries, k):
        return self.harm(self, queries, k, *self.exact.search(queries, k))


def blind(index, queries, k, similarities, positions):
    """Sees every second row only."""
    similarities, positions = ExactIndex(index.rows[::2]).search(queries, k)
    return similarities, positions * 2


def moved(index, queries, k, similarities, positions):
    return similarities, (positions + 1) % len(index.rows)


def repeated(index, queries, k, similarities, positions):
    return np.repeat(similarities[:, :1], k, 1), np.repeat(positions[:, :1], k, 1)


def in_place(index, queries, k, similarities, positions):
    queries *= 2
    return index.exact.search(queries / 2, k)


def by_company(index, queries, k, similarities, positions):
    """Alone, a query gets rows a little further off."""
    if len(queries) > 1:
        return similarities, positions
    return tuple(part[:, 1:] for part in index.exact.search(queries, k + 1))


def euclidean(index, queries, k, similarities, positions):
    return np.float32(2) - 2 * similarities, positions


HARMS = {
    "are found; promised 0.95": blind,
    "not the product": moved,
    "found twice": repeated,
    "changes its queries": in_place,
    "other neighbours alone": by_company,
    "do not fall": euclidean,
    "no row's": lambda index, queries, k, s, p: (s, np.where(p == p[0, 0], -1, p)),
    "float32 and int64": lambda index, queries, k, s, p: (s, p.astype(np.int32)),
    "float64 and int64; expected": lambda index, queries, k, s, p: (s.astype(float), p),
    "k is cut": lambda index, queries, k, s, p: (s[:, :-1], p[:, :-1]),
}


@pytest.mark.parametrize("message", HARMS)
def test_a_broken_index_is_caught(table, message):
    with pytest.raises(AssertionError, match=message):
        check_index(Broken(table[0], HARMS[message]), *table)


def test_an_index_that_pads_where_rows_are_too_few_is_caught(table):
    def padded(index, queries, k, s, p):
        more = ((0, 0), (0, k - s.shape[1]))
        return np.pad(s, more, constant_values=-1), np.pad(p, more, constant_values=-1)

    with pytest.raises(AssertionError, match="k is cut"):
        check_index(Broken(table[0][:5], padded), table[0][:5], table[1])


def test_a_share_below_the_promise_passes_where_less_is_promised(table):
    check_index(Broken(table[0], blind), *table, recall=0.3)
    with pytest.raises(AssertionError, match=r"promised 0\.7"):
        check_index(Broken(table[0], blind), *table, recall=0.7)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_exact_search_passes(table, dtype, k):
    rows = np.concatenate([table[0], table[0][:50]]).astype(dtype)  # copies tie
    check_index(ExactIndex(rows), rows, table[1], recall=1, k=k)
