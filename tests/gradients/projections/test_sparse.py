import pytest
import torch

from sporeprint.gradients.factors import random_below, random_signs
from sporeprint.gradients.projections.sparse import Sparse


def test_every_output_is_a_signed_sum_of_its_coordinates():
    sparse = Sparse(7, (5, 6), seed=4)  # 30 coordinates, of which ceil(5.48) are read
    coordinates, signs = random_below(4, 0, 42, 30).view(7, 6).tolist(), random_signs(4, 1, 7, 6).tolist()
    gradient = torch.arange(1.0, 31.0).double()
    expected = [
        sum(sign * float(gradient[at]) for at, sign in zip(*row, strict=True))
        for row in zip(coordinates, signs, strict=True)
    ]
    assert sparse(gradient.unsqueeze(0)).tolist() == [expected]
    assert (sparse.matrix().double() @ gradient).tolist() == expected


@pytest.mark.parametrize(("outputs", "inputs", "reads"), [(5, 5, 5), (5, 6, 6), (768, 769, 769), (1, 1, 1)])
def test_about_a_square_root_of_the_coordinates_is_read(outputs, inputs, reads):
    assert Sparse(2, (outputs, inputs)).reads == reads
