"""What the sentence of `segment` says of a best kind that is not surely better than the embedding."""

from types import SimpleNamespace

import pytest

from sporeprint.cli.print_segmentation import _surer, _without_a_sure_gain
from sporeprint.evaluate.choice.intervals import Interval


def said(layers, paper):
    """layers, paper: (gain, low, high) over an embedding of 60 %; the best kind is layers."""
    rows = {"embedding": {"figures": {"1": {"result": SimpleNamespace(value=0.6), "gain": None}}}}
    for name, (gain, low, high) in (("layers", layers), ("paper", paper)):
        result = SimpleNamespace(value=0.6 + gain)
        rows[name] = {"figures": {"1": {"result": result, "gain": Interval(gain, low, high)}}}
    return _without_a_sure_gain(rows, "layers", "1", "CLAIM"), list(_surer(rows, "layers", "1"))


UNSURE, LOST, SURE = (0.01, -0.01, 0.03), (-0.02, -0.05, -0.01), (0.05, 0.02, 0.08)


@pytest.mark.parametrize(
    ("layers", "paper", "sentence", "notes"),
    [
        (LOST, LOST, "Nothing beats the plain embedding (60.0%) here: 'layers' has CLAIM.", []),
        (LOST, UNSURE, "Nothing surely beats the plain embedding (60.0%) here: 'layers' has CLAIM.", []),
        (
            UNSURE,
            LOST,
            "Nothing surely beats the plain embedding (60.0%) here: 'layers' has CLAIM.",
            ["the choice of test images can make such a difference"],
        ),
        (
            LOST,
            SURE,
            "'layers' does not surely beat the plain embedding (60.0%) here; 'paper' does: +5.0 (+2.0 to +8.0) points.",
            ["'paper' is one of 2 looked at on these test images"],
        ),
    ],
)
def test_nothing_is_said_to_beat_the_embedding_only_where_nothing_does(layers, paper, sentence, notes):
    assert said(layers, paper) == (sentence, notes)
