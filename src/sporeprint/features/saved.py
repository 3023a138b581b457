"""A fitted Fungi becomes bytes and back: JSON and safetensors, with checksums. Nothing read here can run code.

FOLDER/fungi.safetensors  the tensors; fungi-DIGEST.safetensors where an older fit's have that name, which stays whole
                          until the JSON describes the new one
FOLDER/fungi.json         what they are, with their checksum; renamed into place after them
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sporeprint.data.folders import SUFFIXES
from sporeprint.errors import DamagedStore, SporeprintError, StoreError
from sporeprint.features.fitted import Fitted
from sporeprint.store.atomic import SealForm, seal, unseal_bytes, write_file
from sporeprint.store.schema import DIGEST, OBJECT, TEXT, mismatch

JSON_NAME, TENSORS_NAME = "fungi.json", "fungi.safetensors"
FORMAT = 1
BODY = {
    "recipe": OBJECT,
    "resolved": {"backbone": {"name": TEXT}},
    "tensors_sha256": DIGEST,
    "combination?": OBJECT,
    "combiner?": OBJECT,
    "dense?": OBJECT,
}
_TENSORS = re.compile(r"fungi(-[0-9a-f]{16})?\.safetensors")
_FORM = SealForm(key="sha256", end=b"", exact=False)


def pack(fitted: Fitted) -> dict[str, bytes]:
    """Give {file name: contents} of a fitted state. Raises RecipeError for an objective that JSON cannot hold."""
    return pack_parts(*fitted.parts())


def unpack(read: Callable[[str], bytes], where: str) -> Fitted:
    """This is the inverse of `pack`; `read` gives a file's contents. Raises DamagedStore for what is not as written."""
    body, tensors = unpack_parts(read, where)
    try:
        fitted = Fitted.of_parts(body, tensors)
        fitted.check_tensors(tensors)
    except SporeprintError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise DamagedStore(f"{where}/{JSON_NAME} cannot be understood ({error}); save it again") from error
    return fitted


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
    if body.get("format") != FORMAT:
        raise DamagedStore(f"{where}/{JSON_NAME} has format {body.get('format')}; this version reads {FORMAT}")
    if wrong := mismatch(body, BODY):
        raise DamagedStore(f"{where}/{JSON_NAME} cannot be understood ({wrong}); save it again")
    packed = read(TENSORS_NAME)
    if sha256(packed).hexdigest() != body["tensors_sha256"]:
        raise DamagedStore(f"{where}/{TENSORS_NAME} does not match its checksum; save it again")
    try:
        return body, load(packed)
    except SafetensorError as error:
        raise DamagedStore(f"{where}/{TENSORS_NAME} cannot be read: {error}") from error


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write what `pack` gave. Until the JSON is renamed into place an older fit in `folder` stays whole; then it goes.

    Raises StoreError.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        why = getattr(error, "strerror", None) or error
        raise StoreError(f"'{folder}' cannot be a folder: {why}; give another name") from error
    tensors = folder / TENSORS_NAME
    if tensors.exists():
        tensors = folder / _name_of(sha256(files[TENSORS_NAME]).hexdigest())
    write_file(tensors, files[TENSORS_NAME])
    write_file(folder / JSON_NAME, files[JSON_NAME])
    for path in folder.iterdir():
        if _TENSORS.fullmatch(path.name) and path != tensors:
            with suppress(OSError):  # it is in nobody's way
                path.unlink()


def sample_in(folder: str | Path) -> str:
    """Return the name of a sample in, or in a folder of, a folder where nothing is saved yet; "" if there is none."""
    folder, suffixes = Path(folder), {suffix for of in SUFFIXES.values() for suffix in of}
    if not folder.is_dir() or (folder / JSON_NAME).exists():
        return ""
    files = islice(chain(folder.iterdir(), folder.glob("*/*")), 1000)
    return next((path.name for path in files if path.suffix.lower() in suffixes), "")


def read_folder(folder: str | Path) -> Callable[[str], bytes]:
    """Give a reader for `unpack`, which raises DamagedStore for a file that is not there."""

    described = b""  # the JSON that was read, of which the tensors have to be

    def read(name: str) -> bytes:
        nonlocal described
        path = Path(folder) / name
        if name == TENSORS_NAME:
            path = _tensors_path(Path(folder), described or read(JSON_NAME))
        try:
            if path.exists() and not path.is_file():
                raise OSError(errno.EINVAL, "it is no file")
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            if not Path(folder).is_dir():
                raise DamagedStore(f"there is no folder '{folder}'; give what Fungi.save wrote, or a store") from None
            why = getattr(error, "strerror", None) or error
            raise DamagedStore(f"{path} cannot be read ({why}); expected what Fungi.save wrote") from error
        described = data if name == JSON_NAME else described
        return data

    return read


def _tensors_path(folder: Path, described: bytes) -> Path:
    """Where the tensors that a JSON describes are: under their digest, if there is such a file."""
    with suppress(ValueError):
        digest: Any = unseal_bytes(None, described, _FORM).get("tensors_sha256")
        if not mismatch(digest, DIGEST) and (folder / _name_of(digest)).exists():
            return folder / _name_of(digest)
    return folder / TENSORS_NAME


def _name_of(digest: str) -> str:
    return f"fungi-{digest[:16]}.safetensors"
