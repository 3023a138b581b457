"""A fitted Fungi becomes bytes and back: JSON and safetensors, with checksums. Nothing read here can run code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sporeprint.errors import DamagedStore
from sporeprint.features.fitted import Fitted
from sporeprint.store.atomic import SealForm, seal, unseal_bytes, write_file

JSON_NAME, TENSORS_NAME = "fungi.json", "fungi.safetensors"
FORMAT = 1
_FORM = SealForm(key="sha256", end=b"", exact=False)


def pack(fitted: Fitted) -> dict[str, bytes]:
    """Give {file name: contents} of a fitted state. Raises RecipeError for an objective that JSON cannot hold."""
    return pack_parts(*fitted.parts())


def unpack(read: Callable[[str], bytes], where: str) -> Fitted:
    """This is the inverse of `pack`; `read` gives a file's contents. Raises DamagedStore for what is not as written."""
    return Fitted.of_parts(*unpack_parts(read, where))


def pack_parts(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Give {file name: contents}. The JSON carries the checksum of the tensors and its own."""
    packed = save({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())})
    body = {"format": FORMAT, **description, "tensors_sha256": sha256(packed).hexdigest()}
    return {TENSORS_NAME: packed, JSON_NAME: seal(None, body, _FORM)}


def unpack_parts(read: Callable[[str], bytes], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """This is the inverse of `pack_parts`. Raises DamagedStore."""
    try:
        body = unseal_bytes(None, read(JSON_NAME), _FORM)
    except ValueError as error:
        raise DamagedStore(f"{where}/{JSON_NAME} {error}; save it again") from error
    if body["format"] != FORMAT:
        raise DamagedStore(f"{where}/{JSON_NAME} has format {body['format']}; this version reads {FORMAT}")
    packed = read(TENSORS_NAME)
    if sha256(packed).hexdigest() != body["tensors_sha256"]:
        raise DamagedStore(f"{where}/{TENSORS_NAME} does not match its checksum; save it again")
    try:
        return body, load(packed)
    except SafetensorError as error:
        raise DamagedStore(f"{where}/{TENSORS_NAME} cannot be read: {error}") from error


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write each file under a temporary name, then rename it; the JSON, which vouches for the rest, comes last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == JSON_NAME):
        write_file(folder / name, files[name])


def read_folder(folder: str | Path) -> Callable[[str], bytes]:
    """Give a reader for `unpack`, which raises DamagedStore for a file that is not there."""

    def read(name: str) -> bytes:
        try:
            return (Path(folder) / name).read_bytes()
        except OSError as error:
            raise DamagedStore(
                f"{Path(folder) / name} cannot be read ({error.strerror}); expected what Fungi.save wrote"
            ) from error

    return read
