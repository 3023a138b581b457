"""The folder of a saved pipeline: its parts, complete or absent, and what each file was when it was written.

FOLDER/pipeline.json   the names of the steps, and the files of the parts with their checksums; renamed into place last
FOLDER/parts-DIGEST/   what Fungi.save and save_predictor write, and what else belongs to the model
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sporeprint.errors import DamagedStore, StoreError
from sporeprint.store.atomic import digest_of, digest_of_json, seal, unseal_bytes, write_file
from sporeprint.store.schema import COUNT, DIGEST, TEXT, mismatch

JSON_NAME, FORMAT = "pipeline.json", 1
_KIND, _PARTS, _WRITING = "pipeline", "parts-", "parts-writing"
_BODY = {"format": COUNT, "steps": [TEXT], "parts": TEXT, "files": {...: DIGEST}}
_GIVE = "what save_pipeline or `classify --save` wrote"

Writer = Callable[[Path], object]


def check_folder(folder: Path) -> None:
    """Raises StoreError for a folder that holds anything but a saved pipeline: it would be written among that."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"'{folder}' is a file; give the name of a folder")
    if not folder.is_dir() or (folder / JSON_NAME).exists():
        return
    if foreign := next((path.name for path in folder.iterdir() if not path.name.startswith(_PARTS)), ""):
        raise StoreError(f"'{folder}' holds other files ({foreign}, ...) and no saved pipeline; give a new folder")


def write_parts(folder: str | Path, steps: Sequence[str], writers: Sequence[Writer]) -> None:
    """Write the parts, each by a writer that is given their folder. steps: names of both. Raises StoreError."""
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
        raise DamagedStore(f"'{folder / JSON_NAME}' {error}; save it again") from None
    wrong = mismatch(body, _BODY)
    if not wrong and body["format"] != FORMAT:
        wrong = f"it has format {body['format']}; this version reads {FORMAT}"
    if not wrong and (len(body["steps"]) != 2 or Path(body["parts"]).name != body["parts"]):
        wrong = "its steps are not two, or its parts lie elsewhere"
    for name, digest in () if wrong else body["files"].items():
        path = folder / body["parts"] / Path(name).name
        try:
            wrong = "" if digest_of(path) == digest else f"{name} is not what was written"
        except DamagedStore:
            wrong = f"{name} cannot be read"
        if wrong:
            break
    if wrong:
        raise DamagedStore(f"'{folder}' is damaged: {wrong}; save it again")
    return folder / body["parts"], body["steps"]
