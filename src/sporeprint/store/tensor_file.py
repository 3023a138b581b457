"""A large tensor in a safetensors file is written row by row and read as a memory map."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import DamagedStore
from sporeprint.store.atomic import check_digest, check_size, damaged, reading

DTYPES = {"float16": "F16", "float32": "F32"}  # NumPy's name, safetensors' name

_BEFORE = 256  # bytes before the numbers: the header's length and the header, padded with spaces


class TensorWriter:
    """Writes rows [P, D] as they come; the header, which needs their number, is written at the end."""

    def __init__(self, path: Path, name: str, width: int, dtype: str) -> None:
        self.path, self.name, self.width, self.dtype, self.rows = path, name, width, np.dtype(dtype), 0
        self._digest = sha256()
        self._file = open(path, "wb")  # noqa: SIM115 - closed by `close`
        self._file.write(bytes(_BEFORE))

    def add(self, rows: NDArray[Any]) -> None:
        data = np.ascontiguousarray(rows, self.dtype).data
        self._file.write(data)
        self._digest.update(data)
        self.rows += len(rows)

    def close(self) -> dict[str, Any]:
        """Finish the file. Gives its record: its size, and a checksum of its numbers."""
        with self._file as file:
            size = file.tell()
            file.seek(0)
            file.write(_header(self.name, (self.rows, self.width), self.dtype))
            file.flush()
            os.fsync(file.fileno())
        return {"bytes": size, "sha256": self._digest.hexdigest()}

    def abandon(self) -> None:
        self._file.close()


def open_tensor(path: Path, name: str, shape: tuple[int, int], dtype: str, size: int) -> NDArray[Any]:
    """Open the tensor as a read-only memory map. Raises DamagedStore unless size and header are as written."""
    check_size(path, size)
    with reading(path), open(path, "rb") as file:
        header = file.read(_BEFORE)
    numbers = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if header != _header(name, shape, np.dtype(dtype)) or size != _BEFORE + numbers:
        raise DamagedStore(damaged(path, "is not what was written: its header differs"))
    if not shape[0]:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset=_BEFORE, shape=shape)


def verify_tensor(path: Path, record: dict[str, Any]) -> None:
    """Read all numbers. Raises DamagedStore where their checksum is not the record's."""
    check_digest(path, record["sha256"], _BEFORE)


def _header(name: str, shape: tuple[int, int], dtype: np.dtype[Any]) -> bytes:
    entry = {"dtype": DTYPES[dtype.name], "shape": shape, "data_offsets": [0, shape[0] * shape[1] * dtype.itemsize]}
    text = json.dumps({name: entry}).encode().ljust(_BEFORE - 8)
    return len(text).to_bytes(8, "little") + text
