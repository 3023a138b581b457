"""scikit-learn's own checks: as its tags allow, and all of them on a Fungi whose samples are rows of numbers."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from small import small_backbone, small_module
from sporeprint import KL, Backbone, Fungi, Recipe
from sporeprint.backbones.inputs.inputs import ImageInputs
from sporeprint.errors import SampleError


@pytest.mark.filterwarnings("ignore:Can't test estimator")  # as for CountVectorizer: no rows of numbers
@pytest.mark.parametrize("fungi", [Fungi(), Fungi("tiny"), Fungi(Recipe(objectives=[KL()]), backbone=small_backbone())])
def test_scikit_learns_checks_pass(fungi):
    check_estimator(fungi)
    check_estimator(CountVectorizer())


BASIS = np.random.default_rng(0).normal(size=(64, 3 * 32 * 32))


class Numbers(ImageInputs):
    """Rows of up to 64 numbers become images, so that scikit-learn's data can be samples."""

    size, sample = 32, "row"

    def load(self, sample, limits=None):
        row = np.asarray(sample)
        if row.ndim != 1 or not len(row):
            raise SampleError(f"numbers of shape {row.shape}; Reshape your data to rows [D]")
        if np.iscomplexobj(row):
            raise SampleError("Complex data not supported")
        try:
            return row.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise SampleError(f"no row of numbers: {error}") from error

    def digest(self, loaded):
        return hashlib.sha256(loaded.tobytes()).hexdigest()

    def bulk(self, ready):
        return ready.nbytes

    def __call__(self, ready):
        return torch.from_numpy(np.tanh(ready @ BASIS[: len(ready)])).float().reshape(3, 32, 32)

    def describe(self):
        return {"kind": "numbers"}


class FungiOfNumbers(Fungi):
    """A Fungi that says it takes rows of numbers, which makes scikit-learn run every check."""

    def __sklearn_tags__(self):
        from sklearn.utils import InputTags

        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags()
        return tags

    def _more_tags(self):
        return {"X_types": ["2darray"], "preserves_dtype": []}


NO_COLUMNS = "a sample is one thing (an image, a text, a sound) and X has no columns to count"
ONE_ROW = "an unreadable sample costs its own row, which is NaN and warned of; X as a whole is not refused"
NOT_OF_FUNGI = {
    "check_n_features_in": NO_COLUMNS,
    "check_n_features_in_after_fitting": NO_COLUMNS,
    "check_transformer_general": NO_COLUMNS,  # ends with X of fewer columns
    "check_estimators_empty_data_messages": NO_COLUMNS,  # wants a message about columns
    "check_estimators_nan_inf": ONE_ROW,
    "check_dtype_object": ONE_ROW,
    "check_estimators_overwrite_params": "joblib's hash of a copied torch layer differs; see test_estimator.py",
    "check_estimator_sparse_tag": "a sparse matrix is a table of numbers",
    "check_estimator_sparse_array": "a sparse matrix is a table of numbers",
    "check_estimator_sparse_matrix": "a sparse matrix is a table of numbers",
    "check_estimator_sparse_container": "a sparse matrix is a table of numbers",
    "check_transformer_data_not_an_array": "samples are given in a list, an array or a column",
}


def name_of(check):
    while hasattr(check, "func"):
        check = check.func
    return check.__name__


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [FungiOfNumbers(Recipe(objectives=[], layers=0), backbone=Backbone(small_module(), preprocess=Numbers()))]
)
def test_every_check_passes_that_is_not_about_tables_of_numbers(estimator, check):
    if name_of(check) not in NOT_OF_FUNGI:
        check(estimator)
        return
    with pytest.raises(Exception):  # noqa: B017, PT011
        check(estimator)
