"""Pooling by hand, and padding that holds what must never be seen."""

import math

import pytest
import torch

from sporeprint.backbones.pooling import pool

# Two rows of four tokens, two wide. Of the first row the last two tokens are padding, of the second the first is not
# pooled (a prompt).
TOKENS = torch.tensor(
    [[[1.0, 2.0], [3.0, 6.0], [90.0, 91.0], [92.0, 93.0]], [[5.0, -5.0], [7.0, 1.0], [1.0, 3.0], [4.0, 8.0]]]
)
REAL = torch.tensor([[True, True, False, False], [False, True, True, True]])
EXPECTED = {"cls": [[1.0, 2.0], [5.0, -5.0]], "mean": [[2.0, 4.0], [4.0, 4.0]], "last": [[3.0, 6.0], [4.0, 8.0]]}
EXPECTED["max"] = [[3.0, 6.0], [7.0, 8.0]]


@pytest.mark.parametrize("how", EXPECTED)
def test_only_real_tokens_are_pooled(how):
    assert pool(TOKENS, how, REAL, 0).tolist() == EXPECTED[how]


def test_without_padding_every_token_counts_but_the_prefix():
    assert pool(TOKENS, "mean", None, 0).tolist() == [[46.5, 48.0], [4.25, 1.75]]
    assert pool(TOKENS, "mean", None, 2).tolist() == [[91.0, 92.0], [2.5, 5.5]]
    assert pool(TOKENS, "max", None, 0).tolist() == [[92.0, 93.0], [7.0, 8.0]]
    assert pool(TOKENS, "max", None, 2).tolist() == [[92.0, 93.0], [4.0, 8.0]]
    assert pool(TOKENS, "last", None, 2).tolist() == [[92.0, 93.0], [4.0, 8.0]]
    assert pool(TOKENS, "cls", None, 2).tolist() == [[1.0, 2.0], [5.0, -5.0]]


def test_of_a_mask_with_holes_the_last_real_token_is_taken():
    real = torch.tensor([[True, False, True, False], [False, True, False, False]])
    assert pool(TOKENS, "last", real, 0).tolist() == [[90.0, 91.0], [7.0, 1.0]]
    assert pool(TOKENS, "mean", real, 0).tolist() == [[45.5, 46.5], [7.0, 1.0]]


def test_a_row_of_padding_alone_is_zero_not_nan():
    for how in ("mean", "max"):
        assert pool(TOKENS, how, torch.zeros(2, 4, dtype=torch.bool), 0).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("held", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("how", ["mean", "last", "max"])
def test_what_padding_holds_reaches_neither_the_embedding_nor_the_gradient(how, held):
    tokens = TOKENS.masked_fill(~REAL.unsqueeze(-1), held).requires_grad_()
    pooled = pool(tokens, how, REAL, 0)
    assert pooled.tolist() == EXPECTED[how]
    (gradient,) = torch.autograd.grad(pooled.sum(), tokens)
    if how == "max":  # one token each number
        assert gradient.nonzero().tolist() == [[0, 1, 0], [0, 1, 1], [1, 1, 0], [1, 3, 1]]
        return
    weights = {"mean": [[1 / 2, 1 / 2, 0, 0], [0, 1 / 3, 1 / 3, 1 / 3]], "last": [[0.0, 1, 0, 0], [0.0, 0, 0, 1]]}[how]
    torch.testing.assert_close(gradient, torch.tensor(weights).unsqueeze(-1).expand(2, 4, 2))


def test_pooling_keeps_the_precision():
    for dtype in (torch.float64, torch.bfloat16):
        for how in EXPECTED:
            assert pool(TOKENS.to(dtype), how, REAL, 0).dtype == dtype
