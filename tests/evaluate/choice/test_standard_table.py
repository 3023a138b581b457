import warnings

import numpy as np
import pytest

from sporeprint.errors import RecipeError
from sporeprint.evaluate.choice.standard_table import Candidate, evaluate, standard_candidates
from sporeprint.features.combine import Combination

WIDTHS = {"embedding": 6, "kl": 3}
INFO = {name: {"views": "whole", "passes": 1} for name in WIDTHS}


def rows(count, seed):
    rng = np.random.default_rng(seed)
    blocks = {name: rng.standard_normal((count, width)).astype(np.float32) for name, width in WIDTHS.items()}
    return blocks, rng.integers(0, 2, count)


def entry(candidate):
    return evaluate(candidate, *rows(12, 0), *rows(5, 1), INFO, ks=(1,))


def test_the_tables_own_ranks_follow_the_narrowest_block_silently_and_are_recorded():
    made = {one.name: one for one in standard_candidates(list(WIDTHS), 12)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = {name: entry(one).whitened for name, one in made.items()}
    assert found["embedding"] == {}
    assert found["control: embedding, white"] == {"embedding": 6}
    assert found["embedding + gradients, white"] == {"embedding": 3, "kl": 3}
    assert entry(made["control: embedding, white"]).to_json()["whitened"] == {"embedding": 6}


def test_a_users_rank_is_taken_block_by_block_with_a_warning():
    mine = Candidate("mine", Combination(("embedding", "kl"), whiten=5))
    with pytest.warns(UserWarning, match="whiten of 'kl': 5 dimensions wanted, 3 used"):
        assert entry(mine).whitened == {"embedding": 5, "kl": 3}


def test_a_pca_to_nothing_is_refused():
    with pytest.raises(RecipeError, match="size=0"):
        standard_candidates(list(WIDTHS), 12, size=0)


def test_a_family_is_whitened_to_its_narrowest_block_too():
    mine = Candidate("mine", Combination(("embedding", "gradients"), whiten=5), clip=True)
    assert entry(mine).whitened == {"embedding": 3, "kl": 3}
