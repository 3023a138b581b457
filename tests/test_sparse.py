import pytest
import torch

from sporeprint.factors import random_below, random_signs
from sporeprint.sparse import Sparse


def test_every_output_is_a_signed_sum_of_its_coordinates():
    made = Sparse(7, (5, 6), seed=4)  # 30 coordinates, of which ceil(5.48) are read
    coordinates, signs = random_below(4, 0, 42, 30).view(7, 6).tolist(), random_signs(4, 1, 7, 6).tolist()
    gradient = torch.arange(1.0, 31.0).double()
    expected = [
        sum(sign * float(gradient[at]) for at, sign in zip(*row, strict=True))
        for row in zip(coordinates, signs, strict=True)
    ]
    assert made(gradient.unsqueeze(0)).tolist() == [expected]
    assert (made.matrix().double() @ gradient).tolist() == expected


@pytest.mark.parametrize(("outputs", "inputs", "reads"), [(5, 5, 5), (5, 6, 6), (768, 769, 769), (1, 1, 1)])
def test_about_a_square_root_of_the_coordinates_is_read(outputs, inputs, reads):
    assert Sparse(2, (outputs, inputs)).reads == reads


@pytest.mark.parametrize("forms", [True, False])
def test_formed_or_gathered_the_numbers_are_the_same(forms, monkeypatch):
    made = Sparse(8, (20, 21), seed=1)
    draw = torch.Generator().manual_seed(0)
    inputs, sensitivities = (torch.randn(3, 4, 20, generator=draw, dtype=torch.float64) for _ in range(2))
    expected = torch.einsum("nto,nti->noi", sensitivities, inputs)
    expected = torch.cat([expected, sensitivities.sum(dim=1).unsqueeze(2)], dim=2).flatten(1) @ made.matrix().double().T
    asked = []
    monkeypatch.setattr(Sparse, "forms", lambda self, tokens: (asked.append(tokens), forms)[1])
    torch.testing.assert_close(made.of_factors(inputs, sensitivities), expected, rtol=1e-12, atol=1e-12)
    assert 4 in asked


def test_the_gradient_is_formed_where_tokens_are_many():
    assert Sparse(768, (768, 769)).forms(49)
    assert not Sparse(16, (768, 769)).forms(1)
