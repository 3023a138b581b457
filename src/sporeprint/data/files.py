"""Open one sample's file without waiting for a pipe, or say why it cannot be opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from sporeprint.errors import SampleError


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
    name = repr(os.path.basename(os.fsdecode(path)))  # reasons are stored: they must not name this machine's folders
    try:
        status = os.stat(path)  # before it is opened: opening a pipe waits for its writer
        if not stat.S_ISREG(status.st_mode):
            raise SampleError(f"{name} is not a file (a folder, a pipe or a device); give the path of {what}")
        check_size(name, status.st_size)
        with open(path, "rb") as file:
            yield file, name
    except FileNotFoundError:
        raise SampleError(f"there is no file {name}; check the path and the folder that it is relative to") from None
    except SampleError:
        raise
    except (OSError, ValueError, MemoryError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SampleError(f"{name} cannot be opened: {why}") from None
