import json
import math
from dataclasses import replace

import numpy as np
import pytest

from small_blocks import INFO
from small_blocks import classed_blocks as drawn
from sporeprint.errors import SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW, REFERENCES
from sporeprint.evaluate.choice.intervals import bootstrap_difference, bootstrap_mean, repeated_splits, split_interval
from sporeprint.evaluate.choice.judges import PREDICTORS, title_of_predictor
from sporeprint.evaluate.choice.select import select
from sporeprint.evaluate.compare import compare

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("few_penalties")]


FEW = ("embedding", "cls-1", "kl")  # blocks, where what they are does not matter


def decided(result):
    """All that must not depend on a test row."""
    return result.reference, [
        (entry.name, entry.combination, entry.judge, judge, by.predictor, by.leave_one_out, by.loss, entry.passes)
        for entry in result.entries
        for judge, by in entry.results.items()
    ]


def fitted(name, features, labels):
    """The predictor of a name that the table shows, fitted; what else it chose is chosen again."""
    word, *choices = name.split(", ")
    kind = PREDICTORS[word]
    if word != "kNN":
        return kind().fit(features, labels)
    k = int(choices[0].removeprefix("k = "))
    return kind(k=k, vote=choices[1].split()[0] if choices[1:] else "uniform").fit(features, labels)


def test_every_figure_is_of_the_public_functions():
    (train, labels), (test, test_labels) = drawn(36, names=FEW), drawn(21, seed=1, names=FEW)
    result = compare(train, labels, test, test_labels, INFO, {"whole": 2.0}, 100, level=0.9, seed=3)
    right = {}
    for entry in result.entries:
        combiner = entry.combination.fit(train)
        features, asked = combiner.transform(train), combiner.transform(test)
        assert {"knn", "closed"} <= set(entry.results)
        for judge, by in entry.results.items():
            guess = fitted(by.predictor, features, labels).predict(asked)
            right[entry.name, judge] = guess == test_labels
            assert by.value == bootstrap_mean(right[entry.name, judge], level=0.9, seed=3)
            assert by.mean_per_class == mean_per_class(right[entry.name, judge], test_labels)
    base = right[result.reference, result.reference_judge]
    for entry in result.entries:
        for judge, by in entry.results.items():
            assert by.gain == bootstrap_difference(base, right[entry.name, judge], level=0.9, seed=3)
    assert (result.base.gain.value, result.base.gain.low) == (0.0, 0.0)
    assert result.base is result.entry(result.reference).results[result.reference_judge]
    assert result.best is result.entry(result.chosen).result
    assert title_of_predictor(result.predictor) == result.best.predictor
    assert result.entry("embedding").rows_per_second == 50.0
    changes = {change.label: change.change for change in result.classes}
    apart = right[result.chosen, result.entry(result.chosen).judge].astype(float) - base
    assert changes == pytest.approx({name: apart[test_labels == name].mean() for name in (0, 1, 2)})
    assert (result.settings["train_rows"], result.settings["test_rows"], result.settings["classes"]) == (
        36,
        21,
        3,
    )


def test_no_test_row_has_a_say():
    (train, labels), (test, test_labels) = drawn(36, names=FEW), drawn(21, seed=1, names=FEW)
    result = compare(train, labels, test, test_labels, INFO)
    rng = np.random.default_rng(5)
    other = {name: rng.standard_normal((50, 6)).astype(np.float32) for name in FEW}
    assert decided(compare(train, labels, test, 2 - test_labels, INFO)) == decided(result)
    again = compare(train, labels, other, rng.integers(0, 3, 50), INFO)
    assert decided(again) == decided(result)
    assert again.analysis.cka == result.analysis.cka


def test_the_reference_is_what_is_better_in_training_even_where_the_test_says_otherwise():
    train, labels = drawn(30, names=FEW)
    test = {name: np.random.default_rng(5).standard_normal((30, 6)).astype(np.float32) for name in FEW}
    combiner = REFERENCES[HALF_WHITE].fit(train)
    wished = fitted("kNN, k = 1", combiner.transform(train), labels).predict(combiner.transform(test))
    result = compare(train, labels, test, wished, INFO)
    assert (result.reference, result.reference_judge) == (RAW, "closed")
    assert result.base.predictor == "LDA"
    assert result.entry(HALF_WHITE).results["knn"].value.value > result.base.value.value


def test_a_gradient_that_knows_more_is_recommended_beside_what_comes_without_it():
    weak = {"embedding": 0.3, "cls-1": 0.3, "simclr.views": 0.3, "simclr": 0.3}
    (train, labels), (test, test_labels) = drawn(60, **weak, kl=6.0), drawn(60, seed=1, **weak, kl=6.0)
    result = compare(train, labels, test, test_labels, INFO)
    assert "kl" in result.entry(FREE).blocks
    assert result.entry(FREE).passes == 1
    assert not {"simclr.views", "simclr"} & set(result.entry(FREE).blocks)
    assert result.entry(FREE).gain.low > 0.2
    assert not {"kl", "simclr"} & set(result.entry(PLAIN).blocks)
    assert result.entry(PLAIN).value.value < 0.7 < result.entry(FREE).value.value
    assert result.verdict.startswith("Use ")
    assert "kl" in result.verdict
    plain = result.entry(PLAIN)
    (said,) = [note for note in result.notes if "without gradients" in note or "no gradients" in note]
    assert f"brings {plain.gain}" in said


def test_a_gradient_of_many_passes_must_beat_what_one_pass_gives():
    strength = {"embedding": 0.2, "cls-1": 0.2, "simclr.views": 0.2, "kl": 0.8, "simclr": 6.0}
    (train, labels), (test, test_labels) = drawn(90, **strength), drawn(90, seed=1, **strength)
    for result in (
        compare(train, labels, test, test_labels, INFO),
        compare(train, labels, None, None, INFO, splits=6),
    ):
        free, everything = result.entry(FREE), result.entry(ALL)
        assert free.passes == 1
        assert 0 < free.gain.low < free.gain.value < everything.gain.value
        assert everything.passes >= 9
        assert result.verdict.endswith(f"; {everything.passes} passes.")
        assert f"one pass brings {free.gain}" in result.notes


def test_rows_that_changed_are_shown_with_neighbours_under_both():
    weak = {name: 0.3 for name in INFO if name != "kl"}
    (train, labels), (test, test_labels) = drawn(60, **weak, kl=6.0), drawn(45, seed=1, **weak, kl=6.0)
    names, test_names = np.array([*"xyz"])[labels], np.array([*"xyz"])[test_labels]
    ids, test_ids = [f"train-{at}" for at in range(60)], [f"test-{at}" for at in range(45)]
    result = compare(train, names, test, test_names, INFO, ids=ids, test_ids=test_ids)
    features = {}
    for name in (result.reference, result.chosen):
        combiner = result.entry(name).combination.fit(train)
        features[name] = combiner.transform(train).astype(float), combiner.transform(test).astype(float)
    before, after = (
        fitted(by.predictor, features[name][0], names).predict(features[name][1])
        for name, by in ((result.reference, result.base), (result.chosen, result.best))
    )
    assert len(result.changed) == 12
    for sample in result.changed:
        assert (sample.before, sample.after, sample.label) == (
            before[sample.row],
            after[sample.row],
            test_names[sample.row],
        )
        assert (sample.before == sample.label) != (sample.after == sample.label)
        assert sample.id == test_ids[sample.row]
        for name, near in ((result.reference, sample.neighbours_before), (result.chosen, sample.neighbours_after)):
            rows, asked = features[name]
            order = np.argsort(np.linalg.norm(rows - asked[sample.row], axis=1))[:5]
            assert [n.row for n in near] == order.tolist()
            assert [(n.id, n.label) for n in near] == [(ids[row], names[row]) for row in order]
    gained = np.flatnonzero((before != test_names) & (after == test_names))
    lost = np.flatnonzero((before == test_names) & (after != test_names))
    assert len(gained) > 12 > len(lost)
    shown = [change.row for change in result.changed]
    assert set(lost.tolist()) <= set(shown) <= {*gained.tolist(), *lost.tolist()}
    assert max(shown) - min(shown) > 25  # spread over the test rows, not the first ones of the first class


def test_rows_are_called_by_their_numbers_where_no_ids_are_given():
    weak = {name: 0.3 for name in INFO if name != "kl"}
    (train, labels), (test, test_labels) = drawn(30, **weak, kl=6.0), drawn(20, seed=1, **weak, kl=6.0)
    changed = compare(train, labels, test, test_labels, INFO).changed
    assert changed
    assert all(change.id == str(change.row) and change.neighbours_after[0].id.isdigit() for change in changed)


@pytest.mark.parametrize(
    "names", [("embedding",), ("embedding", "cls-1"), ("embedding", "kl"), ("embedding", "simclr")]
)
def test_stores_of_fewer_families_can_be_compared(names):
    (train, labels), (test, test_labels) = drawn(24, names=names), drawn(12, seed=1, names=names)
    result = compare(train, labels, test, test_labels, INFO)
    assert {RAW, HALF_WHITE, FREE, ALL} <= {entry.name for entry in result.entries}
    assert result.entry(FREE).passes == 1
    assert (PLAIN in [entry.name for entry in result.entries]) == bool({"kl", "simclr"} & set(names))
    assert list(result.analysis.blocks) == list(names)
    json.dumps(result.to_json(), allow_nan=False)


def test_a_class_without_training_rows_is_wrong_for_every_entry():
    (train, labels), (test, test_labels) = (
        drawn(30, names=FEW, embedding=9.0),
        drawn(12, seed=1, names=FEW, embedding=9.0),
    )
    result = compare(train, labels, test, np.full(12, 7), INFO)
    assert all(entry.value.value == entry.result.mean_per_class == 0.0 for entry in result.entries)
    mixed = np.where(np.arange(12) < 3, 7, test_labels)
    assert compare(train, labels, test, mixed, INFO).entry(RAW).value.value <= 0.75


def test_one_class_is_always_right():
    (train, labels), (test, test_labels) = drawn(20, names=FEW), drawn(10, seed=1, names=FEW)
    result = compare(train, labels * 0, test, test_labels * 0, INFO)
    for entry in result.entries:
        assert all(by.value.value == by.leave_one_out == 1.0 and by.loss == 0 for by in entry.results.values())
    assert result.verdict.startswith("Use the embedding with")


def test_one_test_row_and_two_training_rows_give_figures_without_intervals():
    (train, labels), (test, test_labels) = drawn(2, names=FEW), drawn(1, seed=1, names=FEW)
    result = compare(train, labels, test, test_labels, INFO)
    assert math.isnan(result.entry(RAW).value.low)
    assert all(entry.results["knn"].predictor == "kNN, k = 1" for entry in result.entries)
    body = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert body["entries"][0]["results"]["knn"]["value"]["low"] is None


def test_a_constant_block_and_repeated_rows_do_no_harm():
    (train, labels), (test, test_labels) = drawn(24), drawn(12, seed=1)
    train["cls-1"][:] = test["cls-1"][:] = 2.0
    train = {name: np.repeat(rows, 2, axis=0) for name, rows in train.items()}
    result = compare(train, np.repeat(labels, 2), test, test_labels, INFO)
    json.dumps(result.to_json(), allow_nan=False)
    assert result.entry(RAW).results["knn"].leave_one_out > 0.9


def test_more_training_rows_than_may_choose_are_said():
    (train, labels), (test, test_labels) = drawn(60, names=FEW), drawn(12, seed=1, names=FEW)
    result = compare(train, labels, test, test_labels, INFO, most_rows=20)
    assert result.settings["rows that choose"] == 20
    assert "rows that choose" not in compare(train, labels, test, test_labels, INFO, most_rows=60).settings


def test_a_comparison_is_plain_json_and_the_same_again():
    (train, labels), (test, test_labels) = drawn(24, names=FEW), drawn(12, seed=1, names=FEW)
    names = np.array(["a", "b", "ü"])
    options = {"settings": {"backbone": "tiny"}, "seconds": {"whole": 1.0, "simclr": 2.0}, "rows_timed": 24}
    texts = [
        json.dumps(compare(train, names[labels], test, names[test_labels], INFO, **options).to_json(), allow_nan=False)
        for _ in range(2)
    ]
    assert texts[0] == texts[1]
    body = json.loads(texts[0])
    assert body["settings"]["backbone"] == "tiny"
    assert body["entries"][-1]["combination"]["blocks"]
    assert {"verdict", "reference", "free", "chosen", "classes", "analysis", "changed", "notes"} <= set(body)
    assert body["reference_judge"] in ("knn", "closed", "probe")
    assert body["predictor"].split(",")[0] in PREDICTORS
    assert body["entries"][0]["results"]["closed"]["predictor"] in PREDICTORS


def of_split(result, blocks, labels, rows, others):
    """The accuracies on the other rows of some entries, as training on these rows alone chooses their predictors."""
    train, test = ({name: block[part] for name, block in blocks.items()} for part in (rows, others))
    blind, chosen = compare(train, labels[rows], test, labels[others] * 0, INFO), select(train, labels[rows])
    assert blind.entry(ALL).combination == chosen.combination
    assert blind.entry(ALL).result.predictor == title_of_predictor(chosen.predictor)
    for name, judge in ((result.reference, result.reference_judge), (RAW, "knn"), (HALF_WHITE, "closed"), (ALL, None)):
        entry = blind.entry(name)
        by = entry.results.get(judge, entry.result)
        combiner = entry.combination.fit(train)
        model = fitted(by.predictor, combiner.transform(train), labels[rows])
        yield (model.predict(combiner.transform(test)) == labels[others]).mean()


def test_without_a_test_set_each_split_chooses_blindly():
    blocks, labels = drawn(36, names=("embedding", "cls-1", "kl"), kl=2.0)
    result = compare(blocks, labels, None, None, INFO, splits=2)
    base, *scores = np.array([[*of_split(result, blocks, labels, *rows)] for rows in repeated_splits(labels, 0.3, 2)]).T
    for by, values in zip(
        (result.entry(RAW).results["knn"], result.entry(HALF_WHITE).results["closed"], result.entry(ALL).result),
        scores,
        strict=True,
    ):
        held = result.settings["held_out"]
        expected = split_interval(values, held)
        ends = {"low": max(expected.low, 0.0), "high": min(expected.high, 1.0)}
        assert by.value == replace(expected, **ends, difference=False)
        # The reference is one for all splits, so that a gain is the difference of the values next to it.
        assert by.gain == split_interval(values - base, held)
    assert result.settings["splits"] == 2
    assert result.settings["held_out"] == pytest.approx(0.3, abs=0.04)
    assert any(note.startswith("no test set") for note in result.notes)
    assert result.changed == ()


def test_without_a_test_set_entries_show_what_all_rows_choose():
    blocks, labels = drawn(30, names=FEW, kl=2.0)
    result = compare(blocks, labels, None, None, INFO, splits=2)
    whole = compare(blocks, labels, blocks, labels, INFO)
    reference, entries = decided(whole)
    asked = [entry[:1] + entry[3:4] for entry in decided(result)[1]]  # splits ask the probe of fewer entries
    assert decided(result) == (reference, [entry for entry in entries if entry[:1] + entry[3:4] in asked])
    assert {"knn", "closed"} <= {judge for _, judge in asked}


def test_an_interval_of_an_accuracy_ends_at_0_and_1():
    blocks, labels = drawn(18, names=FEW, embedding=0.8)
    result = compare(blocks, labels, None, None, INFO, splits=2)
    ends = [(entry.value.low, entry.value.high) for entry in result.entries]
    assert all(0 <= low <= high <= 1 for low, high in ends)
    assert any(low == 0 for low, _ in ends)  # a t interval of two splits is wide: it had to be cut


def test_few_rows_without_a_test_set_are_split_as_far_as_they_go():
    blocks, _ = drawn(5, names=FEW)
    result = compare(blocks, [*"aabbc"], None, None, INFO, splits=3)  # the c is always trained on
    assert result.settings["held_out"] == pytest.approx(0.4)
    assert {change.label for change in result.classes} == {"a", "b"}
    json.dumps(result.to_json(), allow_nan=False)
    lonely = compare(blocks, [*"aabbc"], None, None, INFO, splits=1)
    assert math.isnan(lonely.entry(ALL).gain.low)
    assert "no interval" in lonely.verdict or "nothing is surely better" in lonely.verdict


@pytest.mark.parametrize(
    ("labels", "options", "complaint"),
    [
        ([*"abcde"], {}, "none of 5 classes has two rows"),
        ([*"aabbc"], {"splits": 0}, "count=0; expected"),
        ([*"aabb"], {}, r"train labels have shape \(4,\) for 5 rows"),
        (["a", "a", "b", "b", None], {}, "1 of 5 train labels are missing"),
        ([*"aabbc"], {"ids": ["x"]}, "1 train ids for 5 rows"),
    ],
)
def test_what_cannot_be_split_is_said(labels, options, complaint):
    with pytest.raises(SampleError, match=complaint):
        compare(drawn(5)[0], labels, None, None, INFO, **options)


def test_two_rows_leave_one_to_train_on_which_is_too_few():
    with pytest.raises(SampleError, match="expected at least two"):
        compare(drawn(2)[0], ["a", "a"], None, None, INFO)


@pytest.mark.parametrize(
    ("change", "complaint"),
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
def test_what_does_not_go_together_is_said(change, complaint):
    (train, labels), (test, test_labels) = drawn(9), drawn(4, seed=1)
    given = {"train": train, "labels": labels, "test": test, "test_labels": test_labels, "info": INFO}
    for name, value in change.items():
        given[name] = {**given[name], **value} if isinstance(value, dict) else value
    with pytest.raises(SampleError, match=complaint):
        compare(**given)


def test_a_block_that_is_not_there_is_said():
    (train, labels), (test, test_labels) = drawn(9), drawn(4, seed=1)
    with pytest.raises(SampleError, match="test has no block 'kl'; there are: embedding"):
        compare(train, labels, {name: test[name] for name in test if name != "kl"}, test_labels, INFO)
    with pytest.raises(SampleError, match="train has no block 'embedding'; there are: kl"):
        compare({"kl": train["kl"]}, labels, test, test_labels, INFO)


def test_groups_are_left_out_drawn_and_held_out_together():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 30).repeat(3), np.arange(30).repeat(3)
    blocks = {
        name: (rng.standard_normal((30, 8)).repeat(3, axis=0) + 0.01 * rng.standard_normal((90, 8))).astype(np.float32)
        for name in ("embedding", "cls-1")
    }
    info = {name: INFO[name] for name in blocks}
    leaked = compare(blocks, labels, None, None, info, splits=2)
    assert leaked.base.value.value == leaked.base.leave_one_out == 1.0
    honest = compare(blocks, labels, None, None, info, groups=groups, splits=2)
    assert honest.base.value.value < 0.7
    assert honest.base.leave_one_out < 0.7
    assert honest.settings["groups"] == 30
    rows, others = slice(0, 60), slice(60, 90)
    train, test = ({name: block[part] for name, block in blocks.items()} for part in (rows, others))
    given = train, labels[rows], test, labels[others], info
    alone = compare(*given, groups=groups[rows])
    together = compare(*given, groups=groups[rows], test_groups=groups[others])
    assert decided(alone) == decided(together)
    wide, narrow = (result.entry(RAW).value for result in (together, alone))
    assert wide.high - wide.low > 1.4 * (narrow.high - narrow.low)


def test_layers_with_a_closed_form_are_recommended_where_no_neighbours_see_the_class():
    def rows(count, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        layer = rng.standard_normal((count, 8)) * [0.05, *[1.0] * 7]
        layer[:, 0] += 0.1 * (2 * labels - 1)
        embedding = rng.standard_normal((count, 8)) + 0.2 * labels[:, None]
        return {"embedding": embedding.astype(np.float32), "cls-1": layer.astype(np.float32)}, labels

    (train, labels), (test, test_labels) = rows(150, 0), rows(300, 1)
    result = compare(train, labels, test, test_labels, {name: INFO[name] for name in train})
    assert result.entry(result.chosen).judge == "closed"
    assert "cls-1" in result.entry(result.chosen).blocks
    assert result.best.value.value > 0.9 > result.entry("cls-1").results["knn"].value.value + 0.15
    assert result.verdict.startswith("Use ")
    assert "where the embedding's best is" in result.verdict


def test_all_splits_measure_the_reference_that_all_rows_name(monkeypatch):
    """Of 36 rows a class: enough for all predictors; the 25 in a split alone would name LDA on the raw embedding."""
    monkeypatch.setattr("sporeprint.evaluate.choice.trained.CHOSEN", ("kNN", "LDA", "ridge"))
    blocks, labels = drawn(108, seed=7, names=("embedding", "cls-1"), embedding=0.6)
    result = compare(blocks, labels, None, None, INFO, splits=3)
    assert (result.reference, result.base.predictor) == (HALF_WHITE, "ridge")
    combiner = result.entry(result.reference).combination
    values = []
    for rows, others in repeated_splits(labels, 0.3, 3, 0):
        train, test = ({name: block[part] for name, block in blocks.items()} for part in (rows, others))
        known = combiner.fit(train)
        guess = fitted(result.base.predictor, known.transform(train), labels[rows]).predict(known.transform(test))
        values.append((guess == labels[others]).mean())
    assert result.base.value.value == pytest.approx(np.mean(values))
    assert result.base.gain.value == 0


def test_splits_of_groups_take_three():
    blocks, labels = drawn(24, names=("embedding", "cls-1"))
    with pytest.raises(SampleError, match=r"24 rows are of 2 groups; .* expected at least 3 groups, or test rows"):
        compare(blocks, labels, None, None, INFO, groups=np.arange(24) // 12)


def test_a_split_that_trains_on_one_group_leaves_out_its_rows_one_by_one(monkeypatch):
    blocks, labels = drawn(24, names=("embedding", "cls-1"))
    halves = np.arange(12), np.arange(12, 24)
    monkeypatch.setattr("sporeprint.evaluate.compare.repeated_splits", lambda *_: iter([halves, halves[::-1]]))
    groups = np.maximum(np.arange(24) // 6, 1)
    result = compare(blocks, labels, None, None, INFO, splits=2, groups=groups)
    assert "1 of 2 splits are of one group: their rows are left out one by one" in result.notes
    notes = " ".join(result.notes)
    assert "no test set: 2 times 50% of the rows were held out for testing, and the rest chose" in notes
    assert "was chosen on all rows, held-out ones too" in notes


@pytest.mark.parametrize(
    ("apart", "classes", "rows"),
    [
        (0.0, 2, 60),  # pure noise
        (40.0, 3, 24),  # so far apart that each predictor is always right; few of each class: LDA alone is asked
        (40.0, 3, 90),
    ],
)
def test_where_there_is_nothing_to_gain_the_embedding_is_recommended(apart, classes, rows):
    names = ("embedding", "cls-1")
    (train, labels), (test, test_labels) = (
        drawn(count, seed, names, classes, **dict.fromkeys(names, apart)) for count, seed in ((rows, 0), (30, 1))
    )
    result = compare(train, labels, test, test_labels, INFO)
    assert "the embedding" in result.verdict.split(" with ")[0]
    assert result.entry(result.chosen).combination in REFERENCES.values()
    if apart:
        assert all(by.value.value == 1 for entry in result.entries for by in entry.results.values())
