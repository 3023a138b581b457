"""A source has rows in a fixed order, each with an id, a sample that is not decoded yet, and perhaps a label."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from sporeprint.data.audio import Clip
from sporeprint.data.columns import Item, as_list
from sporeprint.data.texts import unicode_advice
from sporeprint.errors import SampleError, SourceError
from sporeprint.values import DEEPEST

Label: TypeAlias = "str | int | float | list[Any] | None"

Look: TypeAlias = "Callable[[str | os.PathLike[str]], str]"  # what a digest knows a file by
_INT64 = 2**63 - 1
EXACT = 2**53  # the greatest integer up to which a float holds every one
LABEL_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}


@dataclass(frozen=True)
class Row:
    """One row, not decoded yet. id: "" where a list gives none. label: of a ClassLabel, the integer.

    sample: a SampleError, which loading it raises, where the row cannot be used for any reason: it costs this row only.
    """

    id: str
    sample: object
    label: Label = None


@dataclass(frozen=True)
class ReadAgain:
    """A large sample that is read from its source when it is needed, so that many may wait."""

    source: Source
    number: int

    def read(self) -> object:
        return next(iter(self.source.rows(self.number))).sample


class Source(Protocol):
    """Rows in a fixed order. label_names: of integer labels, or None."""

    label_names: list[str] | None

    def __len__(self) -> int: ...

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows from `start` on; what lies before is skipped without being read where the format allows it."""
        ...

    def digest(self) -> str:
        """Return a hex digest of everything that decides the rows and their contents."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return, as JSON, kind, name (no folder above it), rows, columns and limit."""
        ...

    def notes(self) -> list[str]:
        """Return what people should know of the source, such as files that are not rows, a sentence each."""
        ...


class ListSource:
    """Samples in memory, as `Fungi` takes them. labels: one for each sample.

    ids: unique strings, one for each sample. Without them every `Row.id` is "", and the digest of a sample's content
    becomes its id; in a store, repeated samples get "-2", "-3" ... appended. Their blocks are the same.
    """

    def __init__(
        self,
        samples: Any,
        *,
        ids: Any = None,
        labels: Any = None,
        label_names: Sequence[str] | None = None,
    ):
        self.label_names = None if label_names is None else list(label_names)
        try:
            self._samples = samples = as_list(samples)
            self._ids = [""] * len(samples) if ids is None else as_list(ids, "ids")
            given_labels = [None] * len(samples) if labels is None else as_list(labels, "labels")
        except SampleError as error:
            raise SourceError(str(error)) from None
        self._labels = [_plain(label) for label in given_labels]
        for what, values in (("ids", self._ids), ("labels", self._labels)):
            if len(values) != len(samples):
                raise SourceError(f"{len(samples)} samples and {len(values)} {what}; give one for each sample, or none")
        floats = check_labels(self._labels, "the list of labels")
        self._greatest = EXACT if floats else _INT64
        if not len(samples):
            raise SourceError("a list without samples; give at least one")
        if ids is not None:
            check_ids(self._ids, "the list of ids")

    def __len__(self) -> int:
        return len(self._samples)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number in range(start, len(self)):
            try:
                label = storable(self._labels[number], self._greatest)
            except SampleError as error:
                yield Row(self._ids[number], error)
            else:
                yield Row(self._ids[number], self._samples[number], label)

    def digest(self) -> str:
        """Return a digest of ids, labels and contents; for paths their files'. Raises SourceError for others."""
        return self._digest_by(file_digest)

    def earlier_digest(self) -> str:
        """Return the digest as earlier versions took it: for paths name, size and time."""
        return self._digest_by(file_stamp)

    def _digest_by(self, look: Look) -> str:
        digest = blake2b(json.dumps([self._ids, self._labels, self.label_names]).encode(), digest_size=16)
        for sample in self._samples:
            digest.update(_content(_of_item(sample) if isinstance(sample, Item) else sample, look))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        return {"kind": "list", "name": "", "rows": len(self), "columns": {}, "limit": None}

    def notes(self) -> list[str]:
        return []


def check_ids(ids: Sequence[object], where: str) -> None:
    """Raise SourceError naming the first id that is not a string, is empty or is a repetition."""
    first_rows: dict[object, int] = {}
    for row, given in enumerate(ids):
        if not isinstance(given, str) or not given:
            raise SourceError(
                f"{where}: row {row} has {brief(given)}; an id is a string (or an integer) that is not empty"
            )
        if given in first_rows:
            raise SourceError(f"{where}: {given!r} is in rows {first_rows[given]} and {row}; ids are unique")
        first_rows[given] = row


def check_labels(labels: Iterable[object], where: str) -> bool:
    """Raise SourceError naming the first label that a store cannot hold with an earlier one; None always fits.

    Returns whether there is a float among them.
    """
    firsts: dict[int, tuple[str, object, int]] = {}  # depth in lists -> kind, label, row
    floats = False
    for row, label in enumerate(labels):
        for depth, kind in _kinds(label, 0):
            known, other, at = firsts.setdefault(depth, (LABEL_KINDS[kind], label, row))
            floats = floats or kind is float
            if LABEL_KINDS[kind] != known:
                inside = "" if depth == 0 else " inside"
                raise SourceError(
                    f"{where}: row {row} has {brief(label)}, {LABEL_KINDS[kind]}{inside}; row {at} has "
                    f"{brief(other)}, {known}{inside}; the labels of a store are of one kind: write all of them in one "
                    "way"
                )
    return floats


def storable(label: Any, greatest: int = _INT64, depth: int = 0) -> Label:
    """Return a label that a store can hold. greatest: the integer. Raises SampleError for another, saying why."""
    if isinstance(label, SampleError):
        raise label
    if isinstance(label, list) and depth < DEEPEST:
        return [storable(part, greatest, depth + 1) for part in label]
    if isinstance(label, str) and (wrong := unicode_advice(label)):
        raise SampleError(f"label {brief(label)} is {wrong}")
    if isinstance(label, int) and not -greatest <= label <= greatest:
        room = "a float, which other labels are" if greatest == EXACT else "64 bits"
        raise SampleError(f"label {brief(label)} does not fit into {room}; write all labels as texts")
    if label is not None and not isinstance(label, (str, bool, int, float)):
        raise SampleError(f"label {brief(label)} is not text, a number or a list of them; fix it")
    return label


def brief(value: object) -> str:
    """Return the beginning of a value's `repr`, for a message."""
    if isinstance(value, (str, bytes)):
        return repr(value) if len(value) <= 80 else f"{value[:80]!r}..."
    if isinstance(value, int) and abs(value) >= 10**80:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, dict)) and len(value) > 9:
        return f"a {type(value).__name__} of {len(value):,}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _plain(label: Any) -> Any:
    """Return a label of NumPy's, or a tuple, as Python's own values."""
    if isinstance(label, (np.generic, np.ndarray)):
        return label.item() if isinstance(label, np.generic) else label.tolist()
    return [_plain(part) for part in label] if isinstance(label, (list, tuple)) else label


def _kinds(label: Any, depth: int) -> Iterator[tuple[int, type]]:
    """Yield depth and type of a label and, where it is a list, of what it holds."""
    if type(label) in LABEL_KINDS:
        yield depth, type(label)
    for part in label if isinstance(label, list) and depth < DEEPEST else ():
        yield from _kinds(part, depth + 1)


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise SourceError(f"limit is {limit}; give at least 1, or none for all rows")


def digest_like(source: Source, recorded: str | None) -> str:
    """Return the digest of a source; as an earlier version took it, by sizes and times, where that is `recorded`."""
    digest, earlier = source.digest(), getattr(source, "earlier_digest", None)
    if recorded in (None, digest) or earlier is None or earlier() != recorded:
        return digest
    return recorded


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of a file's bytes; "absent" when it cannot be read, "no file" for what is none."""
    digest = blake2b(digest_size=16)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "no file"  # opening a pipe waits for its writer
        add_file(digest, path)
    except (OSError, ValueError):
        return "absent"
    return digest.hexdigest()


def file_digests(paths: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield `file_digest` of each path, in their order; several files are read at a time."""
    waiting = iter(paths)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while some := list(islice(waiting, 1024)):
            yield from pool.map(file_digest, some)


def shown_name(path: Path) -> str:
    """Return the last part of a path as Unicode text, which a name on disk need not be."""
    return os.fsencode(path.absolute().name).decode(errors="backslashreplace")


def file_stamp(path: str | os.PathLike[str]) -> str:
    """Return the size and time of a file, by which earlier versions knew it; "absent" when it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "absent"
    return f"{status.st_size} {status.st_mtime_ns}"


def add_file(digest: Any, path: str | os.PathLike[str]) -> None:
    """Put a file's bytes into a digest, a piece at a time. Raises OSError."""
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)


def _of_item(item: Item) -> object:
    """Return what a dataset gives, sound with its rate; None for an item that it cannot give, which costs its row."""
    try:
        return item.read("audio")
    except SampleError:
        return None


def _content(sample: Any, look: Look) -> bytes:
    if isinstance(sample, Mapping):
        parts = [str(key).encode(errors="surrogatepass") + b"=" + _content(sample[key], look) for key in sorted(sample)]
    elif isinstance(sample, Clip):
        parts = [str(sample.rate_hz).encode(), _content(sample.samples, look)]
    elif isinstance(sample, tuple):  # of an array and its rate
        parts = [_content(part, look) for part in sample]
    elif isinstance(sample, (str, os.PathLike)):
        name = sample if isinstance(sample, str) else os.fsdecode(sample)
        parts = [name.encode(errors="surrogatepass"), look(sample).encode()]
    elif isinstance(sample, Image.Image):
        parts = [f"{sample.mode} {sample.size}".encode(), sample.tobytes()]
    elif isinstance(sample, (bytes, bytearray, memoryview)) or sample is None:
        parts = [b"" if sample is None else bytes(sample)]
    else:
        array = np.asarray(sample.detach().cpu() if hasattr(sample, "detach") else sample)
        if array.dtype.hasobject:
            raise SourceError(
                f"a sample of type {type(sample).__name__} has no digest; give an image, a text, sound or an array"
            )
        parts = [f"{array.dtype} {array.shape}".encode(), array.tobytes()]
    digest = blake2b(type(sample).__name__.encode(), digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
