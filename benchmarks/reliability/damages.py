"""Damage files at random and read them: the same numbers, a named error, or recomputed to the same; nothing else.

A flip, a cut, a removal, an addition, zeros, another file of the same folder or of another one of the same fit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from material import attack

KINDS = ("flip", "cut", "delete", "append", "zero", "swap", "foreign", "foreign elsewhere", "duplicate", "whole shard")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def damage(folder: Path, other: Path, rng: np.random.Generator) -> str:
    """Do one thing to a folder; what."""
    paths, others = files(folder), files(other)
    path = paths[rng.integers(len(paths))]
    kinds = KINDS if (folder / "shards").exists() else KINDS[:-1]  # of a Fungi it would be all of the other one
    data, kind = bytearray(path.read_bytes()), kinds[rng.integers(len(kinds))]
    at = int(rng.integers(max(1, len(data))))
    if kind == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[at:]
    elif kind == "append":
        data += rng.bytes(int(rng.integers(1, 40)))
    elif kind == "zero":
        end = min(len(data), at + int(rng.integers(1, 200)))
        data[at:end] = bytes(end - at)
    elif kind == "swap":
        second = paths[rng.integers(len(paths))]
        data, theirs = bytearray(second.read_bytes()), bytes(data)
        second.write_bytes(theirs)
    elif kind == "duplicate":
        data = bytearray(paths[rng.integers(len(paths))].read_bytes())
    elif kind == "foreign":
        same = other / path.relative_to(folder)
        data = bytearray(same.read_bytes() if same.exists() else others[rng.integers(len(others))].read_bytes())
    elif kind == "foreign elsewhere":
        data = bytearray(others[rng.integers(len(others))].read_bytes())
    elif kind == "whole shard":  # everything of one name, under that or another number
        shards = sorted({each.stem for each in others if each.parent.name == "shards"})
        chosen, target = shards[rng.integers(len(shards))], shards[rng.integers(len(shards))]
        for each in others:
            if each.stem == chosen:
                place = folder / each.relative_to(other).with_name(target + each.suffix)
                place.parent.mkdir(exist_ok=True)
                shutil.copy(each, place)
        return kind
    path.unlink() if kind == "delete" else path.write_bytes(data)
    return kind


def main() -> None:
    attack("random damages", lambda folder, target, rng: damage(folder, target.other, rng))


if __name__ == "__main__":
    main()
