"""Small sound things to damage, made once: stores of one fit, a saved Fungi, an index, a bank, their sources."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from PIL import Image
from trial import Wrong, attempt, command, timed

from sporeprint.features.fungi import Fungi
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import KL, SimCLR
from sporeprint.segment.bank import BankWriter, MemoryBank
from sporeprint.store.reader import Store

SETTINGS = ["--workers", "1", "--shard-rows", "2"]
WORDS = ["--backbone", "tiny", "--objectives", "kl", "--layers", "1", *SETTINGS]
ROWS = 6


def pictures(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        for _ in range(count)
    ]


def folder_of(where: Path, seed: int) -> Path:
    for number, image in enumerate(pictures(ROWS, seed)):
        path = where / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return where


class Material:
    """Everything below one temporary folder: pictures, `store`, `other` (of the same fit), `begun`, `fungi`, ..."""

    def __init__(self) -> None:
        self.root = Path(mkdtemp(prefix="reliability-"))
        self.pictures, self.others = folder_of(self.root / "pictures", 0), folder_of(self.root / "others", 1)
        self.store, self.other, self.begun = (self.root / name for name in ("a.store", "b.store", "begun.store"))
        self._must("extract", self.pictures, *WORDS, "--out", self.store)
        self._must("extract", self.others, *SETTINGS, "--out", self.other, "--fit-from", self.store)
        shutil.copytree(self.store, self.begun)
        (self.begun / "manifest.json").unlink()
        for path in (self.begun / "shards").glob("00002*"):
            path.unlink()
        self.samples = pictures(ROWS, 0)
        self.fungi, self.old_fungi = self.root / "fungi", self.root / "old_fungi"
        recipe = Recipe(backbone="tiny", objectives=[KL(), SimCLR(negatives=2)], size=3)
        for folder, seed in ((self.fungi, 0), (self.old_fungi, 1)):
            fungi = Fungi(recipe)
            fungi.fit(pictures(ROWS, seed))
            fungi.save(folder)
        self.bank, self.old_bank = self.root / "bank", self.root / "old_bank"
        self.patches = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
        for folder, turn in ((self.bank, 1), (self.old_bank, -1)):
            write_bank(folder, turn * self.patches)
        self.rows = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
        self.index, self.old_index = self.root / "index", self.root / "old_index"
        self.has_index = write_index(self.index, self.rows) and write_index(self.old_index, self.rows[::-1].copy())

    def _must(self, *words: object) -> None:
        status, said = command(*words)
        if status:
            raise SystemExit(f"{words} ended with {status}: {said}")

    def fresh(self, folder: Path) -> Path:
        """A copy of a folder, to be damaged; there is one at a time."""
        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        return copy

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def write_bank(folder: Path, patches: np.ndarray) -> None:
    with BankWriter(folder, patches.shape[1], 3, len(patches)) as writer:
        for at in range(0, len(patches), 4):
            places = np.stack([np.arange(4), np.zeros(4, int)], axis=1)
            writer.add(patches[at : at + 4], np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], f"image {at}", places)


def write_index(folder: Path, rows: np.ndarray) -> bool:
    """False where faiss is not installed."""
    from sporeprint.errors import MissingExtra
    from sporeprint.search.indexes import make_index

    try:
        make_index("ivf", rows, recall=0.9, k=3).save(folder)
    except MissingExtra:
        return False
    return True


# What each reader makes of a folder, as one digest: equal digests are equal numbers.


def read_store(folder: Path) -> str:
    store = Store.open(folder)
    store.verify()
    blocks = {name: block.tobytes() for name, block in store.blocks().items()}
    states = {name: store.read_state(name) for name in sorted(store.manifest["states"])}
    labels = None if store.labels is None else store.labels.tolist()
    return digest(store.ids, labels, blocks, states, store.failures, store.plan)


def read_fungi(folder: Path, samples: list[Image.Image]) -> str:
    return digest(Fungi.load(folder).transform(samples[:1]).tobytes())


def read_bank(folder: Path, patches: np.ndarray) -> str:
    bank = MemoryBank.open(folder)
    bank.verify()
    return digest(bank.patches().to_pylist(), bank.predict(patches[:3], 4).tobytes(), bank.names)


def read_index(folder: Path, rows: np.ndarray) -> str:
    from sporeprint.search.indexes import open_index

    return digest(*(found.tobytes() for found in open_index(folder, rows).search(rows[:5], 3)))


def said(folder: Path, *words: object) -> str:
    """What a command says of a folder; a named error where it fails as it should."""
    status, text = command(*words)
    if status not in (0, 1, 2):
        raise Wrong(f"{words[0]} ended with {status}")
    if status:
        return "named error: by the command"
    return digest(text.replace(str(folder), "FOLDER"))


def digest(*values: Any) -> str:
    return sha256(repr(values).encode()).hexdigest()


@dataclass(frozen=True)
class Target:
    """A folder to damage, another one whose files can come into it, and what reading it sound gives."""

    folder: Path
    other: Path
    read: Callable[[Path], str]
    sound: str
    repair: Callable[[Path], str] | None = None

    def outcome(self, folder: Path) -> str:
        """Repair and read a damaged copy of the folder. Raises Wrong for other numbers."""
        if self.repair is not None:
            answer = self.repair(folder)
            if answer.startswith("named error"):
                return answer
        seen = self.read(folder)
        if seen.startswith("named error"):
            return seen
        if seen != self.sound:
            raise Wrong("other numbers, and no error")
        return "same numbers" if self.repair is None else "recomputed"


def targets(material: Material) -> dict[str, Target]:
    """What is damaged, by name."""
    m = material

    def target(folder: Path, other: Path, read: Callable[[Path], str], **more: Any) -> Target:
        sound = more.pop("sound", None) or read(folder)
        assert not sound.startswith("named error"), f"{folder} is not sound"
        return Target(folder, other, read, sound, **more)

    def resume(folder: Path) -> str:
        return said(folder, "extract", m.pictures, *WORDS, "--out", folder)

    def neighbours(folder: Path) -> str:
        return said(folder, "knn", m.store, folder, "--k", "1")

    whole = read_store(m.store)
    listed = {
        "store: open": target(m.store, m.other, read_store),
        "store: info": target(m.store, m.other, lambda folder: said(folder, "info", folder, "--verify")),
        "store: knn": target(m.other, m.store, neighbours),
        "store: resume": target(m.begun, m.other, read_store, sound=whole, repair=resume),
        "store: repair": target(m.store, m.other, read_store, sound=whole, repair=resume),
        "Fungi": target(m.fungi, m.old_fungi, lambda folder: read_fungi(folder, m.samples)),
        "bank": target(m.bank, m.old_bank, lambda folder: read_bank(folder, m.patches)),
    }
    if m.has_index:
        listed["index"] = target(m.index, m.old_index, lambda folder: read_index(folder, m.rows))
    return listed


def attack(
    title: str,
    change: Callable[[Path, Target, np.random.Generator], object],
    outcome: Callable[[Target, Path], str] = Target.outcome,
) -> None:
    """Change fresh copies of what is damaged, 2,000 times by default, and print what reading them comes to."""
    material = Material()
    atexit.register(material.close)
    listed = targets(material)

    def case(rng: np.random.Generator) -> tuple[str, str]:
        name = sorted(listed)[rng.integers(len(listed))]
        copy = material.fresh(listed[name].folder)
        change(copy, listed[name], rng)
        return attempt(name, lambda: outcome(listed[name], copy))

    timed(title, case, 2000)
