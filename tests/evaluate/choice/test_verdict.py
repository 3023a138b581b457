"""The verdict of a comparison, in one sentence."""

import math
from dataclasses import replace

import pytest

from small_comparison import entry
from sporeprint.evaluate.choice.candidates import ALL, FREE, HALF_WHITE, PLAIN, RAW
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.verdict import verdict
from sporeprint.features.combine import Combination


def judged(free, everything, recommended=FREE, plain=None, passes=10, reference=RAW):
    """The verdict on two choices, each (gain, low, high), over an embedding that is right in 60 %."""
    own = Combination(("embedding",))
    joined = Combination(("embedding", "layers", "gradients"), "auto", exponent=0.5)
    entries = [entry(RAW, "embedding", 1, 0.6, combination=own)]
    if reference != RAW:
        entries.append(entry(reference, "embedding", 1, 0.6, combination=replace(own, whiten="auto", exponent=0.5)))
    for name, gain, count in ((FREE, free, 1), (ALL, everything, passes), (PLAIN, plain, 4)):
        if gain is not None:
            how = own if gain == (0, 0, 0) else joined
            blocks = ("embedding",) if gain == (0, 0, 0) else ("embedding", "cls-1", "cls-2", "kl")
            gained = Interval(*gain)
            entries.append(entry(name, "chosen", count, 0.6 + gain[0], gain=gained, combination=how, blocks=blocks))
    return verdict(entries, reference, recommended)


def test_the_sentence_says_what_to_use_its_gain_and_its_price():
    assert judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11)) == (
        "Use embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5: +5.0 points (+1.0 to +9.0) over the embedding "
        "(top-1 60.0%), for one pass a row, 1,240 rows/s, 1,536 bytes a row against 1,536; "
        "10 passes instead bring +7.0 points (+3.0 to +11.0)."
    )
    assert judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11), ALL, plain=(0.02, -0.01, 0.05)) == (
        "Use embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5: +7.0 points (+3.0 to +11.0) over the "
        "embedding (top-1 60.0%), for 10 passes a row, 124 rows/s, 1,536 bytes a row against 1,536; "
        "one pass brings +5.0 points (+1.0 to +9.0); "
        "the best without gradients, 4 passes, brings +2.0 points (-1.0 to +5.0)."
    )
    assert "over the whitened embedding" in judged((0.05, 0.01, 0.09), (0.07, 0.03, 0.11), reference=HALF_WHITE)
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
            "+5.0 points (+0.0 to +10.0) over the embedding (top-1 60.0%), which may be chance.",
        ),
        (
            (0.05, math.nan, math.nan),
            "Use the embedding alone until more test rows say otherwise: what the training rows chose, {}, brings "
            "+5.0 points (no interval) over the embedding (top-1 60.0%), which may be chance.",
        ),
        (
            (0.002, -0.004, 0.008),
            "The embedding alone is as good: {} brings +0.2 points (-0.4 to +0.8) over the embedding (top-1 60.0%).",
        ),
        (
            (-0.06, -0.1, -0.02),
            "Use the embedding alone: what the training rows chose, {}, is worse here: -6.0 points (-10.0 to -2.0) "
            "over the embedding (top-1 60.0%).",
        ),
        (
            (0, 0, 0),
            "Use the embedding alone (top-1 60.0% (58.0% to 63.0%)): on the training rows nothing is surely better.",
        ),
    ],
)
def test_without_a_sure_gain_the_embedding_stays_and_what_the_choice_brought_is_told(gain, words):
    assert judged(gain, gain) == words.format("embedding + cls-1 + cls-2 + kl, whitened with exponent 0.5")
