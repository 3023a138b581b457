"""End processes at random moments of a command, then run it again: the result is that of one that nobody disturbed.

`extract` and `segment` go on where they were; after a killed `save`, or writing of an index or a bank, the older one is
there, or the new one, and the same again gives the new one. --count: kills for each.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from material import (
    ROWS,
    WORDS,
    Material,
    pictures,
    read_bank,
    read_fungi,
    read_index,
    read_store,
    write_bank,
    write_index,
)
from PIL import Image
from trial import Tally, arguments, command, described, quiet

from sporeprint.errors import DamagedStore, SporeprintError
from sporeprint.features.fungi import Fungi

SEGMENT = ["--backbone", "tiny", "--layers", "1", "--features", "embedding", "--batch-size", "2"]
VOLATILE = ("seconds", "cost", "checksum")  # what a run took, and checksums over it


@dataclass(frozen=True)
class Command:
    """write: what is killed. read: what a folder then holds, one text. begin: puts a folder as it was before."""

    write: Callable[[Path], None]
    read: Callable[[Path], str]
    begin: Callable[[Path], None]
    older: str | None = None


def run_command(*words: object) -> None:
    status, said = command(*words)
    if status:
        raise SystemExit(f"ended with {status}: {said[-200:]}")


def scenes(root: Path) -> Path:
    for number, image in enumerate(pictures(ROWS, 3)):
        for below, picture in (("images", image), ("masks", Image.fromarray(np.asarray(image)[..., 0] // 128))):
            path = root / below / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root


def result_of(folder: Path) -> str:
    """What a finished run found. Raises FileNotFoundError where none is finished."""

    def cleaned(value: object) -> object:
        if isinstance(value, dict):
            return {key: cleaned(part) for key, part in value.items() if key not in VOLATILE and "seconds" not in key}
        return [cleaned(part) for part in value] if isinstance(value, list) else value

    result = json.loads((folder / "result.json").read_text())
    if not result["runs"]:
        raise FileNotFoundError
    return json.dumps(cleaned(result), sort_keys=True)


def commands(material: Material) -> dict[str, Command]:
    m, nothing = material, lambda folder: None
    labelled = scenes(m.root / "scenes")
    fresh = Fungi.load(m.fungi)

    def segment(folder: Path) -> None:
        run_command("segment", labelled, labelled, *SEGMENT, "--out", folder)

    def older(folder: Path) -> Callable[[Path], None]:
        return lambda place: shutil.copytree(folder, place) and None

    def bank(folder: Path) -> None:
        if (folder / "manifest.json").exists():  # a finished bank is not written over
            return
        write_bank(folder, m.patches)

    listed = {
        "extract": Command(
            lambda folder: run_command("extract", m.pictures, *WORDS, "--out", folder), read_store, nothing
        ),
        "segment": Command(segment, result_of, nothing),
        "Fungi.save over another": Command(
            fresh.save,
            lambda folder: read_fungi(folder, m.samples),
            older(m.old_fungi),
            read_fungi(m.old_fungi, m.samples),
        ),
        "bank": Command(bank, lambda folder: read_bank(folder, m.patches), nothing),
    }
    if m.has_index:
        listed["index over another"] = Command(
            lambda folder: write_index(folder, m.rows) and None,
            lambda folder: read_index(folder, m.rows),
            older(m.index),
        )
    return listed


def child(write: Callable[[Path], None], folder: Path) -> int:
    """A process that writes; its number."""
    number = os.fork()
    if not number:
        try:
            with quiet():
                write(folder)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return number


def kill(name: str, it: Command, root: Path, whole: str, seconds: float, rng: np.random.Generator) -> str:
    """End a writer once or a few times, look at what is there, write again, compare; the outcome."""
    folder = root / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    it.begin(folder)
    hits = 0
    for _ in range(int(rng.integers(1, 4))):
        writer = child(it.write, folder)
        time.sleep(float(rng.uniform(0, seconds)))
        os.kill(writer, signal.SIGKILL)
        hits += os.waitpid(writer, 0)[1] == signal.SIGKILL
    if it.older is not None and it.read(folder) not in (whole, it.older):
        raise AssertionError("neither the older nor the newer one is there")
    if it.older is None:
        try:
            if folder.exists() and it.read(folder) != whole:
                raise AssertionError("other numbers are read from what was not finished")
        except (SporeprintError, FileNotFoundError):
            pass
    writer = child(it.write, folder)
    if os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]):
        raise AssertionError("the same command failed afterwards")
    if it.read(folder) != whole:
        raise AssertionError("afterwards the result is another one")
    return "whole after kills" if hits else "over before the kill"


def main() -> None:
    options, begin = arguments(100), time.monotonic()
    with quiet():
        material = Material()
    atexit.register(material.close)
    tally = Tally()
    with quiet():
        listed = commands(material)
    for at, (name, it) in enumerate(listed.items()):
        undisturbed = material.root / f"whole {at}"
        it.begin(undisturbed)
        started = time.monotonic()
        status = os.waitpid(child(it.write, undisturbed), 0)[1]
        seconds = time.monotonic() - started
        if status:
            tally.add(0, name, "FAILED", "fails undisturbed")
            continue
        whole = it.read(undisturbed)
        for number in range(options.count) if options.only is None else [options.only]:
            try:
                with quiet():
                    outcome = kill(
                        name, it, material.root, whole, seconds, np.random.default_rng([options.seed, number])
                    )
                tally.add(number, name, outcome)
            except (AssertionError, DamagedStore, SporeprintError, OSError, ValueError) as error:
                tally.add(number, name, "FAILED", described(error))
    status = tally.show("kills at random moments", options.seed)
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)


if __name__ == "__main__":
    main()
