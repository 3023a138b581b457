"""Projections that read the two factors: one table of checks for every kind."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from sporeprint.errors import RecipeError
from sporeprint.features.contracts import check_projection
from sporeprint.gradients import factors
from sporeprint.gradients.capture import weight_gradients
from sporeprint.gradients.factors import felt_tokens, random_below, random_signs
from sporeprint.gradients.projections.projection import (
    PROJECTIONS,
    FactorProjection,
    Rademacher,
    make_projection,
    reads_factors,
)

KINDS = sorted(name for name, kind in PROJECTIONS.items() if kind is not Rademacher)


def draw(samples, tokens, inputs, outputs, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((samples, tokens, inputs), (samples, tokens, outputs))
    return tuple(torch.randn(size, generator=generator, dtype=dtype) for size in sizes)


def relative(projected, expected):
    return ((projected - expected).norm() / expected.norm()).item()


def word(seed, stream, at):
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream,)))
    for _ in range(at):
        words.random_raw()
    return int(words.random_raw())


def test_signs_and_integers_are_those_of_the_generators_words():
    signs = random_signs(7, 2, 5, 33)
    expected = [1.0 if word(7, 2, at // 64) >> (at % 64) & 1 else -1.0 for at in range(165)]
    assert signs.flatten().tolist() == expected
    assert random_below(7, 1, 9, 1000).tolist() == [word(7, 1, at) % 1000 for at in range(9)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dim", [1, 7, 24, 61])  # one, primes, and one of good factors
@pytest.mark.parametrize("tokens", [1, 9])
def test_factors_gradient_and_matrix_give_the_same(name, bias, dim, tokens):
    projection = make_projection(name, dim, (12, 17 + bias), seed=5)
    inputs, sensitivities = draw(4, tokens, 17, 12)
    by_hand = torch.stack(
        [
            sum(torch.outer(s, x) for s, x in zip(*factors_of_row, strict=True))
            for factors_of_row in zip(sensitivities, inputs, strict=True)
        ]
    )
    if bias:
        by_hand = torch.cat([by_hand, sensitivities.sum(dim=1).unsqueeze(2)], dim=2)
    assert (projection.width, projection.matrix().shape, projection.matrix().dtype) == (
        by_hand[0].numel(),
        (dim, projection.width),
        torch.float32,
    )
    expected = by_hand.flatten(1) @ projection.matrix().double().T
    projected = projection.of_factors(inputs, sensitivities, bias)
    assert (projected.shape, projected.dtype) == ((4, dim), torch.float64)
    assert relative(projected, expected) < 1e-13
    assert relative(projection(by_hand.flatten(1)), expected) < 1e-13


@pytest.mark.parametrize("name", KINDS)
def test_the_contract_holds(name):
    check_projection(make_projection(name, 64, (24, 25), seed=0))


def test_gradients_that_share_a_factor_are_distorted_as_theory_says():
    """s x^T and t x^T with s.t = 1/2: of their cosine a dense matrix has the variance (1 - 1/4)^2 / D."""
    draw = torch.Generator().manual_seed(0)
    x, s, u = torch.nn.functional.normalize(torch.randn(3, 64, generator=draw), dim=1)
    t = s / 2 + 0.75**0.5 * torch.nn.functional.normalize(u - (u @ s) * s, dim=0)
    squares = []
    for seed in range(500):
        projection = make_projection("tensorsketch", 256, (64, 64), seed)
        both = projection.of_factors(x.expand(2, 1, 64), torch.stack([s, t]).unsqueeze(1), bias=False)
        squares.append((torch.nn.functional.cosine_similarity(*both, dim=0) - 0.5) ** 2)
    assert torch.stack(squares).mean().item() == pytest.approx(0.75**2 * 2 / 256, rel=0.2)


@pytest.mark.parametrize("name", KINDS)
def test_another_seed_is_another_matrix_and_the_same_seed_the_same(name):
    first, again, other = (make_projection(name, 16, (9, 10), seed).matrix() for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("padding", [0.0, 7.0, float("nan")])
def test_tokens_that_the_loss_does_not_feel_add_nothing(name, padding):
    projection = make_projection(name, 16, (6, 6), seed=0)
    inputs, sensitivities = draw(3, 5, 5, 6)
    for row, length in enumerate((2, 4, 1)):
        inputs[row, length:], sensitivities[row, length:] = padding, 0
    projected = projection.of_factors(inputs, sensitivities)
    for row, length in enumerate((2, 4, 1)):
        alone = projection.of_factors(inputs[row : row + 1, :length], sensitivities[row : row + 1, :length])
        assert relative(projected[row : row + 1], alone) < 1e-13
    nothing = projection.of_factors(torch.full_like(inputs, padding), torch.zeros_like(sensitivities))
    assert nothing.tolist() == [[0.0] * 16] * 3


def test_felt_tokens_are_those_of_any_sample_and_at_least_one():
    inputs = torch.tensor([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    sensitivities = torch.tensor([[[0.0], [0.0], [7.0]], [[8.0], [0.0], [0.0]]])
    seen, felt = felt_tokens(inputs, sensitivities)
    assert seen.tolist() == [[[0.0], [3.0]], [[4.0], [0.0]]]
    assert felt.tolist() == [[[0.0], [7.0]], [[8.0], [0.0]]]
    assert felt_tokens(inputs, torch.zeros(2, 3, 1))[1].tolist() == [[[0.0]], [[0.0]]]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("chunk", [1, 300, 2000])
def test_parts_that_fit_in_memory_add_up(name, chunk, monkeypatch):
    projection = make_projection(name, 12, (8, 10), seed=1)
    inputs, sensitivities = draw(5, 7, 9, 8)
    expected = weight_gradients(inputs, sensitivities).flatten(1) @ projection.matrix().double().T
    monkeypatch.setattr(factors, "CHUNK", chunk)
    calls, kept = [], type(projection)._factors
    monkeypatch.setattr(type(projection), "_factors", lambda self, *both: (calls.append(1), kept(self, *both))[1])
    assert relative(projection.of_factors(inputs, sensitivities), expected) < 1e-13
    assert len(calls) > 1


class Largest(TorchFunctionMode):
    """The most numbers in one tensor that an operation gave."""

    numbers = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("name", KINDS)
def test_the_samples_gradients_are_not_formed_or_one_at_a_time(name, monkeypatch):
    projection = make_projection(name, 8, (60, 61), seed=0)
    inputs, sensitivities = draw(4, 3, 60, 60)
    if name == "sparse":
        monkeypatch.setattr(factors, "CHUNK", 2 * 60 * 61)
    with Largest() as formed:
        weight_gradients(inputs, sensitivities)
    with Largest() as seen:
        projection.of_factors(inputs, sensitivities)
    assert formed.numbers == 4 * 60 * 61
    assert 4 * 3 * 60 <= seen.numbers <= (60 * 61 if name == "sparse" else 4 * 3 * 61)


@pytest.mark.parametrize("name", KINDS)
def test_half_precision_factors_are_projected_in_float32(name):
    projection = make_projection(name, 12, (8, 9), seed=1)
    inputs, sensitivities = draw(3, 4, 8, 8, dtype=torch.bfloat16)
    projected = projection.of_factors(inputs, sensitivities)
    assert projected.dtype == torch.float32
    assert relative(projected.double(), projection.of_factors(inputs.double(), sensitivities.double())) < 1e-6
    assert projection(torch.ones(2, 72, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", KINDS)
def test_a_samples_numbers_do_not_depend_on_its_batch(name):
    projection = make_projection(name, 12, (8, 9), seed=1)
    inputs, sensitivities = draw(6, 4, 8, 8)
    together = projection.of_factors(inputs, sensitivities)
    alone = torch.cat([projection.of_factors(inputs[at : at + 1], sensitivities[at : at + 1]) for at in range(6)])
    assert relative(together, alone) < 1e-13


@pytest.mark.parametrize("name", KINDS)
def test_factors_of_another_layer_are_refused(name):
    projection = make_projection(name, 4, (6, 5), seed=0)
    for inputs, sensitivities, bias in (((2, 3, 4), (2, 3, 7), True), ((2, 3, 4), (2, 3, 6), False)):
        with pytest.raises(RecipeError, match=r"made for gradients \(6, 5\)"):
            projection.of_factors(torch.ones(inputs), torch.ones(sensitivities), bias)
    with pytest.raises(RecipeError, match=r"expected \[N, T, 4\] and \[N, T, 6\]"):
        projection.of_factors(torch.ones(2, 3, 4), torch.ones(2, 2, 6))
    with pytest.raises(RecipeError, match=r"expects \[N, 30\]"):
        projection(torch.ones(2, 29))


def test_only_structured_projections_read_factors():
    for name in PROJECTIONS:
        projection = make_projection(name, 4, (6, 5), seed=2)
        assert (projection.dim, projection.width, projection.seed) == (4, 30, 2)
        assert reads_factors(projection) == isinstance(projection, FactorProjection) == (name in KINDS)
