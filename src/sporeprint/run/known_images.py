"""The files of a propagation: where each goes, and which are made already, by a log that is written ahead of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256
from pathlib import Path, PurePosixPath
from typing import Any

from sporeprint.errors import StoreError
from sporeprint.store.atomic import write_file

LOG = "propagation.jsonl"
FOLDERS = ("masks", "confidence")

_FOREIGN = ("result.json", "sheet.png", "classes.txt", "masks")
_LONGEST, _LONGEST_PATH = 150, 1000  # bytes, without the suffix; systems take 255 and some 4,096
_UNSAFE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|]')


def file_name(row_id: str) -> str:
    """A relative path, ending in .png, for an id: its "/" are folders, and nothing in it leads out of where it is put.

    Different ids have different paths: what cannot stand in a name is written as %, with its number; what is too long
    for one is cut, and ends in %- and a digest.
    """
    name = "/".join(map(_safe, row_id.split("/")))
    return (name if len(_bytes(name)) <= _LONGEST_PATH else f"%-{_digest_of(row_id)}") + ".png"


def refuse_foreign(folder: Path) -> None:
    """Raises StoreError where `folder` holds results, but no log of a propagation: they would be lost."""
    if os.path.lexists(folder / LOG):
        return
    if there := [name for name in _FOREIGN if os.path.lexists(folder / name)]:
        raise StoreError(
            f"'{folder}' holds {', '.join(there)}, but no {LOG}: it is not of a propagation, whose files would replace "
            "these; give another --out"
        )


def _safe(part: str) -> str:
    if not part.strip("."):  # "", ".", ".."
        return "%2E" * len(part) or "%"
    written = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    if len(_bytes(written)) <= _LONGEST:
        return written
    return f"{_bytes(written)[: _LONGEST - 34].decode(errors='ignore')}%-{_digest_of(part)}"


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _digest_of(text: str) -> str:
    return blake2b(_bytes(text), digest_size=16).hexdigest()


class Made:
    """Files below `folder` that this run and earlier ones wrote.

    A line of the log is written before its files. So a file that the log does not know, or that was changed since, is
    somebody's work: it is never replaced.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint
        self._written: dict[str, set[str]] = {}  # digests by file
        self._records: dict[str, dict[str, Any]] = {}  # by id, of this fingerprint
        self._current: dict[str, str] = {}  # digest by file, of this fingerprint
        log = folder / LOG
        try:
            text = log.read_text(encoding="utf-8") if log.exists() else ""
        except (OSError, ValueError) as error:
            raise StoreError(f"'{log}' cannot be read ({error}); remove it, or give another --out") from None
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            self._take(line)

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
            files, fingerprint = record.pop("files"), record.pop("fingerprint")
            for name, digest in files.items():
                self._written.setdefault(name, set()).add(digest)
            if fingerprint == self.fingerprint:
                self._records[record["id"]] = {**record, "files": files}
                self._current.update(files)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a line that was being written when the run was stopped

    def refuse_others(self, names: Iterable[str]) -> None:
        """Raises StoreError where a file of one of these names is not as a run wrote it."""
        strange = [name for name in names if not self._ours(name)]
        if strange:
            raise StoreError(
                f"'{self.folder / strange[0]}' {f'and {len(strange) - 1} more files are' if strange[1:] else 'is'} not "
                "as sporeprint wrote it: changed since, or another's, and is not replaced; move it away (a mask that "
                "you mended can be given as --mask), or give another --out"
            )

    def _ours(self, name: str) -> bool:
        digest = _digest(self.folder / name)
        return digest is None or digest in self._written.get(name, ())

    def remove_stale(self) -> int:
        """Removes what earlier runs wrote with other settings, or of other images; gives the number of files.

        What was changed since they wrote it stays, and so do files that runs of this fingerprint wrote.
        """
        count = 0
        for name, digests in self._written.items():
            parts = PurePosixPath(name).parts
            if not parts or parts[0] not in FOLDERS or ".." in parts:
                continue  # a log that somebody wrote does not say what is removed elsewhere
            digest = _digest(self.folder / name)
            if digest in digests and digest != self._current.get(name):
                count += _removed(self.folder / name, len(parts) - 1)
        return count

    def record(self, row_id: str, names: Iterable[str]) -> dict[str, Any] | None:
        """What was recorded of an image with this fingerprint; None unless all its files are there as written."""
        record = self._records.get(row_id)
        if record is None or any(
            name not in record["files"] or _digest(self.folder / name) != record["files"][name] for name in names
        ):
            return None
        return {key: value for key, value in record.items() if key != "files"}

    def write(self, record: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """The record of an image, then its files. Raises StoreError where they cannot be written."""
        digests = {name: sha256(data).hexdigest() for name, data in files.items()}
        line = json.dumps({**record, "fingerprint": self.fingerprint, "files": digests}, ensure_ascii=False)
        path = self.folder / LOG
        try:
            with open(path, "a", encoding="utf-8") as log:
                log.write(("\n" if self._torn else "") + line + "\n")
                log.flush()
                os.fsync(log.fileno())
            self._torn = False
            self._current.update(digests)
            for name in files:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"'{self.folder}' cannot be written to: {error.strerror or error}; mend that, then run the same "
                "command again: what is complete is kept"
            ) from error
        for name, data in files.items():
            write_file(self.folder / name, data)


def _removed(path: Path, depth: int) -> int:
    """Removes a file, and folders above it, at most `depth`, that are empty then."""
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"'{path}', of an earlier run, cannot be removed: {error.strerror or error}") from error
    with contextlib.suppress(OSError):  # not empty
        for folder in list(path.parents)[:depth]:
            folder.rmdir()
    return 1


def _digest(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"'{path}' cannot be read: {error.strerror or error}; move it, or give another --out"
        ) from None
