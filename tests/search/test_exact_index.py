import numpy as np
import pytest

from sporeprint.errors import RecipeError, SampleError
from sporeprint.search import best_rows as candidates
from sporeprint.search import exact
from sporeprint.search.exact import ExactIndex
from sporeprint.search.indexes import make_index


def slow(rows, queries, k):
    """Sort all rows for each query by (product, falling; position)."""
    positions = []
    for query in queries.astype(float):
        products = [float(row @ query) for row in rows.astype(float)]
        positions.append(sorted(range(len(rows)), key=lambda at, products=products: (-products[at], at))[:k])
    return np.array(positions)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(exact, "_NUMBERS", 40)
    monkeypatch.setattr(exact, "_SCORES", 40)
    monkeypatch.setattr(candidates, "_KEYS", 60)


def test_a_worked_example():
    rows = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], np.float32)
    similarities, positions = ExactIndex(rows).search(np.array([[0, 1], [-1, 0]], np.float32), 3)
    assert positions.tolist() == [[1, 3, 0], [2, 1, 3]]
    np.testing.assert_allclose(similarities, [[1, 0.8, 0], [1, 0, -0.6]], rtol=1e-6)
    assert (similarities.dtype, positions.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_equals_sorting_all_rows(dtype, k, small_parts):
    random = np.random.default_rng(0)
    rows = random.normal(size=(90, 5)).astype(dtype)
    queries = random.normal(size=(13, 5)).astype(np.float32)
    similarities, positions = make_index("exact", rows).search(queries, k)
    assert (positions == slow(rows, queries, k)).all()
    assert positions.shape == (13, min(k, 90))
    products = np.einsum("qd,qkd->qk", queries.astype(float), rows.astype(float)[positions])
    np.testing.assert_allclose(similarities, products, rtol=1e-6)


def test_equal_products_go_by_position(small_parts):
    random = np.random.default_rng(1)
    rows = random.integers(-1, 2, (300, 3)).astype(np.float32)  # 27 different rows, seven products
    queries = random.integers(-1, 2, (20, 3)).astype(np.float32)
    for k in (1, 5, 60):
        assert (ExactIndex(rows).search(queries, k)[1] == slow(rows, queries, k)).all()


def test_rows_nearer_to_each_other_than_float32_products_tell_apart_are_ordered():
    random = np.random.default_rng(2)
    base = random.normal(size=700)
    rows = np.float32(base / np.linalg.norm(base)) + np.zeros((12, 1), np.float32)
    rows[np.arange(12), np.arange(12)] += random.permutation(12).astype(np.float32) * np.float32(2e-7)
    query = np.abs(rows[:1])
    positions = ExactIndex(rows).search(query, 12)[1]
    products = np.float32(rows.astype(float) @ query[0].astype(float))
    assert positions[0].tolist() == sorted(range(12), key=lambda at: (-products[at], at))


def test_a_query_is_answered_the_same_alone_and_among_others():
    random = np.random.default_rng(3)
    rows, queries = random.normal(size=(500, 33)).astype(np.float16), random.normal(size=(40, 33)).astype(np.float32)
    together = ExactIndex(rows).search(queries, 9)
    for at in (0, 17, 39):
        alone = ExactIndex(rows).search(queries[at : at + 1], 9)
        assert (alone[0] == together[0][at]).all()
        assert (alone[1] == together[1][at]).all()


def test_no_queries_no_answers():
    assert ExactIndex(np.ones((4, 3), np.float32)).search(np.ones((0, 3), np.float32), 2)[1].shape == (0, 2)


def test_what_cannot_be_searched_is_refused():
    rows = np.ones((4, 3), np.float32)
    index = ExactIndex(rows)
    for queries, k, message in [
        (np.ones((2, 4), np.float32), 1, r"floats \[queries, 3\]"),
        (np.ones((2, 3), np.float32), 0, "at least 1"),
        (np.full((2, 3), np.nan, np.float32), 1, "2 of 2 queries are NaN"),
    ]:
        with pytest.raises(SampleError, match=message):
            index.search(queries, k)
    for wrong in (np.ones((2, 2)), np.ones((0, 2), np.float32), np.ones(3, np.float32)):
        with pytest.raises(SampleError, match="float16 or float32"):
            make_index("exact", wrong)
    with pytest.raises(SampleError, match="NaN or infinite"):
        ExactIndex(np.full((4, 3), np.nan, np.float32)).search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(RecipeError, match="no settings; cells"):
        make_index("exact", rows, cells=3)
    with pytest.raises(RecipeError, match="'tree'; there are exact"):
        make_index("tree", rows)


def test_an_index_of_ones_own_is_taken_as_a_class_a_function_or_an_object_over_the_rows():
    rows = np.random.default_rng(0).standard_normal((40, 6), np.float32)
    given = ExactIndex(rows)
    assert make_index(given, rows) is given
    assert isinstance(make_index(ExactIndex, rows), ExactIndex)
    nearest = make_index(lambda others: ExactIndex(others), rows).search(rows[:3], 1)[1]
    assert np.array_equal(nearest, given.search(rows[:3], 1)[1])


def test_an_index_over_other_rows_and_what_is_no_index_are_refused():
    rows, others = np.random.default_rng(0).standard_normal((2, 40, 6), np.float32)
    for index in (ExactIndex(others), ExactIndex(np.concatenate([others, rows]))):
        with pytest.raises(RecipeError, match="is not over these 40 rows"):
            make_index(index, rows)
    with pytest.raises(RecipeError, match="index is a int; expected a name"):
        make_index(3, rows)
