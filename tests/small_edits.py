"""Hand edits of sealed JSON: what somebody does who can compute a checksum too."""

import json
import random
from pathlib import Path

from sporeprint.store.atomic import SealForm, seal, unseal_bytes

ODD_VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2.5,
    10**18,
    10**400,
    "",
    "a",
    "../../../tmp/x",
    "/etc/passwd",
    "a\0b",
    "x" * 5000,
    "\x1b]0;title\x07",
    [],
    {},
    [[]],
    [None],
    {"": 1},
    {"kind": "kl"},
)


SEAL = SealForm()


def edit(path: Path, kind: str | None, change, form: SealForm = SEAL) -> None:
    """Change the value that was sealed into `path`, and seal it again."""
    value = unseal_bytes(kind, path.read_bytes(), form)
    change(value)
    path.write_bytes(seal(kind, value, form))


def places(value, at=()):
    """Every place in a JSON value: the keys and numbers that lead to it."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*at, key))


def random_edit(value, random: random.Random) -> str:
    """Change one random place of a JSON value: another value, gone, twice, a neighbour's, more or less of a number."""
    at = random.choice(list(places(value)))
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    old = holder[at[-1]]
    what = random.choice(["odd", "odd", "odd", "gone", "twice", "key", "number"])
    if what == "gone":
        del holder[at[-1]]
    elif what == "twice" and isinstance(holder, list):
        holder.append(old)
    elif what == "key" and isinstance(holder, dict):
        holder[random.choice(["x", "", "a\0b", "../x", "kind"])] = holder.pop(at[-1])
    elif what == "number" and isinstance(old, int):
        holder[at[-1]] = old + random.choice([-1, 1, 2**31, 2**62])
    else:
        holder[at[-1]] = json.loads(json.dumps(random.choice(ODD_VALUES)))
    return f"{at} {what}"
