"""An estimator is at home in scikit-learn: parameters inside frozen values, names of features, tags, display."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from sporeprint.data.limits import Limits
from sporeprint.errors import NotFitted, RecipeError
from sporeprint.features.combine import Combiner
from sporeprint.features.recipe import Recipe, as_recipe

_E = TypeVar("_E", bound="Estimator")


class Estimator(TransformerMixin, BaseEstimator):
    """Estimator extends `Fungi`, a scikit-learn transformer whose samples are images, texts or sounds."""

    recipe: Recipe | str | None
    limits: Limits | None

    # Parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; deep: with the fields of recipe and limits too, such as `recipe__size`.

        >>> from sporeprint import Fungi
        >>> Fungi("tiny").get_params()["recipe__pooling"]
        'auto'
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep:
            for name, value in self._frozen().items():
                params.update(_fields(name, value))
        return params

    def set_params(self: _E, **params: Any) -> _E:
        """Set parameters; `recipe__size=64` takes a copy of the recipe with that size.

        Where size, combination or dense is all that changes, the backbone stays loaded; `fit` comes before `transform`.
        Raises ValueError for a name that `get_params` does not have.

        >>> from sporeprint import Fungi
        >>> Fungi("tiny").set_params(recipe__size=64).recipe
        Recipe(backbone='tiny', size=64)
        """
        super().set_params(**{name: value for name, value in params.items() if "__" not in name})
        frozen = self._frozen()
        inner: dict[str, dict[str, Any]] = {}
        for name, value in params.items():
            parameter, _, field = name.partition("__")
            if field and parameter in frozen:
                inner.setdefault(parameter, {})[field] = value
            elif field:
                super().set_params(**{name: value})
        for parameter, fields in inner.items():
            setattr(self, parameter, _replaced(parameter, frozen[parameter], fields))
        return self

    def _frozen(self) -> dict[str, Any]:
        """Return the frozen values among the parameters that can be understood."""
        values: dict[str, Any] = {}
        for name, value in (("recipe", self._recipe), ("limits", self._limits)):
            with suppress(RecipeError):
                values[name] = value()
        return values

    def _recipe(self) -> Recipe:
        return as_recipe(self.recipe)

    def _limits(self) -> Limits:
        limits = Limits() if self.limits is None else self.limits
        if not isinstance(limits, Limits):
            raise RecipeError(f"limits is a {type(limits).__name__}; expected Limits(max_pixels=..., max_seconds=...)")
        return limits

    # Features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the features: block and number, such as "kl_7"; after a PCA "fungi0", "fungi1", ...

        input_features: not used; scikit-learn's pipelines give it. Raises NotFitted before `fit`.
        """
        self.check_fitted("get_feature_names_out")
        combiner = self.combiner
        if combiner.pca is not None:
            names = [f"{type(self).__name__.lower()}{number}" for number in range(combiner.width)]
        else:
            names = [f"{name}_{at}" for name, width in combiner.part_widths().items() for at in range(width)]
        return np.asarray(names, dtype=object)

    def check_fitted(self, call: str) -> None:
        """Raise NotFitted before `fit`. call: what needs it, for the message."""
        if not self.__sklearn_is_fitted__():
            raise NotFitted(
                f"{call} before fit (with this recipe, backbone and device): call fit(training_samples) first, or "
                "Fungi.load a fitted one"
            )

    def __sklearn_is_fitted__(self) -> bool:
        raise NotImplementedError

    @property
    def combiner(self) -> Combiner:
        raise NotImplementedError

    # Tags: X is a sequence of samples, which are strings, paths, dicts, images [H, W]; never rows of a table of numbers

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.string = tags.input_tags.dict = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []  # float32 for any input
        return tags

    def _more_tags(self) -> dict[str, Any]:  # scikit-learn 1.5
        return {"X_types": ["string", "dict", "3darray"], "preserves_dtype": []}

    # Display

    def __dir__(self) -> list[str]:
        return list(object.__dir__(self))  # scikit-learn's reads every property, and so would load the backbone

    def _get_params_html(self, deep: bool = True, **options: Any) -> Any:
        return super()._get_params_html(deep=False, **options)  # the recipe's own display has its fields

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        # Ours do not end in "_", and scikit-learn's search reads every property: patches of a text, digests of weights.
        return BaseEstimator()._get_fitted_attr_html(doc_link)


def _is_frozen(value: Any) -> bool:
    settings = getattr(value, "__dataclass_params__", None)
    return settings is not None and settings.frozen and not isinstance(value, type)


def _fields(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield ("recipe__size", 64), ...: the fields of a frozen value, and those of frozen values in it."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        yield f"{name}__{field.name}", inner
        if _is_frozen(inner):
            yield from _fields(f"{name}__{field.name}", inner)


def _replaced(name: str, value: Any, changes: Mapping[str, Any]) -> Any:
    """Return a frozen value with {"size": 64, "combination__whiten": 8, ...} changed. Raises RecipeError."""
    plain = {field: change for field, change in changes.items() if "__" not in field}
    known = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    inner: dict[str, dict[str, Any]] = {}
    for field in changes:
        first, _, rest = field.partition("__")
        if first not in known or (rest and not _is_frozen(plain.get(first, known[first]))):
            raise RecipeError(
                f"Invalid parameter {field!r} for {name} {value!r}. Valid parameters are: {list(known)!r}."
            )
        if rest:
            inner.setdefault(first, {})[rest] = changes[field]
    for first, rests in inner.items():
        plain[first] = _replaced(f"{name}__{first}", plain.get(first, known[first]), rests)
    return dataclasses.replace(value, **plain)
