"""What training rows choose: features and predictor together, by `select` on a user's labels."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from small_blocks import classed_blocks, unlabelled_blocks
from sporeprint.errors import RecipeError, SampleError
from sporeprint.evaluate.choice.candidates import REFERENCES, choices
from sporeprint.evaluate.choice.guard import GUARD
from sporeprint.evaluate.choice.judges import PREDICTORS, word_of
from sporeprint.evaluate.choice.leave_one_out import Outcome, has_few, leave_one_out_of
from sporeprint.evaluate.choice.select import Selection, choose, select
from sporeprint.features.combine import Combination
from sporeprint.predictors.knn import KNN
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.ridge import Ridge

pytestmark = pytest.mark.filterwarnings("error")


def same(one, other):
    """Whether two selections agree in everything; predictors are compared by what they print."""
    return replace(one, predictor=None) == replace(other, predictor=None) and repr(one.predictor) == repr(
        other.predictor
    )


def test_rows_with_nan_in_any_block_are_neither_fitted_on_nor_asked():
    blocks = unlabelled_blocks(20)
    labels = np.array([*"abcd"] * 5)
    broken = {name: rows.copy() for name, rows in blocks.items()}
    broken["kl"][3, 2] = np.nan
    broken["embedding"][11] = np.nan
    kept = np.delete(np.arange(20), [3, 11])
    whole = {name: rows[kept] for name, rows in blocks.items()}
    assert same(select(broken, labels), select(whole, labels[kept]))


def test_of_many_labelled_rows_some_are_drawn_to_choose():
    blocks = unlabelled_blocks(40)
    labels = np.array([*"abcd"] * 10)
    assert select(blocks, labels, most_rows=15).settings["labelled_rows"] == 15
    assert same(select(blocks, labels, most_rows=40), select(blocks, labels))


def asked(**answers):
    """What `leave_one_out_of` gives, each loss 0 where a row is right and 1 where not. answers: features_predictor."""
    outcomes, kinds = {}, {"means": "class means"}
    for title, bits in answers.items():
        features, word = title.rsplit("_", 1)
        features, word = {"white": "embedding, white 0.5"}.get(features, features), kinds.get(word, word)
        right = np.array([bit == "1" for bit in bits])
        outcomes.setdefault(features, {})[word] = Outcome(PREDICTORS[word](), right, 1.0 - right)
    return {name: Combination((name.split(",")[0],)) for name in outcomes}, outcomes


def test_the_guard_counts_standard_errors_of_the_paired_difference_in_loss():
    # Of ten rows three are gained, one is lost: mean 0.2, variance (4 - 10 * 0.04) / 9 = 0.4, error sqrt(0.04) = 0.2.
    answers = asked(embedding_kNN="1111100000", white_kNN="0000000000", other_LDA="0111111100")
    taken = choose(*answers, guard=0.999)
    assert (taken.name, type(taken.predictor)) == ("other", ShrunkLDA)
    assert (taken.value, taken.loss, taken.gain, taken.error) == pytest.approx((0.7, 0.3, 0.2, 0.2))
    kept = choose(*answers, guard=1.001)
    assert (kept.name, kept.value, kept.loss, kept.gain, kept.error) == ("embedding", 0.5, 0.5, 0.0, 0.0)
    assert taken.reference == kept.reference == kept.title == "the embedding with kNN, k = auto, auto vote"


def test_the_loss_chooses_and_not_the_accuracy():
    right, wrong = np.ones(8, bool), np.arange(8) < 6
    outcomes = {
        "embedding": {"kNN": Outcome(KNN(), wrong, np.full(8, 0.9))},
        "embedding, white 0.5": {"kNN": Outcome(KNN(), wrong, np.full(8, 0.9))},
        "sharp": {"LDA": Outcome(ShrunkLDA(), wrong, np.full(8, 0.3))},
        "accurate": {"LDA": Outcome(ShrunkLDA(), right, np.full(8, 0.5))},
    }
    chosen = choose(dict.fromkeys(outcomes, Combination(("embedding",))), outcomes)
    assert (chosen.name, chosen.value, chosen.loss) == ("sharp", 0.75, pytest.approx(0.3))


def test_the_best_of_those_that_pass_the_guard_is_taken_and_the_earlier_of_two():
    # The first gains 3 of 8 rows and loses none, error sqrt(0.268 / 8) = 0.183: passes 2. The second gains 5, loses 1:
    # mean 0.5, error sqrt(0.571 / 8) = 0.267: passes 1 only.
    sure, bold = "11111000", "01111110"
    given = {"embedding_kNN": "11000000", "white_kNN": "10000000"}
    assert choose(*asked(**given, sure_LDA=sure, bold_LDA=bold), guard=1).name == "bold"
    assert choose(*asked(**given, sure_LDA=sure, bold_LDA=bold), guard=2).name == "sure"
    assert choose(*asked(**given, a_LDA=bold, b_LDA=bold), guard=1).name == "a"
    assert type(choose(*asked(**given, a_ridge=bold, a_LDA=bold), guard=1).predictor) is Ridge
    assert choose(*asked(**given, a_LDA="11000000"), guard=0).name == "embedding"


def test_the_reference_is_the_best_predictor_on_the_raw_or_the_half_white_embedding():
    given = {"embedding_kNN": "1000", "embedding_LDA": "1100", "white_kNN": "1110", "white_LDA": "0000"}
    chosen = choose(*asked(**given, other_LDA="0000"))
    assert (chosen.name, type(chosen.predictor)) == ("embedding, white 0.5", KNN)
    chosen = choose(*asked(**given, embedding_probe="1111", other_LDA="0000"))
    assert (chosen.title, chosen.reference) == ("the embedding with a probe", "the embedding with a probe")
    # A row more than kNN, but none more than the probe: mean 0.25 and error 0.25 against the one, 0 against the other.
    assert choose(*asked(**given, other_LDA="1111"), guard=0.9).name == "other"
    assert choose(*asked(**given, embedding_probe="1111", other_LDA="1111"), guard=0.9).name == "embedding"


def test_with_few_rows_of_a_class_lda_on_the_raw_embedding_is_what_must_be_beaten():
    given = {"embedding_kNN": "11100000", "embedding_LDA": "11000000", "white_LDA": "11110000"}
    assert choose(*asked(**given), few=True, guard=2).title == "the embedding with LDA"
    assert choose(*asked(**given), few=False, guard=2).title == "the embedding, white 0.5, with LDA"
    assert choose(*asked(**given, a_LDA="11111111"), few=True, guard=2).name == "a"
    assert choose(*asked(**given, a_kNN="11111111"), few=True, guard=2).name == "embedding"  # only LDA's are compared
    assert choose(*asked(**given, a_kNN="11111111"), few=False, guard=2).name == "a"
    alone = asked(embedding_kNN="1100", white_kNN="1110")
    assert choose(*alone, few=True).name == "embedding, white 0.5"  # LDA was not asked


@pytest.mark.parametrize(
    ("sizes", "few"), [([29, 29, 29], True), ([30, 30], False), ([2, 30, 50], False), ([9, 9, 90], True)]
)
def test_few_is_below_thirty_rows_of_the_median_class(sizes, few):
    assert has_few(np.repeat(np.arange(len(sizes)), sizes)) == few


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
    assert chosen.value > 0.9
    assert chosen.loss < 0.2 < min(chosen.table["embedding"].values())


def test_a_label_that_the_embedding_carries_keeps_it():
    blocks, labels = two_classes(80)
    blocks["embedding"][:, 0] += 20 * (2 * labels - 1)
    chosen = select(blocks, labels)
    assert (chosen.combination, chosen.value, chosen.gain) == (Combination(("embedding",)), 1.0, 0.0)


def layers_of_lda(rows, seed=0):
    """An embedding that says little, and layers whose classes differ along a narrow axis among wide ones."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    embedding = rng.standard_normal((rows, 8)) + 0.2 * labels[:, None]
    layer = rng.standard_normal((rows, 8)) * [0.05, *[1.0] * 7]
    layer[:, 0] += 0.1 * (2 * labels - 1)
    return {"embedding": embedding.astype(np.float32), "cls-1": layer.astype(np.float32)}, labels


def test_layers_with_lda_are_found_where_no_neighbours_see_the_class():
    (blocks, labels), (test, test_labels) = layers_of_lda(200), layers_of_lda(400, seed=1)
    raw = {"layers": Combination(("layers",))}
    chosen = select(blocks, labels, raw)
    assert chosen.name == "layers"
    assert type(chosen.predictor) in (ShrunkLDA, Ridge)
    features = chosen.combination.fit(blocks)
    fitted = chosen.predictor.fit(features.transform(blocks), labels)
    assert (fitted.predict(features.transform(test)) == test_labels).mean() > 0.9
    by_neighbours = select(blocks, labels, raw, predictors=("kNN",))
    assert by_neighbours.value < 0.75 < 0.9 < chosen.value
    assert type(by_neighbours.predictor) is KNN


def test_what_is_chosen_is_what_the_predictor_says_of_the_features():
    blocks, labels = classed_blocks(60, seed=3)
    for words in (("kNN",), ("ridge",), ("LDA", "ridge"), tuple(PREDICTORS)):
        chosen = select(blocks, labels, predictors=words)
        left = chosen.predictor.leave_one_out(chosen.combination.fit(blocks).transform(blocks), labels)
        assert (chosen.value, chosen.loss) == (left.right.mean(), pytest.approx(left.losses.mean(), abs=1e-3))
        assert chosen.loss == chosen.table[chosen.name][word_of(chosen.predictor)]
        assert all(set(losses) <= set(words) for losses in chosen.table.values())


def test_labels_that_say_nothing_mostly_keep_the_embedding_behind_the_guard():
    kept = Counter()
    for seed in range(6):
        blocks = unlabelled_blocks(40, seed, **{"embedding": 6, "cls-1": 6})
        labels = np.random.default_rng(seed).permutation(np.repeat([*"abcd"], 10))
        listed = choices(list(blocks))
        outcomes = leave_one_out_of(blocks, labels, listed, ("class means", "LDA", "ridge"))
        for guard in (0, 1, 2, 3):
            kept[guard] += choose(listed, outcomes, guard).name in REFERENCES
    assert kept[0] <= kept[1] <= kept[2] <= kept[3]
    assert kept[0] < 6 == kept[3]


def test_duplicates_within_a_group_no_longer_say_that_all_is_right():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40).repeat(3)
    blocks = {name: rng.standard_normal((40, 12)).repeat(3, axis=0) for name in ("embedding", "cls-1")}
    noisy = {name: (rows + 0.01 * rng.standard_normal(rows.shape)).astype(np.float32) for name, rows in blocks.items()}
    leaked = select(noisy, labels)
    assert (leaked.value, leaked.loss) == (1.0, pytest.approx(0, abs=0.05))
    honest = select(noisy, labels, groups=np.arange(40).repeat(3))
    assert honest.value < 0.6
    assert honest.loss > 0.6
    assert honest.settings["groups"] == 40


def test_a_choice_is_the_same_again_and_does_not_change_what_it_is_given():
    blocks, labels = unlabelled_blocks(24), [*"abc"] * 8
    before = {name: rows.copy() for name, rows in blocks.items()}
    assert same(select(blocks, labels), select(blocks, labels))
    for name, rows in blocks.items():
        np.testing.assert_array_equal(rows, before[name])


def test_given_candidates_are_those_tried_next_to_the_references():
    blocks, labels = two_classes(60, kl=8.0)
    mine = {"mine": Combination(("kl",), weights=(2.0,))}
    chosen = select(blocks, labels, mine, predictors=("kNN",))
    assert (chosen.name, chosen.combination) == ("mine", mine["mine"])
    assert list(chosen.table) == ["embedding", "embedding, white 0.5", "mine"]
    assert chosen.settings == {
        "labelled_rows": 60,
        "guard": GUARD,
        "candidates": 3,
        "predictors": ["kNN"],
        "seed": 0,
    }
    body = json.loads(json.dumps(chosen.to_json(), allow_nan=False))
    assert (body["combination"]["blocks"], body["predictor"][:8]) == (["kl"], "kNN, k =")
    said = replace(
        chosen, value=0.9, gain=0.25, error=0.05, predictor=KNN(k=3, vote="uniform"), reference="the embedding with LDA"
    )
    assert str(said) == "mine with kNN, k = 3: leave-one-out 90.0%; +25.0 ± 5.0 points over the embedding with LDA"
    kept = replace(said, name="embedding", predictor=ShrunkLDA())
    assert str(kept) == "the embedding with LDA: leave-one-out 90.0%"


def test_one_class_is_always_right_and_two_rows_can_be_asked():
    blocks = unlabelled_blocks(6)
    chosen = select(blocks, ["a"] * 6)
    assert (chosen.title, chosen.value, chosen.loss) == ("the embedding with LDA", 1.0, 0.0)
    chosen = select(blocks, ["a", "b", None, None, None, None])
    assert (chosen.title, chosen.value, chosen.gain) == ("the embedding with LDA", 0.0, 0.0)


def test_one_row_a_class_leaves_no_row_to_be_right():
    blocks = unlabelled_blocks(8)
    chosen = select(blocks, np.arange(8))
    assert (chosen.title, chosen.value) == ("the embedding with LDA", 0.0)


@pytest.mark.parametrize(
    ("labels", "options", "complaint"),
    [
        (["a", None, None, None], {}, "1 rows with a label and features; expected at least two"),
        ([None] * 4, {}, "0 rows with a label"),
        ([*"abab"], {"predictors": ["forest"]}, "predictors='forest'; expected one of: kNN, class means, LDA, ridge"),
        ([*"abab"], {"predictors": "LDA"}, "predictors='LDA'; expected a list"),
        ([*"abab"], {"predictors": []}, "no predictor to choose from"),
        ([*"abab"], {"groups": [*"xxxx"]}, "all 4 rows are of one group"),
        ([*"abab"], {"groups": [*"xy"]}, r"groups have shape \(2,\) for 4 rows"),
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
    selection = Selection(value=0.5, name="layers", table={"layers": {"LDA": 0.5}, "a candidate": {"LDA": 0.25}})
    assert "name='layers'" in repr(selection)
    assert "a candidate" not in repr(selection)


def test_few_is_of_all_labelled_rows_and_not_of_those_that_are_drawn():
    blocks, labels = classed_blocks(96, names=("embedding", "cls-1"))
    asked = select(blocks, labels, most_rows=60).settings["predictors"]
    assert asked == ["kNN", "LDA", "ridge", "probe"]
    labels = np.where(np.arange(96) % 2, None, labels)
    assert select(blocks, labels, most_rows=30).settings["predictors"] == ["LDA"]
