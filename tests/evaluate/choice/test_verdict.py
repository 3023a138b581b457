"""The verdict of a comparison, in one sentence, and what stands behind it."""

import math

import pytest

from small_comparison import altered, entry
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW, title_of
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.verdict import reasons, verdict
from sporeprint.features.combine import Combination

JOINED = "embedding + layers + kl, white 0.5"


def words_of(sentence):
    return [word for word in sentence.split() if word != "+"]


def judged(*gains, **others):
    """The verdict on two choices, each (gain, low, high), over an embedding that is right in 60 %."""
    sentence = verdict(*compared(*gains, **others))
    assert len(words_of(sentence)) <= 25
    return sentence


def reasoned(*gains, **others):
    return "; ".join(reasons(*compared(*gains, **others)))


def compared(free, everything, recommended=FREE, plain=None, passes=10, reference=RAW, other=None, base="LDA"):
    """The entries of such a comparison, its reference and its choice; a gain of (0, 0, 0) is the reference itself."""
    how = {RAW: Combination(("embedding",)), HALF_WHITE: Combination(("embedding",), "auto", exponent=0.5)}
    joined = Combination(("embedding", "layers", "gradients"), "auto", exponent=0.5)
    entries = [entry(name, "embedding", 1, 0.6, combination=how[name], predictor=base) for name in how]
    for name, gain, count in ((FREE, free, 1), (ALL, everything, passes), (PLAIN, plain, 4)):
        if gain is None:
            continue
        same = {"combination": how[reference], "predictor": base, "features": reference}
        blocks = ("embedding", "cls-1", "cls-2", "kl")
        more = {"combination": joined, "features": JOINED, "blocks": blocks, "passes": count}
        others = same if gain == (0, 0, 0) else more
        entries.append(altered(entry(name, "chosen", 1, 0.6 + gain[0]), gain=Interval(*gain), **others))
    if other is not None:
        entries.append(entry("kl alone", "block", 2, 0.6, gain=Interval(*other), combination=Combination(("kl",))))
    return entries, reference, recommended


BEST = "Use embedding + layers + kl, white 0.5, with LDA: {:.1%} where the embedding's best is 60.0% ({}); one pass."
BASE = "Use the embedding with LDA (60.0%, one pass): the training rows' choice is {}, {}."


def test_the_sentence_says_what_to_use_both_accuracies_the_gain_and_the_price():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert judged(free, everything) == (
        "Use embedding + layers + kl, white 0.5, with LDA: 65.0% where the embedding's best is 60.0% "
        "(+5.0, +1.0 to +9.0); one pass."
    )
    assert judged(free, everything, ALL) == (
        "Use embedding + layers + kl, white 0.5, with LDA: 67.0% where the embedding's best is 60.0% "
        "(+7.0, +3.0 to +11.0); 10 passes."
    )


def test_behind_it_stand_the_blocks_their_price_the_reference_and_what_others_bring():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert reasoned(free, everything, base="kNN, k = 5") == (
        "embedding + layers + kl, white 0.5: 1,240.0 rows/s, 1,536 bytes a row against 1,536; "
        "the embedding's best is the embedding with kNN; "
        "10 passes instead bring +7.0 points (+3.0 to +11.0)"
    )
    assert reasoned(free, everything, ALL, plain=(0.02, -0.01, 0.05)).endswith(
        "; one pass brings +5.0 points (+1.0 to +9.0); "
        f"'chosen, no gradients' ({JOINED}, with LDA; 4 passes) brings +2.0 points (-1.0 to +5.0)"
    )
    assert len(reasons(*compared(free, free, passes=1))) == 1


def test_where_the_choice_of_one_pass_has_no_gradients_its_gain_is_said_once():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert reasoned(free, everything, ALL, plain=free).count("+5.0 points") == 1


@pytest.mark.parametrize("gain", [(0.05, 0.01, 0.09), (0.05, -0.01, 0.09), (-0.05, -0.09, 0.01), (0.0, -0.005, 0.005)])
@pytest.mark.parametrize("word", ["class means", "probe", "kNN, k = 200, softmax vote"])
def test_the_longest_names_fit_25_words(gain, word):
    blocks = ("embedding", "layers", "views", "gradients")
    entries, *_ = compared(gain, gain, reference=HALF_WHITE, base=word)
    how = Combination(blocks, "auto", exponent=0.5)
    longest = [
        altered(one, features=title_of(how), combination=how, predictor=word) if one.name == FREE else one
        for one in entries
    ]
    assert len(words_of(verdict(longest, HALF_WHITE, FREE))) <= 25
    assert len(words_of(judged((0, 0, 0), gain, reference=HALF_WHITE, base=word))) <= 25


def test_a_probe_is_a_probe_and_a_number_of_neighbours_is_left_to_the_table():
    assert judged((0, 0, 0), (0, 0, 0), base="probe").startswith("Use the embedding with a probe: 60.0%")
    assert judged((0, 0, 0), (0, 0, 0), base="kNN, k = 5").startswith("Use the embedding with kNN: 60.0%")


def test_the_same_features_with_a_better_predictor_are_a_choice_of_their_own():
    entries, reference, chosen = compared((0.05, 0.01, 0.09), (0, 0, 0), base="kNN, k = 5")
    raw = Combination(("embedding",))
    entries = [altered(one, combination=raw, features=RAW) if one.name == FREE else one for one in entries]
    assert verdict(entries, reference, chosen).startswith(
        "Use the embedding with LDA: 65.0% where the embedding's best"
    )


def test_where_nothing_is_surely_better_in_training_the_references_own_interval_is_said():
    assert judged((0, 0, 0), (0, 0, 0)) == (
        "Use the embedding with LDA: 60.0% (58.0% to 63.0%), one pass; on the training rows nothing is surely better."
    )
    assert judged((0, 0, 0), (0, 0, 0), reference=HALF_WHITE).startswith("Use the embedding, white 0.5, with LDA: 60")
    assert reasoned((0, 0, 0), (0, 0, 0)) == ""


def test_without_a_sure_gain_what_the_training_rows_chose_is_said_with_its_price():
    best = "the embedding's best is the embedding with LDA"
    said = f"what the training rows chose: {JOINED}, with LDA, one pass a row; {best}"
    for gain in ((0.05, 0.0, 0.1), (0.05, math.nan, math.nan), (0.002, -0.004, 0.008), (-0.06, -0.1, -0.02)):
        assert reasoned(gain, gain) == said


GOOD = "The embedding with LDA is as good"
SURE, CHANCE, SAME, NO, MAYBE, WORSE = "sure", "chance", "same", "no better", "no better, maybe worse", "worse here"


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (3.0, 0.5, 5.0, SURE),
        (0.3, 0.1, 1.6, SURE),
        (3.0, 0.0, 5.0, CHANCE),
        (0.5, -0.9, 1.0, CHANCE),
        (0.5, math.nan, math.nan, CHANCE),
        (-0.5, math.nan, math.nan, NO),
        (0.0, -2.0, 2.0, NO),
        (-1.0, -6.0, 1.0, NO),
        (-1.0, -6.0, 0.9, MAYBE),
        (-1.0, -6.0, 0.0, MAYBE),
        (-3.0, -6.0, -0.5, WORSE),
        (-0.3, -1.0, -0.1, WORSE),
        (0.3, -0.9, 0.9, SAME),
        (-0.3, -0.9, 0.0, SAME),
        (0.3, 0.1, 0.9, SURE),
        (-0.3, -0.9, -0.1, WORSE),
    ],
)
@pytest.mark.parametrize("recommended", [FREE, ALL])
def test_what_is_said_of_a_choice_follows_from_its_gain_and_both_ends_of_its_interval(
    value, low, high, words, recommended
):
    gain = value / 100, low / 100, high / 100
    known = "no interval" if math.isnan(low) else f"{low:+.1f} to {high:+.1f}"
    expected = {
        SURE: BEST.format(0.6 + gain[0], f"{value:+.1f}, {known}"),
        CHANCE: BEST.format(0.6 + gain[0], f"{value:+.1f}, {known}, maybe chance"),
        SAME: f"{GOOD} (60.0%, one pass): the training rows' choice brings {Interval(*gain)}.",
    }.get(words, BASE.format(words, Interval(*gain)))
    assert judged(gain, gain, recommended, passes=1) == expected
    assert "by more than chance" not in reasoned(gain, gain, recommended, passes=1)


SURER = (
    "better on these test rows by more than chance, though the training rows do not speak for it: {}, {} "
    "(picked from {} by these test rows, so no choice)"
)
GAINED, OPEN_GAIN, LOST = (0.05, 0.015, 0.082), (0.01, -0.02, 0.04), (-0.028, -0.06, 0.003)


@pytest.mark.parametrize("chosen", [OPEN_GAIN, LOST, (0.0, -0.004, 0.005), (-0.05, -0.08, -0.02), (0, 0, 0)])
def test_a_sure_gain_that_the_training_rows_did_not_choose_is_said_with_its_interval(chosen):
    gain = "+5.0 points (+1.5 to +8.2)"
    everything, free = (f"'{name}' ({JOINED}, with LDA; {{}})" for name in (ALL, FREE))
    assert reasoned(chosen, GAINED).endswith(SURER.format(everything.format("10 passes"), gain, 3))
    assert reasoned(GAINED, chosen, ALL).endswith(SURER.format(free.format("one pass"), gain, 3))
    plain = f"'{PLAIN}' ({JOINED}, with LDA; 4 passes)"
    assert reasoned(chosen, chosen, plain=GAINED).endswith(SURER.format(plain, gain, 4))
    for other in (OPEN_GAIN, LOST, (math.nan, math.nan, math.nan)):
        assert "by more than chance" not in reasoned(chosen, other)


def test_of_several_sure_gains_the_surest_is_said_and_of_all_entries_a_choice_first():
    surer = (0.04, 0.03, 0.05)
    assert f"'{PLAIN}' ({JOINED}, with LDA; 4 passes), +4.0" in reasoned(LOST, GAINED, plain=surer)
    assert f"'{ALL}' ({JOINED}, with LDA; 10 passes), +5.0" in reasoned(LOST, GAINED, other=surer)
    assert ": kl alone with LDA; 2 passes, +4.0 points (+3.0 to +5.0) (picked from 4" in reasoned(
        LOST, LOST, other=surer
    )


def test_where_the_choice_is_sure_no_other_is_said_to_be():
    assert "by more than chance" not in reasoned(GAINED, (0.07, 0.03, 0.11), other=(0.09, 0.05, 0.12))
