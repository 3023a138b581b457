"""Files that are complete or absent: atomic writes, JSON that carries its own checksum, and a lock for one writer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from sporeprint import values
from sporeprint.errors import DamagedStore, StoreError

try:
    import fcntl
except ImportError:  # Windows has no flock: there, two writers are not told apart
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # one writer at a time, so one fixed suffix is enough, and a killed run's leftovers are known


def canonical(value: Any) -> bytes:
    """`values.canonical`, with a StoreError for NaN and for what JSON cannot hold."""
    try:
        return values.canonical(value)
    except (TypeError, ValueError) as error:
        raise StoreError(f"this cannot be stored as JSON ({error}); give str, int, finite float, bool, None") from None


def write_file(path: Path, data: bytes) -> None:
    """Write and fsync `data` beside `path`, then rename it into place. On failure nothing new is at `path`."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"'{path}' was not written: {error.strerror or error}; free some space or mend the permissions, "
            "then run the same command again: what is complete is kept"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` last through a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_file(path: Path, record: Mapping[str, Any]) -> bytes:
    """The bytes of `path`, if they are those of `record` ("bytes", "sha256"). Raises DamagedStore otherwise."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedStore(damaged(path, f"cannot be read ({error.strerror or error})")) from None
    if len(data) != record["bytes"]:
        raise DamagedStore(damaged(path, f"has {len(data)} bytes; {record['bytes']} were written"))
    if sha256(data).hexdigest() != record["sha256"]:
        raise DamagedStore(damaged(path, "is not what was written: its checksum differs"))
    return data


def damaged(path: Path, what: str) -> str:
    return f"'{path}' {what}; run the command that made this store again: it recomputes what is damaged"


def record_of(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def seal(kind: str, value: Mapping[str, Any]) -> bytes:
    """JSON text of `value` and two keys more: "kind", and "checksum", the sha256 of the canonical JSON of the rest."""
    whole = {**value, "kind": kind}
    whole["checksum"] = sha256(canonical(whole)).hexdigest()
    return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def unseal(kind: str, path: Path) -> dict[str, Any]:
    """The value that was sealed as `kind` into `path`. Raises DamagedStore if it is not that, byte for byte."""
    try:
        data = path.read_bytes()
        value = json.loads(data)
        del value["checksum"], value["kind"]
        if seal(kind, value) == data:
            return value
    except OSError as error:
        raise DamagedStore(damaged(path, f"cannot be read ({error.strerror or error})")) from None
    except (ValueError, KeyError, TypeError, RecursionError, StoreError):
        pass
    raise DamagedStore(damaged(path, "is not what was written: its checksum differs"))


def lock(path: Path) -> IO[bytes] | None:
    """Hold `path` against other writers until the handle is closed or the process ends. Raises StoreError if held."""
    if fcntl is None:
        return None
    handle = open(path, "ab")  # noqa: SIM115 - it stays open: the lock lives as long
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StoreError(
                f"'{path.parent}' is being written by another run; wait for it to end, or give another folder"
            ) from None
        warnings.warn(f"'{path}': this file system has no locks; start one run at a time here", stacklevel=3)
        return None
    return handle
