"""What training rows choose: `select` on a user's labels, and all that `compare` takes from them."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from small_blocks import INFO, classed_blocks, unlabelled_blocks
from sporeprint.errors import RecipeError, SampleError
from sporeprint.evaluate.accuracy import mean_per_class
from sporeprint.evaluate.choice.candidates import ALL, EMBEDDINGS, FREE, PLAIN, REFERENCES, choices, full_table
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.select import Selection, Trained, choose, select
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.evaluate.table import Costs
from sporeprint.features.combine import Combination
from sporeprint.predictors.knn import choose_k, leave_one_out

pytestmark = pytest.mark.filterwarnings("error")
KS = (1, 3, 5)
SECONDS = {"whole": 2.0, "simclr": 6.0, "projection": 1.0, "negatives": 99.0}


def test_rows_with_nan_in_any_block_are_neither_fitted_on_nor_asked():
    blocks = unlabelled_blocks(20)
    labels = np.array([*"abcd"] * 5)
    broken = {name: rows.copy() for name, rows in blocks.items()}
    broken["kl"][3, 2] = np.nan
    broken["embedding"][11] = np.nan
    kept = np.delete(np.arange(20), [3, 11])
    whole = {name: rows[kept] for name, rows in blocks.items()}
    assert select(broken, labels, ks=KS) == select(whole, labels[kept], ks=KS)


def test_of_many_labelled_rows_some_are_drawn_to_choose():
    blocks = unlabelled_blocks(40)
    labels = np.array([*"abcd"] * 10)
    assert select(blocks, labels, most_rows=15).settings["labelled_rows"] == 15
    assert select(blocks, labels, most_rows=40) == select(blocks, labels)


def rights(**answers):
    """What `leave_one_out_of` would give with k = 1; right is 1."""
    names = {"embedding_white": "embedding, white 0.5"}
    hits = {names.get(name, name): {1: np.array([bit == "1" for bit in bits])} for name, bits in answers.items()}
    return dict.fromkeys(hits, Combination(("embedding",))), hits


def test_the_guard_counts_standard_errors_of_the_paired_difference():
    # Of ten rows three are gained, one is lost: mean 0.2, variance (4 - 10 * 0.04) / 9 = 0.4, error sqrt(0.04) = 0.2.
    answers = rights(embedding="1111100000", embedding_white="0000000000", other="0111111100")
    taken = choose(*answers, guard=0.999)
    assert taken.name == "other"
    assert (taken.value, taken.gain, taken.error) == pytest.approx((0.7, 0.2, 0.2))
    kept = choose(*answers, guard=1.001)
    assert (kept.name, kept.value, kept.gain, kept.error) == ("embedding", 0.5, 0.0, 0.0)


def test_the_best_of_those_that_pass_the_guard_is_taken_and_the_earlier_of_two():
    # The first gains 3 of 8 rows and loses none, error sqrt(0.268 / 8) = 0.183: passes 2. The second gains 5, loses 1:
    # mean 0.5, error sqrt(0.571 / 8) = 0.267: passes 1 only.
    sure, bold = "11111000", "01111110"
    given = {"embedding": "11000000", "embedding_white": "10000000"}
    assert choose(*rights(**given, sure=sure, bold=bold), guard=1).name == "bold"
    assert choose(*rights(**given, sure=sure, bold=bold), guard=2).name == "sure"
    assert choose(*rights(**given, a=bold, b=bold), guard=1).name == "a"
    assert choose(*rights(**given, a="11000000"), guard=0).name == "embedding"


def test_whitening_alone_must_pass_the_guard_too():
    # One row of eight more: mean 0.125, error sqrt((1 - 1 / 8) / 7 / 8) = 0.125.
    answers = rights(embedding="11000000", embedding_white="11100000")
    assert choose(*answers, guard=0.999).name == "embedding, white 0.5"
    assert choose(*answers, guard=1.001).name == "embedding"


def test_a_candidate_must_beat_the_whitened_embedding_as_well():
    # Over the raw one five rows of eight: passes 2; over the whitened one a row, as above: passes 0.9 only.
    given = {"embedding": "10000000", "embedding_white": "11111000", "other": "11111100"}
    assert choose(*rights(**given), guard=0.9).name == "other"
    assert choose(*rights(**given), guard=2).name == "embedding, white 0.5"
    taken = choose(*rights(**given), guard=0.9)
    assert taken.gain == pytest.approx(5 / 8)


def test_each_candidate_has_its_best_k_and_the_smaller_of_two():
    candidates = {**REFERENCES, "other": Combination(("kl",))}
    none, half = np.zeros(4, bool), np.array([True, True, False, False])
    hits = {"embedding": {1: none, 3: half, 5: half}, "embedding, white 0.5": {1: none}, "other": {1: none, 3: none}}
    chosen = choose(candidates, hits)
    assert (chosen.name, chosen.k, chosen.value) == ("embedding", 3, 0.5)
    assert chosen.table == {"embedding": 0.5, "embedding, white 0.5": 0.0, "other": 0.0}


def two_classes(rows, seed=0, **signals):
    """Blocks of noise, with a signal of so much strength in some of them; labels by turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    blocks = {name: rng.standard_normal((rows, 6)) for name in ("embedding", "cls-1", "dino.views", "kl")}
    for name, strength in signals.items():
        blocks[name.replace("cls", "cls-1")][:, 0] += strength * (2 * labels - 1)
    return {name: block.astype(np.float32) for name, block in blocks.items()}, labels


@pytest.mark.parametrize(("name", "block"), [("cls", "cls-1"), ("kl", "kl")])
def test_a_block_that_carries_the_label_is_found(name, block):
    blocks, labels = two_classes(80, **{name: 8.0})
    chosen = select(blocks, labels)
    assert block in chosen.combination.blocks
    assert chosen.gain > 0.3
    assert chosen.value == chosen.table[chosen.name] > 0.9
    assert chosen.gain == pytest.approx(chosen.value - chosen.table["embedding"])


def test_a_label_that_the_embedding_carries_keeps_it():
    blocks, labels = two_classes(80)
    blocks["embedding"][:, 0] += 20 * (2 * labels - 1)
    chosen = select(blocks, labels)
    assert (chosen.name, chosen.value, chosen.gain) == ("embedding", 1.0, 0.0)


def test_few_labels_that_say_nothing_mostly_keep_the_reference_behind_two_errors():
    kept = Counter()
    for seed in range(20):
        blocks = unlabelled_blocks(20, seed, **{"embedding": 6, "cls-1": 6, "dino.views": 6, "kl": 6})
        labels = np.random.default_rng(seed).permutation(np.repeat([*"abcd"], 5))
        outcomes = leave_one_out_of(blocks, labels, candidates := choices(list(blocks)))
        for guard in (0, 1, 2, 3):
            chosen = choose(candidates, outcomes, guard)
            kept[guard] += chosen.name == "embedding"
    assert kept[2] >= 13
    assert kept[3] >= 18
    assert kept[0] < kept[1] < kept[2]


def test_a_choice_is_the_same_again_and_does_not_change_what_it_is_given():
    blocks, labels = unlabelled_blocks(24), [*"abc"] * 8
    before = {name: rows.copy() for name, rows in blocks.items()}
    assert select(blocks, labels, ks=KS) == select(blocks, labels, ks=KS)
    for name, rows in blocks.items():
        np.testing.assert_array_equal(rows, before[name])


def test_given_candidates_are_those_tried_beside_the_references():
    blocks, labels = two_classes(60, kl=8.0)
    mine = {"mine": Combination(("kl",), weights=(2.0,))}
    chosen = select(blocks, labels, mine)
    assert (chosen.name, chosen.combination) == ("mine", mine["mine"])
    assert list(chosen.table) == ["embedding", "embedding, white 0.5", "mine"]
    assert chosen.settings == {
        "labelled_rows": 60,
        "guard": 2.0,
        "candidates": 3,
        "ks": [1, 3, 5, 10, 20],
        "seed": 0,
    }
    body = json.loads(json.dumps(chosen.to_json(), allow_nan=False))
    assert body["combination"]["blocks"] == ["kl"]
    assert str(replace(chosen, value=0.9, k=3, gain=0.25, error=0.05)) == (
        "mine: leave-one-out 90.0%, k = 3; +25.0 ± 5.0 points over the raw embedding"
    )
    assert str(replace(chosen, name="embedding", value=0.9, k=3, gain=0.0)) == "embedding: leave-one-out 90.0%, k = 3"


def test_one_class_is_always_right_and_two_rows_can_be_asked():
    blocks = unlabelled_blocks(6)
    chosen = select(blocks, ["a"] * 6)
    assert (chosen.name, chosen.value, chosen.k) == ("embedding", 1.0, 1)
    chosen = select(blocks, ["a", "b", None, None, None, None])
    assert (chosen.name, chosen.value, chosen.gain) == ("embedding", 0.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "options", "complaint"),
    [
        (["a", None, None, None], {}, "1 rows with a label and features; expected at least two"),
        ([None] * 4, {}, "0 rows with a label"),
        ([*"abab"], {"ks": [4, 9]}, r"4 labelled rows, k of \[4, 9\]; expected a k below the number of rows"),
        ([*"abab"], {"ks": [0, 1]}, "k=0"),
        ([*"abab"], {"ks": []}, "no k to choose from"),
        ([*"aba"], {}, r"labels have shape \(3,\) for 4 rows"),
        ([["a"], ["b"], ["a"], ["b"]], {}, "of different kinds, or lists"),
        (["a", 1, "a", 1], {}, "of different kinds"),
        ([*"abab"], {"guard": -1}, "guard=-1; expected"),
        ([*"abab"], {"guard": float("nan")}, "guard=nan; expected"),
        ([*"abab"], {"candidates": {"it": Combination(size=2)}}, "candidate 'it' has size=2; choose first"),
        ([*"abab"], {"candidates": {"it": Combination(("max",))}}, "candidate 'it' takes block 'max'; there are: emb"),
        ([*"abab"], {"candidates": {"embedding": Combination(("kl",))}}, "a candidate is called 'embedding'"),
    ],
)
def test_what_cannot_be_asked_is_said(labels, options, complaint):
    with pytest.raises(SampleError, match=complaint):
        select(unlabelled_blocks(4), labels, **options)


def test_blocks_that_do_not_go_together_are_said():
    with pytest.raises(SampleError, match=r"'kl': \(3, 4\).* the same rows in each"):
        select({"embedding": np.ones((4, 4)), "kl": np.ones((3, 4))}, [*"abab"])
    with pytest.raises(SampleError, match=r"'embedding': \(4,\)"):
        select({"embedding": np.ones(4)}, [*"abab"])
    with pytest.raises(SampleError, match="takes block 'embedding'; there are: kl"):
        select({"kl": np.ones((4, 4))}, [*"abab"])
    with pytest.raises(SampleError, match=r"blocks have shapes \{\}"):
        select({}, [])
    with pytest.raises(RecipeError, match="no block of views"):
        select(unlabelled_blocks(4, embedding=3), [*"abab"], {"it": Combination(("views",))})


def test_what_is_counted_for_a_choice_is_what_knn_counts():
    blocks, labels = unlabelled_blocks(60, seed=3), np.arange(60) % 3
    chosen = select(blocks, labels)
    features = chosen.combination.fit(blocks).transform(blocks)
    assert leave_one_out(features, labels)[chosen.k].mean() == chosen.value


def test_every_entry_is_what_the_public_functions_give():
    (train, labels), (test, test_labels) = classed_blocks(36), classed_blocks(15, seed=1)
    trained = Trained(train, labels, Costs(INFO, SECONDS, 100), 1000, 0)
    guesses = trained.guesses(test)
    assert (
        list(guesses)
        == [entry.name for entry in trained.entries]
        == [*(candidate.name for candidate in full_table(list(INFO))), FREE, PLAIN, ALL]
    )
    for kind in trained.entries:
        combiner = kind.combination.fit(train)
        features, asked = combiner.transform(train), combiner.transform(test)
        table = choose_k(features, labels)
        result = knn(features, labels, asked, test_labels, k="auto")
        assert (trained.ks[kind.name], trained.leave_one_out[kind.name]) == (result.k, table[result.k]), kind.name
        assert (guesses[kind.name] == test_labels).mean() == result.value
        assert mean_per_class(guesses[kind.name] == test_labels, test_labels) == pytest.approx(result.mean_per_class)
        assert (kind.blocks, kind.width) == (combiner.names, features.shape[1])
    better = max(EMBEDDINGS, key=trained.leave_one_out.get)
    assert trained.reference == better


@pytest.mark.parametrize(("views", "recommended"), [(0.0, FREE), (6.0, ALL)])
def test_more_passes_are_recommended_where_the_training_rows_surely_gain(views, recommended):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    train = {name: rng.standard_normal((60, 6)).astype(np.float32) for name in ("embedding", "cls-1", "simclr.views")}
    train["cls-1"][np.arange(60), labels] += 2
    train["simclr.views"][np.arange(60), labels] += views
    trained = Trained(train, labels, Costs(INFO, {}, 0), 1000, 0)
    assert trained.recommended == recommended
    assert trained.entry(FREE).blocks != ("embedding",)


def test_choices_are_those_of_select_among_what_each_may_take():
    train, labels = classed_blocks(36)
    trained = Trained(train, labels, Costs(INFO, {}, 0), 1000, 0)
    assert trained.entry(ALL).combination == select(train, labels).combination
    free = {name: train[name] for name in ("embedding", "cls-1", "kl")}
    assert trained.entry(FREE).combination == select(free, labels).combination
    assert set(trained.entry(FREE).blocks) <= set(free)
    plain = {name: train[name] for name in ("embedding", "cls-1", "simclr.views")}
    assert trained.entry(PLAIN).combination == select(plain, labels).combination
    assert [trained.entry(name).role for name in (FREE, PLAIN, ALL)] == ["chosen", "control", "chosen"]


def test_the_control_without_gradients_is_there_only_where_there_are_gradients():
    train, labels = classed_blocks(20, names=("embedding", "cls-1"))
    names = [entry.name for entry in Trained(train, labels, Costs(INFO, {}, 0), 1000, 0).entries]
    assert names[-2:] == [FREE, ALL]
    assert PLAIN not in names


def test_a_choice_among_some_candidates_is_that_of_asking_them_alone():
    train, labels = classed_blocks(30)
    everything = choices(list(train))
    part = {name: everything[name] for name in choices(["embedding", "cls-1", "simclr.views"])}
    rights = leave_one_out_of(train, labels, everything)
    assert choose(part, rights) == choose(part, leave_one_out_of(train, labels, part))


def test_more_rows_than_may_choose_are_neighbours_all_the_same():
    train, labels = classed_blocks(45)
    trained = Trained(train, labels, Costs(INFO, {}, 0), 20, 5)
    rows = np.sort(np.random.default_rng(5).choice(45, 20, replace=False))
    for entry in trained.entries:
        right = leave_one_out(entry.combination.fit(train).transform(train), labels)
        table = {k: hits[rows].mean() for k, hits in right.items()}
        assert trained.leave_one_out[entry.name] == max(table.values()) == table[trained.ks[entry.name]]


def test_each_candidate_is_said_as_its_turn_comes():
    rng = np.random.default_rng(0)
    blocks = {"embedding": rng.standard_normal((12, 3)), "kl": rng.standard_normal((12, 3))}
    steps = []
    chosen = select(blocks, ["a", "b"] * 6, progress=steps.append)
    total = len(chosen.table)
    assert sorted(steps) == sorted(
        f"choosing: {name} ({at} of {total})"
        for at, name in enumerate((step.split(": ", 1)[1].rsplit(" (", 1)[0] for step in steps), 1)
    )
    assert {step.split(": ", 1)[1].rsplit(" (", 1)[0] for step in steps} == set(chosen.table)


def test_a_selection_in_a_notebook_shows_the_choice_and_not_every_candidate():
    selection = Selection(value=0.5, name="layers", table={"layers": 0.5, "a candidate": 0.25})
    assert "name='layers'" in repr(selection)
    assert "a candidate" not in repr(selection)
