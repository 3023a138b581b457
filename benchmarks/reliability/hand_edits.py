"""Edit JSON, safetensors and Parquet as someone could by hand, with right checksums, and read them.

Whoever makes all checksums right makes another store, whose numbers may be others. Promised is that it is read, or
refused by a named error, in bounded time and memory.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from material import Target, attack
from trial import Wrong

DEEP = "@DEEP@"  # stands for lists within each other
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(2**70), 0.5, -0.0, 1e308, 1e-320, float("nan"),
    float("inf"), "", "\0", "a\0b", "../x", "/etc/passwd", "C:\\x", "\ud800", "\x1b]0;x\x07", "[/b]", "x" * 100_000,
    [], {}, [[]], [None], [0] * 10_000, {"": {}}, {"kind": "kl"}, {"kind": "../x"}, DEEP, "embedding", "tiny", "auto",
]  # fmt: skip
BEFORE = 256  # bytes of a bank's tensor file before its numbers


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def hexed(data: bytes) -> str:
    return sha256(data).hexdigest()


def seal_key(path: Path) -> str:
    return "sha256" if path.name == "fungi.json" else "checksum"


def is_json(path: Path) -> bool:
    return path.suffix in (".json", ".record")


def written(value: Any, path: Path) -> bytes:
    """A sealed JSON file's bytes with a checksum that is right."""
    whole = {key: part for key, part in value.items() if key != seal_key(path)} if isinstance(value, dict) else value
    if isinstance(whole, dict):
        whole[seal_key(path)] = hexed(canonical(whole))
    text = json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False)
    text = text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000) + ("" if path.name == "fungi.json" else "\n")
    return text.encode("utf-8", "surrogatepass")


def digests(path: Path, data: bytes) -> list[str]:
    """Every checksum that another file may have of this one."""
    listed = [hexed(data), hexed(data[BEFORE:]), hexed(data[4096:])]
    if is_json(path):
        value = json.loads(data)
        for gone in ((), ("checksum",), ("checksum", "kind")):
            left = {key: part for key, part in value.items() if key not in gone} if isinstance(value, dict) else value
            listed.append(hexed(canonical(left)))
    return listed


def reseal(folder: Path, before: dict[Path, bytes]) -> None:
    """Replace each checksum and size of a changed file in the others, until all are right."""
    for _ in range(4):
        changed: dict[str, tuple[str, int]] = {}
        for path, old in before.items():
            new = path.read_bytes() if path.exists() else old
            if new != old:
                try:
                    pairs = zip(digests(path, old), digests(path, new), strict=True)
                except (ValueError, RecursionError):
                    pairs = zip([hexed(old)], [hexed(new)], strict=True)
                changed |= {was: (now, len(new)) for was, now in pairs}
        again = False
        for path in before:
            if is_json(path) and path.exists():
                try:
                    value = json.loads(path.read_bytes())
                except (ValueError, RecursionError):
                    continue
                data = written(replaced(value, changed), path)
                again |= data != path.read_bytes()
                path.write_bytes(data)
        if not again:
            return


def replaced(value: Any, changed: dict[str, tuple[str, int]]) -> Any:
    if isinstance(value, list):
        return [replaced(part, changed) for part in value]
    if not isinstance(value, dict):
        return changed[value][0] if isinstance(value, str) and value in changed else value
    fresh = {key: replaced(part, changed) for key, part in value.items()}
    if isinstance(value.get("sha256"), str) and value["sha256"] in changed and "bytes" in value:
        fresh["bytes"] = changed[value["sha256"]][1]
    return fresh


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(part, (dict, list)):
            yield from places(part)


def edited(value: Any, rng: np.random.Generator) -> Any:
    """One key removed, renamed or doubled, or its value replaced."""
    listed = list(places(value))
    if not listed:
        return hostile(rng)
    holder, key = listed[rng.integers(len(listed))]
    kind = rng.integers(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list):
        holder.append(holder[key])
    else:
        holder[key] = hostile(rng)
    return value


def hostile(rng: np.random.Generator) -> Any:
    """A value that nothing expects; a new one, since edits may change what is in it."""
    return deepcopy(HOSTILE[rng.integers(len(HOSTILE))])


def edit_json(data: bytes, path: Path, rng: np.random.Generator) -> bytes:
    value = edited(json.loads(data), rng)
    return written(value, path)


def edit_safetensors(data: bytes, path: Path, rng: np.random.Generator) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = rng.integers(4)
    if kind == 0:  # numbers
        at = int(rng.integers(max(1, len(body) - 4)))
        return (
            data[: 8 + length]
            + body[:at]
            + np.float32([np.nan, np.inf, 1e38][rng.integers(3)]).tobytes()
            + body[at + 4 :]
        )
    if kind == 1:
        return struct.pack("<Q", int(rng.integers(2**40))) + data[8:]
    value = edited(json.loads(header), rng)
    text = json.dumps(value).replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).encode()
    text = text.ljust(length) if kind == 2 else text
    return struct.pack("<Q", len(text)) + text + body


def edit_parquet(data: bytes, path: Path, rng: np.random.Generator) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    at = int(rng.integers(table.num_columns))
    name, column, kind = table.column_names[at], table.column(at), rng.integers(9)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.set_column(at, name, pa.nulls(len(table), column.type))
    elif kind == 2:
        table = table.set_column(at, name, pa.array(["x"] * len(table)))
    elif kind == 3:
        table = table.set_column(at, name, pa.array([[float("nan")] * int(rng.integers(300))] * len(table)))
    elif kind == 4:
        table = pa.concat_tables([table, table])
    elif kind == 5:
        table = table.slice(0, int(rng.integers(2)))
    elif kind == 6:
        table = table.rename_columns([f"{each}x" if each == name else each for each in table.column_names])
    elif kind == 7:
        table = table.append_column(name, column)
    else:
        table = table.set_column(at, name, pa.array([2**62 - row for row in range(len(table))]))
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


EDITS: dict[str, Callable[[bytes, Path, np.random.Generator], bytes]] = {
    ".json": edit_json,
    ".record": edit_json,
    ".safetensors": edit_safetensors,
    ".parquet": edit_parquet,
}


def outcome(target: Target, folder: Path) -> str:
    try:
        return target.outcome(folder)
    except Wrong as error:
        if "other numbers" in str(error):
            return "read as edited"
        raise


def change(folder: Path, _: Target, rng: np.random.Generator) -> None:
    """Edit one file of a folder, and make every checksum right again."""
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix in EDITS}
    path = list(before)[rng.integers(len(before))]
    path.write_bytes(EDITS[path.suffix](before[path], path, rng))
    reseal(folder, before)


def main() -> None:
    attack("hand edits with right checksums", change, outcome)


if __name__ == "__main__":
    main()
