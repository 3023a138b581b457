import pytest

from sporeprint.gradients.factors import random_signs
from sporeprint.gradients.projections.kronecker import Kronecker, near_square

NEAR = {192: (12, 16), 384: (16, 24), 768: (24, 32), 1024: (32, 32), 1: (1, 1), 2: (1, 2), 50: (5, 10)}
ABOVE = {7: (3, 3), 10: (3, 4), 13: (4, 4), 769: (28, 28)}  # no good divisors


@pytest.mark.parametrize(("dim", "rows"), (NEAR | ABOVE).items())
def test_rows_of_the_two_factors_are_near_the_square_root(dim, rows):
    assert near_square(dim, (5, 6)) == rows
    assert near_square(dim, (6, 5)) == rows[::-1]


@pytest.mark.parametrize("dim", [12, 11])
def test_every_entry_is_a_product_of_two_signs_and_rows_too_many_are_dropped(dim):
    left, right = random_signs(4, 0, 3, 5), random_signs(4, 1, 4, 6)
    matrix = Kronecker(dim, (5, 6), seed=4).matrix()
    expected = [
        [float(left[p, o] * right[q, i]) for o in range(5) for i in range(6)] for p in range(3) for q in range(4)
    ]
    assert matrix.tolist() == expected[:dim]
