"""A fitted Fungi and a predictor, one scikit-learn pipeline, as one folder. Nothing read here can run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from sporeprint.errors import RecipeError
from sporeprint.features.fungi import Fungi
from sporeprint.predictors.pipeline_folder import open_parts, write_parts
from sporeprint.predictors.saved_predictor import load_predictor, save_predictor


def save_pipeline(pipeline: Pipeline, folder: str | Path) -> None:
    """Save a fitted pipeline of a `Fungi` and one of sporeprint's predictors.

    An older pipeline in the folder stays whole until this one is; a folder of anything else is refused. Raises
    RecipeError for other steps, StoreError, NotFitted.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sporeprint import Fungi, ShrunkLDA, load_pipeline, save_pipeline
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> pipeline = make_pipeline(Fungi("tiny"), ShrunkLDA()).fit(images, ["a", "b"] * 4)
    >>> folder = tempfile.mkdtemp()
    >>> save_pipeline(pipeline, folder)
    >>> bool((load_pipeline(folder).predict(images) == pipeline.predict(images)).all())
    True
    """
    steps = [step for step in getattr(pipeline, "steps", ()) if step[1] not in (None, "passthrough")]
    if len(steps) != 2 or not isinstance(steps[0][1], Fungi):
        kinds = ", ".join(type(step).__name__ for _, step in steps) or type(pipeline).__name__
        raise RecipeError(f"this is a pipeline of: {kinds}; expected two steps, a Fungi and a predictor of sporeprint")
    (_, fungi), (_, predictor) = steps
    fungi.check_fitted("save_pipeline")
    writers = fungi.save, lambda parts: save_predictor(predictor, parts)
    write_parts(folder, [name for name, _ in steps], writers)


def load_pipeline(folder: str | Path, backbone: Any = None, **parameters: Any) -> Pipeline:
    """Load what `save_pipeline` or `sporeprint classify --save` wrote: it predicts the same, in another process too.

    backbone, parameters: as of `Fungi.load`. Raises DamagedStore where a file is not what was written, StoreMismatch
    where the backbone's weights are not the same.

    >>> from sporeprint import load_pipeline
    >>> load_pipeline("gone")
    Traceback (most recent call last):
    sporeprint.errors.DamagedStore: there is no folder 'gone'; give what save_pipeline or `classify --save` wrote
    """
    parts, (fungi, predictor) = open_parts(folder)
    return Pipeline([(fungi, Fungi.load(parts, backbone, **parameters)), (predictor, load_predictor(parts))])
