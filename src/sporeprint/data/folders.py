"""A folder of class folders, or a flat folder, of files of images, texts or sound."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sporeprint.data import audio, texts
from sporeprint.data.rows import Row, add_file, check_limit, file_stamp, shown_name
from sporeprint.data.texts import not_unicode
from sporeprint.errors import SampleError, SourceError

SUFFIXES = {
    "image": frozenset(
        {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
    ),
    "text": texts.SUFFIXES,
    "audio": audio.SUFFIXES,
}
SPLITS = ("train", "test", "validation", "valid", "val", "dev")


class FolderSource:
    """The files of one modality below `folder`, sorted by their path. Hidden files and folders are skipped.

    id: the path below `folder`, with "/". label: the name of the class folder (the first below `folder`), None for
    files right in `folder`. modality: "image", "text" or "audio", which a file's suffix decides. A file whose name is
    not Unicode text has a SampleError as its sample.
    Raises SourceError where there is no sample, and where the class folders look like splits.
    """

    label_names: list[str] | None = None  # the labels are names already

    def __init__(self, folder: str | Path, *, limit: int | None = None, modality: str = "image"):
        check_limit(limit)
        suffixes = SUFFIXES[modality]
        self.modality = modality
        self.folder = Path(folder)
        self.limit = limit
        paths = list(_walk(str(self.folder)))
        self._paths = sorted(path for path in paths if os.path.splitext(path)[1].lower() in suffixes)
        self._ignored = len(paths) - len(self._paths)
        if not self._paths:
            raise SourceError(
                f"'{self.folder}' holds no {modality} ({_others(paths)}); expected files ending in "
                f"{', '.join(sorted(suffixes))}, in one folder for each class"
            )
        classes = {path.partition("/")[0] for path in self._paths if "/" in path}
        nested = any(path.count("/") > 1 for path in self._paths)
        if classes and classes <= set(SPLITS) and (len(classes) > 1 or nested):
            raise SourceError(
                f"the folders in '{self.folder}' are splits: {sorted(classes)}; choose one of them (split)"
            )
        self._paths = self._paths[:limit]

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for path in self._paths[start:]:
            first, slash, _ = path.partition("/")
            if wrong := not_unicode(path):
                name = os.fsencode(path).decode(errors="backslashreplace")
                yield Row(name, SampleError(f"its name is not Unicode text: {wrong}; rename the file"))
            else:
                yield Row(path, self.folder / path, first if slash else None)

    def digest(self) -> str:
        """Return a digest of the limit and of every file's path and content: a text's bytes, else the size and time."""
        digest = blake2b(f"folder limit={self.limit}\n".encode(), digest_size=16)
        look = _file_digest if self.modality == "text" else file_stamp
        for path in self._paths:
            digest.update(f"{path}\0{look(self.folder / path)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "folder",
            "name": shown_name(self.folder),
            "rows": len(self),
            "columns": {"sample": None, "label": "folder", "id": "path"},
            "limit": self.limit,
            "ignored_files": self._ignored,
            "modality": self.modality,
        }


def _others(paths: list[str]) -> str:
    """Describe the files that are there, where none is of the modality."""
    endings = [os.path.splitext(path)[1].lower() for path in paths]
    counts = {name: sum(ending in known for ending in endings) for name, known in SUFFIXES.items()}
    parts = [f"{count} of {name}: for these use a backbone for {name}" for name, count in counts.items() if count]
    return "; ".join([f"{len(paths)} other files", *parts])


def _file_digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "no file"  # opening a pipe waits for its writer
        add_file(digest, path)
    except OSError:
        return "absent"
    return digest.hexdigest()


def _walk(root: str) -> Iterator[str]:
    """Yield the paths of the files below `root`. Links are followed, but never back to a folder that we are in."""
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(root, "", frozenset())]
    while waiting:
        folder, below, above = waiting.pop()
        try:
            status = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError as error:
            raise SourceError(f"'{folder}' cannot be listed: {error.strerror or error}; fix its permissions") from None
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                waiting.append((entry.path, f"{below}{entry.name}/", above | {here}))
            else:
                yield below + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle; the sample says so
        return False
