"""The files of a propagation: where each goes, and which are made already, by a log that is written ahead of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sporeprint.data.atomic import write_file
from sporeprint.errors import StoreError

LOG = "propagation.jsonl"

_UNSAFE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|]')


def file_name(row_id: str) -> str:
    """A relative path, ending in .png, for an id: its "/" are folders, and nothing in it leads out of where it is put.

    Different ids have different paths: what cannot stand in a name is written as %, with its number.
    """
    return "/".join(map(_safe, row_id.split("/"))) + ".png"


def _safe(part: str) -> str:
    if not part.strip("."):  # "", ".", ".."
        return "%2E" * len(part) or "%"
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)


class Made:
    """Files below `folder` that this run and earlier ones wrote.

    A line of the log is written before its files. So a file that the log does not know, or that was changed since, is
    somebody's work: it is never replaced.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint
        self._written: dict[str, set[str]] = {}  # digests by file
        self._records: dict[str, dict[str, Any]] = {}  # by id, of this fingerprint
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
            for name in files:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"'{self.folder}' cannot be written to: {error.strerror or error}; mend that, then run the same "
                "command again: what is complete is kept"
            ) from error
        for name, data in files.items():
            write_file(self.folder / name, data)


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
