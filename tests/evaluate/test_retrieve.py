import itertools
import json
import math
import tracemalloc

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate import retrieve as module
from sporeprint.evaluate.retrieve import rankings, retrieve


def clouds(rows, seed, classes=5, width=6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return (np.eye(classes, width)[labels] + rng.standard_normal((rows, width))).astype(np.float32), labels


def distance(a, b, metric):
    a, b = [float(value) for value in a], [float(value) for value in b]
    if metric == "euclidean":
        return math.dist(a, b)
    return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def slow(queries, query_labels, database, database_labels, ks, metric, alone):
    """Query by query, rank by rank: mAP, mP@k, share of queries that hit, mean share found, queries left out."""
    precisions, within = [], []
    for number, (query, label) in enumerate(zip(queries, query_labels, strict=True)):
        others = [at for at in range(len(database)) if not (alone and at == number)]
        ranked = sorted(others, key=lambda at, query=query: distance(query, database[at], metric))
        right = [database_labels[at] == label for at in ranked]
        if any(right):
            at_hits = [sum(right[: rank + 1]) / (rank + 1) for rank in range(len(right)) if right[rank]]
            precisions.append(sum(at_hits) / len(at_hits))
            within.append([(sum(right[:k]), sum(right)) for k in ks])
    columns = list(zip(*within, strict=True))
    return {
        "value": np.mean(precisions),
        "precision_at": {k: np.mean([n / k for n, _ in column]) for k, column in zip(ks, columns, strict=True)},
        "recall_at": {k: np.mean([n > 0 for n, _ in column]) for k, column in zip(ks, columns, strict=True)},
        "share_found_at": {k: np.mean([n / of for n, of in column]) for k, column in zip(ks, columns, strict=True)},
        "left_out": len(queries) - len(precisions),
    }


def agree(result, expected):
    return all(getattr(result, name) == pytest.approx(value) for name, value in expected.items())


@pytest.fixture
def hand_worked():
    database, labels = [[1.0], [2.0], [3.0], [4.0], [5.0]], ["a", "b", "a", "b", "a"]
    return [[0.0], [0.5], [0.1]], ["a", "b", "c"], database, labels


def test_a_hand_worked_example(hand_worked):
    result = retrieve(*hand_worked, ks=(1, 2, 5))
    # Both rank the database 1 2 3 4 5. a is relevant at ranks 1, 3, 5; b at 2, 4; c nowhere.
    assert result.value == pytest.approx(((1 / 1 + 2 / 3 + 3 / 5) / 3 + (1 / 2 + 2 / 4) / 2) / 2)
    assert result.precision_at == pytest.approx({1: (1 + 0) / 2, 2: (1 / 2 + 1 / 2) / 2, 5: (3 / 5 + 2 / 5) / 2})
    assert result.recall_at == {1: 1 / 2, 2: 1, 5: 1}
    assert result.share_found_at == pytest.approx({1: (1 / 3 + 0) / 2, 2: (1 / 3 + 1 / 2) / 2, 5: 1})
    assert (result.queries, result.left_out, result.database_rows) == (2, 1, 5)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("alone", [True, False])
def test_figures_equal_a_slow_ranking(metric, alone):
    (database, labels), (queries, query_labels) = clouds(70, 0), clouds(30, 1)
    query_labels[:3] = 9  # of no database row
    if alone:
        labels[5] = 7  # alone in its class
        queries, query_labels = database, labels
    expected = slow(queries, query_labels, database, labels, (1, 3, 10), metric, alone)
    others = () if alone else (database, labels)
    result = retrieve(queries, query_labels, *others, ks=(1, 3, 10), metric=metric)
    assert agree(result, expected)
    assert expected["left_out"] == (1 if alone else 3)
    assert result.settings == {"metric": metric, "ks": [1, 3, 10], "leave_one_out": alone}
    assert result.database_rows == (69 if alone else 70)


def test_more_than_the_whole_database_counts_the_absent_rows_as_irrelevant(hand_worked):
    result = retrieve(*hand_worked, ks=(10,))
    assert result.precision_at[10] == pytest.approx((3 / 10 + 2 / 10) / 2)
    assert (result.recall_at[10], result.share_found_at[10]) == (1, 1)


@pytest.mark.parametrize("places", [[1, 1, 1, 1], [0, 1, 1, 1, 2], [1, 1, 2, 2, 2], [0, 0, 1, 2, 2, 2], [2, 0, 1]])
def test_figures_of_tied_rows_are_means_over_all_their_orders(places):
    labels, ks = ["b", "a", "b", "a", "a", "b"][: len(places)], (1, 2, 3, 10)
    rows = np.array(places, np.float64)[:, None]
    result = retrieve([[0.0]], ["a"], rows, labels, ks=ks)
    rankings = [
        [labels[at] == "a" for at in order]
        for order in itertools.permutations(range(len(places)))
        if sorted(places) == [places[at] for at in order]
    ]
    precisions = [
        np.mean([sum(right[: at + 1]) / (at + 1) for at in range(len(right)) if right[at]]) for right in rankings
    ]
    assert result.value == pytest.approx(np.mean(precisions))
    for k in ks:
        assert result.precision_at[k] == pytest.approx(np.mean([sum(right[:k]) / k for right in rankings]))
        assert result.recall_at[k] == pytest.approx(np.mean([any(right[:k]) for right in rankings]))
        assert result.share_found_at[k] == pytest.approx(np.mean([sum(right[:k]) / sum(right) for right in rankings]))


def test_equal_rows_tie_wherever_they_stand_in_the_product():
    rng = np.random.default_rng(0)
    originals = rng.standard_normal((5, 67)).astype(np.float32)
    copies = rng.integers(0, 5, 203)
    queries = np.concatenate([originals, rng.standard_normal((31, 67)).astype(np.float32)])
    for _, order in rankings(queries, originals[copies]):
        ranked = copies[order]
        assert (np.diff(ranked) != 0).sum() == 4  # each original's copies stand together
        for original in range(5):
            assert (np.diff(order[ranked == original]) > 0).all()


def test_a_row_is_not_its_own_neighbour_but_its_duplicate_is():
    rows = np.array([[0.0], [0.0], [5.0], [6.0]])
    orders = dict(rankings(rows, None))
    assert {query: order.tolist() for query, order in orders.items()} == {
        0: [1, 2, 3],
        1: [0, 2, 3],
        2: [3, 0, 1],
        3: [2, 0, 1],
    }
    assert retrieve(rows, ["a", "b", "a", "b"], ks=(1,)).precision_at[1] == 0


def test_neighbours_far_from_the_origin_are_told_apart():
    rng = np.random.default_rng(0)
    rows = (1000 + rng.standard_normal((60, 16))).astype(np.float32)
    for query, order in rankings(rows[:5], rows):
        exact = ((rows[query].astype(np.float64) - rows.astype(np.float64)) ** 2).sum(axis=1)
        assert order.tolist() == np.argsort(exact, kind="stable").tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e30, 1e300])
def test_the_scale_of_features_does_not_matter(factor, metric):
    features, labels = clouds(40, 0)
    expected = retrieve(features, labels, metric=metric)
    assert retrieve(features.astype(np.float64) * factor, labels, metric=metric).to_json() == expected.to_json()


@pytest.mark.parametrize("alone", [True, False])
def test_queries_are_ranked_in_chunks_of_bounded_memory(monkeypatch, alone):
    (database, labels), (queries, query_labels) = clouds(1500, 0), clouds(1400, 1)
    others = () if alone else (database, labels)
    if alone:
        queries, query_labels = database, labels
    whole = retrieve(queries, query_labels, *others)
    monkeypatch.setattr(module, "MATRIX_MIB", 1)  # 87 queries at a time; all at once would take 64 MiB in all
    tracemalloc.start()
    try:
        assert retrieve(queries, query_labels, *others).to_json() == whole.to_json()
        assert tracemalloc.get_traced_memory()[1] < 6 * 2**20
    finally:
        tracemalloc.stop()


def test_one_class_is_all_relevant_and_integers_are_features():
    result = retrieve(np.arange(6).reshape(3, 2), [1, 1, 1], ks=(1, 2))
    assert (result.value, result.precision_at, result.left_out) == (1, {1: 1, 2: 1}, 0)


def test_constant_features_are_ranked_by_chance():
    # Queries 0 and 2 (a) see b a or a b; query 1 (b) has nothing to find.
    assert retrieve(np.zeros((3, 2)), ["a", "b", "a"]).value == pytest.approx((1 / 2 + 1) / 2)
    many = retrieve(np.ones((2000, 3)), np.arange(2000) % 4, ks=(1,))
    assert many.precision_at[1] == pytest.approx(499 / 1999)


def test_a_result_is_one_line_for_people_and_plain_json_for_machines(hand_worked):
    result = retrieve(*hand_worked, ks=(1,))
    assert str(result) == ("mAP 62.8%, mP@1 50.0%, recall@1 50.0% (2 queries, 1 left out: nothing relevant to find)")
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["share_found_at"] == {"1": pytest.approx(1 / 6)}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([[1.0]], ["a"]), {}, "none of the 1 queries has its label"),
        (([[1.0], [2.0]], ["a", "b"]), {}, "none of the 2 queries"),
        (([[1.0]], ["a"], [[1.0]], ["b"]), {}, "none of the 1 queries"),
        (([[1.0]], ["a"], [[1.0]], [1]), {}, "expected the same names in both"),
        (([[1.0]], ["a"], [[1.0]]), {}, "belong together"),
        (([[1.0]], ["a"], [[1.0, 2.0]], ["a"]), {}, "query features are 1 wide, database features 2"),
        (([[math.nan]], ["a"], [[1.0]], ["a"]), {}, "1 of 1 query rows are NaN"),
        (([[1.0]], ["a"], [[math.inf]], ["a"]), {}, "1 of 1 database rows are NaN or infinite"),
        (([[1.0]], ["a"], [[0.0]], ["a"]), {"metric": "cosine"}, "1 of 1 database rows are all 0"),
        (([[1.0], [2.0]], ["a", "a"]), {"metric": "dot"}, "metric='dot'; expected one of: euclidean, cosine"),
        (([[1.0], [2.0]], ["a", "a"]), {"ks": (1, 0)}, "ks has 0; expected positive integers"),
    ],
)
def test_what_cannot_be_retrieved_is_refused(arguments, options, message):
    with pytest.raises(SampleError, match=message):
        retrieve(*arguments, **options)
