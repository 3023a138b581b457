"""Files are complete or absent: atomic writes, JSON that carries its own checksum, and a lock for one writer."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from sporeprint import values
from sporeprint.errors import DamagedStore, StoreError, warn

try:
    import fcntl
except ImportError:  # Windows has no flock: there, a second writer is not noticed
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # one writer at a time, so one fixed suffix is enough, and a killed run's leftovers are known
_ALTERED = "is not what was written: its checksum differs"


@dataclass(frozen=True)
class SealForm:
    """How a file format seals its JSON.

    key: of the checksum. end: what follows the JSON. exact: the same values in other bytes, spaces say, are refused.
    """

    key: str = "checksum"
    end: bytes = b"\n"
    exact: bool = True


def canonical(value: Any) -> bytes:
    """This is `values.canonical`, with a StoreError for NaN and for what JSON cannot hold."""
    try:
        return values.canonical(value)
    except (TypeError, ValueError) as error:
        raise StoreError(f"this cannot be stored as JSON ({error}); give str, int, finite float, bool, None") from None


def digest_of_json(value: Any) -> str:
    """The sha256 of the canonical JSON of `value`, as hex digits."""
    return sha256(canonical(value)).hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write and fsync `data` next to `path`, then rename it into place. On failure nothing new is at `path`."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or error
        raise StoreError(
            f"'{path}' was not written: {why}; free some space or fix the permissions, "
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


def record_of(data: bytes) -> dict[str, Any]:
    """The record that `read_file` compares a file with: {"bytes": its size, "sha256": its checksum}."""
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def read_file(path: Path, record: Mapping[str, Any]) -> bytes:
    """The bytes of `path`, if they are those of `record`. Raises DamagedStore otherwise."""
    check_size(path, record["bytes"])
    with reading(path):
        data = path.read_bytes()
    _compare_size(path, len(data), record["bytes"])
    _compare_digest(path, sha256(data).hexdigest(), record["sha256"])
    return data


def check_size(path: Path, expected: int) -> None:
    """Raises DamagedStore where the file is missing or has another number of bytes."""
    with reading(path):
        size = path.stat().st_size
    _compare_size(path, size, expected)


def check_digest(path: Path, expected: str, start: int = 0) -> None:
    """Read a file from byte `start` on. Raises DamagedStore where its sha256 is not the expected one."""
    _compare_digest(path, digest_of(path, start), expected)


def digest_of(path: Path, start: int = 0) -> str:
    """The sha256 of a file from byte `start` on, read in parts. Raises DamagedStore where it cannot be read."""
    digest = sha256()
    with reading(path), open(path, "rb") as file:
        file.seek(start)
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A context in which what the system refuses to read of `path` is raised as DamagedStore.

    So is what is no file: reading a pipe would wait, and a device may have no end.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        yield
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a name that no file can have
        why = getattr(error, "strerror", None) or str(error) or "it does not fit into memory"
        raise DamagedStore(damaged(path, f"cannot be read ({why})")) from None


def _compare_size(path: Path, size: int, expected: int) -> None:
    if size != expected:
        raise DamagedStore(damaged(path, f"has {size} bytes; {expected} were written"))


def _compare_digest(path: Path, digest: str, expected: str) -> None:
    if digest != expected:
        raise DamagedStore(damaged(path, _ALTERED))


def damaged(path: Path, what: str) -> str:
    """The sentence of a DamagedStore: what is wrong with `path`, and what to do about it."""
    return f"'{path}' {what}; run the command that made this store again: it recomputes what is damaged"


def seal(kind: str | None, value: Mapping[str, Any], form: SealForm = SealForm()) -> bytes:
    """JSON text of `value` with its kind and, under `form.key`, the sha256 of the canonical JSON of the rest.

    kind: what the file is; None adds no key for it.
    """
    whole = dict(value) if kind is None else {**value, "kind": kind}
    whole[form.key] = digest_of_json(whole)
    text = json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + form.end


def unseal_bytes(kind: str | None, data: bytes, form: SealForm = SealForm()) -> dict[str, Any]:
    """The value that `seal` made `data` of. Raises ValueError where `data` is anything else."""
    try:
        value = values.parse_json(data)
        checksum = value.pop(form.key)
        same = digest_of_json(value) == checksum and (kind is None or value.pop("kind") == kind)
        if same and (not form.exact or seal(kind, value, form) == data):
            return value
    except (ValueError, KeyError, TypeError, AttributeError, StoreError):
        pass
    raise ValueError(_ALTERED)


def unseal(kind: str, path: Path) -> dict[str, Any]:
    """The value that was sealed as `kind` into `path`. Raises DamagedStore if it is not that, byte for byte."""
    with reading(path):
        data = path.read_bytes()
    try:
        return unseal_bytes(kind, data)
    except ValueError as error:
        raise DamagedStore(damaged(path, str(error))) from None


def lock(path: Path) -> IO[bytes] | None:
    """Hold `path` against other writers until the handle is closed or the process ends. Raises StoreError if held."""
    if fcntl is None:
        return None
    if path.exists() and not path.is_file():
        raise StoreError(f"'{path}' is no file (a folder, a pipe or a device), which a lock is; move it away")
    handle = open(path, "ab")  # noqa: SIM115 - it stays open: the lock lives as long
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StoreError(
                f"'{path.parent}' is being written by another run; wait for it to end, or give another folder"
            ) from None
        warn(f"'{path}': this file system has no locks; start one run at a time here")
        return None
    return handle
