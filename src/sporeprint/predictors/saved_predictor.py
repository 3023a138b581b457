"""A fitted predictor as predictor.json and predictor.safetensors, with checksums. Nothing read here can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sporeprint.errors import DamagedStore, SporeprintError, StoreError
from sporeprint.predictors.class_means import ClassMeans
from sporeprint.predictors.knn import KNN
from sporeprint.predictors.knn_regressor import KNNRegressor
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.logistic import Probe
from sporeprint.predictors.mixture import MixtureLDA
from sporeprint.predictors.ridge import Ridge
from sporeprint.predictors.ridge_regressor import RidgeRegressor
from sporeprint.store.described_tensors import DescribedTensors
from sporeprint.store.schema import OBJECT, SIZE, TEXT, mismatch, one_of
from sporeprint.values import from_json, to_json

_CLASSES: dict[str, Any] = {
    cls.__name__: cls for cls in (KNN, ClassMeans, ShrunkLDA, Ridge, Probe, MixtureLDA, KNNRegressor, RidgeRegressor)
}
_FILES = DescribedTensors(
    name="predictor",
    format=1,
    shape={
        "predictor": one_of(tuple(_CLASSES)),
        "parameters": OBJECT,
        "fitted": OBJECT,
        "classes?": [TEXT],
        "width": SIZE,
        "columns?": [TEXT],
    },
    give="what save_predictor wrote",
)


def save_predictor(predictor: BaseEstimator, folder: str | Path) -> None:
    """Save a fitted predictor into a folder, next to whatever else is there (a saved Fungi, say).

    A class lists in `_kept` what it keeps: {attribute: its dimensions, such as "CD", or the `Kind` of a JSON value}.
    C is the number of classes, D that of dimensions, "" a number. Raises StoreError for what is not one of ours.
    """
    name = type(predictor).__name__
    if _CLASSES.get(name) is not type(predictor):
        raise StoreError(f"a {name} cannot be saved here; expected one of sporeprint's: {', '.join(_CLASSES)}")
    check_is_fitted(predictor)
    description: dict[str, Any] = {"predictor": name, "width": int(predictor.n_features_in_), "fitted": {}}
    try:
        description["parameters"] = {key: _plain(value) for key, value in predictor.get_params(deep=False).items()}
    except SporeprintError as error:
        raise StoreError(f"this {name} cannot be saved: {error}") from error
    arrays: dict[str, NDArray[Any]] = {}
    for attribute, kind in predictor._kept.items():
        value = getattr(predictor, attribute)
        if isinstance(kind, str):
            arrays[attribute] = np.asarray(value, order="C")
        else:
            description["fitted"][attribute] = _plain(value)
    classes = getattr(predictor, "classes_", None)
    if classes is not None and classes.dtype.kind == "U":
        description["classes"] = classes.tolist()
    elif classes is not None:
        arrays["classes_"] = classes
    if hasattr(predictor, "feature_names_in_"):
        description["columns"] = predictor.feature_names_in_.tolist()
    _FILES.write(folder, _FILES.pack(description, save(arrays)))


def load_predictor(folder: str | Path) -> Any:
    """Load what `save_predictor` wrote: it gives the same probabilities, bit for bit. Raises DamagedStore."""
    body, arrays = _FILES.unpack(_FILES.reader(folder), str(folder), load)
    try:
        predictor = _CLASSES[body["predictor"]](**{key: from_json(value) for key, value in body["parameters"].items()})
        classes = np.array(body["classes"]) if "classes" in body else arrays.pop("classes_", None)
        if classes is not None:
            predictor.classes_ = classes
        predictor.n_features_in_ = body["width"]
        if "columns" in body:
            predictor.feature_names_in_ = np.array(body["columns"], dtype=object)
        wrong = _take(predictor, body["fitted"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        wrong = str(error)
    if wrong:
        raise DamagedStore(f"{folder}/{_FILES.json_name} cannot be understood ({wrong}); save it again")
    return predictor


def _take(predictor: Any, fitted: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Set the fitted attributes. Say what is wrong with them; "" where nothing is."""
    sizes = {"D": predictor.n_features_in_}
    if hasattr(predictor, "classes_"):
        sizes["C"] = len(predictor.classes_)
    expected = {name for name, kind in predictor._kept.items() if isinstance(kind, str)}
    if arrays.keys() != expected:
        return f"its arrays are {sorted(arrays)}; expected {sorted(expected)}"
    for name, kind in predictor._kept.items():
        if not isinstance(kind, str):
            if wrong := mismatch(fitted, {name: kind}, "fitted"):
                return wrong
            setattr(predictor, name, from_json(fitted[name]))
            continue
        array = arrays[name]
        same = len(kind) == array.ndim and all(
            sizes.setdefault(letter, size) == size for letter, size in zip(kind, array.shape, strict=True)
        )
        if not same or not np.isfinite(array).all():
            return f"{name} has shape {array.shape}, or is not finite; expected {kind}"
        setattr(predictor, name, array.copy() if kind else array.item())
    return ""


def _plain(value: Any) -> Any:
    return to_json(value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value)
