"""The folder of a memory bank: whether one can be written there, what the one there says of itself, its removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sporeprint.errors import DamagedStore, StoreError
from sporeprint.store.atomic import damaged, lock, unseal

KIND, FORMAT = "sporeprint memory bank", 1


def refuse_finished(folder: Path) -> None:
    """Raises StoreError where a new bank cannot go: the folder is a file, or holds a finished bank."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"'{folder}' is a file; a bank needs a folder: give another name")
    if (folder / "manifest.json").exists():
        raise StoreError(f"'{folder}' holds a finished bank; give another folder, or remove it")


def remove_bank(folder: Path) -> None:
    """Remove a bank's files, and nothing else. Maps of them stay readable, but on Windows. Raises StoreError."""
    with told(folder), lock(folder / ".lock") or nullcontext():
        (folder / "manifest.json").unlink(missing_ok=True)  # first: from here on it is unfinished
        for name in ("features.safetensors", "histograms.safetensors", "patches.parquet"):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """What the system refuses inside, as StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the bank in '{folder}' was not written: {error.strerror or error}; "
            "free some space, mend the permissions or give another folder, then make it again"
        ) from error


def check_size(path: Path, expected: int) -> None:
    """Raises DamagedStore where the file is missing or has another size."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise DamagedStore(damaged(path, f"cannot be read ({error.strerror or error})")) from None
    if found != expected:
        raise DamagedStore(damaged(path, f"has {found} bytes; {expected} were written"))


def manifest_of(folder: Path) -> dict[str, Any]:
    """What a finished bank says of itself. Raises DamagedStore where there is none, StoreError for another format."""
    path = folder / "manifest.json"
    if not path.exists() and (folder / "features.safetensors").exists():
        raise DamagedStore(f"the bank in '{folder}' was not finished; run the command that made it again")
    about = unseal(KIND, path)
    if about["format"] != FORMAT:
        raise StoreError(f"'{folder}' is a bank of format {about['format']}; this version reads {FORMAT}: make it anew")
    return about
