"""A fitted Fungi and a predictor as one folder: JSON and safetensors with checksums. Nothing read here can run code.

FOLDER/pipeline.json   the names of the steps, and the files of the parts with their checksums; renamed into place last
FOLDER/parts-DIGEST/   what Fungi.save and save_predictor write, and what else belongs to the model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from sklearn.pipeline import Pipeline

from sporeprint.errors import DamagedStore, RecipeError, StoreError
from sporeprint.features.fungi import Fungi
from sporeprint.predictors.saved_predictor import load_predictor, save_predictor
from sporeprint.store.atomic import digest_of, digest_of_json, seal, unseal_bytes, write_file
from sporeprint.store.schema import COUNT, DIGEST, TEXT, mismatch

JSON_NAME, FORMAT = "pipeline.json", 1
_KIND, _PARTS, _WRITING = "pipeline", "parts-", "parts-writing"
_BODY = {"format": COUNT, "steps": [TEXT], "parts": TEXT, "files": {...: DIGEST}}
_GIVE = "what save_pipeline or `sporeprint classify --save` wrote"

Writer = Callable[[Path], object]


def save_pipeline(pipeline: Pipeline, folder: str | Path) -> None:
    """Save a fitted pipeline of a `Fungi` and one of sporeprint's predictors.

    An older pipeline in the folder stays whole until this one is; a folder of anything else is refused. Raises
    RecipeError for other steps, StoreError, NotFittedError.

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
        raise RecipeError(
            f"this is a pipeline of: {kinds}; expected two steps: a Fungi, then a predictor of sporeprint"
        )
    (_, fungi), (_, predictor) = steps
    fungi.check_fitted("save_pipeline")
    writers = fungi.save, lambda parts: save_predictor(predictor, parts)
    write_parts(folder, [name for name, _ in steps], writers)


def load_pipeline(folder: str | Path, backbone: Any = None, **parameters: Any) -> Pipeline:
    """Load what `save_pipeline` or `sporeprint classify --save` wrote: it predicts the same, in another process too.

    backbone, parameters: as of `Fungi.load`. Raises DamagedStore where a file is not what was written, StoreMismatch
    where the backbone's weights are not the same.

    >>> from sporeprint import load_pipeline
    >>> load_pipeline("no folder")
    Traceback (most recent call last):
    sporeprint.errors.DamagedStore: there is no folder 'no folder'; give what save_pipeline or ... wrote
    """
    parts, (fungi, predictor) = open_parts(folder)
    return Pipeline([(fungi, Fungi.load(parts, backbone, **parameters)), (predictor, load_predictor(parts))])


def check_folder(folder: Path) -> None:
    """Raises StoreError for a folder that holds anything but a saved pipeline: it would be written among that."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"'{folder}' is a file; give the name of a folder")
    if folder.is_dir() and not (folder / JSON_NAME).exists():
        if foreign := next((path.name for path in folder.iterdir() if not path.name.startswith(_PARTS)), ""):
            raise StoreError(f"'{folder}' holds other files ({foreign}, ...) and no saved pipeline; give a new folder")


def write_parts(folder: str | Path, steps: Sequence[str], writers: Sequence[Writer]) -> None:
    """Write the parts, each by a writer that is given their folder. steps: names of the two steps. Raises StoreError."""
    folder = Path(folder)
    check_folder(folder)
    writing = folder / _WRITING
    try:
        shutil.rmtree(writing, ignore_errors=True)  # of a run that was killed
        writing.mkdir(parents=True)
        for write in writers:
            write(writing)
        files = {path.name: digest_of(path) for path in sorted(writing.iterdir())}
        parts = folder / f"{_PARTS}{digest_of_json(files)[:16]}"
        while parts.exists():  # the same, which stays until this one is there
            parts = parts.with_name(f"{parts.name}x")
        writing.rename(parts)
    except OSError as error:
        raise StoreError(f"'{folder}' was not written: {error.strerror or error}; give another folder") from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    body = {"format": FORMAT, "steps": list(steps), "parts": parts.name, "files": files}
    write_file(folder / JSON_NAME, seal(_KIND, body))
    for path in folder.glob(f"{_PARTS}*"):
        if path != parts:
            with suppress(OSError):  # it is in nobody's way
                shutil.rmtree(path)


def open_parts(folder: str | Path) -> tuple[Path, list[str]]:
    """Return the folder of the parts, each as it was written, and the names of the steps. Raises DamagedStore."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DamagedStore(f"there is no folder '{folder}'; give {_GIVE}")
    try:
        body = unseal_bytes(_KIND, (folder / JSON_NAME).read_bytes())
    except OSError as error:
        raise DamagedStore(f"'{folder}' has no {JSON_NAME} ({error.strerror or error}); give {_GIVE}") from None
    except ValueError as error:
        raise DamagedStore(f"'{folder / JSON_NAME}' {error}; save the pipeline again") from None
    wrong = mismatch(body, _BODY)
    if not wrong and body["format"] != FORMAT:
        wrong = f"it has format {body['format']}; this version reads {FORMAT}"
    if not wrong and (len(body["steps"]) != 2 or Path(body["parts"]).name != body["parts"]):
        wrong = "its steps are not two, or its parts lie elsewhere"
    for name, digest in () if wrong else body["files"].items():
        path = folder / body["parts"] / Path(name).name
        try:
            wrong = "" if sha256(path.read_bytes()).hexdigest() == digest else f"{name} is not what was written"
        except OSError as error:
            wrong = f"{name} cannot be read: {error.strerror or error}"
        if wrong:
            break
    if wrong:
        raise DamagedStore(f"'{folder}' is damaged: {wrong}; save the pipeline again")
    return folder / body["parts"], body["steps"]
