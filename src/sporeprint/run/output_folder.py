"""The folder that `segment` and `propagate` write masks into: file names, whose folder it is, and what is done."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b, sha256
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import RecipeError, StoreError, StoreMismatch
from sporeprint.report.palette import RGB, write_mask
from sporeprint.store.atomic import TEMPORARY, lock, reading, seal, unseal, write_file
from sporeprint.store.plan import differences
from sporeprint.store.schema import (
    COUNT,
    DIGEST,
    NOTHING,
    NUMBER,
    OBJECT,
    TEXT,
    YES_OR_NO,
    check_shape,
    mismatch,
    refuse,
)
from sporeprint.values import json_text, parse_json

RESULT, MASKS, SHEET, CLASSES, LOCK = "result.json", "masks", "sheet.png", "classes.txt", ".lock"
KIND, FORMAT = "sporeprint segmentation", 1
BANKS, TEMPORARY_BANKS = "banks", ".banks"
LOG, CONFIDENCE = "propagation.jsonl", "confidence"

_MAYBE = (NUMBER, NOTHING)  # a figure, null where it is not defined
_INTERVAL = {"value": NUMBER, "low": NUMBER, "high": NUMBER, "level": NUMBER, "difference": YES_OR_NO}
_FIGURE = {
    "value": NUMBER,
    "spread": _MAYBE,
    "settings": OBJECT,
    "iou": [_MAYBE],
    "names": [TEXT],
    "accuracy": NUMBER,
    "mean_class_accuracy": NUMBER,
    "images": COUNT,
    "pixels": COUNT,
    "confusion": [[COUNT]],
    "values": [NUMBER],
}
_RUN = {
    "fraction": TEXT,
    "seed": COUNT,
    "training_images": COUNT,
    "test_images": COUNT,
    "test_images_in_training?": COUNT,
    "failures": [{"id": TEXT, "reason": TEXT, "where": TEXT}],
    "kinds": {
        ...: {
            "passes": TEXT,
            "width": COUNT,
            "patches": COUNT,
            "chosen": {"neighbours": COUNT, "temperature": NUMBER, "score": _MAYBE},
            "result?": _FIGURE,
            "gain?": (_INTERVAL, NOTHING),
            "by_gradients?": (_INTERVAL, NOTHING),
        }
    },
}
_LINE = {"files": {...: DIGEST}, "fingerprint": TEXT, "id": TEXT}  # of the log

_LISTED = 5  # files in a message
_LONGEST, _LONGEST_PATH = 150, 1000  # bytes, without the suffix; systems take 255 and some 4,096
_UNSAFE = re.compile(r'[\x00-\x1f\x7f%\\:*?"<>|]')


def mask_name(image_id: str) -> str:
    """The relative path, ending in .png, of an image's mask: a "/" of its id separates folders, and none leads out.

    Different ids have different paths: a character that no name can hold is written as % and its number; a name that is
    too long is cut, and ends in %- and a digest.
    """
    name = "/".join(map(_safe, image_id.split("/")))
    return (name if len(_bytes(name)) <= _LONGEST_PATH else f"%-{_digest_of(image_id)}") + ".png"


def folder_name(kind: str) -> str:
    """The folder of a kind of features: `copies-layers-gradients`."""
    return re.sub("[^a-z0-9]+", "-", kind.lower()).strip("-")


def _safe(part: str) -> str:
    if not part.strip("."):  # "", ".", ".."
        return "%2E" * len(part) or "%"
    written = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", part)
    if len(_bytes(written)) <= _LONGEST:
        return written
    return f"{_bytes(written)[: _LONGEST - 34].decode(errors='ignore')}%-{_digest_of(part)}"


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _digest_of(text: str) -> str:
    return blake2b(_bytes(text), digest_size=16).hexdigest()


def refuse_among_images(out: Path, suffix: str, **sources: Path) -> None:
    """Raise RecipeError where OUT is a file, or lies in a source: its masks would be images of the next run.

    sources: by their names on the command line. suffix: of the folder that the message proposes.
    """
    if out.is_file():
        raise RecipeError(f"--out '{out}' is a file; give the name of a folder")
    inside = out.resolve()
    for name, source in sources.items():
        folder = source.resolve()
        if folder.is_dir() and (inside == folder or folder in inside.parents):
            raise RecipeError(
                f"--out '{out}' is inside {name} ('{source}'), where the masks would be taken for images; give a "
                f"folder next to it, such as '{source.absolute().parent / f'{folder.name}-{suffix}'}'"
            )


def refuse_foreign(out: Path, mark: str, is_result: Callable[[str], bool]) -> None:
    """Raise StoreError where `out` holds results, but not the file `mark`, which every run writes first."""
    if os.path.lexists(out / mark) or not out.is_dir():
        return
    with _unwritable(out):
        results = sorted(filter(is_result, os.listdir(out)))
    if results:
        more = ", ..." if len(results) > _LISTED else ""
        raise StoreError(
            f"'{out}' holds {', '.join(results[:_LISTED])}{more}, but no {mark}: no run of this command wrote these "
            "files, and its own would replace them; give another --out"
        )


@contextmanager
def held(out: Path, mark: str, is_result: Callable[[str], bool]) -> Iterator[None]:
    """Make OUT, and hold it against other writers. Raises StoreError, also where it is foreign (`refuse_foreign`)."""
    if out.is_file():
        raise StoreError(f"'{out}' is a file; OUT is a folder: give another name")
    with _unwritable(out):
        out.mkdir(parents=True, exist_ok=True)
        refuse_foreign(out, mark, is_result)
        handle = lock(out / LOCK)
    try:
        yield
    finally:
        if handle is not None:
            handle.close()


@contextmanager
def _unwritable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"'{out}' cannot be made or written to: {error.strerror} ('{error.filename}'); fix the permissions, or "
            "give another folder"
        ) from error
    except ValueError as error:
        raise StoreError(f"'{out}' is a name that no folder can have ({error}); give another") from error


class SegmentFolder:
    """OUT of `segment`, held against other writers. runs: results of the finished ones, by key. A context manager."""

    def __init__(self, out: str | Path, plan: Mapping[str, Any], keep_bank: bool = False):
        """Raises StoreMismatch where OUT holds runs of another plan, StoreError where it holds something else."""
        self.out, self.plan, self.keep_bank = Path(out), dict(plan), keep_bank
        self.runs: dict[str, Any] = {}
        with ExitStack() as stack:
            stack.enter_context(held(self.out, RESULT, is_of_segment))
            for name in (MASKS, BANKS, TEMPORARY_BANKS):
                if os.path.lexists(self.out / name) and not (self.out / name).is_dir():
                    raise StoreError(f"'{self.out / name}' is a file; expected a folder: move it away")
            self._resume()
            self.drop_banks()  # of a run that was killed
            self._release = stack.pop_all()

    def _resume(self) -> None:
        if not (self.out / RESULT).exists():
            self._write()
            return
        stored = read_result(self.out)
        changed = differences(stored["plan"], self.plan) if stored["format"] == FORMAT else ["another version wrote it"]
        if changed and stored["runs"]:
            raise StoreMismatch(
                f"'{self.out}' has results of another plan:\n  "
                + "\n  ".join(changed)
                + "\nGive another folder, or the options that made it; more --fractions and --seeds go with the same."
            )
        self.runs = {} if changed else stored["runs"]
        self._write()

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished run."""
        self.runs[key] = dict(result)
        self._write()

    def _write(self) -> None:
        write_file(self.out / RESULT, seal(KIND, {"format": FORMAT, "plan": self.plan, "runs": self.runs}))

    def bank(self, run: str, kind: str) -> Path:
        """The empty folder that a bank is to be written into."""
        folder = self.out / (BANKS if self.keep_bank else TEMPORARY_BANKS) / run / folder_name(kind)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that did not finish
        return folder

    def drop_banks(self) -> None:
        """Remove the banks that are not to be kept."""
        shutil.rmtree(self.out / TEMPORARY_BANKS, ignore_errors=True)

    def write_mask(self, kind: str, image_id: str, labels: NDArray[np.int32], palette: Sequence[RGB]) -> None:
        write_mask(self.out / MASKS / folder_name(kind) / mask_name(image_id), labels, palette)

    def write_sheet(self, data: bytes) -> None:
        write_file(self.out / SHEET, data)

    def __enter__(self) -> SegmentFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.drop_banks()
        self._release.close()


def is_of_segment(name: str) -> bool:
    """Whether a file without result.json is a result, or another's: all but what a killed run leaves before that."""
    return name not in (LOCK, TEMPORARY_BANKS, RESULT + TEMPORARY)


def read_result(out: Path) -> dict[str, Any]:
    """What result.json holds: "format", "plan" and "runs". Raises DamagedStore."""
    stored = unseal(KIND, out / RESULT)
    check_shape(out / RESULT, stored, {"format": COUNT, "plan": OBJECT, "runs": {...: OBJECT}})
    if stored["format"] == FORMAT:
        check_shape(out / RESULT, stored, {"runs": {...: _RUN}})
        for run in stored["runs"].values():
            figures = [kind["result"] for kind in run["kinds"].values() if kind.get("result") is not None]
            refuse(out / RESULT, "; ".join(wrong for figure in figures if (wrong := _wrong_sizes(figure))))
    return stored


def _wrong_sizes(figure: dict[str, Any]) -> str:
    classes = len(figure["names"])
    sizes = {len(figure["iou"]), len(figure["confusion"]), *map(len, figure["confusion"])}
    return "" if sizes <= {classes} else f"its figures are not of {classes} classes"


def finished_runs(out: Path) -> int:
    """The number of finished runs in a folder that may not be of `segment`, or may be damaged."""
    try:
        return len(read_result(out)["runs"])
    except StoreError:
        return 0


def is_of_propagate(name: str) -> bool:
    """Whether `propagate` would replace a file of this name."""
    return name in (RESULT, SHEET, CLASSES, MASKS)


class MaskLog:
    """A log of the files below `folder` that this run of `propagate` and earlier ones wrote.

    A line of the log is written before its files. So a file that the log does not know, or that was changed since, is
    somebody's work: it is never replaced.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint
        self._written: dict[str, set[str]] = {}  # digests by file
        self._records: dict[str, dict[str, Any]] = {}  # by id, of this fingerprint
        self._current: dict[str, str] = {}  # digest by file, of this fingerprint
        log = folder / LOG
        text = ""
        if os.path.lexists(log):
            with reading(log):
                text = log.read_text(encoding="utf-8")
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            self._read(line)

    def _read(self, line: str) -> None:
        try:
            record = parse_json(line)
        except ValueError:
            return  # a line that was being written when the run was stopped
        if mismatch(record, _LINE) or not all(map(_is_below, record["files"])):
            return  # nor does a line that somebody else wrote say what is ours
        files, fingerprint = record.pop("files"), record.pop("fingerprint")
        for name, digest in files.items():
            self._written.setdefault(name, set()).add(digest)
        if fingerprint == self.fingerprint:
            self._current.update(files)
            self._records[record["id"]] = {**record, "files": files}

    def refuse_changed(self, names: Iterable[str]) -> None:
        """Raise StoreError where a file of one of these names is not as a run wrote it."""
        changed = [name for name in names if not self._is_known(name)]
        if changed:
            raise StoreError(
                f"'{self.folder / changed[0]}' {f'and {len(changed) - 1} more files are' if changed[1:] else 'is'} not "
                "as sporeprint wrote it: changed since, or from another program, and not replaced; move it away (a "
                "mask that you corrected can be given as --mask), or give another --out"
            )

    def _is_known(self, name: str) -> bool:
        digest = _file_digest(self.folder / name)
        return digest is None or digest in self._written.get(name, ())

    def remove_stale(self) -> int:
        """Remove files of earlier runs with other settings, or of other images; returns their number.

        What was changed since they wrote it stays, and so do files that runs of this fingerprint wrote.
        """
        count = 0
        for name, digests in self._written.items():
            parts = PurePosixPath(name).parts
            digest = _file_digest(self.folder / name)
            if digest in digests and digest != self._current.get(name):
                _remove(self.folder / name, len(parts) - 1)
                count += 1
        return count

    def record(self, image_id: str, names: Iterable[str]) -> dict[str, Any] | None:
        """The record of an image with this fingerprint; None unless all its files are there as written."""
        record = self._records.get(image_id)
        if record is None or any(
            name not in record["files"] or _file_digest(self.folder / name) != record["files"][name] for name in names
        ):
            return None
        return {key: value for key, value in record.items() if key != "files"}

    def write(self, record: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
        """Write the record of an image, then its files. Raises StoreError where they cannot be written."""
        digests = {name: sha256(data).hexdigest() for name, data in files.items()}
        line = json_text({**record, "fingerprint": self.fingerprint, "files": digests}, indent=None)
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
                f"'{self.folder}' cannot be written to: {error.strerror or error}; fix that, then run the same "
                "command again: what is complete is kept"
            ) from error
        for name, data in files.items():
            write_file(self.folder / name, data)


def _is_below(name: str) -> bool:
    """Whether a name in a log is of a file below the folders of masks and confidences: it may be removed."""
    parts = PurePosixPath(name).parts
    sound = "\0" not in name and not any("\ud800" <= letter <= "\udfff" for letter in name)
    return sound and len(parts) > 1 and parts[0] in (MASKS, CONFIDENCE) and ".." not in parts


def _remove(path: Path, depth: int) -> None:
    """Remove a file, and those of the `depth` folders above it that are then empty."""
    try:
        path.unlink()
    except OSError as error:
        raise StoreError(f"'{path}', of an earlier run, cannot be removed: {error.strerror or error}") from error
    with contextlib.suppress(OSError):  # not empty
        for folder in list(path.parents)[:depth]:
            folder.rmdir()


def _file_digest(path: Path) -> str | None:
    """The digest of a file; None where there is no such file."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is no file")
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"'{path}' cannot be read: {error.strerror or error}; move it, or give another --out"
        ) from None
