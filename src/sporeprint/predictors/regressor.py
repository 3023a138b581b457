"""The base of the regressors: rows and targets are checked once, and answers have the shape of the targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sporeprint.errors import SampleError
from sporeprint.predictors.checks import CHECKS, as_sample_errors, features_of
from sporeprint.predictors.groups import Groups, groups_of
from sporeprint.predictors.principal import Floats


class Regressor(RegressorMixin, BaseEstimator):
    """Predicts numbers [N] or [N, T]. `flat_`: whether the targets were [N]."""

    flat_: bool

    def _checked(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None) -> tuple[NDArray[Any], Floats, Groups]:
        """Return rows [N, D], targets [N, T] and groups. Raises SampleError."""
        with as_sample_errors():
            rows, targets = validate_data(self, X, y, multi_output=True, y_numeric=True, **CHECKS)
            features_of(rows, "train")
        if targets.dtype.kind not in "fiub":
            raise SampleError(f"targets are of type {targets.dtype}; expected real numbers, [rows] or [rows, targets]")
        self.flat_ = targets.ndim == 1
        return rows, targets.astype(np.float64).reshape(len(rows), -1), groups_of(groups, len(rows))

    def _checked_queries(self, X: ArrayLike) -> NDArray[Any]:
        """Return rows [M, D] to predict. Raises SampleError; before `fit`, as scikit-learn's estimators do."""
        check_is_fitted(self)
        with as_sample_errors():
            return features_of(validate_data(self, X, reset=False, **CHECKS), "test")

    def _like_targets(self, values: Floats) -> Floats:
        return values[:, 0] if self.flat_ else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
