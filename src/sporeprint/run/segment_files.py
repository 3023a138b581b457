"""The folder of a segmentation run: finished runs, masks, the sheet, and banks while they are needed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import StoreError, StoreMismatch
from sporeprint.report.palette import RGB, write_mask
from sporeprint.store.atomic import TEMPORARY, lock, seal, unseal, write_file
from sporeprint.store.plan import differences

KIND, FORMAT = "sporeprint segmentation", 1
RESULT, BANKS, TEMPORARY_BANKS, MASKS, SHEET, LOCK = "result.json", "banks", ".banks", "masks", "sheet.png", ".lock"
_LONGEST = 150  # bytes of a name, without its suffix


class Folder:
    """OUT, held against other writers. runs: results of the finished ones, by key. A context manager."""

    def __init__(self, out: str | Path, plan: Mapping[str, Any], keep_bank: bool = False):
        """Raises StoreMismatch where OUT holds runs of another plan, StoreError where it holds something else."""
        self.out, self.plan, self.keep_bank = Path(out), dict(plan), keep_bank
        self.runs: dict[str, Any] = {}
        if self.out.exists() and not self.out.is_dir():
            raise StoreError(f"'{out}' is a file; --out is a folder: give another name")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._refuse_others()
            self._lock = lock(self.out / LOCK)
        except OSError as error:
            raise StoreError(
                f"'{out}' cannot be made, or not be written: {error.strerror} ('{error.filename}'); mend the "
                "permissions, or give another folder"
            ) from error
        try:
            self._take_over()
            shutil.rmtree(self.out / TEMPORARY_BANKS, ignore_errors=True)  # of a run that was killed
        except BaseException:
            self._unlock()
            raise

    def _refuse_others(self) -> None:
        """result.json is what a run writes first, so masks or banks without it are somebody's own."""
        names = {path.name for path in self.out.iterdir()}
        others = sorted(names - {LOCK, TEMPORARY_BANKS, RESULT + TEMPORARY})
        if others and RESULT not in names:
            raise StoreError(
                f"'{self.out}' is not empty and no segmentation (it holds {others[0]!r}, and no {RESULT}); give a new "
                "folder"
            )
        for name in (MASKS, BANKS, TEMPORARY_BANKS):
            if name in names and not (self.out / name).is_dir():
                raise StoreError(f"'{self.out / name}' is a file; expected a folder: move it away")

    def _take_over(self) -> None:
        if not (self.out / RESULT).exists():
            self._write()
            return
        held = unseal(KIND, self.out / RESULT)
        changed = differences(held["plan"], self.plan) if held["format"] == FORMAT else ["another version wrote it"]
        if changed and held["runs"]:
            raise StoreMismatch(
                f"'{self.out}' has results of another plan:\n  "
                + "\n  ".join(changed)
                + "\nGive another folder, or the options that made it; more --fractions and --seeds go with the same."
            )
        self.runs = {} if changed else held["runs"]
        self._write()

    def add(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a finished run."""
        self.runs[key] = dict(result)
        self._write()

    def _write(self) -> None:
        write_file(self.out / RESULT, seal(KIND, {"format": FORMAT, "plan": self.plan, "runs": self.runs}))

    def bank(self, run: str, kind: str) -> Path:
        """Where a bank is written, empty."""
        folder = self.out / (BANKS if self.keep_bank else TEMPORARY_BANKS) / run / slug(kind)
        shutil.rmtree(folder, ignore_errors=True)  # of a run that did not finish
        return folder

    def drop_banks(self) -> None:
        """Those that are not to be kept."""
        shutil.rmtree(self.out / TEMPORARY_BANKS, ignore_errors=True)

    def write_mask(self, kind: str, image_id: str, labels: NDArray[np.int32], palette: Sequence[RGB]) -> None:
        write_mask(self.out / MASKS / slug(kind) / file_of(image_id), labels, palette)

    def write_sheet(self, data: bytes) -> None:
        write_file(self.out / SHEET, data)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.drop_banks()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def finished_runs(out: Path) -> int:
    """Of a folder that may not be one of a run, or be damaged."""
    try:
        return len(unseal(KIND, out / RESULT)["runs"])
    except (StoreError, KeyError):
        return 0


def slug(kind: str) -> str:
    """A kind's name as that of a folder: `copies-layers-gradients`."""
    return re.sub("[^a-z0-9]+", "-", kind.lower()).strip("-")


def file_of(image_id: str) -> Path:
    """Where the mask of an image lies, below its folder whatever the id holds; no two ids share a file."""
    parts = [_part(part) for part in image_id.split("/")]
    return Path(*parts[:-1], parts[-1] + ".png")


def _part(name: str) -> str:
    if not name.strip("."):
        return "%2E" * len(name) or "%"
    written = quote(name, safe=" !#$&'()+,;=@[]{}^`~")
    if len(written) <= _LONGEST:
        return written
    return f"{written[: _LONGEST - 33]}-{blake2b(name.encode(), digest_size=16).hexdigest()}"
