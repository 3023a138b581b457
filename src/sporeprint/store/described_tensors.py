"""Tensors and the JSON that describes them, as two files of one name: checksummed, and one pair is whole at any time.

FOLDER/NAME.safetensors  the tensors; NAME-DIGEST.safetensors where an older pair's have that name, which stays whole
                         until the JSON describes the new ones
FOLDER/NAME.json         what they are, with their checksum; renamed into place after them
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from sporeprint.errors import DamagedStore, StoreError
from sporeprint.store.atomic import SealForm, seal, unseal_bytes, write_file
from sporeprint.store.schema import DIGEST, mismatch

FORM = SealForm(key="sha256", end=b"", exact=False)
_T = TypeVar("_T")


@dataclass(frozen=True)
class DescribedTensors:
    """A kind of such a pair.

    name: of the files. format: the version that is written and read. shape: of the description, as `schema.mismatch`
    takes it. give: what a user should give, for messages.
    """

    name: str
    format: int
    shape: Mapping[str, Any]
    give: str

    @property
    def json_name(self) -> str:
        return f"{self.name}.json"

    @property
    def tensors_name(self) -> str:
        return f"{self.name}.safetensors"

    def pack(self, description: Mapping[str, Any], tensors: bytes) -> dict[str, bytes]:
        """Give {file name: contents}. tensors: as safetensors. The JSON carries their checksum and its own."""
        body = {"format": self.format, **description, "tensors_sha256": sha256(tensors).hexdigest()}
        return {self.tensors_name: tensors, self.json_name: seal(None, body, FORM)}

    def unpack(
        self, read: Callable[[str], bytes], where: str, load: Callable[[bytes], _T]
    ) -> tuple[dict[str, Any], _T]:
        """Undo `pack`. read: gives a file's contents. load: safetensors' own. Raises DamagedStore."""
        try:
            body = unseal_bytes(None, read(self.json_name), FORM)
        except ValueError as error:
            raise DamagedStore(f"{where}/{self.json_name} {error}; save it again") from error
        if body.get("format") != self.format:
            raise DamagedStore(
                f"{where}/{self.json_name} has format {body.get('format')}; this version reads {self.format}"
            )
        if wrong := mismatch(body, {**self.shape, "tensors_sha256": DIGEST}):
            raise DamagedStore(f"{where}/{self.json_name} cannot be understood ({wrong}); save it again")
        packed = read(self.tensors_name)
        if sha256(packed).hexdigest() != body["tensors_sha256"]:
            raise DamagedStore(f"{where}/{self.tensors_name} does not match its checksum; save it again")
        try:
            return body, load(packed)
        except SafetensorError as error:
            raise DamagedStore(f"{where}/{self.tensors_name} cannot be read: {error}") from error

    def write(self, folder: str | Path, files: Mapping[str, bytes]) -> None:
        """Write what `pack` gave. Until the JSON is renamed into place an older pair stays whole; then it goes.

        Raises StoreError.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            why = getattr(error, "strerror", None) or error
            raise StoreError(f"'{folder}' cannot be a folder: {why}; give another name") from error
        tensors = folder / self.tensors_name
        if tensors.exists():
            tensors = folder / self._digest_name(sha256(files[self.tensors_name]).hexdigest())
        write_file(tensors, files[self.tensors_name])
        write_file(folder / self.json_name, files[self.json_name])
        ours = re.compile(rf"{self.name}(-[0-9a-f]{{16}})?\.safetensors")
        for path in folder.iterdir():
            if ours.fullmatch(path.name) and path != tensors:
                with suppress(OSError):  # it is in nobody's way
                    path.unlink()

    def reader(self, folder: str | Path) -> Callable[[str], bytes]:
        """Give a reader for `unpack`, which raises DamagedStore for a file that is not there."""

        described = b""  # the JSON that was read, of which the tensors have to be

        def read(name: str) -> bytes:
            nonlocal described
            path = Path(folder) / name
            if name == self.tensors_name:
                path = self._tensors_path(Path(folder), described or read(self.json_name))
            try:
                if path.exists() and not path.is_file():
                    raise OSError(errno.EINVAL, "it is no file")
                data = path.read_bytes()
            except (OSError, ValueError) as error:  # ValueError: a name that no file can have
                if not Path(folder).is_dir():
                    raise DamagedStore(f"there is no folder '{folder}'; give {self.give}") from None
                why = getattr(error, "strerror", None) or error
                raise DamagedStore(f"{path} cannot be read ({why}); expected {self.give}") from error
            described = data if name == self.json_name else described
            return data

        return read

    def _tensors_path(self, folder: Path, described: bytes) -> Path:
        """Where the tensors that a JSON describes are: under their digest, if there is such a file."""
        with suppress(ValueError):
            digest: Any = unseal_bytes(None, described, FORM).get("tensors_sha256")
            if not mismatch(digest, DIGEST) and (folder / self._digest_name(digest)).exists():
                return folder / self._digest_name(digest)
        return folder / self.tensors_name

    def _digest_name(self, digest: str) -> str:
        return f"{self.name}-{digest[:16]}.safetensors"
