import numpy as np
import pytest

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.joined_features import distinct, features, passes_of, short_table
from sporeprint.features import combine
from sporeprint.features.combine import NAMED, Combination
from sporeprint.features.whiten import fit_shrunk_axes

WIDTHS = {"embedding": 6, "cls-1": 4, "kl": 3}
COMBINATIONS = [
    Combination(("embedding", "kl"), "auto"),
    Combination(("kl", "layers"), "auto", exponent=0.5),
    Combination(("embedding", "kl"), 2, size=3),
    Combination(),
    NAMED["decorrelated"],
]


def some_blocks(rows, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, width)).astype(np.float32) for name, width in WIDTHS.items()}


@pytest.mark.parametrize("damaged", [False, True])
def test_features_are_those_of_each_combination_fitted_by_itself(damaged):
    train, test, ways = some_blocks(12, 0), some_blocks(5, 1), COMBINATIONS
    if damaged:
        train["kl"][3] = np.nan  # leaves a row to combinations without kl, which it must not share
        ways = [*ways, Combination(("embedding",), "auto")]
    for one, made in zip(ways, features(train, test, ways), strict=True):
        alone = one.fit(train)
        np.testing.assert_array_equal(made.rows, alone.transform(train))
        np.testing.assert_array_equal(made.others, alone.transform(test))
    assert next(features(train, None, COMBINATIONS)).others is None


def test_each_block_is_whitened_once_for_all_exponents(monkeypatch):
    fitted = []
    monkeypatch.setattr(combine, "fit_shrunk_axes", lambda rows: fitted.append(rows.shape[1]) or fit_shrunk_axes(rows))
    ways = [Combination(("embedding", "kl"), "auto", exponent=exponent) for exponent in (0.5, 0.75, 1.0)]
    assert len(list(features(some_blocks(12, 0), None, ways))) == 3
    assert sorted(fitted) == [WIDTHS["kl"], WIDTHS["embedding"]]


def test_equal_combinations_are_kept_once_under_the_first_name():
    assert list(distinct(short_table(), ["embedding"])) == ["embedding", "embedding, white", "decorrelated"]
    assert list(distinct(short_table(), list(WIDTHS))) == list(short_table())
    same = {
        "a": Combination(("kl", "embedding")),
        "b": Combination(("embedding", "gradients")),
        "c": Combination(("embedding", "gradients"), weights=(1.0, 2.0)),
        "d": Combination(("embedding", "gradients"), size=2),
    }
    assert list(distinct(same, ["embedding", "kl"])) == ["a", "c", "d"]
    with pytest.raises(RecipeError, match="no block of views"):
        distinct({"a": Combination("views")}, ["embedding"])


def test_blocks_of_the_same_views_cost_their_passes_once():
    info = {
        "embedding": {"views": "whole", "passes": 1},
        "kl": {"views": "whole", "passes": 1},
        "dino": {"views": "dino", "passes": 12},
    }
    assert passes_of(["embedding", "kl"], info) == 1
    assert passes_of(info, info) == 13
