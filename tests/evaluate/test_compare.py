import json
import math
from dataclasses import replace

import numpy as np
import pytest

from small_blocks import INFO
from small_blocks import classed_blocks as drawn
from sporeprint.errors import SampleError
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW, WHITE
from sporeprint.evaluate.choice.intervals import bootstrap_difference, bootstrap_mean, repeated_splits, split_interval
from sporeprint.evaluate.choice.select import select
from sporeprint.evaluate.compare import compare
from sporeprint.evaluate.knn import knn_predict
from sporeprint.features.combine import Combination

pytestmark = pytest.mark.filterwarnings("error")


def decided(found):
    """All that must not depend on a test row."""
    return found.reference, [
        (one.name, one.combination, one.result.k, one.result.leave_one_out, one.passes) for one in found.entries
    ]


def test_every_figure_is_of_the_public_functions():
    (train, labels), (test, test_labels) = drawn(36), drawn(21, seed=1)
    found = compare(train, labels, test, test_labels, INFO, {"whole": 2.0}, 100, level=0.9, seed=3)
    right = {}
    for one in found.entries:
        combiner = one.combination.fit(train)
        guess = knn_predict(combiner.transform(train), labels, combiner.transform(test), one.result.k)
        right[one.name] = guess == test_labels
        assert one.value == bootstrap_mean(right[one.name], level=0.9, seed=3)
    for one in found.entries:
        assert one.gain == bootstrap_difference(right[found.reference], right[one.name], level=0.9, seed=3)
    assert (found.entry(found.reference).gain.value, found.entry(found.reference).gain.low) == (0.0, 0.0)
    assert found.entry("embedding").rows_per_second == 50.0
    changes = {one.label: one.change for one in found.classes}
    apart = right[found.chosen].astype(float) - right[found.reference]
    assert changes == pytest.approx({name: apart[test_labels == name].mean() for name in (0, 1, 2)})
    assert (found.settings["train_rows"], found.settings["test_rows"], found.settings["classes"]) == (36, 21, 3)


def test_no_test_row_has_a_say():
    (train, labels), (test, test_labels) = drawn(36), drawn(21, seed=1)
    found = compare(train, labels, test, test_labels, INFO)
    rng = np.random.default_rng(5)
    other = {name: rng.standard_normal((50, 6)).astype(np.float32) for name in INFO}
    assert decided(compare(train, labels, test, 2 - test_labels, INFO)) == decided(found)
    again = compare(train, labels, other, rng.integers(0, 3, 50), INFO)
    assert decided(again) == decided(found)
    assert again.analysis.cka == found.analysis.cka


@pytest.mark.parametrize(("reference", "other"), [(RAW, WHITE), (HALF_WHITE, RAW)])
def test_the_reference_is_the_better_one_in_training_even_where_the_test_says_otherwise(reference, other):
    rng = np.random.default_rng(2)
    labels, test = np.arange(40) % 2, {"embedding": rng.standard_normal((30, 8)).astype(np.float32)}
    rows = rng.standard_normal((40, 8))
    # The classes lie along the widest axis, which whitening narrows, or along the narrowest, which it widens.
    rows *= 0.5 if reference == RAW else [0.1, *[2] * 7]
    rows[:, 0] += (1 if reference == RAW else 0.3) * (2 * labels - 1)
    train = {"embedding": rows.astype(np.float32)}
    first = compare(train, labels, test, np.zeros(30, int), INFO)
    assert first.reference == reference
    assert first.entry(reference).result.leave_one_out > first.entry(other).result.leave_one_out
    combiner = first.entry(other).combination.fit(train)
    wished = knn_predict(combiner.transform(train), labels, combiner.transform(test), first.entry(other).result.k)
    found = compare(train, labels, test, wished, INFO)
    assert found.reference == reference
    assert found.entry(other).value.value == 1.0 > found.entry(reference).value.value


def test_a_gradient_that_knows_more_is_recommended_beside_what_comes_without_it():
    weak = {"embedding": 0.3, "cls-1": 0.3, "simclr.views": 0.3, "simclr": 0.3}
    (train, labels), (test, test_labels) = drawn(60, **weak, kl=6.0), drawn(60, seed=1, **weak, kl=6.0)
    found = compare(train, labels, test, test_labels, INFO)
    assert "kl" in found.entry(FREE).blocks
    assert found.entry(FREE).passes == 1
    assert not {"simclr.views", "simclr"} & set(found.entry(FREE).blocks)
    assert found.entry(FREE).gain.low > 0.2
    assert not {"kl", "simclr"} & set(found.entry(PLAIN).blocks)
    assert found.entry(PLAIN).value.value < 0.7 < found.entry(FREE).value.value
    assert found.verdict.startswith("Use ")
    assert "gradients" in found.verdict
    assert f"the best without gradients, one pass, brings {found.entry(PLAIN).gain}" in found.verdict


def test_a_gradient_of_many_passes_must_beat_what_one_pass_gives():
    strength = {"embedding": 0.2, "cls-1": 0.2, "simclr.views": 0.2, "kl": 0.8, "simclr": 6.0}
    (train, labels), (test, test_labels) = drawn(90, **strength), drawn(90, seed=1, **strength)
    for found in (compare(train, labels, test, test_labels, INFO), compare(train, labels, None, None, INFO, splits=6)):
        free, everything = found.entry(FREE), found.entry(ALL)
        assert free.passes == 1
        assert 0 < free.gain.low < free.gain.value < everything.gain.value
        assert everything.passes >= 9
        assert f", for {everything.passes} passes a row" in found.verdict
        assert f"one pass brings {free.gain}" in found.verdict


def test_blocks_that_say_nothing_leave_the_embedding():
    nothing = dict.fromkeys(["cls-1", "simclr.views", "kl", "simclr"], 0.0)
    (train, labels), (test, test_labels) = drawn(60, embedding=6.0, **nothing), drawn(30, 1, embedding=6.0, **nothing)
    found = compare(train, labels, test, test_labels, INFO)
    assert found.entry(ALL).combination == found.entry(found.reference).combination
    assert found.verdict == (
        "Use the embedding alone (top-1 100.0% (100.0% to 100.0%)): on the training rows nothing is surely better."
    )
    assert found.changed == ()


def test_rows_that_changed_are_shown_with_neighbours_under_both():
    weak = {name: 0.3 for name in INFO if name != "kl"}
    (train, labels), (test, test_labels) = drawn(60, **weak, kl=6.0), drawn(45, seed=1, **weak, kl=6.0)
    names, test_names = np.array([*"xyz"])[labels], np.array([*"xyz"])[test_labels]
    ids, test_ids = [f"train-{at}" for at in range(60)], [f"test-{at}" for at in range(45)]
    found = compare(train, names, test, test_names, INFO, ids=ids, test_ids=test_ids)
    features = {}
    for name in (found.reference, found.chosen):
        combiner = found.entry(name).combination.fit(train)
        features[name] = combiner.transform(train).astype(float), combiner.transform(test).astype(float)
    guesses = {n: knn_predict(rows, names, asked, found.entry(n).result.k) for n, (rows, asked) in features.items()}
    before, after = guesses[found.reference], guesses[found.chosen]
    assert len(found.changed) == 12
    for one in found.changed:
        assert (one.before, one.after, one.label) == (before[one.row], after[one.row], test_names[one.row])
        assert (one.before == one.label) != (one.after == one.label)
        assert one.id == test_ids[one.row]
        for name, near in ((found.reference, one.neighbours_before), (found.chosen, one.neighbours_after)):
            rows, asked = features[name]
            order = np.argsort(np.linalg.norm(rows - asked[one.row], axis=1))[:5]
            assert [n.row for n in near] == order.tolist()
            assert [(n.id, n.label) for n in near] == [(ids[row], names[row]) for row in order]
    gained = np.flatnonzero((before != test_names) & (after == test_names))
    lost = np.flatnonzero((before == test_names) & (after != test_names))
    assert len(gained) > 12 > len(lost)
    shown = [one.row for one in found.changed]
    assert set(lost.tolist()) <= set(shown) <= {*gained.tolist(), *lost.tolist()}
    assert max(shown) - min(shown) > 25  # spread over the test rows, not the first ones of the first class


def test_rows_are_called_by_their_numbers_where_no_ids_are_given():
    weak = {name: 0.3 for name in INFO if name != "kl"}
    (train, labels), (test, test_labels) = drawn(30, **weak, kl=6.0), drawn(20, seed=1, **weak, kl=6.0)
    changed = compare(train, labels, test, test_labels, INFO).changed
    assert changed
    assert all(one.id == str(one.row) and one.neighbours_after[0].id.isdigit() for one in changed)


@pytest.mark.parametrize(
    "names", [("embedding",), ("embedding", "cls-1"), ("embedding", "kl"), ("embedding", "simclr")]
)
def test_stores_of_fewer_families_can_be_compared(names):
    (train, labels), (test, test_labels) = drawn(24, names=names), drawn(12, seed=1, names=names)
    found = compare(train, labels, test, test_labels, INFO)
    assert {RAW, HALF_WHITE, FREE, ALL} <= {one.name for one in found.entries}
    assert found.entry(FREE).passes == 1
    assert (PLAIN in [one.name for one in found.entries]) == bool({"kl", "simclr"} & set(names))
    assert list(found.analysis.blocks) == list(names)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_class_without_training_rows_is_wrong_for_every_entry():
    (train, labels), (test, test_labels) = drawn(30, embedding=9.0), drawn(12, seed=1, embedding=9.0)
    found = compare(train, labels, test, np.full(12, 7), INFO)
    assert all(one.value.value == one.result.mean_per_class == 0.0 for one in found.entries)
    mixed = np.where(np.arange(12) < 3, 7, test_labels)
    assert compare(train, labels, test, mixed, INFO).entry(RAW).value.value <= 0.75


def test_one_class_is_always_right():
    (train, labels), (test, test_labels) = drawn(20), drawn(10, seed=1)
    found = compare(train, labels * 0, test, test_labels * 0, INFO)
    assert all(one.value.value == one.result.leave_one_out == 1.0 for one in found.entries)
    assert "Use the embedding alone" in found.verdict


def test_one_test_row_and_two_training_rows_give_figures_without_intervals():
    (train, labels), (test, test_labels) = drawn(2), drawn(1, seed=1)
    found = compare(train, labels, test, test_labels, INFO)
    assert math.isnan(found.entry(RAW).value.low)
    assert all(one.result.k == 1 for one in found.entries)
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert said["entries"][0]["results"]["auto"]["value"]["low"] is None


def test_a_constant_block_and_repeated_rows_do_no_harm():
    (train, labels), (test, test_labels) = drawn(24), drawn(12, seed=1)
    train["cls-1"][:] = test["cls-1"][:] = 2.0
    train = {name: np.repeat(rows, 2, axis=0) for name, rows in train.items()}
    found = compare(train, np.repeat(labels, 2), test, test_labels, INFO)
    json.dumps(found.to_json(), allow_nan=False)
    assert found.entry(RAW).result.leave_one_out > 0.9


def test_more_training_rows_than_may_choose_are_said():
    (train, labels), (test, test_labels) = drawn(60), drawn(12, seed=1)
    found = compare(train, labels, test, test_labels, INFO, most_rows=20)
    assert found.settings["rows that choose"] == 20
    assert "rows that choose" not in compare(train, labels, test, test_labels, INFO, most_rows=60).settings


def test_a_comparison_is_plain_json_and_the_same_again():
    (train, labels), (test, test_labels) = drawn(24), drawn(12, seed=1)
    names = np.array(["a", "b", "ü"])
    some = {"settings": {"backbone": "tiny"}, "seconds": {"whole": 1.0, "simclr": 2.0}, "rows_timed": 24}
    said = [
        json.dumps(compare(train, names[labels], test, names[test_labels], INFO, **some).to_json(), allow_nan=False)
        for _ in range(2)
    ]
    assert said[0] == said[1]
    found = json.loads(said[0])
    assert found["settings"]["backbone"] == "tiny"
    assert found["entries"][-1]["combination"]["blocks"]
    assert {"verdict", "reference", "free", "chosen", "classes", "analysis", "changed", "notes"} <= set(found)


def test_without_a_test_set_each_split_chooses_blindly():
    blocks, labels = drawn(30, kl=2.0)
    blocks["embedding"][:, 0] *= 12  # says little, and drowns the others until it is whitened
    found = compare(blocks, labels, None, None, INFO, splits=3, seed=2)
    assert found.reference == HALF_WHITE
    scores = {name: [] for name in (RAW, HALF_WHITE, ALL)}
    for rows, others in repeated_splits(labels, 0.3, 3, 2):
        train, test = ({name: block[some] for name, block in blocks.items()} for some in (rows, others))
        chosen = select(train, labels[rows], seed=2).combination
        for name, one in (
            (RAW, Combination(("embedding",))),
            (HALF_WHITE, Combination(("embedding",), "auto", exponent=0.5)),
            (ALL, chosen),
        ):
            told = compare(train, labels[rows], test, labels[others] * 0, INFO, seed=2).entry(name)
            combiner = one.fit(train)
            guess = knn_predict(combiner.transform(train), labels[rows], combiner.transform(test), told.result.k)
            scores[name].append((guess == labels[others]).mean())
    for name, values in scores.items():
        expected = split_interval(values, 0.3)
        ends = {"low": max(expected.low, 0.0), "high": min(expected.high, 1.0)}
        assert found.entry(name).value == replace(expected, **ends, difference=False)
        # The reference is one for all splits, so that a gain is the difference of the values beside it.
        expected = split_interval(np.array(values) - scores[found.reference], 0.3)
        assert found.entry(name).gain == expected
    assert (found.settings["splits"], found.settings["held_out"]) == (3, 0.3)
    assert found.notes[0].startswith("no test set")
    assert found.changed == ()


def test_without_a_test_set_entries_show_what_all_rows_choose():
    blocks, labels = drawn(30, kl=2.0)
    found = compare(blocks, labels, None, None, INFO, splits=2)
    whole = compare(blocks, labels, blocks, labels, INFO)
    assert decided(found) == decided(whole)


def test_an_interval_of_an_accuracy_ends_at_0_and_1():
    blocks, labels = drawn(18, embedding=0.8)
    found = compare(blocks, labels, None, None, INFO, splits=2)
    ends = [(one.value.low, one.value.high) for one in found.entries]
    assert all(0 <= low <= high <= 1 for low, high in ends)
    assert any(low == 0 for low, _ in ends)  # a t interval of two splits is wide: it had to be cut


def test_few_rows_without_a_test_set_are_split_as_far_as_they_go():
    blocks, _ = drawn(5)
    found = compare(blocks, [*"aabbc"], None, None, INFO, splits=3)  # the c is always trained on
    assert found.settings["held_out"] == pytest.approx(0.4)
    assert {one.label for one in found.classes} == {"a", "b"}
    json.dumps(found.to_json(), allow_nan=False)
    lonely = compare(blocks, [*"aabbc"], None, None, INFO, splits=1)
    assert math.isnan(lonely.entry(ALL).gain.low)
    assert "Use the embedding alone" in lonely.verdict


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        ([*"abcde"], {}, "none of 5 classes has two rows"),
        ([*"aabbc"], {"splits": 0}, "count=0; expected"),
        ([*"aabb"], {}, r"train labels have shape \(4,\) for 5 rows"),
        (["a", "a", "b", "b", None], {}, "1 of 5 train labels are missing"),
        ([*"aabbc"], {"ids": ["x"]}, "1 train ids for 5 rows"),
    ],
)
def test_what_cannot_be_split_is_said(labels, options, said):
    with pytest.raises(SampleError, match=said):
        compare(drawn(5)[0], labels, None, None, INFO, **options)


def test_two_rows_leave_one_to_train_on_which_is_too_few():
    with pytest.raises(SampleError, match="expected at least two"):
        compare(drawn(2)[0], ["a", "a"], None, None, INFO)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": {"kl": np.full((9, 6), np.nan)}}, "9 of 9 train rows|9 of 9 train block 'kl' rows are NaN"),
        ({"test": {"kl": np.full((4, 6), np.inf)}}, "4 of 4 test block 'kl' rows are NaN"),
        ({"train": {"kl": np.ones((8, 6))}}, r"train blocks have \[8, 9\] rows"),
        ({"test": {"kl": np.ones((5, 6))}}, r"test blocks have \[4, 5\] rows"),
        ({"train": {"mine": np.ones((9, 6))}}, "info says nothing of block 'mine'"),
        ({"test_labels": None}, r"test labels have shape \(0,\) for 4 rows"),
        ({"test_labels": [*"abca"]}, "train labels are numbers, test labels are not"),
        ({"test_ids": ["a"]}, "1 test ids for 4 rows"),
    ],
)
def test_what_does_not_go_together_is_said(change, said):
    (train, labels), (test, test_labels) = drawn(9), drawn(4, seed=1)
    given = {"train": train, "labels": labels, "test": test, "test_labels": test_labels, "info": INFO}
    for name, value in change.items():
        given[name] = {**given[name], **value} if isinstance(value, dict) else value
    with pytest.raises(SampleError, match=said):
        compare(**given)


def test_a_block_that_is_not_there_is_said():
    (train, labels), (test, test_labels) = drawn(9), drawn(4, seed=1)
    with pytest.raises(SampleError, match="test has no block 'kl'; there are: embedding"):
        compare(train, labels, {name: test[name] for name in test if name != "kl"}, test_labels, INFO)
    with pytest.raises(SampleError, match="train has no block 'embedding'; there are: kl"):
        compare({"kl": train["kl"]}, labels, test, test_labels, INFO)
