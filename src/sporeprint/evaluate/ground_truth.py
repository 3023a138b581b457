"""The ground truth of revisited Oxford and Paris is read from JSON; pickles, which can run code, are refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.errors import SampleError, first_line
from sporeprint.values import parse_json

LISTS = ("easy", "hard", "junk")

_CONVERTER = "benchmarks/convert_ground_truth.py of the repository"


def load_ground_truth(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Read a JSON file, or take its contents as a mapping (arrays are taken too). Gives them checked, as plain JSON:

    {"imlist": names of the database, "qimlist": names of the queries, "gnd": one entry a query: {"easy", "hard",
    "junk": numbers of imlist, from 0; "bbx": the query's box in its image, [left, top, right, bottom], if given}}.
    benchmarks/convert_ground_truth.py makes the JSON of the official gnd_roxford5k.pkl and gnd_rparis6k.pkl.
    Raises SampleError, also for a pickle.
    """
    if isinstance(source, Mapping):
        return _checked(source, "the ground truth")
    if not isinstance(source, (str, os.PathLike)):
        raise SampleError(f"the ground truth is a {type(source).__name__}; expected a file of JSON, or its contents")
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(f"ground truth {path.name!r} cannot be read ({error.strerror or error})") from None
    if path.suffix.lower() in (".pkl", ".pickle") or data.startswith(b"\x80"):
        raise SampleError(
            f"ground truth {path.name!r} is a pickle, which can run code when it is opened; expected JSON. If you "
            f"trust the file, {_CONVERTER} makes JSON of it"
        )
    try:
        contents = parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise SampleError(
            f"ground truth {path.name!r} is not JSON ({first_line(error)}); {_CONVERTER} makes JSON of the official "
            "files"
        ) from None
    return _checked(contents, f"ground truth {path.name!r}")


def _checked(contents: Any, what: str) -> dict[str, Any]:
    if not isinstance(contents, Mapping) or (
        absent := [name for name in ("imlist", "qimlist", "gnd") if name not in contents]
    ):
        seen = f"has no {absent[0]!r}" if isinstance(contents, Mapping) else f"is a {type(contents).__name__}"
        raise SampleError(f"{what} {seen}; expected a dictionary with imlist, qimlist and gnd")
    names = {}
    for key in ("imlist", "qimlist"):
        names[key] = [
            name.decode() if isinstance(name, bytes) else name for name in _listed(contents[key], f"{what}: {key}")
        ]
        if not names[key] or not all(isinstance(name, str) for name in names[key]):
            raise SampleError(f"{what}: {key} is not a list of names, or empty; expected the names of its images")
        if len(set(names[key])) < len(names[key]):
            raise SampleError(f"{what}: {key} names an image twice; expected each once")
    entries = _listed(contents["gnd"], f"{what}: gnd")
    if len(entries) != len(names["qimlist"]):
        raise SampleError(f"{what}: gnd has {len(entries)} entries for {len(names['qimlist'])} queries in qimlist")
    queries = [_entry(entry, len(names["imlist"]), f"{what}: gnd[{at}]") for at, entry in enumerate(entries)]
    if not any(entry["easy"] or entry["hard"] for entry in queries):
        raise SampleError(f"{what}: no query has an easy or a hard image; there is nothing to find")
    return {**names, "gnd": queries}


def _entry(entry: Any, images: int, what: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or (absent := [name for name in LISTS if name not in entry]):
        seen = f"has no {absent[0]!r}" if isinstance(entry, Mapping) else f"is a {type(entry).__name__}"
        raise SampleError(f"{what} {seen}; expected easy, hard and junk (the files from before 2018 have others)")
    checked: dict[str, Any] = {name: _listed(entry[name], f"{what}: {name}") for name in LISTS}
    for name, numbers in checked.items():
        if wrong := [number for number in numbers if type(number) is not int or not 0 <= number < images]:
            raise SampleError(f"{what}: {name} has {wrong[0]!r}; expected numbers from 0 to {images - 1}, of imlist")
    if "bbx" in entry:
        box = checked["bbx"] = _listed(entry["bbx"], f"{what}: bbx")
        if len(box) != 4 or not all(type(side) in (int, float) for side in box):
            raise SampleError(f"{what}: bbx is not four numbers; expected left, top, right, bottom")
    return checked


def _listed(value: Any, what: str) -> list[Any]:
    """Give a list, tuple or array as a flat list of Python's own values."""
    if isinstance(value, np.ndarray):
        return list(value.ravel().tolist())
    if not isinstance(value, (list, tuple)):
        raise SampleError(f"{what} is a {type(value).__name__}; expected a list")
    return [item.item() if isinstance(item, np.generic) else item for item in value]
