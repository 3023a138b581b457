"""What `classify --save` writes and `predict` reads: a saved pipeline, and the training rows that predictions show.

The Fungi comes from the store as it is: no network is loaded. Objectives that no feature needs are left out, and with
them their passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from sporeprint.errors import DamagedStore
from sporeprint.features import saved
from sporeprint.features.combine import Combiner
from sporeprint.features.fitted import Fitted
from sporeprint.features.from_store import check_network
from sporeprint.features.fungi import Fungi
from sporeprint.objectives import settle
from sporeprint.predictors.pipeline_folder import open_parts, write_parts
from sporeprint.predictors.saved_predictor import load_predictor, save_predictor
from sporeprint.run.classify import Classifier
from sporeprint.run.recipe_options import fitted_columns
from sporeprint.run.store_source import store_modality
from sporeprint.run.training_rows import TrainingRows
from sporeprint.store.described_tensors import DescribedTensors
from sporeprint.store.reader import Store
from sporeprint.store.schema import NUMBER, OBJECT, TEXT, Kind

_LABEL = Kind("a label", lambda value: isinstance(value, (str, int, float)))
_FILES = DescribedTensors(
    name="training",
    format=1,
    shape={"ids": [TEXT], "labels": [(_LABEL, [NUMBER])], "title": TEXT, "columns": OBJECT},
    give="what `sporeprint classify --save` wrote",
)


@dataclass(frozen=True)
class Model:
    """A loaded model. columns: of the table that the training rows came from. title: of features and predictor."""

    fungi: Fungi
    predictor: Any
    training: TrainingRows
    title: str
    columns: dict[str, Any]


def save_classifier(folder: Path, store: Store, classifier: Classifier, label_column: str | None = None) -> None:
    """Save it as a pipeline that `load_pipeline` loads too.

    store: of the training rows. label_column: of their source, where the labels are not the store's. Raises StoreError.
    """
    fitted, predictor, training = _fitted(store, classifier.combiner), classifier.predictor, classifier.training
    description = {
        "ids": training.ids,
        "labels": training.labels.tolist(),
        "title": classifier.title,
        "columns": fitted_columns(store.folder) | ({} if label_column is None else {"label": label_column}),
    }
    tensors = save({"directions": training.directions, "own": training.own})
    write_parts(
        folder,
        ["fungi", type(predictor).__name__.lower()],
        (
            lambda parts: saved.write_folder(parts, saved.pack(fitted)),
            lambda parts: save_predictor(predictor, parts),
            lambda parts: _FILES.write(parts, _FILES.pack(description, tensors)),
        ),
    )


def load_classifier(folder: Path, backbone: str | None = None, **parameters: Any) -> Model:
    """Load what `save_classifier` wrote. backbone, parameters: of `Fungi.load`. Raises DamagedStore, StoreMismatch."""
    parts, _ = open_parts(folder)
    if not (parts / _FILES.json_name).exists():
        raise DamagedStore(
            f"'{folder}' is a pipeline without its training rows, as save_pipeline writes it; make it with `sporeprint "
            "classify TRAIN_STORE --save FOLDER`, or use load_pipeline in Python"
        )
    body, tensors = _FILES.unpack(_FILES.reader(parts), str(folder), load)
    labels, directions, own = np.array(body["labels"]), tensors.get("directions"), tensors.get("own")
    if directions is None or own is None or not len(body["ids"]) == len(labels) == len(directions):
        raise DamagedStore(f"'{folder}' is damaged: its training rows do not agree; save it again")
    training = TrainingRows(body["ids"], labels, directions, own)
    fungi = Fungi.load(parts, backbone, **parameters)
    return Model(fungi, load_predictor(parts), training, body["title"], body["columns"])


def folder_size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _fitted(store: Store, combiner: Combiner) -> Fitted:
    """The fitted state of a store, with another combination, and without the objectives that it does not need."""
    where = str(store.folder)
    fitted = saved.unpack(store.read_state, where)
    check_network(fitted.recipe, fitted.resolved, where, "its model cannot be saved; in Python, save_pipeline can")
    objectives = settle(fitted.recipe.objectives, store_modality(store), fitted.recipe.views)
    needed = {name.partition("@")[0].removesuffix(".views") for name in combiner.names}
    kept = tuple(one for one in objectives if one.name in needed or getattr(one, "reads", "") == "logits")
    heads = {name for one in kept for name in one.head_names()}
    return replace(
        fitted,
        recipe=replace(fitted.recipe, objectives=kept, combination=combiner.combination, size=None, dense=None),
        heads={name: head for name, head in fitted.heads.items() if name in heads},
        negatives={name: bank for name, bank in fitted.negatives.items() if name in heads},
        combiner=combiner,
        dense=None,
    )
