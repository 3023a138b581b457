"""`sporeprint demo`: the shipped backbone on digits that it has never seen. No network, no download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from sporeprint.evaluate.compare import compare
from sporeprint.evaluate.comparison import Comparison
from sporeprint.features.fungi import Fungi
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.objectives.view_sets import view_sets
from sporeprint.run.paper_assembly import mark_paper
from sporeprint.values import to_json

TRAIN_ROWS, TEST_ROWS, TIMED_ROWS = 200, 200, 50
NOTE = "rows/s (--all) are of this machine, whatever else runs; 200 small digits are a demonstration, not a benchmark"


def digits() -> tuple[list[Image.Image], np.ndarray]:
    """scikit-learn's 1,797 digits as RGB images, bright on dark as Fashion-MNIST is, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images * (255 / 16)).round().astype(np.uint8)  # 0 to 16 in the set
    return [Image.fromarray(image).convert("RGB") for image in pixels], data.target


def demo(seed: int = 0, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS) -> Comparison:
    """`compare` on digits: what to use, with rows a second as measured on this machine."""
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
    known = {"backbone": "tiny", "data": "scikit-learn digits"}
    comparison = compare(train_blocks, labels[train], test_blocks, labels[test], info, seed=seed, settings=known)
    seconds = block_seconds(fungi, [images[at] for at in test[:TIMED_ROWS]], len(train) + len(test))
    timed = [replace(entry, rows_per_second=1 / price(entry.blocks, info, seconds)) for entry in comparison.entries]
    plan = {"recipe": {"objectives": to_json(fungi.engine.objectives)}, "resolved": {"backbone": {}}}
    return replace(comparison, entries=tuple(mark_paper(timed, plan))).noted([NOTE])


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
