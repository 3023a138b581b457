import numpy as np
import pytest
import torch

from sporeprint.features.contracts import check_projection
from sporeprint.gradients.projections import projection
from sporeprint.gradients.projections.projection import Dense, Rademacher, normalise


def entry(seed, row, column):
    """By the definition: bit `column` of PCG64(seed, row)'s stream of 64-bit words, lowest bit first; 1 is +1."""
    words = np.random.PCG64(np.random.SeedSequence([seed, row]))
    for _ in range(column // 64):
        words.random_raw()
    return 1.0 if int(words.random_raw()) >> (column % 64) & 1 else -1.0


@pytest.mark.parametrize("width", [1, 7, 64, 77, 130])
def test_every_entry_is_the_bit_that_the_definition_gives(width):
    matrix = Rademacher(3, width, seed=5).matrix()
    assert matrix.dtype == torch.float32
    assert matrix.tolist() == [[entry(5, row, column) for column in range(width)] for row in range(3)]


def test_entries_are_plus_and_minus_one_about_equally_often():
    matrix = Rademacher(64, 1001).matrix()
    assert set(matrix.unique().tolist()) == {-1.0, 1.0}
    assert abs(matrix.mean().item()) < 4 / (64 * 1001) ** 0.5
    assert matrix.mean(dim=0).abs().max() < 5 / 64**0.5
    assert matrix.mean(dim=1).abs().max() < 5 / 1001**0.5


def test_rows_and_seeds_are_uncorrelated():
    matrix = torch.cat([Rademacher(20, 4096, seed=seed).matrix() for seed in (0, 1, 2)])
    correlation = matrix @ matrix.T / 4096 - torch.eye(60)
    assert correlation.abs().max() < 6 / 4096**0.5


def test_same_seed_same_matrix_and_another_seed_another():
    assert torch.equal(Rademacher(8, 100, seed=3).matrix(), Rademacher(8, 100, seed=3).matrix())
    assert not torch.equal(Rademacher(8, 100, seed=3).matrix(), Rademacher(8, 100, seed=4).matrix())


def test_a_smaller_dim_is_a_prefix():
    assert torch.equal(Rademacher(5, 100).matrix(), Rademacher(9, 100).matrix()[:5])


@pytest.mark.parametrize("tile", [(1, 8), (3, 16), (4, 64), (32, 8192)])
def test_packed_and_dense_paths_agree_with_the_explicit_matrix(monkeypatch, tile):
    rows = torch.randn(6, 77, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rademacher = Rademacher(10, 77, seed=1)
    expected = rows @ rademacher.matrix().double().T
    monkeypatch.setattr(projection, "TILE", tile)
    for limit in (2**40, 0):
        monkeypatch.setattr(projection, "DENSE_LIMIT_BYTES", limit)
        fresh = Rademacher(10, 77, seed=1)
        torch.testing.assert_close(fresh(rows), expected, rtol=1e-13, atol=1e-13)
        assert (fresh._dense is None) == (limit == 0)


def test_sums_over_many_tiles_are_not_rounded_to_bfloat16_on_the_way(monkeypatch):
    monkeypatch.setattr(projection, "DENSE_LIMIT_BYTES", 0)
    monkeypatch.setattr(projection, "TILE", (4, 8))
    rows = torch.randn(5, 4000, generator=torch.Generator().manual_seed(0)).bfloat16()
    rademacher = Rademacher(6, 4000)
    expected = rows.double() @ rademacher.matrix().double().T
    torch.testing.assert_close(rademacher(rows).double(), expected, rtol=2**-8, atol=1e-3)


def held_bytes(thing):
    return sum(
        value.numel() * value.element_size() for value in vars(thing).values() if isinstance(value, torch.Tensor)
    )


def test_vit_b_takes_at_most_64_mebibytes_also_after_use():
    rademacher = Rademacher(768, 768 * 769)
    rademacher(torch.ones(1, 768 * 769))
    assert 768 * 768 * 769 / 8 <= held_bytes(rademacher) <= 64 * 2**20


def test_the_type_of_the_gradients_is_kept():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert Rademacher(4, 30)(torch.ones(2, 30, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("shape", [(2, 31), (2, 29), (30,), (1, 2, 30)])
def test_gradients_of_another_width_are_refused(shape):
    for kind in (Rademacher(4, 30), Dense(torch.ones(4, 30))):
        with pytest.raises(ValueError, match=r"expects \[N, 30\]"):
            kind(torch.ones(shape))


def test_a_given_matrix_is_applied_as_it_is():
    matrix = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]])
    assert Dense(matrix)(torch.tensor([[1.0, 1.0, 2.0]])).tolist() == [[9.0, 0.0]]
    assert torch.equal(Dense(matrix).matrix(), matrix)


def test_contract_holds_for_ours_on_both_paths(monkeypatch):
    check_projection(Rademacher(64, 900))
    check_projection(Dense(torch.randn(64, 900, generator=torch.Generator().manual_seed(1))))
    monkeypatch.setattr(projection, "DENSE_LIMIT_BYTES", 0)
    check_projection(Rademacher(64, 900))


class Broken(Rademacher):
    def __init__(self, how):
        super().__init__(64, 900)
        self.how = how

    def __call__(self, gradients):
        return super().__call__(gradients).sign() if self.how == "nonlinear" else super().__call__(gradients)

    def matrix(self):
        matrix = super().matrix()
        return {"other matrix": -matrix, "fewer rows": matrix[:5]}.get(self.how, matrix)


class Rank1(Rademacher):
    """Linear and equal to its matrix, but all its rows are one row."""

    def matrix(self):
        return super().matrix()[:1].repeat(self.dim, 1)

    def __call__(self, gradients):
        return gradients @ self.matrix().to(gradients.dtype).T


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (Broken("nonlinear"), "not linear"),
        (Broken("other matrix"), "not its own matrix"),
        (Broken("fewer rows"), "dim is 64"),
        (Rank1(64, 900), "cosines change"),
    ],
)
def test_contract_fails_on_a_broken_projection(broken, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_projection(broken)


def test_contract_fails_where_less_distortion_is_promised_than_kept():
    with pytest.raises(AssertionError, match=r"promised 0\.001"):
        check_projection(Rademacher(64, 900), distortion=0.001)


@pytest.mark.parametrize("scale", [1e-25, 1e-38, 1.0, 1e30, 8e37])
def test_rows_of_any_size_are_normalised(scale):
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0]]) * torch.tensor(scale)
    torch.testing.assert_close(normalise(rows), torch.tensor([[0.6, 0.8], [0.0, -1.0]]), rtol=1e-5, atol=0)


def test_zero_rows_stay_zero_beside_others():
    assert normalise(torch.tensor([[0.0, 0.0], [0.0, 5.0]])).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_not_a_number_stays_in_its_own_row():
    rows = normalise(torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [3.0, 4.0]]))
    assert not rows[:2].isfinite().all(dim=1).any()
    torch.testing.assert_close(rows[2], torch.tensor([0.6, 0.8]))


def test_precision_is_at_least_float32_and_float64_is_kept():
    assert normalise(torch.ones(1, 2, dtype=torch.float64)).dtype == torch.float64
    assert normalise(torch.ones(1, 2, dtype=torch.bfloat16)).dtype == torch.float32
    assert normalise(torch.ones(1, 3, dtype=torch.float64))[0, 0].item() == pytest.approx(3**-0.5, abs=1e-15)
