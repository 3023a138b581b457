import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sporeprint.errors import RecipeError, SampleError
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.select import REFERENCES, choose, select, select_candidates
from sporeprint.evaluate.knn import leave_one_out
from sporeprint.features.combine import Combination

pytestmark = pytest.mark.filterwarnings("error")
KS = (1, 3, 5)


def drawn(rows, seed=0, **blocks):
    """Blocks that share a few directions, of rows that no label is about. blocks: name to width."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((rows, 4))
    widths = blocks or {"embedding": 6, "cls-1": 5, "patches-1": 4, "dino.views": 6, "kl": 7}
    made = {}
    for name, width in widths.items():
        made[name] = (common @ rng.standard_normal((4, width)) + rng.standard_normal((rows, width))).astype(np.float32)
    return made


def slowly(features, labels, k):
    """Whether the k nearest others vote for each row's label: plain Python, ties to the nearest, then the first row."""
    rows = [[float(x) for x in row] for row in features]
    right = []
    for at, row in enumerate(rows):
        apart = [(math.dist(row, other), i) for i, other in enumerate(rows)]
        votes = [labels[i] for _, i in sorted(one for one in apart if one[1] != at)[:k]]
        counts = Counter(votes)
        most = max(counts.values())
        right.append(next(vote for vote in votes if counts[vote] == most) == labels[at])
    return right


def test_every_candidate_is_asked_what_a_slow_loop_over_its_features_asks():
    blocks = drawn(18)
    labels = [*"aaabbbccc", *"abcabcabc"]
    candidates = select_candidates(list(blocks))
    found, whiteners = leave_one_out_of(blocks, labels, candidates, KS), {}
    assert list(found) == list(candidates)
    for name, one in candidates.items():
        features = one.fit(blocks, whiteners).transform(blocks)
        for k in KS:
            assert found[name][k].tolist() == slowly(features, labels, k), (name, k)


def test_weights_given_to_blocks_and_a_fixed_rank_are_respected():
    blocks = drawn(20)
    labels = [*"abcd"] * 5
    odd = {
        "weighed": Combination(("kl", "embedding", "layers"), weights=(3.0, 0.5, 1.5)),
        "ranked": Combination(("embedding", "kl"), whiten=2, exponent=0.5),
        "paper": Combination(),
    }
    found = leave_one_out_of(blocks, labels, odd, KS)
    for name, one in odd.items():
        features = one.fit(blocks).transform(blocks)
        assert {k: right.tolist() for k, right in found[name].items()} == {k: slowly(features, labels, k) for k in KS}


def test_rows_without_a_label_fit_the_whitening_and_are_not_asked():
    blocks = drawn(30)
    labels = ["a", None, "b", float("nan"), "a", "b"] * 5
    has = np.array([one in ("a", "b") for one in labels])
    for whiten in (None, "auto"):
        one = Combination(("embedding", "kl"), whiten)
        found = leave_one_out_of(blocks, labels, {"it": one}, KS)["it"]
        features = one.fit(blocks).transform(blocks)[has]
        assert {k: right.tolist() for k, right in found.items()} == {
            k: slowly(features, [one for one in labels if one in ("a", "b")], k) for k in KS
        }
    alone = Combination(("embedding", "kl"), "auto").fit({name: rows[has] for name, rows in blocks.items()})
    assert not np.allclose(features, alone.transform({name: rows[has] for name, rows in blocks.items()}), atol=1e-3)


@pytest.mark.parametrize(
    "labels",
    [[0.0, np.nan, 1.0, 0.0, 1.0], np.array([0, np.nan, 1, 0, 1]), np.array([0, None, 1, 0, 1]), [0, None, 1, 0, 1]],
)
def test_missing_numbers_are_missing_however_they_come(labels):
    rows = {"embedding": np.array([[1, 0], [0, 1], [0, 1], [1, 0.1], [0.1, 1]], np.float32)}
    found = leave_one_out_of(rows, labels, {"it": Combination(("embedding",))}, [1])["it"]
    assert found[1].tolist() == [True, True, True, True]


def test_rows_with_nan_in_any_block_are_neither_fitted_on_nor_asked():
    blocks = drawn(20)
    labels = np.array([*"abcd"] * 5)
    broken = {name: rows.copy() for name, rows in blocks.items()}
    broken["kl"][3, 2] = np.nan
    broken["embedding"][11] = np.nan
    kept = np.delete(np.arange(20), [3, 11])
    whole = {name: rows[kept] for name, rows in blocks.items()}
    assert select(broken, labels, ks=KS) == select(whole, labels[kept], ks=KS)


def test_of_many_labelled_rows_some_are_drawn_and_ask_each_other():
    blocks = drawn(40)
    labels = np.array([*"abcd"] * 10)
    one = {"it": Combination(("embedding", "kl"), "auto")}
    found = leave_one_out_of(blocks, labels, one, KS, most_rows=15, seed=4)["it"]
    rows = np.sort(np.random.default_rng(4).choice(40, 15, replace=False))
    features = one["it"].fit(blocks).transform(blocks)[rows]
    assert found[3].tolist() == slowly(features, labels[rows], 3)
    assert select(blocks, labels, most_rows=15).settings["labelled_rows"] == 15
    assert select(blocks, labels, most_rows=40) == select(blocks, labels)


def test_the_raw_embedding_comes_first_and_each_way_is_tried_once():
    names = ["embedding", "cls-1", "cls-2", "dino.views", "kl", "dino"]
    found = select_candidates(names)
    assert list(found)[:2] == ["embedding", "embedding, white 0.5"]
    ways = [(frozenset(one.members(names).items()), one.whiten, one.exponent) for one in found.values()]
    assert len(set(ways)) == len(ways)
    # Eleven sets: seven of the three families beside the embedding, four with layers without it. Four exponents each.
    # Weights by family differ but where each has one member: embedding + views; and a family by itself has none.
    assert len(found) == 4 + 4 * 11 + 4 * (11 - 2)
    assert list(select_candidates(["embedding"])) == [
        "embedding",
        "embedding, white 0.5",
        "embedding, white 0.75",
        "embedding, white 1",
    ]


def rights(**answers):
    """What `leave_one_out_of` would give with k = 1; right is 1."""
    names = {"embedding_white": "embedding, white 0.5"}
    found = {names.get(name, name): {1: np.array([one == "1" for one in given])} for name, given in answers.items()}
    return dict.fromkeys(found, Combination(("embedding",))), found


def test_the_guard_counts_standard_errors_of_the_paired_difference():
    # Of ten rows three are gained, one is lost: mean 0.2, variance (4 - 10 * 0.04) / 9 = 0.4, error sqrt(0.04) = 0.2.
    one = rights(embedding="1111100000", embedding_white="0000000000", other="0111111100")
    taken = choose(*one, guard=0.999)
    assert taken.name == "other"
    assert (taken.value, taken.gain, taken.error) == pytest.approx((0.7, 0.2, 0.2))
    kept = choose(*one, guard=1.001)
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
    one = rights(embedding="11000000", embedding_white="11100000")
    assert choose(*one, guard=0.999).name == "embedding, white 0.5"
    assert choose(*one, guard=1.001).name == "embedding"


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
    found = {"embedding": {1: none, 3: half, 5: half}, "embedding, white 0.5": {1: none}, "other": {1: none, 3: none}}
    chosen = choose(candidates, found)
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
        blocks = drawn(20, seed, **{"embedding": 6, "cls-1": 6, "dino.views": 6, "kl": 6})
        labels = np.random.default_rng(seed).permutation(np.repeat([*"abcd"], 5))
        found = leave_one_out_of(blocks, labels, candidates := select_candidates(list(blocks)))
        for guard in (0, 1, 2, 3):
            chosen = choose(candidates, found, guard)
            kept[guard] += chosen.name == "embedding"
    assert kept[2] >= 13
    assert kept[3] >= 18
    assert kept[0] < kept[1] < kept[2]


def test_a_choice_is_the_same_again_and_does_not_change_what_it_is_given():
    blocks, labels = drawn(24), [*"abc"] * 8
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
    said = json.loads(json.dumps(chosen.to_json(), allow_nan=False))
    assert said["combination"]["blocks"] == ["kl"]
    assert str(replace(chosen, value=0.9, k=3, gain=0.25, error=0.05)) == (
        "mine: leave-one-out 90.0%, k = 3; +25.0 ± 5.0 points over the raw embedding"
    )


def test_a_constant_block_is_nothing_and_ties_go_by_the_order_of_rows():
    rows = np.tile(np.array([[3.0, 4.0]], np.float32), (30, 1))
    labels = [*"abb"] * 10
    found = leave_one_out_of({"embedding": rows}, labels, select_candidates(["embedding"]), [1, 3])
    # The first rows are nearest: row 0 sees b, b, a; row 1 a, b, a; row 2 a, b, a; the others a, b, b.
    for right in found.values():
        assert right[1].tolist() == [False, False, False] + [label == "a" for label in labels[3:]]
        assert right[3].tolist() == [False, False, False] + [label == "b" for label in labels[3:]]


def test_rows_that_stand_more_than_once_find_their_doubles():
    blocks = {name: np.repeat(rows, 2, axis=0) for name, rows in drawn(10).items()}
    found = leave_one_out_of(blocks, np.repeat(np.arange(10), 2), select_candidates(list(blocks)), [1])
    assert all(right[1].all() for right in found.values())


def test_one_class_is_always_right_and_two_rows_can_be_asked():
    blocks = drawn(6)
    chosen = select(blocks, ["a"] * 6)
    assert (chosen.name, chosen.value, chosen.k) == ("embedding", 1.0, 1)
    chosen = select(blocks, ["a", "b", None, None, None, None])
    assert (chosen.name, chosen.value, chosen.gain) == ("embedding", 0.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (["a", None, None, None], {}, "1 rows with a label and features; expected at least two"),
        ([None] * 4, {}, "0 rows with a label"),
        ([*"abab"], {"ks": [4, 9]}, r"4 labelled rows, k of \[4, 9\]; expected a k below the number of rows"),
        ([*"abab"], {"ks": [0, 1]}, "k=0"),
        ([*"abab"], {"ks": []}, "no k to choose from"),
        ([*"aba"], {}, r"labels have shape \(3,\) for 4 rows"),
        ([["a"], ["b"], ["a"], ["b"]], {}, r"labels have shape \(4, 1\) for 4 rows"),
        (["a", 1, "a", 1], {}, "of different kinds"),
        ([*"abab"], {"guard": -1}, "guard=-1; expected"),
        ([*"abab"], {"guard": float("nan")}, "guard=nan; expected"),
        ([*"abab"], {"candidates": {"it": Combination(size=2)}}, "candidate 'it' has size=2; choose first"),
        ([*"abab"], {"candidates": {"it": Combination(("max",))}}, "candidate 'it' takes block 'max'; there are: emb"),
        ([*"abab"], {"candidates": {"embedding": Combination(("kl",))}}, "a candidate is called 'embedding'"),
    ],
)
def test_what_cannot_be_asked_is_said(labels, options, said):
    with pytest.raises(SampleError, match=said):
        select(drawn(4), labels, **options)


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
        select(drawn(4, embedding=3), [*"abab"], {"it": Combination(("views",))})


def test_what_is_counted_for_a_choice_is_what_knn_counts():
    blocks, labels = drawn(60, seed=3), np.arange(60) % 3
    chosen = select(blocks, labels)
    features = chosen.combination.fit(blocks).transform(blocks)
    assert leave_one_out(features, labels)[chosen.k].mean() == chosen.value
