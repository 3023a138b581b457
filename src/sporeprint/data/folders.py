"""A folder of class folders, or a flat folder, of files of images, texts or sound."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sporeprint.data import audio, images, texts
from sporeprint.data.files import opened
from sporeprint.data.rows import Row, brief, check_limit, file_digests, file_stamp, shown_name
from sporeprint.data.signatures import SIGNATURE_BYTES, looks_like
from sporeprint.data.texts import not_unicode
from sporeprint.errors import SampleError, SourceError

SUFFIXES = {"image": images.SUFFIXES, "text": texts.SUFFIXES, "audio": audio.SUFFIXES}
SPLITS = ("train", "test", "validation", "valid", "val", "dev", "training", "testing", "eval", "evaluation")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".gz")
_SYSTEM = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}
)  # what file managers leave, next to hidden files
_LISTED = 5  # kinds of files that are passed over, by their suffix


class FolderSource:
    """The files of one modality below `folder`, sorted by their path. Hidden files and folders, and a README, are not.

    id: the path below `folder`, with "/". label: the name of the class folder (the first below `folder`), None for
    files right in `folder`. modality: "image", "text" or "audio", which a file's suffix decides. A file whose name is
    not Unicode text has a SampleError as its sample. notes: what else people should know.
    Raises SourceError where there is no sample, and where the class folders look like splits.
    """

    label_names: list[str] | None = None  # the labels are names already

    def __init__(
        self, folder: str | Path, *, limit: int | None = None, modality: str = "image", notes: Sequence[str] = ()
    ):
        check_limit(limit)
        suffixes = SUFFIXES[modality]
        self.modality = modality
        self.folder = Path(folder)
        self.limit = limit
        self._notes = [*notes]
        paths = list(_walk(str(self.folder)))
        self._paths = sorted(path for path in paths if _is_row(path, modality))
        self._passed_over = sorted(set(paths) - set(self._paths))
        if not self._paths:
            raise SourceError(
                f"'{self.folder}' holds no {modality} ({self._others()}); expected files ending in "
                f"{' '.join(sorted(suffixes))}, in one folder for each class"
            )
        classes = {path.partition("/")[0] for path in self._paths if "/" in path}
        nested = any(path.count("/") > 1 for path in self._paths)
        if classes and {name.lower() for name in classes} <= set(SPLITS) and (len(classes) > 1 or nested):
            raise SourceError(
                f"the folders in '{self.folder}' are splits: {sorted(classes)}; choose one of them (split, --split)"
            )
        self._notes += _class_notes(self.folder, self._paths)
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
        """Return a digest of the limit and of every file's path and bytes."""
        return self._digest_by(file_digests)

    def earlier_digest(self) -> str:
        """Return the digest as earlier versions took it: by the sizes and times of all files but texts."""
        return self._digest_by(file_digests if self.modality == "text" else partial(map, file_stamp))

    def _digest_by(self, look: Callable[[Iterable[Path]], Iterable[str]]) -> str:
        digest = blake2b(f"folder limit={self.limit}\n".encode(), digest_size=16)
        for path, seen in zip(self._paths, look(self.folder / path for path in self._paths), strict=True):
            digest.update(f"{path}\0{seen}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "folder",
            "name": shown_name(self.folder),
            "rows": len(self),
            "columns": {"sample": None, "label": "folder", "id": "path"},
            "limit": self.limit,
            "ignored_files": len(self._passed_over),
            "modality": self.modality,
        }

    def notes(self) -> list[str]:
        """Return, as a sentence, how many files are not rows, what they are, and which would be."""
        if not self._passed_over:
            return [*self._notes]
        return [
            *self._notes,
            f"passed over: {_count(self._passed_over, 'file')}: {self._kinds()}; rows are files ending in "
            f"{' '.join(sorted(SUFFIXES[self.modality]))}: rename or convert what should be one",
        ]

    def _others(self) -> str:
        """Describe the files that are there, where none is of the modality."""
        endings = [_suffix(path) for path in self._passed_over]
        counts = {name: sum(ending in known for ending in endings) for name, known in SUFFIXES.items()}
        parts = [f"for {name} files use a backbone for {name}" for name, count in counts.items() if count]
        kinds = f": {self._kinds()}" if self._passed_over else ""
        if tables := [path for path in self._passed_over if _suffix(path) in TABLES]:
            parts.append(f"for a table give its path: {', '.join(map(brief, tables[:_LISTED]))}")
        return "; ".join([f"{_count(self._passed_over, 'file')}{kinds}", *parts])

    def _kinds(self) -> str:
        """Count the files that are passed over by their suffix; say what the first of each looks like."""
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._passed_over:
            groups[_suffix(path)].append(path)
        most = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
        parts = [
            f"{len(paths)} {ending or 'without a suffix'} ({self._look(paths[0])})" for ending, paths in most[:_LISTED]
        ]
        rest = sum(len(paths) for _, paths in most[_LISTED:])
        return ", ".join([*parts, *([f"{rest} of other kinds"] if rest else [])])

    def _look(self, path: str) -> str:
        if _is_readme(path):
            return "about the folder"
        try:
            with opened(self.folder / path, "a file") as (file, _):
                start = file.read(SIGNATURE_BYTES)
        except SampleError:
            return "cannot be opened"
        return looks_like(start) if start else "empty"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _is_readme(path: str) -> bool:
    """Return whether a file is about the folder that it is in, which is right in the source."""
    return os.path.splitext(path)[0].lower() == "readme"


def _is_row(path: str, modality: str) -> bool:
    return _suffix(path) in SUFFIXES[modality] and not _is_readme(path)


def _class_notes(folder: Path, paths: Sequence[str]) -> Iterator[str]:
    """Yield what people may not expect of the class folders of files."""
    loose = [path for path in paths if "/" not in path]
    classes = sorted({path.partition("/")[0] for path in paths} - set(loose))
    deep = sorted({"/".join(path.split("/")[:2]) for path in paths if path.count("/") > 1})
    if not classes:
        yield "no labels: the files are in no class folders"
        return
    if len(classes) == 1 and not loose:
        below = f"; for the folders in it as classes give '{folder / classes[0]}'" if deep else ""
        yield f"one class only, {classes[0]!r}: all files are in this folder{below}"
    elif deep:
        yield f"labels are the first folders: {listed(classes, 'class')}; those below, such as {deep[0]!r}, are none"
    if loose:
        yield f"without a label, being in no class folder: {listed(loose, 'file')}"
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")}
    if empty := sorted(name for name in names - set(classes) if name.lower() not in _SYSTEM):
        yield f"no classes, having no files that are rows: {listed(empty, 'folder')}"


def files_below(folder: Path, modality: str) -> Iterator[str]:
    """Yield the paths of the files of a modality below a folder. Raises SourceError."""
    return (path for path in _walk(str(folder)) if _is_row(path, modality))


def listed(names: Sequence[str], noun: str) -> str:
    """Return, for a message, the number of names and the first of them."""
    more = ", ..." if len(names) > _LISTED else ""
    return f"{_count(names, noun)}, {', '.join(map(brief, names[:_LISTED]))}{more}"


def _count(names: Sequence[str], noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{len(names)} {noun}{'' if len(names) == 1 else plural}"


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
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
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
