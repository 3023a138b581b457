"""A fitted Fungi as bytes and back: JSON and safetensors, checksummed. Nothing read here can run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sporeprint.errors import DamagedStore
from sporeprint.features.fitted import Fitted
from sporeprint.store.atomic import write_file
from sporeprint.values import canonical

JSON_NAME, TENSORS_NAME = "fungi.json", "fungi.safetensors"
FORMAT = 1


def pack(fitted: Fitted) -> dict[str, bytes]:
    """{file name: contents} of a fitted state. Raises RecipeError for an objective that cannot be written as JSON."""
    return pack_parts(*fitted.parts())


def unpack(read: Callable[[str], bytes], where: str) -> Fitted:
    """The inverse of `pack`; `read` gives a file's contents. Raises DamagedStore where anything is not as written."""
    return Fitted.of_parts(*unpack_parts(read, where))


def pack_parts(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """{file name: contents}. The JSON carries the checksum of the tensors and its own."""
    packed = save({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())})
    body = {"format": FORMAT, **description, "tensors_sha256": hashlib.sha256(packed).hexdigest()}
    body["sha256"] = hashlib.sha256(canonical(body)).hexdigest()
    text = json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True)
    return {TENSORS_NAME: packed, JSON_NAME: text.encode()}


def unpack_parts(read: Callable[[str], bytes], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `pack_parts`. Raises DamagedStore."""
    try:
        body = json.loads(read(JSON_NAME).decode())
        claimed = body.pop("sha256")
        found = hashlib.sha256(canonical(body)).hexdigest()
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedStore(f"{where}/{JSON_NAME} is not what was written; save it again") from error
    if found != claimed:
        raise DamagedStore(f"{where}/{JSON_NAME} does not match its checksum; save it again")
    if body["format"] != FORMAT:
        raise DamagedStore(f"{where}/{JSON_NAME} has format {body['format']}; this version reads {FORMAT}")
    packed = read(TENSORS_NAME)
    if hashlib.sha256(packed).hexdigest() != body["tensors_sha256"]:
        raise DamagedStore(f"{where}/{TENSORS_NAME} does not match its checksum; save it again")
    try:
        return body, load(packed)
    except SafetensorError as error:
        raise DamagedStore(f"{where}/{TENSORS_NAME} cannot be read: {error}") from error


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Each file under a temporary name, then renamed; the JSON, which vouches for the rest, last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == JSON_NAME):
        write_file(folder / name, files[name])


def read_folder(folder: str | Path) -> Callable[[str], bytes]:
    """A reader for `unpack`. Raises DamagedStore for a file that is not there."""

    def read(name: str) -> bytes:
        try:
            return (Path(folder) / name).read_bytes()
        except OSError as error:
            raise DamagedStore(
                f"{Path(folder) / name} cannot be read ({error.strerror}); expected what Fungi.save wrote"
            ) from error

    return read
