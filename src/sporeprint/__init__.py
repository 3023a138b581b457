"""Better features from frozen models: self-supervised gradients, layers and views, joined to the embedding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from sporeprint.backbones.base import Backbone
    from sporeprint.backbones.preprocess import Preprocess
    from sporeprint.backbones.sound import Sound
    from sporeprint.backbones.tokens import Tokens
    from sporeprint.combine import Combination
    from sporeprint.contracts import check_backbone, check_index, check_objective, check_projection, check_views
    from sporeprint.data.sources import open_source
    from sporeprint.data.store import Store
    from sporeprint.dense.copies import Copies
    from sporeprint.dense.objectives import TokenKL, TokenSimCLR
    from sporeprint.dense.segmenter import Segmenter
    from sporeprint.dense.settings import Dense
    from sporeprint.evaluate.analyse import analyse
    from sporeprint.evaluate.cluster import cluster
    from sporeprint.evaluate.compare import compare
    from sporeprint.evaluate.demonstrations import demonstrations
    from sporeprint.evaluate.knn import knn
    from sporeprint.evaluate.multilabel import multilabel
    from sporeprint.evaluate.probe import probe
    from sporeprint.evaluate.regress import regress
    from sporeprint.evaluate.retrieve import retrieve
    from sporeprint.evaluate.revisited import revisited
    from sporeprint.evaluate.select import select
    from sporeprint.evaluate.template import Template
    from sporeprint.fungi import Fungi
    from sporeprint.objectives import DINO, KL, MaskedTokens, Objective, SimCLR
    from sporeprint.recipe import Recipe

_HOMES = {
    "Backbone": "backbones.base",
    "Combination": "combine",
    "Copies": "dense.copies",
    "DINO": "objectives",
    "Dense": "dense.settings",
    "Fungi": "fungi",
    "KL": "objectives",
    "MaskedTokens": "objectives",
    "Objective": "objectives",
    "Preprocess": "backbones.preprocess",
    "Recipe": "recipe",
    "Segmenter": "dense.segmenter",
    "SimCLR": "objectives",
    "Sound": "backbones.sound",
    "Store": "data.store",
    "Template": "evaluate.template",
    "TokenKL": "dense.objectives",
    "TokenSimCLR": "dense.objectives",
    "Tokens": "backbones.tokens",
    "check_backbone": "contracts",
    "check_index": "contracts",
    "check_objective": "contracts",
    "check_projection": "contracts",
    "check_views": "contracts",
    "demonstrations": "evaluate.demonstrations",
    "knn": "evaluate.knn",
    "analyse": "evaluate.analyse",
    "cluster": "evaluate.cluster",
    "compare": "evaluate.compare",
    "multilabel": "evaluate.multilabel",
    "probe": "evaluate.probe",
    "regress": "evaluate.regress",
    "retrieve": "evaluate.retrieve",
    "revisited": "evaluate.revisited",
    "select": "evaluate.select",
    "open_source": "data.sources",
}

__all__ = [  # noqa: RUF022
    "Fungi", "Recipe", "Backbone", "Preprocess", "Tokens", "Sound", "Combination",
    "KL", "DINO", "SimCLR", "MaskedTokens", "Objective", "Dense", "TokenSimCLR", "TokenKL", "Copies", "Segmenter",
    "compare", "select", "knn", "probe", "cluster", "retrieve", "revisited", "regress", "multilabel", "analyse",
    "demonstrations", "Template", "Store", "open_source",
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
    return sorted([*globals(), *_HOMES])
