"""Better features from frozen models: self-supervised gradients, layers and views, joined to the embedding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from sporeprint.backbones.backbone import Backbone
    from sporeprint.backbones.inputs.preprocess import Preprocess
    from sporeprint.backbones.inputs.sound import Sound
    from sporeprint.backbones.inputs.tokens import Tokens
    from sporeprint.backbones.prompt_head import prompt_head
    from sporeprint.data.limits import Limits
    from sporeprint.data.sources import open_source
    from sporeprint.evaluate.analyse import analyse
    from sporeprint.evaluate.choice.select import select
    from sporeprint.evaluate.cluster import cluster
    from sporeprint.evaluate.compare import compare
    from sporeprint.evaluate.demonstrations import demonstrations
    from sporeprint.evaluate.knn_accuracy import knn
    from sporeprint.evaluate.multilabel import multilabel
    from sporeprint.evaluate.probe import probe
    from sporeprint.evaluate.regress import regress
    from sporeprint.evaluate.retrieve import retrieve
    from sporeprint.evaluate.revisited import revisited
    from sporeprint.evaluate.template import Template
    from sporeprint.features.combine import Combination
    from sporeprint.features.contracts import (
        check_backbone,
        check_index,
        check_objective,
        check_projection,
        check_views,
    )
    from sporeprint.features.dense.copies import Copies
    from sporeprint.features.dense.dense_settings import Dense
    from sporeprint.features.dense.token_objectives import TokenKL, TokenSimCLR
    from sporeprint.features.fungi import Fungi
    from sporeprint.features.recipe import Recipe
    from sporeprint.objectives import DINO, KL, MaskedTokens, Objective, SimCLR
    from sporeprint.predictors.class_means import ClassMeans
    from sporeprint.predictors.knn import KNN
    from sporeprint.predictors.knn_regressor import KNNRegressor
    from sporeprint.predictors.label_propagation import Propagation
    from sporeprint.predictors.lda import ShrunkLDA
    from sporeprint.predictors.logistic import Probe
    from sporeprint.predictors.mixture import MixtureLDA
    from sporeprint.predictors.ridge import Ridge
    from sporeprint.predictors.ridge_regressor import RidgeRegressor
    from sporeprint.predictors.saved_pipeline import load_pipeline, save_pipeline
    from sporeprint.predictors.unlabelled import with_unlabelled
    from sporeprint.segment.segmenter import Segmenter
    from sporeprint.store.reader import Store

_HOMES = {
    "BackboneRows": "evaluate.compare_backbones",
    "Backbone": "backbones.backbone",
    "ClassMeans": "predictors.class_means",
    "Combination": "features.combine",
    "Copies": "features.dense.copies",
    "DINO": "objectives",
    "Dense": "features.dense.dense_settings",
    "Fungi": "features.fungi",
    "KL": "objectives",
    "KNN": "predictors.knn",
    "KNNRegressor": "predictors.knn_regressor",
    "Limits": "data.limits",
    "MaskedTokens": "objectives",
    "MixtureLDA": "predictors.mixture",
    "Objective": "objectives",
    "Preprocess": "backbones.inputs.preprocess",
    "Probe": "predictors.logistic",
    "Propagation": "predictors.label_propagation",
    "Recipe": "features.recipe",
    "Ridge": "predictors.ridge",
    "RidgeRegressor": "predictors.ridge_regressor",
    "Segmenter": "segment.segmenter",
    "ShrunkLDA": "predictors.lda",
    "SimCLR": "objectives",
    "Sound": "backbones.inputs.sound",
    "Store": "store.reader",
    "Template": "evaluate.template",
    "TokenKL": "features.dense.token_objectives",
    "TokenSimCLR": "features.dense.token_objectives",
    "Tokens": "backbones.inputs.tokens",
    "analyse": "evaluate.analyse",
    "check_backbone": "features.contracts",
    "check_index": "features.contracts",
    "check_objective": "features.contracts",
    "check_projection": "features.contracts",
    "check_views": "features.contracts",
    "cluster": "evaluate.cluster",
    "compare": "evaluate.compare",
    "compare_backbones": "evaluate.compare_backbones",
    "demonstrations": "evaluate.demonstrations",
    "knn": "evaluate.knn_accuracy",
    "load_pipeline": "predictors.saved_pipeline",
    "multilabel": "evaluate.multilabel",
    "open_source": "data.sources",
    "probe": "evaluate.probe",
    "prompt_head": "backbones.prompt_head",
    "regress": "evaluate.regress",
    "retrieve": "evaluate.retrieve",
    "revisited": "evaluate.revisited",
    "save_pipeline": "predictors.saved_pipeline",
    "select": "evaluate.choice.select",
    "with_unlabelled": "predictors.unlabelled",
}

__all__ = [  # noqa: RUF022
    "Fungi", "Recipe", "Backbone", "Preprocess", "Tokens", "Sound", "Combination", "Limits",
    "KL", "DINO", "SimCLR", "MaskedTokens", "Objective", "Dense", "TokenSimCLR", "TokenKL", "Copies", "Segmenter",
    "prompt_head",
    "compare", "compare_backbones", "BackboneRows",
    "select", "knn", "probe", "cluster", "retrieve", "revisited", "regress", "multilabel", "analyse",
    "demonstrations", "Template", "Store", "open_source",
    "KNN", "ClassMeans", "ShrunkLDA", "Ridge", "Probe", "KNNRegressor", "RidgeRegressor",
    "MixtureLDA", "Propagation", "with_unlabelled",
    "save_pipeline", "load_pipeline",
    "check_backbone", "check_index", "check_objective", "check_projection", "check_views",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import: a name is loaded when it is first used.
    if name not in _HOMES:
        raise AttributeError(f"module 'sporeprint' has no attribute {name!r}")
    value = getattr(import_module(f"sporeprint.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
