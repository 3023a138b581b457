"""What options ask for, and the labels that leave-one-out may see."""

import numpy as np
import pytest

from small_stores import circle, store_of
from sporeprint import knn, probe
from sporeprint.data.sources import ListSource
from sporeprint.errors import StoreError
from sporeprint.evaluate.choice.candidates import short_table
from sporeprint.features.combine import NAMED, Combination
from sporeprint.predictors.checks import amounts_hint
from sporeprint.run.combination_flags import candidates, wanted
from sporeprint.run.compare_stores import compare_stores
from sporeprint.run.scores import knn_scores, probe_scores
from sporeprint.run.store_pair import targets_of
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store

BLOCKS = {"embedding": circle([0, 5, 10, 90, 95, 99.0]), "kl": circle([9, 50, 200, 31, 77, 3.0])}


@pytest.mark.parametrize(
    ("options", "expected", "title"),
    [
        ({"blocks": " kl, embedding,kl"}, Combination(("kl", "embedding")), "kl + embedding"),
        ({"blocks": "layers", "whiten": "auto"}, Combination(("layers",), "auto"), "layers, white"),
        (
            {"blocks": "kl", "whiten": "5", "exponent": 0.5, "size": 3},
            Combination(("kl",), 5, 3, 0.5),
            "kl alone, whitened to 5 dimensions, exponent 0.5, PCA 3",
        ),
        ({"combination": "decorrelated"}, NAMED["decorrelated"], "decorrelated"),
        ({"combination": "paper", "size": 2}, Combination(size=2), "paper"),
    ],
)
def test_options_become_a_combination_with_a_name(options, expected, title):
    chosen = wanted(**options)
    assert (chosen.combination, chosen.name) == (expected, title)


def test_a_size_alone_reduces_every_row_of_the_short_table():
    listed, selection = candidates(wanted(size=1), BLOCKS)
    assert [row.name for row in listed] == [row.name for row in short_table(list(BLOCKS))]
    assert {row.combination.size for row in listed} == {1}
    assert selection is None


def test_loo_is_asked_where_labels_may_be_seen_and_there_are_two():
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    assert candidates(wanted(), BLOCKS, labels)[1] is not None
    assert candidates(wanted(), BLOCKS)[1] is None
    assert candidates(wanted(), {name: rows[:1] for name, rows in BLOCKS.items()}, labels[:1])[1] is None
    assert candidates(wanted(blocks="kl"), BLOCKS, labels)[1] is None


def test_loo_and_the_combinations_never_see_the_test_rows(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("train", 12), ("test", 6), ("odd", 6)):
        places = ["low", "high"] * (count // 2)
        blocks = {name: circle(rng.uniform(0, 360, count)) for name in ("embedding", "kl")}
        store_of(tmp_path / name, ListSource([f"{name}{at}" for at in range(count)], labels=places), blocks)
    plain, other = (probe_scores(Rows(tmp_path / "train"), Rows(tmp_path / name), wanted()) for name in ("test", "odd"))
    assert plain.loo == other.loo
    assert [entry.result.penalty for entry in plain.entries] == [entry.result.penalty for entry in other.entries]
    assert [entry.result.value for entry in plain.entries] != [entry.result.value for entry in other.entries]


SAMPLES, WIDE = 80, 128


def wide_stores(folder):
    """Few rows of many dimensions: classes that a few directions tell apart, amid noise in all of them."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((8, WIDE))[np.arange(SAMPLES) % 8]
    for name in ("train", "test"):
        labels = [f"class {at % 8}" for at in range(SAMPLES)]
        blocks = {
            block: (strength * signal + rng.standard_normal((SAMPLES, WIDE))).astype(np.float32)
            for block, strength in (("embedding", 0.5), ("kl", 0.3), ("cls-2", 0.4))
        }
        ids = [f"{name}{at}" for at in range(SAMPLES)]
        store_of(folder / name, ListSource(ids, labels=labels, ids=ids), blocks)
    return Rows(folder / "train"), Rows(folder / "test")


def test_every_table_says_the_same_of_the_same_features_also_where_rows_are_few(tmp_path):
    pair = wide_stores(tmp_path)
    neighbours = {entry.name: entry for entry in knn_scores(*pair, wanted(), ks="auto").entries}
    probed = {entry.name: entry for entry in probe_scores(*pair, wanted()).entries}
    compared = {entry.name: entry for entry in compare_stores(*pair).entries}
    train, test = (Store.open(rows.store) for rows in pair)
    assert {"embedding", "embedding, white", "paper", "decorrelated"} <= set(neighbours) & set(probed) & set(compared)
    for name in set(neighbours) & set(compared):
        shown, other = neighbours[name], compared[name]
        assert (shown.combination, shown.width, shown.whitened) == (other.combination, other.width, other.whitened)
    for name in ("embedding", "embedding, white", "paper", "decorrelated"):
        shown, other = probed[name], neighbours[name]
        assert (shown.combination, shown.width, shown.whitened) == (other.combination, other.width, other.whitened)
        combiner = other.combination.fit(train.blocks())
        features = combiner.transform(train.blocks()), combiner.transform(test.blocks())
        assert shown.value == probe(features[0], train.labels, features[1], test.labels).value
    (asked,) = knn_scores(*pair, wanted(blocks="embedding", whiten="auto"), ks="auto").entries
    assert asked == neighbours["embedding, white"]
    # A rank of N - 1 without shrinkage gives every direction the same say, noise too; white must not be that.
    collapsed = Combination(("embedding",), SAMPLES - 1).fit(train.blocks())
    before = knn(
        collapsed.transform(train.blocks()), train.labels, collapsed.transform(test.blocks()), test.labels, k="auto"
    )
    assert neighbours["embedding, white"].value > before.value + 0.2


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["1.5", "two"], "texts, such as 'two'"),
        (["1.5", "nan"], "texts, such as 'nan'"),
        (["1_5", "2"], "texts, such as '1_5'"),
        (["1.5", 2.0], "texts, such as '1.5'"),
        ([True, False], "booleans, such as True"),
        ([[1.0], ["a"]], "texts, such as 'a'"),
        ([[1.0], [None]], "not all numbers, such as None"),
    ],
)
def test_targets_that_are_no_numbers_are_named(labels, kind):
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    with pytest.raises(StoreError, match=f"labels of s are {kind}; regress needs numbers"):
        targets_of(array, "s")


def test_texts_that_are_all_numbers_are_targets():
    targets = targets_of(np.array(["9.25", " -1e3", "7"], dtype=object), "s")
    assert targets.dtype == np.float64
    np.testing.assert_array_equal(targets, [9.25, -1000.0, 7.0])


@pytest.mark.parametrize(
    ("labels", "such"),
    [
        ([1.0, 9.25, 8.5], "9.25 (3 different ones in 3 rows)"),
        (["3", "2.5"], "2.5 (2 different ones in 2 rows)"),
        (["250.1", "250.10", "3"], "250.1 (3 different ones in 3 rows)"),
        ([at / 10 for at in range(21)] * 2, None),
        (["0.5", "1.5"] * 2, None),
        ([1, 2, 3], None),
        ([1.0, 2.0], None),
        (["1.5", "b"], None),
        ([True, 0.5], None),
        ([["x"], 0.5], None),
    ],
)
def test_labels_that_are_broken_numbers_are_for_regress(labels, such):
    message = f"these labels are numbers such as {such}, not classes; `sporeprint regress` predicts numbers. "
    message += "If they are classes, put a letter before each"
    assert amounts_hint(np.array(labels, object)) == ("" if such is None else message)


def test_targets_are_numbers_of_one_or_several_columns():
    np.testing.assert_array_equal(targets_of(np.array([1, 2]), "s"), [1.0, 2.0])
    lists = np.empty(2, dtype=object)
    lists[:] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(targets_of(lists, "s"), [[1.0, 2.0], [3.0, 4.0]])
    lists[1] = [3]
    with pytest.raises(StoreError, match="lists of different lengths"):
        targets_of(lists, "s")
