"""The ground-truth files of the revisited Oxford and Paris benchmark, read without running anything in them."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import SampleError, first_line

LISTS = ("easy", "hard", "junk")

# What an array in a pickle needs, under the names of NumPy 1 and 2 and of Python 2 and 3. None of it is imported:
# a stand-in reads numbers and texts from the bytes. (NumPy's own would believe any state: raw bytes as objects.)
_ADMITTED = {
    **{(f"numpy.{core}.multiarray", name): name for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    **{("numpy", name): name for name in ("ndarray", "dtype")},
    **{(builtins, "bytes"): "bytes" for builtins in ("builtins", "__builtin__")},
    ("_codecs", "encode"): "encode",
}
_TYPES = re.compile(r"[iufSU]\d{1,4}")


def load_ground_truth(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """A public pickle (gnd_roxford5k.pkl, gnd_rparis6k.pkl), its JSON form, or what was in either: checked, as JSON.

    {"imlist": names of the database, "qimlist": names of the queries, "gnd": one entry a query: {"easy", "hard",
    "junk": numbers of imlist, from 0; "bbx": the query's box in its image, [left, top, right, bottom], if given}}.
    To make the JSON form:
        json.dump(load_ground_truth("gnd_roxford5k.pkl"), open("gnd_roxford5k.json", "w"))
    A pickle may hold lists, dictionaries, texts, numbers and arrays of them; one that names anything else is refused,
    and nothing in it runs. Raises SampleError.
    """
    if isinstance(source, Mapping):
        return _checked(source, "the ground truth")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(f"ground truth {path.name!r} cannot be read ({error.strerror or error})") from None
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))  # no pickle starts so
        found = json.loads(data.decode("utf-8-sig")) if text else _unpickled(data, path.name)
    except SampleError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it likes
        raise SampleError(
            f"ground truth {path.name!r} is neither JSON nor a pickle of lists, texts and numbers ({first_line(error)})"
        ) from None
    return _checked(found, f"ground truth {path.name!r}")


def _checked(found: Any, what: str) -> dict[str, Any]:
    if not isinstance(found, Mapping) or (
        absent := [name for name in ("imlist", "qimlist", "gnd") if name not in found]
    ):
        seen = f"has no {absent[0]!r}" if isinstance(found, Mapping) else f"is a {type(found).__name__}"
        raise SampleError(f"{what} {seen}; expected a dictionary with imlist, qimlist and gnd")
    names = {}
    for key in ("imlist", "qimlist"):
        names[key] = [
            name.decode() if isinstance(name, bytes) else name for name in _listed(found[key], f"{what}: {key}")
        ]
        if not names[key] or not all(isinstance(name, str) for name in names[key]):
            raise SampleError(f"{what}: {key} is not a list of names, or empty; expected the names of its images")
        if len(set(names[key])) < len(names[key]):
            raise SampleError(f"{what}: {key} names an image twice; expected each once")
    entries = _listed(found["gnd"], f"{what}: gnd")
    if len(entries) != len(names["qimlist"]):
        raise SampleError(f"{what}: gnd has {len(entries)} entries for {len(names['qimlist'])} queries in qimlist")
    read = [_entry(entry, len(names["imlist"]), f"{what}: gnd[{at}]") for at, entry in enumerate(entries)]
    if not any(entry["easy"] or entry["hard"] for entry in read):
        raise SampleError(f"{what}: no query has an easy or a hard image; there is nothing to find")
    return {**names, "gnd": read}


def _entry(entry: Any, images: int, what: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or (absent := [name for name in LISTS if name not in entry]):
        seen = f"has no {absent[0]!r}" if isinstance(entry, Mapping) else f"is a {type(entry).__name__}"
        raise SampleError(f"{what} {seen}; expected easy, hard and junk (the files from before 2018 have others)")
    read: dict[str, Any] = {name: _listed(entry[name], f"{what}: {name}") for name in LISTS}
    for name, numbers in read.items():
        if wrong := [one for one in numbers if type(one) is not int or not 0 <= one < images]:
            raise SampleError(f"{what}: {name} has {wrong[0]!r}; expected numbers from 0 to {images - 1}, of imlist")
    if "bbx" in entry:
        read["bbx"] = _listed(entry["bbx"], f"{what}: bbx")
        if len(read["bbx"]) != 4 or not all(type(one) in (int, float) for one in read["bbx"]):
            raise SampleError(f"{what}: bbx is not four numbers; expected left, top, right, bottom")
    return read


def _listed(value: Any, what: str) -> list[Any]:
    """A list, tuple or array, flat, of Python's own values."""
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, np.ndarray):
        return list(value.ravel().tolist())
    if not isinstance(value, (list, tuple)):
        raise SampleError(f"{what} is a {type(value).__name__}; expected a list")
    return [one.item() if isinstance(one, np.generic) else one for one in value]


def _unpickled(data: bytes, name: str) -> Any:
    """What the pickle holds. Its steps are read before any is taken: a number in it can ask for gigabytes."""
    for opcode, argument, _ in pickletools.genops(data):  # raises where a length goes beyond the end
        if opcode.name.endswith("PUT") and int(argument or 0) >= len(data):
            raise pickle.UnpicklingError(f"a memory of {argument} objects in {len(data)} bytes")
        if opcode.name.startswith("EXT"):  # these would not be seen by find_class
            raise pickle.UnpicklingError("a registered extension")
    return _Reader(io.BytesIO(data), name).load()


class _Reader(pickle.Unpickler):
    """Gives a stand-in for each name that an array needs, and refuses every other."""

    def __init__(self, file: io.BytesIO, name: str):
        super().__init__(file, encoding="latin1")  # bytes of Python 2, one by one
        self.name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise SampleError(
                f"ground truth {self.name!r} is a pickle that names {module}.{name}, which loading would run; expected "
                "lists, texts, numbers and arrays only. Nothing was run; do not open this file with pickle"
            )
        return _StandIn(_ADMITTED[module, name])


class _StandIn:
    """What a name gives when a pickle calls it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *given: Any) -> Any:
        if self.name == "_reconstruct":
            return _Array()
        if self.name == "dtype":
            return _Type(given[0])
        if self.name == "scalar":
            return _read(given[1], given[0])[0]
        if self.name == "_frombuffer":
            return _Array(_read(given[0], given[1]))
        if self.name == "encode" and given[1:] == ("latin1",):
            return given[0].encode("latin1")
        if self.name == "bytes" and not given:
            return b""
        raise pickle.UnpicklingError(f"an unusual call of {self.name}")


class _Type:
    """A NumPy type as a text: kind, size, order of bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """The numbers of an array, flat."""

    __slots__ = ("values",)

    def __init__(self, values: list[Any] | None = None):
        self.values: list[Any] = values or []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.values = _read(state[4], state[2])  # of version, shape, type, order of axes, bytes


def _read(raw: Any, of: Any) -> list[Any]:
    if not isinstance(of, _Type) or of.order not in ("<", ">", "|", "=") or not _TYPES.fullmatch(of.code):
        raise pickle.UnpicklingError("an array of something other than numbers and texts")
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(memoryview(raw))
    return list(np.frombuffer(data, f"{of.order}{of.code}").tolist()) if data else []
