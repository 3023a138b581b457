import math
import tracemalloc

import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.evaluate.similarity import anisotropy, cka, cka_matrix, effective_rank


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def gram(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows @ rows.T


def slow_plain(a, b):
    """Kornblith et al. 2019, on the N x N Gram matrices."""
    count = len(a)
    centring = np.eye(count) - 1 / count
    k, m = centring @ gram(a) @ centring, centring @ gram(b) @ centring
    return np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


def slow_hsic(a, b):
    """Song et al. 2012, equation 4 before it is simplified: means over pairs, triples, quadruples of different rows."""
    k, m = gram(a), gram(b)
    of = range(len(k))
    two = [k[i, j] * m[i, j] for i in of for j in of if i != j]
    three = [k[i, j] * m[i, q] for i in of for j in of for q in of if len({i, j, q}) == 3]
    four = [k[i, j] * m[q, r] for i in of for j in of for q in of for r in of if len({i, j, q, r}) == 4]
    return np.mean(two) - 2 * np.mean(three) + np.mean(four)


def related(rows=9, seed=0):
    a = normal(rows, 5, seed=seed) + 3.0
    return a, a @ normal(5, 3, seed=seed + 1) + normal(rows, 3, seed=seed + 2)


@pytest.mark.parametrize("seed", range(3))
def test_cka_equals_the_gram_form(seed):
    a, b = related(40, seed)
    assert cka(a, b, debiased=False) == pytest.approx(slow_plain(a, b), rel=1e-12)


@pytest.mark.parametrize(("rows", "seed"), [(4, 0), (5, 1), (9, 2)])
def test_debiased_cka_equals_a_sum_over_different_rows(rows, seed):
    a, b = related(rows, seed)
    expected = slow_hsic(a, b) / math.sqrt(slow_hsic(a, a) * slow_hsic(b, b))
    assert cka(a, b) == pytest.approx(expected, rel=1e-9)


def test_chunks_do_not_change_cka(monkeypatch):
    a, b = related(50)
    whole = [cka(a, b), cka(a, b, debiased=False), effective_rank(a), anisotropy(a)]
    monkeypatch.setattr("sporeprint.evaluate.similarity._CHUNK_VALUES", 35)  # 7 rows, the last chunk short
    assert [cka(a, b), cka(a, b, debiased=False), effective_rank(a), anisotropy(a)] == pytest.approx(whole, rel=1e-12)


def test_only_the_debiased_cka_of_unrelated_blocks_is_near_zero():
    pairs = [(normal(100, 40, seed=2 * at), normal(100, 40, seed=2 * at + 1)) for at in range(20)]
    plain, debiased = ([cka(a, b, debiased=unbiased) for a, b in pairs] for unbiased in (False, True))
    assert np.mean(plain) == pytest.approx(40 / (100 + 40), abs=0.02)
    assert np.mean(debiased) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("debiased", [True, False])
def test_rotation_scale_and_shift_leave_cka_at_one(debiased):
    rows = normal(30, 6)
    rotation = np.linalg.qr(normal(6, 6, seed=1))[0]
    assert cka(rows, 1e-100 * rows @ rotation, debiased) == pytest.approx(1.0)
    assert cka(rows, 1e100 * rows + 5e100, debiased) == pytest.approx(1.0)


def test_cka_is_never_above_one():
    rotation = np.linalg.qr(normal(6, 6))[0]
    assert max(cka(rows, rows @ rotation) for rows in normal(50, 9, 6)) <= 1.0


def test_small_deviations_from_a_large_mean_in_float32_are_seen():
    rows = (1000 + normal(30, 6)).astype(np.float32)
    assert cka(rows, rows.astype(np.float64) - 1000) == pytest.approx(1.0, abs=1e-12)


def test_a_matrix_holds_cka_of_every_two():
    a, b = related(20)
    c = normal(20, 4, seed=7)
    names, matrix = cka_matrix({"kl": a, "embedding": b, "dino": c})
    assert names == ("kl", "embedding", "dino")
    np.testing.assert_allclose(
        matrix, [[1, cka(a, b), cka(a, c)], [cka(a, b), 1, cka(b, c)], [cka(a, c), cka(b, c), 1]]
    )


@pytest.mark.parametrize("debiased", [True, False])
def test_a_constant_block_has_no_cka(debiased):
    constant = np.tile(normal(1, 50).astype(np.float32), (37, 1))  # whose mean, rounded, is not quite the row
    _, matrix = cka_matrix({"constant": constant, "rows": normal(37, 2)}, debiased)
    assert np.isnan(matrix).tolist() == [[True, True], [True, False]]


def test_too_few_rows_have_no_cka():
    assert math.isnan(cka(normal(1, 3), normal(1, 2), debiased=False))
    assert math.isnan(cka(normal(3, 3), normal(3, 2, seed=1)))
    assert not math.isnan(cka(normal(3, 3), normal(3, 2, seed=1), debiased=False))
    assert not math.isnan(cka(normal(4, 3), normal(4, 2, seed=1)))


@pytest.mark.parametrize("rows", range(4, 12))
def test_rows_all_equally_far_apart_have_no_debiased_cka(rows):
    assert math.isnan(cka(np.eye(rows), normal(rows, 2)))
    assert cka(np.eye(rows), normal(rows, 2), debiased=False) > 0


@pytest.mark.parametrize("measure", [lambda rows: cka(rows, rows[:, :4]), effective_rank, anisotropy])
def test_many_rows_are_read_in_bounded_memory(measure, monkeypatch):
    rows = normal(200_000, 8).astype(np.float32)
    monkeypatch.setattr("sporeprint.evaluate.similarity._CHUNK_VALUES", 2**14)
    tracemalloc.start()
    measure(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # in float64 the rows alone take 12.8 MB, the Gram matrix 320 GB


def test_effective_rank_of_equal_variances_is_their_number():
    assert effective_rank([[1, 1], [1, -1], [-1, 1], [-1, -1]]) == pytest.approx(2.0)
    assert effective_rank(np.eye(5)) == pytest.approx(4.0)  # five points span four dimensions


def test_effective_rank_by_hand():
    # Variances 3 and 1, so shares 3/4 and 1/4: exp(entropy) = 4 / 3^(3/4); moving the rows changes nothing.
    root = math.sqrt(3)
    rows = np.array([[root, 0], [-root, 0], [0, 1], [0, -1]]) + np.array([5, -7])
    assert effective_rank(rows) == pytest.approx(4 / 3**0.75)


def test_a_line_has_effective_rank_one_and_no_variance_none():
    assert effective_rank(np.arange(6)[:, None] * np.array([[1.0, 2.0, 3.0]])) == pytest.approx(1.0)
    assert effective_rank(np.full((6, 3), 0.1, np.float32)) == 0.0
    assert effective_rank([[1.0, 2.0]]) == 0.0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_leaves_effective_rank_and_anisotropy(scale):
    rows = normal(20, 5) + 1
    assert effective_rank(scale * rows) == pytest.approx(effective_rank(rows))
    assert anisotropy(scale * rows) == pytest.approx(anisotropy(rows))


def test_anisotropy_is_the_mean_cosine_of_all_pairs():
    rows = normal(12, 4) + 0.5
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for i, a in enumerate(rows) for b in rows[:i]]
    assert anisotropy(rows.astype(np.float32)) == pytest.approx(np.mean(cosines), abs=1e-6)


def test_anisotropy_by_hand():
    assert anisotropy([[1, 0], [0, 2]]) == pytest.approx(0.0)
    assert anisotropy([[1, 0], [-3, 0]]) == pytest.approx(-1.0)
    assert anisotropy([[1, 0], [1, 0], [0, 5]]) == pytest.approx(1 / 3)  # a duplicate pair, two right angles
    assert anisotropy([[0.1, 0.3]] * 7) == pytest.approx(1.0)
    assert anisotropy([[1, 0], [0, 0], [1, 1]]) == pytest.approx(math.sqrt(0.5))  # zeros are left out


def test_fewer_than_two_directions_have_no_anisotropy():
    assert math.isnan(anisotropy([[1.0, 2.0]]))
    assert math.isnan(anisotropy([[1.0, 2.0], [0.0, 0.0]]))


def test_blocks_that_cannot_be_compared_are_refused():
    with pytest.raises(SampleError, match="different numbers of rows: 'a' 3, 'b' 4"):
        cka_matrix({"a": normal(3, 2), "b": normal(4, 2)})
    with pytest.raises(SampleError, match="no blocks"):
        cka_matrix({})
    with pytest.raises(SampleError, match="at least 1 of each"):
        effective_rank(np.zeros((3, 0)))
    for measure in (effective_rank, anisotropy, lambda rows: cka(rows, rows)):
        with pytest.raises(SampleError, match="rows are NaN"):
            measure([[1.0, 2.0], [np.nan, 0.0]])
