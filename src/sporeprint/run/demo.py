"""`sporeprint demo`: the shipped backbone on digits that it has never seen. No network, no download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from sporeprint.evaluate.choice.candidates import Candidate, family_table
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.evaluate.result import Result
from sporeprint.evaluate.table import Costs, Entry, Features, entries_of
from sporeprint.features.blocks import family
from sporeprint.features.fungi import Fungi
from sporeprint.features.presets import JOINED
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.objectives.view_sets import view_sets
from sporeprint.run.paper_assembly import mark_paper
from sporeprint.values import to_json

TRAIN_ROWS, TEST_ROWS, TIMED_ROWS = 300, 300, 50


@dataclass(frozen=True)
class Demo:
    """The table of the demo; the entries' rows per second are measured on this machine."""

    entries: list[Entry]
    train_rows: int
    test_rows: int

    def verdict(self) -> str:
        """What the table says, with k chosen on the training rows, in a sentence of at most 25 words."""
        plain, without, using = self.entries[0], self._best(gradients=False), self._best(gradients=True)
        return (
            f"The embedding alone: {_percent(plain)}; best without gradients: {without.name}, {_percent(without)}; "
            f"best with them: {using.name}, {_percent(using)}."
        )

    def caveat(self) -> str:
        """How far the verdict can be trusted."""
        plain = self.entries[0].value
        error = (plain * (1 - plain) / self.test_rows) ** 0.5
        return (
            f"The two best were picked by looking at the test rows, and one standard error on {self.test_rows} rows is "
            f"{error:.1%}: a demonstration, not a benchmark."
        )

    def is_best(self, entry: Entry) -> bool:
        """Whether the verdict names it."""
        return entry in (self._best(gradients=False), self._best(gradients=True))

    def _best(self, gradients: bool) -> Entry:
        """The best entry with gradients or without."""
        subset = [
            entry for entry in self.entries if any(family(name) == "gradients" for name in entry.blocks) == gradients
        ]
        return max(subset, key=lambda entry: entry.value)

    def to_json(self) -> dict[str, Any]:
        entries = [entry.to_json() for entry in self.entries]
        return {"train_rows": self.train_rows, "test_rows": self.test_rows, "entries": entries}


def _percent(entry: Entry) -> str:
    return f"{entry.value:.1%}"


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
    recipe = Recipe(backbone="tiny", objectives=[KL(), DINO(), SimCLR(negatives=48)], seed=seed)
    fungi = Fungi(recipe)
    train_blocks = fungi.fit_blocks([images[at] for at in train])
    test_blocks = fungi.blocks([images[at] for at in test])
    info = fungi.block_info()
    default = Candidate("free, the default", "combined", replace(JOINED, blocks=("embedding", "layers", "kl")))
    candidates = [*family_table(list(train_blocks), size=fungi.network.width), default]

    def judge(of: Features) -> Mapping[str, Result]:
        sets = (of.rows, labels[train], of.others, labels[test])
        return {"20": knn(*sets, k=20), "auto": knn(*sets, k="auto")}

    entries = entries_of(candidates, train_blocks, test_blocks, Costs(info), judge)
    seconds = block_seconds(fungi, [images[at] for at in test[:TIMED_ROWS]], len(train) + len(test))
    timed = [replace(entry, rows_per_second=1 / price(entry.blocks, info, seconds)) for entry in entries]
    plan = {"recipe": {"objectives": to_json(fungi.engine.objectives)}, "resolved": {"backbone": {}}}
    return Demo(mark_paper(timed, plan), len(train), len(test))


def block_seconds(fungi: Fungi, images: list[Image.Image], rows: int) -> dict[tuple[str, bool], float]:
    """Seconds an image for each set of views, without and with its gradients; decoding is in neither.

    With gradients: the run so far, over its `rows`, each gradient with its share of the projection. Without: `images`
    passed again with no loss.
    """
    bare = Fungi(Recipe(objectives=[]), backbone=fungi.network)
    bare.blocks(images)  # the first pass is slower
    before, repeats = bare.seconds["whole"], 5
    for _ in range(repeats):
        bare.blocks(images)
    seconds = {("whole", False): (bare.seconds["whole"] - before) / len(images) / repeats}
    numbered = [(str(at), image) for at, image in enumerate(images)]
    for view_set in view_sets(fungi.engine.objectives):
        if view_set.name != "whole":
            before = fungi.seconds["negatives"]
            fungi.engine.encode(view_set.objectives[0], numbered)
            seconds[view_set.name, False] = (fungi.seconds["negatives"] - before) / len(images)
        projection = fungi.seconds["projection"] * len(view_set.objectives) / len(fungi.engine.gradient_names())
        seconds[view_set.name, True] = (fungi.seconds[view_set.name] + projection) / rows
    return seconds


def price(
    blocks: Sequence[str], info: Mapping[str, Mapping[str, Any]], seconds: Mapping[tuple[str, bool], float]
) -> float:
    """Seconds an image: each set of views once, with its gradients if one of them is among the blocks."""
    with_gradient: dict[str, bool] = {}
    for name in blocks:
        views = info[name]["views"]
        with_gradient[views] = with_gradient.get(views, False) or info[name]["family"] == "gradients"
    return sum(seconds[key] for key in with_gradient.items())
