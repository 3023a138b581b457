"""A warning is shown at the user's own line."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sporeprint import KL, Combination, Fungi, Recipe
from sporeprint.errors import SporeprintWarning


def test_a_warning_names_the_line_of_the_caller_also_below_scikit_learn():
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    fungi = Fungi(Recipe(backbone="tiny", objectives=[KL()], layers=0, size=64))
    for work in (fungi.fit_transform, make_pipeline(fungi, FunctionTransformer()).fit_transform):
        with pytest.warns(SporeprintWarning, match="size: 64 dimensions wanted") as said:
            work(list(images))
        assert {one.filename for one in said if "size: 64" in str(one.message)} == {__file__}


def test_a_warning_of_a_decorated_call_names_the_line_of_the_caller():
    with pytest.warns(SporeprintWarning, match="whiten of 'kl'") as said:
        Combination(("kl",), whiten=9).fit({"kl": np.eye(4, dtype=np.float32)})
    assert [one.filename for one in said] == [__file__]
