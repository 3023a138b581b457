"""What entries say of themselves."""

import pytest

from sporeprint import Combination
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.comparison import Compared

LAYERS = tuple(f"{kind}-{number}" for number in (1, 2) for kind in ("cls", "tokens"))
PAIR = ("embedding", "kl")
NONE = Interval(0.0, 0.0, 0.0)


def made(combination, blocks):
    return Compared("x", "chosen", combination.over(blocks), blocks, 8, 1, None, 32, 1, 0.5, NONE, 0.5, NONE)


@pytest.mark.parametrize(
    ("combination", "blocks", "words"),
    [
        (Combination(("embedding",)), ("embedding",), "embedding"),
        (Combination(("embedding",), whiten="auto"), ("embedding",), "embedding, whitened"),
        (
            Combination(("layers", "gradients"), "auto", exponent=0.5),
            (*LAYERS, "kl", "simclr"),
            "layers (4 blocks) + kl + simclr, whitened with exponent 0.5",
        ),
        (
            Combination(("embedding", "layers"), "auto", weights=(1.0, 1.0)),
            ("embedding", *LAYERS),
            "embedding + layers (4 blocks), whitened, every family alike",
        ),
        (Combination(("embedding", "kl"), weights=(2.0, 1.0)), PAIR, "embedding + kl, as they are, weighed"),
    ],
)
def test_an_entry_says_what_it_joins_and_how(combination, blocks, words):
    assert made(combination, blocks).joins == words
