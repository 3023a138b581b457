from sporeprint.gradients.factors import random_below, random_signs
from sporeprint.gradients.projections.tensorsketch import TensorSketch


def test_every_entry_of_the_gradient_goes_to_one_place_with_one_sign():
    matrix = TensorSketch(7, (5, 6), seed=4).matrix()
    h, g = random_below(4, 0, 5, 7).tolist(), random_below(4, 1, 6, 7).tolist()
    u, v = random_signs(4, 2, 5).tolist(), random_signs(4, 3, 6).tolist()
    expected = [[0.0] * 30 for _ in range(7)]
    for o in range(5):
        for i in range(6):
            expected[(h[o] + g[i]) % 7][o * 6 + i] = u[o] * v[i]
    assert matrix.tolist() == expected
