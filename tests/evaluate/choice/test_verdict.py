"""The verdict of a comparison, in one sentence."""

import math
from dataclasses import replace

import pytest

from small_comparison import entry
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.verdict import verdict
from sporeprint.features.combine import Combination


def judged(free, everything, recommended=FREE, plain=None, passes=10, reference=RAW, other=None, own=None):
    """The verdict on two choices, each (gain, low, high), over an embedding that is right in 60 %."""
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
    return verdict(entries, reference, recommended)


def test_the_sentence_says_what_to_use_its_gain_and_its_price():
    assert judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11)) == (
        "Use embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5: +5.0 points (+1.0 to +9.0) against the "
        "embedding (top-1 60.0%), for one pass a row, 1,240 rows/s, 1,536 bytes a row against 1,536; "
        "10 passes instead bring +7.0 points (+3.0 to +11.0)."
    )
    assert judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11), ALL, plain=(0.02, -0.01, 0.05)) == (
        "Use embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5: +7.0 points (+3.0 to +11.0) against the "
        "embedding (top-1 60.0%), for 10 passes a row, 124 rows/s, 1,536 bytes a row against 1,536; "
        "one pass brings +5.0 points (+1.0 to +9.0); "
        "the choice without gradients, 4 passes, brings +2.0 points (-1.0 to +5.0)."
    )
    assert "against the half-whitened embedding" in judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11), reference=HALF_WHITE)
    assert "; " not in judged((0.05, 0.01, 0.09), (0.05, 0.01, 0.09), passes=1)


def test_the_test_rows_judge_what_was_recommended_and_recommend_nothing():
    surer = (0.07, 0.03, 0.11)
    assert judged((0.01, -0.01, 0.03), surer).startswith("Use the embedding alone until more test rows say otherwise")
    assert judged(surer, (0.01, -0.01, 0.03), ALL).startswith("Use the embedding alone until more test rows")


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (
            (0.05, 0.0, 0.1),
            "Use the embedding alone until more test rows say otherwise: what the training rows chose, {}, brings "
            "+5.0 points (+0.0 to +10.0) against the embedding (top-1 60.0%), which may be chance.",
        ),
        (
            (0.05, math.nan, math.nan),
            "Use the embedding alone until more test rows say otherwise: what the training rows chose, {}, brings "
            "+5.0 points (no interval) against the embedding (top-1 60.0%), which may be chance.",
        ),
        (
            (0.002, -0.004, 0.008),
            "The embedding alone is as good: {} brings +0.2 points (-0.4 to +0.8) against the embedding (top-1 60.0%).",
        ),
        (
            (-0.06, -0.1, -0.02),
            "Use the embedding alone: what the training rows chose, {}, is worse here: -6.0 points (-10.0 to -2.0) "
            "against the embedding (top-1 60.0%).",
        ),
        (
            (0, 0, 0),
            "Use the embedding alone (top-1 60.0% (58.0% to 63.0%)): on the training rows nothing is surely better.",
        ),
    ],
)
def test_without_a_sure_gain_the_embedding_stays_and_what_the_choice_brought_is_told(gain, words):
    assert judged(gain, gain) == words.format("embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5")


CHOICE = "embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5"
SURE, ALONE = "Use {choice}: ", "on the training rows nothing is surely better"
WORSE = "Use the embedding alone: what the training rows chose, {choice}, is worse here: "
SAME = "The embedding alone is as good: {choice} brings "
NO_BETTER = "Use the embedding alone: what the training rows chose, {choice}, is no better here and may be worse: "
OPEN = "Use the embedding alone until more test rows say otherwise: what the training rows chose, {choice}, brings "


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
    sentence = judged(gain, gain, recommended)
    assert sentence.startswith(words.format(choice=CHOICE) + str(Interval(*gain)))
    assert ("as good" in sentence) == (words == SAME)
    assert sentence.endswith(".")
    assert sentence.count("surely better here") == 0


SURER = (
    "; surely better here, though the training rows do not speak for it, is {}: {} "
    "(one of {} looked at on these test rows)."
)
GAINED, OPEN_GAIN, LOST = (0.05, 0.015, 0.082), (0.01, -0.02, 0.04), (-0.028, -0.06, 0.003)


@pytest.mark.parametrize("chosen", [OPEN_GAIN, LOST, (0.0, -0.004, 0.005), (-0.05, -0.08, -0.02), (0, 0, 0)])
def test_a_sure_gain_that_the_training_rows_did_not_choose_is_said_with_its_interval(chosen):
    gain = "+5.0 points (+1.5 to +8.2)"
    everything = "the choice among all blocks, 10 passes"
    assert judged(chosen, GAINED).endswith(SURER.format(everything, gain, 2))
    assert judged(GAINED, chosen, ALL).endswith(SURER.format("the choice of one pass, one pass", gain, 2))
    plain = "the choice without gradients, 4 passes"
    assert judged(chosen, chosen, plain=GAINED).endswith(SURER.format(plain, gain, 3))
    for other in (OPEN_GAIN, LOST, (math.nan, math.nan, math.nan)):
        assert "surely better here" not in judged(chosen, other)


def test_of_several_sure_gains_the_surest_is_said_and_of_all_entries_a_choice_first():
    surer = (0.04, 0.03, 0.05)
    assert "is the choice without gradients, 4 passes: +4.0" in judged(LOST, GAINED, plain=surer)
    assert "is the choice among all blocks, 10 passes: +5.0" in judged(LOST, GAINED, other=surer)
    assert "is kl alone, 2 passes: +4.0 points (+3.0 to +5.0) (one of 3" in judged(LOST, LOST, other=surer)


def test_where_the_choice_is_sure_no_other_is_said_to_be():
    assert "surely better here" not in judged(GAINED, (0.07, 0.03, 0.11), other=(0.09, 0.05, 0.12))


def test_a_choice_that_is_the_reference_or_the_raw_embedding_is_compared_with_nothing_silly():
    assert judged((0, 0, 0), LOST, reference=HALF_WHITE) == (
        "Use the embedding alone (top-1 60.0% (58.0% to 63.0%); +0.0 points (+0.0 to +0.0) against the "
        "half-whitened embedding): on the training rows nothing is surely better."
    )
    white = Combination(("embedding",), "auto", exponent=0.5)
    assert judged((0, 0, 0), LOST, reference=HALF_WHITE, own=white).startswith(
        "Use the half-whitened embedding alone (top-1 60.0%"
    )
