"""`sporeprint demo`: the shipped backbone on digits that it has never seen. No network, no download."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from sporeprint.combine import family
from sporeprint.evaluate.table import Entry, evaluate, standard_candidates
from sporeprint.fungi import Fungi
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.recipe import Recipe

TRAIN_ROWS, TEST_ROWS = 400, 400


@dataclass(frozen=True)
class Demo:
    """The table's entries, and images per second of each."""

    entries: list[Entry]
    images_per_second: dict[str, float]
    train_rows: int
    test_rows: int

    def verdict(self) -> str:
        """What the table says, in two sentences, with k chosen on the training rows."""

        def best(with_gradients: bool) -> Entry:
            some = [
                entry
                for entry in self.entries
                if any(family(name) == "gradients" for name in entry.blocks) == with_gradients
            ]
            return max(some, key=lambda entry: entry.results["auto"].value)

        plain, without, using = self.entries[0], best(False), best(True)
        error = (plain.results["auto"].value * (1 - plain.results["auto"].value) / self.test_rows) ** 0.5
        return (
            f"The embedding alone: {_percent(plain)}. Best without gradients: {without.name}, {_percent(without)}; "
            f"best with them: {using.name}, {_percent(using)}.\nThese two were picked by looking at the test rows, and "
            f"one standard error on {self.test_rows} rows is {error:.1%}: a demonstration, not a benchmark."
        )

    def to_json(self) -> dict[str, Any]:
        rows = [{**entry.to_json(), "images_per_second": self.images_per_second[entry.name]} for entry in self.entries]
        return {"train_rows": self.train_rows, "test_rows": self.test_rows, "entries": rows}


def _percent(entry: Entry) -> str:
    return f"{entry.results['auto'].value:.1%}"


def digits() -> tuple[list[Image.Image], np.ndarray]:
    """scikit-learn's 1,797 digits as RGB images, bright on dark as Fashion-MNIST is, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)  # 0 to 16 in the set
    return [Image.fromarray(image).convert("RGB") for image in pixels], data.target


def demo(seed: int = 0, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS) -> Demo:
    """kNN accuracy and cost of the embedding, the gradients, their combinations and the controls."""
    from sklearn.model_selection import train_test_split

    images, labels = digits()
    train, test = train_test_split(
        np.arange(len(images)), train_size=train_rows, test_size=test_rows, stratify=labels, random_state=seed
    )
    recipe = Recipe(backbone="tiny", objectives=[KL(), DINO(), SimCLR(negatives=64)], seed=seed)
    fungi = Fungi(recipe)
    fungi.network  # noqa: B018  (loaded before anything is timed)
    train_blocks = fungi.fit_blocks([images[at] for at in train])
    test_blocks = fungi.blocks([images[at] for at in test])
    info = fungi.block_info()
    candidates = standard_candidates(list(train_blocks), len(train), size=fungi.network.width)
    entries = [evaluate(one, train_blocks, labels[train], test_blocks, labels[test], info) for one in candidates]
    seconds = fungi.seconds
    bare = Fungi(Recipe(backbone="tiny", objectives=[]), backbone=fungi.network)
    started = time.perf_counter()
    bare.blocks([images[at] for at in test])
    embedding_s = (time.perf_counter() - started) / len(test)
    rows = len(train) + len(test)

    def rate(entry: Entry) -> float:
        if all(info[name]["family"] in ("embedding", "layers") for name in entry.blocks):
            return 1 / embedding_s
        sets = {"whole"} if {"embedding"} & set(entry.blocks) else set()
        sets |= {info[name]["views"] for name in entry.blocks}
        return rows / sum(seconds[name] for name in sets)

    return Demo(entries, {entry.name: rate(entry) for entry in entries}, len(train), len(test))
