import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.search import best_rows as candidates
from sporeprint.search import neighbours as module
from sporeprint.search import points
from sporeprint.search.neighbours import neighbours

METRICS = ["euclidean", "cosine"]
SIZES = ((module, "_WIDE"), (module, "_SLICE"), (points, "SMALL"), (candidates, "_KEYS"))
KINDS = {
    "cloud": lambda rng, shape: rng.standard_normal(shape),
    "grid": lambda rng, shape: rng.integers(-1, 2, shape),  # many ties, and rows of zeros
    "far from the origin": lambda rng, shape: 1000 + 1e-4 * rng.standard_normal(shape),
    "of all sizes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-12, 13, (shape[0], 1)),
    "tiny": lambda rng, shape: 1e-30 * rng.standard_normal(shape),
    "huge": lambda rng, shape: 1e30 * rng.standard_normal(shape),
    "constant": lambda rng, shape: np.full(shape, 0.1),
}


def brute(train, queries, k, metric, own=False):
    """One query at a time, in float64, by differences; rows at equal distances in order."""
    train, queries = train.astype(np.float64), queries.astype(np.float64)
    zero = np.zeros(len(train)), np.zeros(len(queries))
    if metric == "cosine":
        zero = tuple((~rows.any(axis=1)).astype(float) for rows in (train, queries))
        train, queries = (
            rows / np.where(rows.any(axis=1), np.sqrt((rows**2).sum(axis=1)), 1)[:, None] for rows in (train, queries)
        )
    rows, distances = [], []
    for at, query in enumerate(queries):
        squares = ((train - query) ** 2).sum(axis=1) + zero[0] + zero[1][at]
        if metric == "cosine":
            squares[squares < 1e-29] = 0
        order = sorted(range(len(train)), key=lambda row: (squares[row], row))
        order = [row for row in order if not (own and row == at)][:k]
        rows.append(order)
        distances.append(squares[order] / 2 if metric == "cosine" else np.sqrt(squares[order]))
    return np.array(rows), np.array(distances)


def whole(train, queries, k, metric):
    chunks = list(neighbours(train, queries, k, metric))
    return tuple(np.concatenate(chunk) for chunk in zip(*chunks, strict=True))


def small_chunks(patch, rng):
    for name, most in (("SPARE", 3), ("_QUERIES", 30), ("_ROWS", 30), ("_WIDE", 300), ("_SLICE", 500)):
        patch.setattr(module, name, int(rng.integers(name != "SPARE", most)))
    patch.setattr(points, "SMALL", int(rng.integers(1, 300)))
    patch.setattr(candidates, "_KEYS", int(rng.integers(1, 500)))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(METRICS), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_rows_and_distances_are_those_of_a_search_by_hand_however_it_is_cut(kind, metric, own, single, seed):
    rng = np.random.default_rng(seed)
    count, width, k = rng.integers(1, 60), rng.integers(1, 20), int(rng.integers(1, 40))
    dtype = np.float32 if single else np.float64
    train = KINDS[kind](rng, (count, width)).astype(dtype)
    queries = KINDS[kind](rng, (rng.integers(1, 30), width)).astype(dtype)
    train[rng.integers(0, count, count // 3)] = train[rng.integers(0, count)]
    queries[0] = train[rng.integers(0, count)]
    with pytest.MonkeyPatch.context() as patch:
        if rng.integers(0, 2):
            small_chunks(patch, rng)
        rows, distances = whole(train, None if own else queries, k, metric)
    expected, apart = brute(train, train if own else queries, k, metric, own)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(distances, apart, rtol=1e-9, atol=0)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_few_candidates_among_many_rows_are_enough(kind, metric, own, monkeypatch):
    monkeypatch.setattr(module, "SPARE", 1)
    monkeypatch.setattr(module, "_TERMS", 7)
    rng = np.random.default_rng(0)
    train, queries = (KINDS[kind](rng, (count, 30)).astype(np.float32) for count in (400, 80))
    queries = train[:80] if own else queries
    rows, distances = whole(train, None if own else queries, 4, metric)
    expected, apart = brute(train, queries, 4, metric, own)
    np.testing.assert_array_equal(rows[:80], expected)
    np.testing.assert_allclose(distances[:80], apart, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint8, bool])
def test_other_numbers_are_searched_like_floats(dtype):
    rng = np.random.default_rng(0)
    train, queries = (rng.integers(0, 2, (count, 9)).astype(dtype) for count in (50, 20))
    np.testing.assert_array_equal(whole(train, queries, 7, "euclidean")[0], brute(train, queries, 7, "euclidean")[0])


def test_rows_stored_by_columns_are_searched_alike():
    rng = np.random.default_rng(0)
    train, queries = (rng.integers(-2, 3, (count, 150)) / 3 for count in (200, 40))
    train[100:] = train[:100]
    actual = whole(np.asfortranarray(train), np.asfortranarray(queries), 8, "cosine")
    np.testing.assert_array_equal(actual[0], whole(train, queries, 8, "cosine")[0])
    assert (actual[1] == whole(train, queries, 8, "cosine")[1]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_more_equal_rows_than_candidates_are_all_looked_at_again_and_the_first_are_taken(metric, monkeypatch):
    searched = []
    again = module._Chunk.nearest_of_all
    monkeypatch.setattr(module._Chunk, "nearest_of_all", lambda *given: searched.append(1) or again(*given))
    rng = np.random.default_rng(0)
    train = rng.standard_normal((400, 24)).astype(np.float32)
    same = np.sort(rng.permutation(400)[:300])
    train[same] = train[same[0]]
    rows, distances = whole(train, train[same[:1]], 5, metric)
    assert searched
    np.testing.assert_array_equal(rows, [same[:5]])
    np.testing.assert_array_equal(distances, np.zeros((1, 5)))


def test_distances_that_float32_cannot_tell_apart_are_ordered():
    # About a row of length 1,000 the squares in float32 are off by 0.06; these differ by 1e-6 and less.
    rng = np.random.default_rng(0)
    centre = rng.standard_normal(100) * 100
    steps = rng.permutation(500) + 1
    train = centre + steps[:, None] * 1e-6 * np.eye(100)[rng.integers(0, 100, 500)]
    rows, distances = whole(np.concatenate([train, -train]), centre[None], 30, "euclidean")
    np.testing.assert_array_equal(steps[rows[0]], np.arange(1, 31))
    np.testing.assert_allclose(distances[0], np.arange(1, 31) * 1e-6, rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_row_is_never_its_own_neighbour_but_its_duplicates_are(metric):
    train = np.random.default_rng(0).standard_normal((60, 300)).astype(np.float32) + 50
    train[40:] = train[:20]
    rows, distances = whole(train, None, 3, metric)
    assert not (rows == np.arange(60)[:, None]).any()
    np.testing.assert_array_equal(rows[:20, 0], np.arange(40, 60))
    np.testing.assert_array_equal(rows[40:, 0], np.arange(20))
    assert not distances[np.r_[:20, 40:60], 0].any()
    assert distances[20:40].all()


def test_a_row_of_zeros_has_cosine_0_with_every_row():
    train = np.array([[0.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    rows, distances = whole(train, np.array([[0.0, 0.0], [2.0, 0.0]]), 3, "cosine")
    np.testing.assert_array_equal(rows, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_allclose(distances, [[1, 1, 1], [1, 1, 2]])


def test_rows_of_one_direction_are_equal_by_cosine():
    row = np.random.default_rng(0).standard_normal(40)
    rows, distances = whole(row * np.array([[7.0], [0.3], [-1.0], [1e-3]]), row[None], 4, "cosine")
    np.testing.assert_array_equal(rows, [[0, 1, 3, 2]])
    np.testing.assert_array_equal(distances[0, :3], np.zeros(3))


@pytest.mark.parametrize("count", [1, 2])
def test_k_is_cut_to_the_rows_there_are(count):
    train = np.arange(float(count))[:, None]
    assert whole(train, np.zeros((4, 1)), 20, "euclidean")[0].shape == (4, count)
    assert whole(train, None, 20, "euclidean")[0].shape == (count, count - 1)


def test_numbers_whose_squares_overflow_are_refused():
    with pytest.raises(SampleError, match=r"features of up to 1e\+200 are too large for distances; scale them"):
        whole(np.array([[1e200], [1.0]]), np.zeros((1, 1)), 1, "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_a_mapped_file_is_searched_in_bounded_memory(metric, monkeypatch, tmp_path):
    for name in ("_QUERIES", "_ROWS"):
        monkeypatch.setattr(module, name, getattr(module, name) // 8)
    for where, name in SIZES:
        monkeypatch.setattr(where, name, getattr(where, name) // 64)
    rng = np.random.default_rng(0)
    train = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(40_000, 128))
    train[:] = rng.standard_normal(train.shape)
    train[20_000:20_200] = train[0]  # in doubt for the query that it equals
    queries = np.array(train[:400])
    tracemalloc.start()
    rows, _ = whole(train, queries, 10, metric)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(rows[0], [0, *range(20_000, 20_009)])
    np.testing.assert_array_equal(rows[1:, 0], np.arange(1, 400))
    assert peak < 256 * 2**20 / 64  # a 64th of what is promised, at a 64th of every size; the file has 20 MB


def test_few_very_wide_rows_are_searched_in_bounded_memory(monkeypatch):
    for where, name in SIZES:
        monkeypatch.setattr(where, name, getattr(where, name) // 64)
    rows = np.random.default_rng(0).standard_normal((300, 20_000))
    tracemalloc.start()
    actual = whole(rows, rows[:3], 2, "cosine")[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(actual[:, 0], np.arange(3))
    assert peak < 256 * 2**20 / 64  # the rows take 48 MB
