"""The verdict of a comparison, in one sentence, and what stands behind it."""

import math
from dataclasses import replace

import pytest

from small_comparison import entry
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.verdict import reasons, verdict
from sporeprint.features.combine import Combination


def judged(*gains, **others):
    """The verdict on two choices, each (gain, low, high), over an embedding that is right in 60 %."""
    sentence = verdict(*compared(*gains, **others))
    assert len(sentence.split()) <= 25
    return sentence


def reasoned(*gains, **others):
    return "; ".join(reasons(*compared(*gains, **others)))


def compared(free, everything, recommended=FREE, plain=None, passes=10, reference=RAW, other=None, own=None):
    """The entries of such a comparison, its reference and its choice."""
    raw = Combination(("embedding",))
    own = raw if own is None else own
    joined = Combination(("embedding", "layers", "gradients"), "auto", exponent=0.5)
    entries = [entry(RAW, "embedding", 1, 0.6, combination=raw)]
    if reference != RAW:
        entries.append(entry(reference, "embedding", 1, 0.6, combination=replace(raw, whiten="auto", exponent=0.5)))
    for name, gain, count in ((FREE, free, 1), (ALL, everything, passes), (PLAIN, plain, 4)):
        if gain is not None:
            how = own if gain == (0, 0, 0) else joined
            blocks = ("embedding",) if gain == (0, 0, 0) else ("embedding", "cls-1", "cls-2", "kl")
            gained = Interval(*gain)
            entries.append(entry(name, "chosen", count, 0.6 + gain[0], gain=gained, combination=how, blocks=blocks))
    if other is not None:
        entries.append(entry("kl alone", "block", 2, 0.6, gain=Interval(*other), combination=Combination(("kl",))))
    return entries, reference, recommended


def test_the_sentence_says_what_to_use_its_gain_and_its_price():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert judged(free, everything) == (
        "Use half-whitened embedding, layers and kl: +5.0 points (+1.0 to +9.0) over the embedding (60.0%), "
        "for one pass a row."
    )
    assert judged(free, everything, ALL) == (
        "Use half-whitened embedding, layers and kl: +7.0 points (+3.0 to +11.0) over the embedding (60.0%), "
        "for 10 passes a row."
    )
    assert "over the half-whitened embedding" in judged(free, everything, reference=HALF_WHITE)


def test_behind_it_stand_the_blocks_their_price_and_what_others_bring():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert reasoned(free, everything) == (
        "half-whitened embedding, layers and kl: embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5; "
        "1,240.0 rows/s, 1,536 bytes a row against 1,536; 10 passes instead bring +7.0 points (+3.0 to +11.0)"
    )
    assert reasoned(free, everything, ALL, plain=(0.02, -0.01, 0.05)).endswith(
        "; one pass brings +5.0 points (+1.0 to +9.0); "
        "the choice without gradients, 4 passes, brings +2.0 points (-1.0 to +5.0)"
    )
    assert len(reasons(*compared(free, free, passes=1))) == 1


def test_where_the_choice_of_one_pass_has_no_gradients_its_gain_is_said_once():
    free, everything = (0.05, 0.01, 0.09), (0.07, 0.03, 0.11)
    assert reasoned(free, everything, ALL, plain=free).count("+5.0 points") == 1


def test_the_longest_choice_fits_25_words():
    blocks = ("embedding", "cls-1", "cls-2", "dino.views", "simclr.views", "kl", "dino")
    entries, *_ = compared((0.05, 0.01, 0.09), (0.05, 0.01, 0.09), reference=HALF_WHITE)
    how = Combination(blocks, "auto", exponent=0.5)
    longest = [replace(one, blocks=blocks, combination=how) if one.name == FREE else one for one in entries]
    sentence = verdict(longest, HALF_WHITE, FREE)
    assert sentence.startswith("Use half-whitened embedding, layers, views and gradients: +5.0 points")
    assert len(sentence.split()) <= 25


def test_the_test_rows_judge_what_was_recommended_and_recommend_nothing():
    surer = (0.07, 0.03, 0.11)
    assert judged((0.01, -0.01, 0.03), surer).startswith("Use the embedding alone for now")
    assert judged(surer, (0.01, -0.01, 0.03), ALL).startswith("Use the embedding alone for now")


CHOSE = "what the training rows chose"
SURE = "Use half-whitened embedding, layers and kl: {} over the embedding (60.0%), for"
WORSE = f"Use the embedding alone (60.0%, one pass): {CHOSE} is worse here, {{}}."
SAME = f"The embedding alone is as good (60.0%, one pass): {CHOSE} brings {{}}."
NO_BETTER = f"Use the embedding alone (60.0%, one pass): {CHOSE} is no better, maybe worse, {{}}."
OPEN = f"Use the embedding alone for now (60.0%, one pass): {CHOSE} brings {{}}, which may be chance."


def test_without_a_sure_gain_what_the_training_rows_chose_is_told_with_its_price():
    told = "what the training rows chose: embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5, one pass a row"
    for gain in ((0.05, 0.0, 0.1), (0.05, math.nan, math.nan), (0.002, -0.004, 0.008), (-0.06, -0.1, -0.02)):
        assert reasoned(gain, gain) == told
    assert judged((0.05, math.nan, math.nan), (0, 0, 0)) == OPEN.format("+5.0 points (no interval)")


def test_where_the_choice_is_the_embedding_its_own_interval_is_said():
    assert judged((0, 0, 0), (0, 0, 0)) == (
        "Use the embedding alone (60.0%, 58.0% to 63.0%; one pass): on the training rows nothing is surely better."
    )
    assert reasoned((0, 0, 0), (0, 0, 0)) == ""


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-6.0, -1.5, WORSE),
        (-6.0, -0.5, WORSE),
        (-0.6, -0.1, WORSE),
        (-6.0, 0.0, NO_BETTER),
        (-6.0, 0.3, NO_BETTER),
        (-1.0, 0.3, NO_BETTER),
        (-6.0, 1.0, OPEN),
        (-6.0, 5.0, OPEN),
        (-0.9, 0.0, SAME),
        (-0.9, 0.9, SAME),
        (-0.5, 0.3, SAME),
        (0.0, 0.9, SAME),
        (-0.9, 1.0, OPEN),
        (-0.9, 5.0, OPEN),
        (0.0, 5.0, OPEN),
        (0.1, 0.6, SURE),
        (0.5, 5.0, SURE),
        (1.5, 8.2, SURE),
        (math.nan, math.nan, OPEN),
    ],
)
@pytest.mark.parametrize("recommended", [FREE, ALL])
def test_what_is_said_of_a_choice_follows_from_both_ends_of_its_interval(low, high, words, recommended):
    middle = 0.01 if math.isnan(low) else (low + high) / 200
    gain = (middle, low / 100, high / 100)
    assert judged(gain, gain, recommended).startswith(words.format(Interval(*gain)))
    assert judged(gain, gain, recommended).endswith(".")
    assert "surely better here" not in reasoned(gain, gain, recommended)


SURER = (
    "surely better here, though the training rows do not speak for it, is {}: {} "
    "(one of {} looked at on these test rows)"
)
GAINED, OPEN_GAIN, LOST = (0.05, 0.015, 0.082), (0.01, -0.02, 0.04), (-0.028, -0.06, 0.003)


@pytest.mark.parametrize("chosen", [OPEN_GAIN, LOST, (0.0, -0.004, 0.005), (-0.05, -0.08, -0.02), (0, 0, 0)])
def test_a_sure_gain_that_the_training_rows_did_not_choose_is_said_with_its_interval(chosen):
    gain = "+5.0 points (+1.5 to +8.2)"
    everything = "the choice among all blocks, 10 passes"
    assert reasoned(chosen, GAINED).endswith(SURER.format(everything, gain, 2))
    assert reasoned(GAINED, chosen, ALL).endswith(SURER.format("the choice of one pass, one pass", gain, 2))
    plain = "the choice without gradients, 4 passes"
    assert reasoned(chosen, chosen, plain=GAINED).endswith(SURER.format(plain, gain, 3))
    for other in (OPEN_GAIN, LOST, (math.nan, math.nan, math.nan)):
        assert "surely better here" not in reasoned(chosen, other)


def test_of_several_sure_gains_the_surest_is_said_and_of_all_entries_a_choice_first():
    surer = (0.04, 0.03, 0.05)
    assert "is the choice without gradients, 4 passes: +4.0" in reasoned(LOST, GAINED, plain=surer)
    assert "is the choice among all blocks, 10 passes: +5.0" in reasoned(LOST, GAINED, other=surer)
    assert "is kl alone, 2 passes: +4.0 points (+3.0 to +5.0) (one of 3" in reasoned(LOST, LOST, other=surer)


def test_where_the_choice_is_sure_no_other_is_said_to_be():
    assert "surely better here" not in reasoned(GAINED, (0.07, 0.03, 0.11), other=(0.09, 0.05, 0.12))


def test_a_choice_that_is_the_reference_or_the_raw_embedding_is_compared_with_nothing_silly():
    assert judged((0, 0, 0), LOST, reference=HALF_WHITE) == (
        "Use the embedding alone (60.0%, one pass): on the training rows nothing is surely better; "
        "+0.0 points (+0.0 to +0.0) against the half-whitened embedding."
    )
    white = Combination(("embedding",), "auto", exponent=0.5)
    assert judged((0, 0, 0), LOST, reference=HALF_WHITE, own=white).startswith(
        "Use the half-whitened embedding alone (60.0%"
    )
