"""Open one sample's file without waiting for a pipe, or say why it cannot be opened."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from sporeprint.errors import SampleError

_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]+://|https?:/)([^/?#]*@)?([^?#]*)")  # `Path` leaves one slash of two
_SHOWN = 200  # characters of a path in a message


@dataclass(frozen=True)
class CellPath:
    """The path in a cell of a table, relative to the table's folder; a message names it as it stands in the cell."""

    folder: Path
    cell: str

    def __fspath__(self) -> str:
        return os.path.join(self.folder, self.cell)


@contextmanager
def opened(
    path: str | os.PathLike[str] | os.PathLike[bytes],
    what: str,
    check_size: Callable[[str, int], None] = lambda name, size: None,
) -> Iterator[tuple[BinaryIO, str]]:
    """Open the file; yield it and its name for messages. what: what is expected, as "an image file".

    check_size: given that name and the size in bytes before the file is opened; raises where it is too large.
    Raises SampleError, also for errors while the caller reads it.
    """
    written = path.cell if isinstance(path, CellPath) else os.fsdecode(path)
    name = _shown(written, isinstance(path, CellPath))
    if _URL.match(written):
        raise SampleError(f"{name} is a web address; sporeprint reads files: download it and give its path")
    try:
        status = os.stat(path)  # before it is opened: opening a pipe waits for its writer
        if not stat.S_ISREG(status.st_mode):
            raise SampleError(f"{name} is not a file (a folder, a pipe or a device); give the path of {what}")
        check_size(name, status.st_size)
        with open(path, "rb") as file:
            yield file, name
    except FileNotFoundError:
        advice = _advice(written) or "check the path and the folder that it is relative to"
        raise SampleError(f"there is no file {name}; {advice}") from None
    except SampleError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SampleError(f"{name} cannot be opened: {why}") from None


def _shown(written: str, cell: bool) -> str:
    """Return a path for a message. Reasons are stored: they name no machine's folders, and no address's secrets."""
    if url := _URL.match(written):
        written = url[1] + url[3]  # without user and password, query and fragment
    elif not cell:
        written = os.path.basename(written)
    elif os.path.isabs(written) or PureWindowsPath(written).is_absolute():
        written = ".../" + re.split(r"[/\\]", written)[-1]
    return repr(written) if len(written) <= _SHOWN else f"{written[:_SHOWN]!r}..."


def _advice(written: str) -> str | None:
    if written.startswith("~"):
        return "'~' is not expanded here: write the home folder out"
    if "\\" in written:
        return "it has backslashes: write '/' between folders"
    if written != written.strip():
        return "it begins or ends with a space: remove it"
    return None
